# SPDX-License-Identifier: Apache-2.0
"""`size`: is the package small enough to ship?

Counts every file of the .mlpackage, in decimal MB. Xcode compiles it to .mlmodelc at build time; that size is measured on a
Mac only.
"""

from gate.checks.base import Check, Subject
from gate.config import SizeBudget
from gate.growth import allowed, ungrown
from gate.quantity import size
from gate.report import CheckName, Measurement, Outcome, Result, Unit


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
    what = "the growth over the baseline allows" if grew else "the limit is"
    return (
        f"The package is {size(package_bytes)}; {what} {size(limit)}."
        if not over
        else f"The package is too large: {size(package_bytes)}; {what} {size(limit)}."
    )


def _answer(subject: Subject) -> tuple[Result, ...]:
    before = subject.baseline.package_bytes(subject.entry.name) if subject.baseline else None
    return (judge(subject.candidate.package.bytes, subject.entry.budgets.size, before),)


CHECK = Check(CheckName.SIZE, "Is it small enough?", _answer)
