# SPDX-License-Identifier: Apache-2.0
"""Which machine judges what, so that a run over many models and policies ends sooner?

A unit is one model entry under one policy. Units are dealt to parts by how long they took last time; an entry is read and converted
again in each part that has one of its policies, which is counted too. The matrix of GitHub Actions starts the parts, and `merge` joins
what they report. Dealing is a pure function of configuration, last durations and number of parts: no part needs to ask another.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from statistics import fmean

from pydantic import Field, ValidationError

from gate import policy
from gate.config import Config, ModelEntry
from gate.document import Record, dotted
from gate.errors import UsageError
from gate.report import Part, Report

AUTO = "auto"  # `ship: auto`
UNIT_SECONDS = 1.0  # where nothing is known; only the ratio to SETUP_SECONDS matters
SETUP_SECONDS = 3.0  # a guess: reading and converting a model takes as long as judging three policies
MAX_PARTS = 256  # GitHub starts no more jobs from one matrix
MATRIX_BYTES = 1_000_000  # GitHub's limit of a job's outputs

Units = Mapping[str, Sequence[str]]
"""Model entry → its policies, in the order of gate.yml."""


class Job(Record):
    """One row of GitHub's matrix. Text and numbers only, so that a workflow can use each as it is."""

    shard: str = Field(
        pattern=r"^[1-9]\d{0,2}/[1-9]\d{0,2}$", description="what `gate check --shard` takes, such as 1/3"
    )
    name: str = Field(max_length=4_000, description="the model entries, for the name of the job")
    units: str = Field(max_length=100_000, description="MODEL/POLICY, separated by spaces")
    seconds: float = Field(ge=0, allow_inf_nan=False, description="how long it took last time, or a guess")


class Matrix(Record):
    """What `gate plan` prints: `strategy: {matrix: ${{ fromJSON(…) }}}`."""

    include: tuple[Job, ...] = Field(max_length=MAX_PARTS, description="one row for each job")

    def parts(self) -> tuple[tuple[str, ...], ...]:
        """What each part judges, in the order of the parts."""
        for number, job in enumerate(self.include, start=1):
            if job.shard != f"{number}/{len(self.include)}":
                raise UsageError(f"plan: row {number} is shard {job.shard}, expected {number}/{len(self.include)}")
        return tuple(tuple(job.units.split()) for job in self.include)


# --- what there is, and how long it takes ----------------------------------------------------------------------------


def units_of(config: Config, models: Sequence[str] = (), policies: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """Return what there is to judge; `policies` filters explored rows only, as `--policy` does."""
    known = {entry.name: entry for entry in config.models}
    if unknown := [name for name in models if name not in known]:
        raise UsageError(f"--model {unknown[0]}: no such entry; known: {', '.join(known)}")
    asked = {name for given in policies for name in (given, PurePath(given).stem)}
    found: dict[str, tuple[str, ...]] = {}
    for entry in config.models:
        if not models or entry.name in models:
            names = [_policy_name(entry, given, config) for given in entry.policies]
            found[entry.name] = tuple(n for i, n in enumerate(names) if i == 0 or not policies or n in asked)
    return found


def _policy_name(entry: ModelEntry, given: str, config: Config) -> str:
    """Return the name under which a report shows a policy; one that a search is to find goes by what stands for it."""
    return given if given == AUTO == entry.ship else policy.load(given, config.folder).name


@dataclass(frozen=True)
class Costs:
    """Seconds of each unit, and of reading and converting each model entry once more."""

    units: Mapping[str, float]
    setups: Mapping[str, float]

    def of(self, part: Sequence[str]) -> float:
        """Seconds of a whole part."""
        models = dict.fromkeys(model_of(unit) for unit in part)
        return sum(self.units[unit] for unit in part) + sum(self.setups[model] for model in models)


def costs(units: Units, last: Report | None) -> Costs:
    """Take the durations of the last report; what is new costs as much as the others do on average."""
    known: dict[str, float] = {}
    setups: dict[str, float] = {}
    for model in last.models if last else ():
        timed = {f"{model.name}/{c.policy}": c.seconds for c in model.candidates if c.seconds > 0}
        known |= timed
        if timed:
            setups[model.name] = max(0.0, model.seconds - sum(timed.values()))
    unit_guess = fmean(known.values()) if known else UNIT_SECONDS
    setup_guess = fmean(setups.values()) if setups else SETUP_SECONDS
    return Costs(
        {unit: known.get(unit, unit_guess) for unit in names(units)},
        {model: setups.get(model, setup_guess) for model in units},
    )


def names(units: Units) -> list[str]:
    """Name every unit: MODEL/POLICY."""
    return [f"{model}/{name}" for model, policies in units.items() for name in policies]


def model_of(unit: str) -> str:
    """Return the model entry of a unit; its name holds no slash."""
    return unit.partition("/")[0]


# --- dealing ---------------------------------------------------------------------------------------------------------


def deal(units: Units, count: int, last: Report | None = None) -> tuple[tuple[str, ...], ...]:
    """Deal units to `count` parts so that the longest part is short: whole models, or policy by policy where that ends sooner."""
    every, price = names(units), costs(units, last)
    blocks = [tuple(names({model: policies})) for model, policies in units.items()]
    dealt = (_deal(blocks, count, price), _deal([(unit,) for unit in every], count, price))
    best = min(dealt, key=lambda parts: (max(map(price.of, parts)), dealt.index(parts)))
    return tuple(tuple(sorted(part, key=every.index)) for part in best)


def _deal(blocks: Sequence[tuple[str, ...]], count: int, price: Costs) -> list[list[str]]:
    """Give the longest block first, each to the part that is done first with it."""
    parts: list[list[str]] = [[] for _ in range(count)]
    for block in sorted(blocks, key=price.of, reverse=True):
        min(parts, key=lambda part: price.of([*part, *block])).extend(block)
    return parts


def matrix(units: Units, count: int, last: Report | None = None) -> Matrix:
    """Return at most `count` jobs; none of them is empty."""
    price = costs(units, last)
    parts = [part for part in deal(units, min(count, len(names(units))), last) if part]
    return Matrix(
        include=tuple(
            Job(
                shard=f"{number}/{len(parts)}",
                name=", ".join(dict.fromkeys(map(model_of, part))),
                units=" ".join(part),
                seconds=round(price.of(part), 1),
            )
            for number, part in enumerate(parts, start=1)
        )
    )


def read_matrix(path: Path) -> Matrix:
    """Read what `gate plan` printed."""
    if not path.is_file():
        raise UsageError(f"--plan {path}: no such file; expected what `gate plan` printed")
    with path.open("rb") as stream:
        return parse_matrix(stream.read(MATRIX_BYTES + 1), f"--plan {path}")


def parse_matrix(text: bytes | str, where: str) -> Matrix:
    """Read a matrix; UsageError when it is none."""
    if len(text) > MATRIX_BYTES:
        raise UsageError(f"{where}: more than {MATRIX_BYTES} bytes")
    try:
        return Matrix.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UsageError(f"{where}: not what `gate plan` prints: {dotted(first['loc'])}: {first['msg']}") from None


# --- one part --------------------------------------------------------------------------------------------------------


def take(shard: str, units: Units, plan: Matrix | None, last: Report | None = None) -> Part:
    """Return part K of N, as the plan says or dealt here; raise UsageError where the plan is of another configuration."""
    index, count = parse_shard(shard)
    parts = plan.parts() if plan else deal(units, count, last)
    if len(parts) != count:
        raise UsageError(f"--shard {shard}: the plan has {len(parts)} parts")
    planned = [unit for part in parts for unit in part]
    if odd := sorted(set(planned) ^ set(names(units))):
        raise UsageError(f"--plan: {odd[0]} is in the plan or in gate.yml, not in both; run `gate plan` again")
    if len(planned) != len(set(planned)):
        raise UsageError("--plan: a unit is in two parts; run `gate plan` again")
    return Part(index=index, units=parts)


def parse_shard(text: str) -> tuple[int, int]:
    """Read K/N."""
    match = re.fullmatch(r"([1-9]\d{0,2})/([1-9]\d{0,2})", text)
    if match is None or not int(match[1]) <= int(match[2]) <= MAX_PARTS:
        raise UsageError(f"--shard {text}: expected K/N with 1 ≤ K ≤ N ≤ {MAX_PARTS}, such as 1/3")
    return int(match[1]), int(match[2])


def lines(found: Matrix) -> Iterator[str]:
    """Tell the plan to a person."""
    for job in found.include:
        yield f"{job.shard}  {job.seconds:7.1f} s  {job.units}"


def to_json(found: Matrix) -> str:
    """Write the matrix on one line, as a step's output must be."""
    return json.dumps(found.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))
