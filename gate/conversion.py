# SPDX-License-Identifier: Apache-2.0
"""What came of a conversion: the packages, the route that was taken, and what each failed route had to say.

What is the model's own fault is kept apart from what is not: a time-out or a broken tool is never reported as the model's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gate.bench import Bench
from gate.choices import choices
from gate.config import ModelEntry
from gate.difference import compare
from gate.engine import Engine
from gate.errors import NoAnswer, SourceFault
from gate.mil import MilError
from gate.patterns import names_of, unmatched
from gate.policy import Precision, Target
from gate.report import Finding
from gate.rules import random_ops
from gate.source import ConversionFailed, Source, choose_route

TO_DO = ("raise ", "install ", "reinstall ")


@dataclass(frozen=True)
class Conversion:
    """One model entry as Core ML packages, before any compression."""

    float32: Path | None = None  # what the converter means, without rounding
    float16: Path | None = None
    finished: Path | None = None  # the package as the team handed it over, or as its converter script made it
    route: str | None = None
    layers: Mapping[str, str] = field(default_factory=dict)  # MIL name -> layer path
    folded: Mapping[str, str] = field(default_factory=dict)  # MIL name -> path of a layer that was folded into it
    lines: Mapping[str, str] = field(default_factory=dict)  # MIL name -> file.py:41
    origins: Mapping[str, str] = field(default_factory=dict)  # MIL name -> torch op
    findings: tuple[Finding, ...] = ()
    fault: str | None = None  # the model's own, deterministic: no route converts
    declared: int = 0  # weights that the checkpoint says are compressed
    no_answer: str | None = None  # not the model's: time-out, memory, toolchain
    remedy: str | None = None  # what to do about either, where that is known

    @property
    def usable(self) -> bool:
        """Is there anything to judge?"""
        return any((self.float32, self.float16, self.finished))


def failed(error: SourceFault | NoAnswer) -> Conversion:
    """A conversion that never was, with whose fault it is."""
    findings = error.findings if isinstance(error, ConversionFailed) else ()
    if isinstance(error, SourceFault):
        return Conversion(fault=str(error), findings=findings, remedy=error.remedy)
    return Conversion(no_answer=str(error), findings=findings, remedy=error.remedy or _told(str(error)))


def _told(message: str) -> str | None:
    """What a message says is to be done comes last: "…; raise limits.time in gate.yml"."""
    return next((part for part in message.split("; ")[1:] if part.startswith(TO_DO)), None)


def convert(source: Source, entry: ModelEntry, target: Target, engine: Engine, bench: Bench) -> Conversion:
    """Convert a torch source in float32 by the first route that is right, then in float16 by the same route."""
    from gate.divergence import explain  # loads torch, which a Mac that answers for handed packages may lack

    limit = entry.budgets.fidelity.error

    def matches(package: Path) -> float | None:
        return _error(package, engine, bench)

    try:
        choice = choose_route(source, matches=matches, limit=limit, target=target)
        exact = choice.converted
        half = source.convert(exact.route or "", Precision.FLOAT16, target=target)
    except (SourceFault, NoAnswer) as error:
        return failed(error)
    ops = exact.source_map.ops | half.source_map.ops
    right = choice.error is not None and choice.error <= limit
    more = tuple(finding for finding in half.findings if finding not in choice.findings)
    blamed = [f for one in choice.wrong if right for f in explain(one, exact, bench.samples, source.config.folder)]
    layers = {name: line.layer for name, line in ops.items() if line.layer}
    folded = {name: line.folded for name, line in ops.items() if line.folded}
    names = names_of({name: line.op_type for name, line in ops.items()}, layers, folded)
    return Conversion(
        float32=exact.package,
        float16=half.package,
        route=exact.route,
        layers=layers,
        folded=folded,
        lines={name: line.place for name, line in ops.items() if line.place},
        origins={name: line.torch for name, line in ops.items() if line.torch},
        declared=source.describe().compressed,
        findings=(*choice.findings, *more, *blamed, *unmatched(entry.keep_float32, names, layers.values())),
    )


def _error(package: Path, engine: Engine, bench: Bench) -> float | None:
    """Largest error of a float32 program as a fraction of the range; None where it cannot be had here."""
    if bench.reference is None or not bench.steady or random_ops(package):
        return None
    try:
        answers = bench.answers(engine, package, "float32")
        differences = compare(bench.reference, answers, bench.ranges(bench.reference), choices(package))
    except MilError:
        return None  # no kernel, or a broken package: the checks will say so
    return max(d.error if d.sound else float("inf") for d in differences)
