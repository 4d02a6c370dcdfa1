# SPDX-License-Identifier: Apache-2.0
"""How much may a size grow over its baseline, and what is said where there is none?"""

from gate.quantity import Change, ChangeKind
from gate.report import CheckName, Finding, Severity


def allowed(baseline: int | None, growth: Change | None) -> float | None:
    """Largest size that the growth budget allows, in bytes; None without a baseline or budget."""
    if baseline is None or growth is None:
        return None
    return baseline * (1 + growth.value) if growth.kind is ChangeKind.RELATIVE else baseline + growth.value


def ungrown(check: CheckName, growth: Change | None, baseline: int | None) -> tuple[Finding, ...]:
    """Say that a growth budget had nothing to be held against."""
    if growth is None or baseline is not None:
        return ()
    why = "A growth budget is set, but there is no baseline: growth was not judged."
    return (Finding(rule=f"{check}.not_judged", severity=Severity.WARNING, message=why),)
