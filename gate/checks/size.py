# SPDX-License-Identifier: Apache-2.0
"""`size`: is the package small enough to ship?

Counts every file of the .mlpackage, in decimal MB: that is what the budget is about. What users download and what Xcode compiles are
estimated beside it, and the bytes told by weight, layer and step.
"""

from collections.abc import Mapping

from gate.checks.base import Check, Subject
from gate.config import SizeBudget
from gate.engine import has_torch
from gate.footprint import Footprint, measure
from gate.growth import allowed, ungrown
from gate.quantity import size, sizes
from gate.report import CheckName, Environment, Measurement, Outcome, Result, Series, Unit

DEFLATED = "estimated: part of the package deflated, as an archive would be"
COMPILED = "estimated: the same weights, and the program as text; measured on a Mac only"


def judge(package_bytes: int, budget: SizeBudget, baseline: int | None = None) -> Result:
    """Compare with the limit and with the growth over the baseline; without either it is shown only."""
    grown = allowed(baseline, budget.growth)
    limits = [limit for limit in (budget.limit, grown) if limit is not None]
    limit = min(limits, default=None)
    over = limit is not None and not package_bytes <= limit
    measurement = Measurement(
        name="package_bytes", value=package_bytes, unit=Unit.BYTES, limit=limit, baseline=baseline
    )
    return Result(
        check=CheckName.SIZE,
        outcome=Outcome.FAIL if over else Outcome.PASS,
        measurements=(measurement,),
        message=_message(package_bytes, limit, over, grew=grown is not None and limit == grown),
        findings=ungrown(CheckName.SIZE, budget.growth, baseline),
        remedy="choose a smaller policy, or raise budgets.size" if over else None,
    )


def _message(package_bytes: int, limit: float | None, over: bool, *, grew: bool) -> str:
    if limit is None:
        return f"The package is {size(package_bytes)}; no limit is set."
    found, most = sizes(package_bytes, limit)
    told = f"{found}; {'the growth over the baseline allows' if grew else 'the limit is'} {most}."
    return f"The package is too large: {told}" if over else f"The package is {told}"


def judge_compiled(compiled_bytes: int, environment: Environment) -> Result:
    """Show what an app bundles: Xcode compiles the package. The budget is the package's."""
    return Result(
        check=CheckName.SIZE,
        outcome=Outcome.PASS,
        environment=environment,
        measurements=(Measurement(name="compiled_bytes", value=compiled_bytes, unit=Unit.BYTES),),
        message=f"Compiled by Core ML it takes {size(compiled_bytes)}.",
    )


def _answer(subject: Subject) -> tuple[Result, ...]:
    before = subject.baseline.package_bytes(subject.entry.name) if subject.baseline else None
    package = subject.candidate.package
    judged = judge(package.bytes, subject.entry.budgets.size, before)
    if has_torch():  # to decode weights; elsewhere the run that handed the package over has told it
        judged = tell(judged, measure(package.path, subject.conversion.layers, subject.before, subject.compressed))
    compiled = getattr(subject.engine, "compiled_bytes", None)  # only Apple's tools compile
    if compiled is None:
        return (judged,)
    return (judged, judge_compiled(compiled(package.path), subject.engine.environment))


def tell(judged: Result, found: Footprint) -> Result:
    """Add to the verdict what the size means to users."""
    numbers = [Measurement(name="download_bytes", value=found.download, unit=Unit.BYTES, method=DEFLATED)]
    if found.compiled is not None:
        numbers.append(Measurement(name="compiled_bytes", value=found.compiled, unit=Unit.BYTES, method=COMPILED))
    named = (("weight", found.by_weight), ("layer", found.by_layer), ("step", found.by_step))
    return judged.model_copy(
        update={
            "measurements": (*judged.measurements, *numbers),
            "series": tuple(_series(name, sizes) for name, sizes in named if sizes),
            "message": f"{judged.message.removesuffix('.')}; about {size(found.download)} to download.",
        }
    )


def _series(name: str, sizes: Mapping[str, int]) -> Series:
    return Series(name=f"bytes by {name}", x=tuple(sizes), y=tuple(map(float, sizes.values())), unit=Unit.BYTES)


CHECK = Check(CheckName.SIZE, "Is it small enough?", _answer)
