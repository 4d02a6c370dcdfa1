# SPDX-License-Identifier: Apache-2.0
"""Does a slice or class lose more than it may, that the mean over all items hides?

Each group of items is compared like the whole. That *all* of them keep the limit is shown when each interval does, which needs no
correction: a bad group would have to be lucky. That *one* of them broke it is said only after correction for how many there
are (Holm): of forty slices, two look bad at 95 % by chance alone. A class is judged by the share of its items that are right.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gate import stats
from gate.comparison import Comparison, Limit, compare, has_value
from gate.evidence import Evidence, is_right
from gate.metrics import Kind, mean_figure
from gate.report import Outcome

Array = npt.NDArray[Any]

RESAMPLES = 1_000  # of a bootstrap of one group


@dataclass(frozen=True)
class Group:
    """One slice or class, compared with the same items of the yardstick."""

    name: str
    n: int
    compared: Comparison
    beyond: float | None = None  # what it loses at least, corrected for all of them, where that is more than allowed

    @property
    def keeps(self) -> bool:
        """Is its limit kept for sure?"""
        return self.compared.outcome is Outcome.PASS


def compare_groups(
    evidence: Evidence, name: str, groups: Sequence[str], limit: Limit, *, at_least: int = 1
) -> list[Group]:
    """Compare every group of at least so many items, in the order of their names; one without a value is left out."""
    parts = {
        group: part
        for group, part in _parts(evidence, groups)
        if part.n >= at_least and has_value(part, name, relative=limit.relative)
    }
    judged = [Group(group, part.n, compare(part, name, limit)) for group, part in parts.items()]
    for index, low in _beyond(name, tuple(parts.values()), judged, limit).items():
        judged[index] = replace(judged[index], beyond=low)
    return judged


def _parts(evidence: Evidence, groups: Sequence[str]) -> Iterator[tuple[str, Evidence]]:
    """Yield the items of each group; few resamples each, since all of them together cost what the whole does."""
    metric = replace(evidence.metric, resamples=min(evidence.metric.resamples, RESAMPLES))
    labels = np.array(groups)
    for group in np.unique(labels):
        yield str(group), replace(evidence.subset(np.flatnonzero(labels == group)), metric=metric)


def _beyond(name: str, parts: Sequence[Evidence], judged: Sequence[Group], limit: Limit) -> dict[int, float]:
    """Return what the groups lose at least that break the limit for sure, by position."""
    margin = float(limit.margin or 0)

    def low(index: int, confidence: float) -> float:
        if judged[index].compared.interval.low <= margin:
            return judged[index].compared.interval.low  # a stricter confidence only lowers it
        return compare(parts[index], name, replace(limit, confidence=confidence)).interval.low

    return stats.beyond_all([group.compared.interval.low for group in judged], low, margin, limit.confidence)


def as_classes(evidence: Evidence, name: str) -> Evidence:
    """Return the evidence as right or wrong per item, which is what a class is judged by."""
    metric = evidence.metric
    if metric.kind is Kind.BINARY:
        return evidence
    assert metric.right is not None
    read: Callable[[Array], Array] = metric.right
    return replace(
        evidence,
        metric=replace(metric, kind=Kind.BINARY, figure=mean_figure),
        candidate=read(evidence.candidate),
        yardsticks={name: read(evidence.yardsticks[name])},
        sequential=False,
    )


def kept(evidence: Evidence, name: str, by: float) -> Array | None:
    """Say which items did not become worse by more than `by`; None where an item alone has no value of the metric."""
    metric = evidence.metric
    if metric.each is None:
        return None
    rows = (evidence.candidate, evidence.yardsticks[name])
    if metric.kind is Kind.BINARY:
        now, before = (is_right(side).astype(float) for side in rows)
    else:
        now, before = (metric.each(side) for side in rows)
    gain = (now - before) * (1 if metric.higher_is_better else -1)
    rounding = 1e-9 * np.maximum(1.0, np.abs(before))  # a change of exactly `by` is none beyond it
    return np.asarray((gain >= -by - rounding) | ~np.isfinite(before))
