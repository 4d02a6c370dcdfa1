# SPDX-License-Identifier: Apache-2.0
"""Which items, slices and classes became worse, that the mean over all items hides?

Information beside the verdict. A slice or class is called worse than allowed only after correction for how many there are (Holm):
of forty slices, the worst one looks bad by chance alone.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from gate import stats
from gate.comparison import Limit, count_flips
from gate.evidence import Evidence, Stop, is_right
from gate.metrics import Kind
from gate.report import Finding, Severity

Array = npt.NDArray[Any]

EXAMPLES = 10  # ids shown
SMALLEST_GROUP = 5  # a slice or class with fewer items is not told apart


def find(evidence: Evidence, name: str, limit: Limit, show: Callable[[float], str]) -> tuple[Finding, ...]:
    """Return findings about flips, slices and classes; `show` writes a drop."""
    found = list(_flips(evidence, name)) if evidence.metric.kind is Kind.BINARY else []
    for what, groups in (("slice", evidence.slices), ("class", evidence.classes)):
        if groups is not None and evidence.stop is Stop.ALL:
            found += _worst(evidence, name, limit, show, what, np.array(groups))
    return tuple(found)


def count(items: int) -> str:
    """Write a number of items."""
    return "1 item" if items == 1 else f"{items:,} items"


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
    evidence: Evidence, name: str, limit: Limit, show: Callable[[float], str], what: str, groups: Array
) -> list[Finding]:
    """Tell every group that loses more than the margin; where none does for sure, the one that lost most."""
    found, sizes = np.unique(groups, return_counts=True)
    members = {str(g): groups == g for g, size in zip(found, sizes, strict=True) if size >= SMALLEST_GROUP}
    if len(members) < 2:
        return []
    drops = {group: _drop(evidence, name, chosen, limit) for group, chosen in members.items()}
    told = {
        group: f"{what} {group}: {show(drops[group])} lost on {count(int(members[group].sum()))}" for group in members
    }
    margin = (limit.margin if limit.margin is not None and not limit.relative else None) or Fraction(0)
    tested = stats.holm([_p(evidence, name, chosen, margin) for chosen in members.values()])
    beyond = {group: p for group, p in zip(members, tested, strict=True) if p < 1 - limit.confidence}
    allowed = f"more than the {show(float(margin))} allowed" if margin else "more than nothing"
    if beyond:
        return [_beyond(what, f"{told[group]}, {allowed}", p) for group, p in beyond.items()]
    most = max(members, key=lambda group: (drops[group], group))
    return [_by_chance(what, told[most])] if drops[most] > 0 else []


def _beyond(what: str, lost: str, p: float) -> Finding:
    return Finding(
        rule=f"accuracy.{what}_drop",
        severity=Severity.WARNING,
        message=f"{lost} (p = {p:.2g} after correction for all of them)",
        advice=f"look at the items of this {what}; the mean over all items hides them",
    )


def _by_chance(what: str, lost: str) -> Finding:
    message = f"{lost}, the most of any {what}; not more than chance can do"
    return Finding(rule=f"accuracy.worst_{what}", severity=Severity.INFO, message=message)


def _drop(evidence: Evidence, name: str, chosen: Array, limit: Limit) -> float:
    before = evidence.metric.total(evidence.yardsticks[name][chosen])
    change = before - evidence.metric.total(evidence.candidate[chosen])
    drop = change if evidence.metric.higher_is_better else -change
    return float(np.nan_to_num(drop / abs(before) if limit.relative and before else drop))


def _p(evidence: Evidence, name: str, chosen: Array, margin: Fraction) -> float:
    """Return the p-value of "this group loses more than the margin"; 1 where the metric has no such test for few items."""
    if evidence.metric.kind is not Kind.BINARY:
        return 1.0
    flips = count_flips(evidence, name, chosen)
    return stats.excess_p(flips, margin) if flips.lost else 1.0
