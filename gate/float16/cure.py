# SPDX-License-Identifier: Apache-2.0
"""What is the least that has to stay in float32?

Candidates are groups of ops that a team can name and that survive the next conversion: a layer's ops of one type, `encoder.norm/softmax`.
A set is tried on the float32 program (everything in half but the set), which costs one evaluation; the best is then really converted and
judged like any package. Sets are tried by size, so that the first that passes is minimal; where there are many candidates, the set grows by
rank and is then thinned.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from gate.float16.blame import Blame
from gate.float16.investigate import Models, origin
from gate.float16.trials import Place, Trials
from gate.mil.program import TensorType, load_program

EXHAUSTIVE = 8  # candidates up to which every set is tried: at most 255
MOST_CANDIDATES = 24
ATTEMPTS = 4  # conversions


@dataclass(frozen=True)
class Group:
    """Ops of one type in one layer; the empty layer is the model itself."""

    layer: str
    type: str
    places: tuple[Place, ...]

    @property
    def pattern(self) -> str:
        """How `keep_float32` names it."""
        return f"{self.layer}/{self.type}"


@dataclass(frozen=True)
class Plan:
    """A set that should do, from trials."""

    groups: tuple[Group, ...]
    minimal: bool  # every smaller set was tried
    tried: int


@dataclass(frozen=True)
class Cure:
    """A set that does: converted and judged."""

    keep_float32: tuple[str, ...]
    ops: int
    minimal: bool
    package: Path
    bytes_before: int
    bytes_after: int
    casts_before: int
    casts_after: int
    conversions: int


Convert = Callable[[Sequence[str]], Path]
Passes = Callable[[Path], bool]


def find_cure(
    trials: Trials, blame: Blame, models: Models, limit: float, convert: Convert, passes: Passes
) -> Cure | None:
    """Return the smallest set that brings the outputs under their limit, converted and judged; None where none does."""
    tried: list[tuple[str, ...]] = []
    for plan in _plans(trials, blame, models, limit):
        patterns = tuple(group.pattern for group in plan.groups)
        if patterns in tried:
            continue
        tried.append(patterns)
        package = convert(patterns)
        if passes(package):
            return _cure(plan, patterns, models.float16, package, len(tried))
        if len(tried) == ATTEMPTS:
            return None
    return None


def _plans(trials: Trials, blame: Blame, models: Models, limit: float) -> Iterator[Plan]:
    """Yield sets that pass in trials, the smallest first; at last all candidates."""
    groups = candidates(blame, models, trials)
    search = _Search(trials, limit)
    if len(groups) <= EXHAUSTIVE:
        yield from search.every(groups)
    elif (grown := search.grow(groups)) is not None:
        yield grown
    if groups:
        yield Plan(tuple(groups), False, search.tried)


def candidates(blame: Blame, models: Models, trials: Trials) -> list[Group]:
    """Group the culprits, those that read a culprit input included, the worst first; a diffuse loss brings in what loses most by itself."""
    wanted = [c.place for c in blame.culprits if c.damage > 0.02 * blame.limit]
    if not blame.explained:
        losses = zip(blame.places, blame.locals, strict=True)
        wanted += [p for p, _ in sorted(losses, key=lambda pair: -pair[1].error)[:MOST_CANDIDATES]]
    ops = [place for place in blame.places if place.index >= 0]
    named = [p for place in wanted for p in ([place] if place.index >= 0 else trials.reading(place))]
    keys = list(dict.fromkeys(_key(p, models) for p in named))[:MOST_CANDIDATES]
    members: Mapping[tuple[str, str], list[Place]] = {key: [p for p in ops if _key(p, models) == key] for key in keys}
    return [Group(layer, kind, tuple(members[layer, kind])) for layer, kind in keys if members[layer, kind]]


def _key(place: Place, models: Models) -> tuple[str, str]:
    return origin(place.name, models)[0] or "", place.type


class _Search:
    def __init__(self, trials: Trials, limit: float) -> None:
        self.trials = trials
        self.limit = limit
        self.tried = 0
        self.ops = tuple(place for place in trials.places if place.index >= 0)

    def passes(self, groups: Iterable[Group]) -> bool:
        """Everything in half but these."""
        self.tried += 1
        kept = {place for group in groups for place in group.places}
        return self.trials.damage([place for place in self.ops if place not in kept]) <= self.limit

    def every(self, groups: Sequence[Group]) -> Iterator[Plan]:
        """Yield the passing sets by number of ops."""
        sets = [s for size in range(1, len(groups) + 1) for s in combinations(groups, size)]
        for chosen in sorted(sets, key=_ops):
            if self.passes(chosen):
                yield Plan(chosen, True, self.tried)

    def grow(self, groups: Sequence[Group]) -> Plan | None:
        """Add by rank until it passes, then drop what is not needed."""
        chosen: list[Group] = []
        for group in groups:
            chosen.append(group)
            if self.passes(chosen):
                break
        else:
            return None
        for group in list(chosen):
            rest = [g for g in chosen if g is not group]
            if rest and self.passes(rest):
                chosen = rest
        return Plan(tuple(chosen), False, self.tried)


def _ops(groups: Sequence[Group]) -> int:
    return sum(len(group.places) for group in groups)


def _cure(plan: Plan, patterns: tuple[str, ...], before: Path, after: Path, conversions: int) -> Cure:
    return Cure(
        keep_float32=patterns,
        ops=_ops(plan.groups),
        minimal=plan.minimal,
        package=after,
        bytes_before=_bytes(before),
        bytes_after=_bytes(after),
        casts_before=_casts(before),
        casts_after=_casts(after),
        conversions=conversions,
    )


def _bytes(package: Path) -> int:
    return sum(file.stat().st_size for file in package.rglob("*") if file.is_file())


def _casts(package: Path) -> int:
    """Count the casts between float types."""
    ops = load_program(package).function().body.walk()
    return sum(op.type == "cast" and _is_float(op.outputs[0].type) for op in ops)


def _is_float(kind: object) -> bool:
    return isinstance(kind, TensorType) and kind.dtype in ("float16", "float32")
