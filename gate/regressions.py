# SPDX-License-Identifier: Apache-2.0
"""Which items, slices and classes became worse, that the mean over all items hides?

Information beside the verdict. A slice or class is called worse than allowed only after correction for how many there are (Holm):
of forty slices, the worst one looks bad by chance alone.
"""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from gate import groups
from gate.comparison import Limit
from gate.evidence import Evidence, Stop, is_right
from gate.groups import Group
from gate.metrics import Kind
from gate.quantity import percent, points
from gate.report import Finding, Severity
from gate.wording import count

Array = npt.NDArray[Any]

EXAMPLES = 10  # ids shown
SMALLEST_GROUP = 5  # a slice or class with fewer items is not told apart


def find(
    evidence: Evidence, name: str, limit: Limit, show: Callable[[float], str], judged: frozenset[str] = frozenset()
) -> tuple[Finding, ...]:
    """Return findings about flips, slices and classes; `show` writes a drop, `judged` has a row of its own."""
    found = list(_flips(evidence, name)) if evidence.metric.kind is Kind.BINARY else []
    if evidence.slices is not None and evidence.stop is Stop.ALL and "slice" not in judged:
        found += _worst(evidence, name, limit, show, "slice", evidence.slices)
    if evidence.classes is not None and evidence.stop is Stop.ALL and "class" not in judged:
        of_classes = replace(limit, margin=limit.margin if evidence.metric.is_proportion else None, relative=False)
        found += _worst(groups.as_classes(evidence, name), name, of_classes, points, "class", evidence.classes)
    return tuple(found)


def examples(evidence: Evidence, chosen: Array) -> str:
    """Name the first of the chosen items, in the order of their ids."""
    ids = sorted(evidence.ids[i] for i in np.flatnonzero(chosen))
    more = f" and {len(ids) - EXAMPLES:,} more" if len(ids) > EXAMPLES else ""
    return f"{', '.join(name[:80] for name in ids[:EXAMPLES])}{more}"


def _flips(evidence: Evidence, name: str) -> list[Finding]:
    now, before = is_right(evidence.candidate), is_right(evidence.yardsticks[name])
    directions = {"right to wrong": before & ~now, "wrong to right": now & ~before}
    return [
        Finding(
            rule="accuracy.flips",
            severity=Severity.INFO,
            message=f"went from {told}: {count(int(chosen.sum()))}",
            evidence=examples(evidence, chosen),
        )
        for told, chosen in directions.items()
        if chosen.any()
    ]


def _worst(
    evidence: Evidence, name: str, limit: Limit, show: Callable[[float], str], what: str, labels: tuple[str, ...]
) -> list[Finding]:
    """Tell every group that loses more than the margin; where none does for sure, the one that lost most."""
    told = limit if limit.margin is not None else Limit(Fraction(0), confidence=limit.confidence)
    found = groups.compare_groups(evidence, name, labels, told, at_least=SMALLEST_GROUP)
    if len(found) < 2:
        return []
    margin = float(told.margin or 0)
    allowed = f"more than the {show(margin)} allowed" if margin else "more than nothing"
    if beyond := [group for group in found if group.beyond is not None]:
        return [_beyond(what, group, len(found), allowed, limit.confidence, show) for group in beyond]
    most = max(found, key=lambda group: (group.compared.drop, group.name))
    return [_by_chance(what, _lost(what, most, show))] if most.compared.drop > 0 else []


def _lost(what: str, group: Group, show: Callable[[float], str]) -> str:
    return f"{what} {group.name}: {show(group.compared.drop)} lost on {count(group.n)}"


def _beyond(what: str, group: Group, of: int, allowed: str, confidence: float, show: Callable[[float], str]) -> Finding:
    sure = f"at least {show(group.beyond or 0)} with {percent(confidence)} confidence, corrected for {of} such groups"
    return Finding(
        rule=f"accuracy.{what}_drop",
        severity=Severity.WARNING,
        message=f"{_lost(what, group, show)}, {allowed} ({sure})",
        advice=f"look at the items of this {what}; the mean over all items hides them",
    )


def _by_chance(what: str, lost: str) -> Finding:
    message = f"{lost}, the most of any {what}; not more than chance can do"
    return Finding(rule=f"accuracy.worst_{what}", severity=Severity.INFO, message=message)
