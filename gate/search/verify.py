# SPDX-License-Identifier: Apache-2.0
"""Would a candidate most likely be certified? Asked on the search part, with what the confirmation part will ask for.

What was seen on the search items is projected to as many items as will certify: a choice among many candidates is too
optimistic by itself, and an assignment that just scrapes through here fails there. Candidates that fall, fall early.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from gate import stats
from gate.comparison import Limit, compare, count_flips, level
from gate.config import AccuracyBudget
from gate.evidence import Evidence, is_right, measure
from gate.metrics import Kind, Metric, distances
from gate.quantity import Change, ChangeKind, percent, points
from gate.report import Outcome, Unit
from gate.search.ground import Ground
from gate.stats import Flips

FIRST_LOOK = 32  # items; then twice as many, and so on
DOUBT = 0.5  # further lost items that are assumed where a proof can bear them, since none lost among few says little; a judgement
ASSURANCE = (
    0.9  # with which a candidate whose true loss is what was seen would be certified; choosing among many lowers it
)
DEFAULT_DROP = Change(0.01, ChangeKind.POINTS)  # where the team set none: 1 point of a proportion
DEFAULT_RELATIVE = Change(0.01, ChangeKind.RELATIVE)
MOST_DISTANCE = 0.08  # of an output without labels; 10 % is what the check allows


@dataclass(frozen=True)
class Verdict:
    """One assignment on the search items."""

    assignment: Mapping[str, str]
    bytes: int  # of the package
    accepted: bool
    drop: float  # seen; in points, or in the metric's own unit
    items: int
    why: str

    @property
    def loss(self) -> float:
        """What was lost, at least nothing."""
        return max(self.drop, 0.0)


@dataclass(frozen=True)
class Goal:
    """What must be met, and on how many items it will be certified."""

    budget: AccuracyBudget
    metric: Metric
    confirm_items: int
    is_default: bool = False

    @classmethod
    def of(cls, budget: AccuracyBudget | None, metric: Metric, confirm_items: int) -> "Goal":
        """Read the budget; where no drop is set, a stated default."""
        given = budget or AccuracyBudget()
        if given.drop is not None or metric.name == "agreement":
            return cls(given, metric, confirm_items)
        default = DEFAULT_DROP if metric.is_proportion else DEFAULT_RELATIVE
        return cls(given.model_copy(update={"drop": default}), metric, confirm_items, is_default=True)

    @property
    def margin(self) -> Fraction:
        """The drop that is allowed."""
        return stats.exact(self.budget.drop.value) if self.budget.drop else Fraction(0)

    @property
    def is_provable(self) -> bool:
        """Could the confirmation items prove it at all, were nothing lost?"""
        if self.metric.kind is not Kind.BINARY or self.budget.drop is None:
            return True
        return stats.non_inferior(Flips(self.confirm_items, 0, 0), self.margin, self.budget.confidence) is Outcome.PASS

    def falls(self, evidence: Evidence, total: int) -> str | None:
        """Say why a candidate falls, if the items of `total` that were not looked at lost nothing; None where it does not."""
        if self.metric.name == "agreement":
            return self._too_far(evidence)
        fault = self._too_wrong(evidence, total) if self.metric.kind is Kind.BINARY else self._too_low(evidence, total)
        return fault or (self._below_floor(evidence) if evidence.n == total else None)

    def _too_far(self, evidence: Evidence) -> str | None:
        far = float(distances(evidence.candidate, np.ones((1, evidence.n)))[0].max())
        return None if far <= MOST_DISTANCE else f"an output is {percent(far)} away, {percent(MOST_DISTANCE)} sought"

    def _too_wrong(self, evidence: Evidence, total: int) -> str | None:
        flips = count_flips(evidence, "source")
        if not self.is_provable:
            fits = Fraction(flips.lost - flips.gained, total) <= self.margin / 2
        else:
            fits = (
                stats.non_inferior(self._projected(flips, total), self.margin, self.budget.confidence) is Outcome.PASS
            )
        lost = f"{flips.lost:,} lost and {flips.gained:,} won of {evidence.n:,}"
        return None if fits else f"{lost}: too many to expect proof of {points(float(self.margin))}"

    def _projected(self, flips: Flips, total: int) -> Flips:
        assumed = self._with(DOUBT, Flips(total, 0, 0), total)
        bearable = stats.non_inferior(assumed, self.margin, self.budget.confidence) is Outcome.PASS
        return self._with(DOUBT if bearable else 0.0, flips, total)  # else even an identical model would fall

    def _with(self, doubt: float, flips: Flips, total: int) -> Flips:
        scale = self.confirm_items / total
        spread = float(np.sqrt(flips.lost * (1 + 1 / scale)))  # of the difference between two draws of so rare a thing
        expected = flips.lost + doubt + stats.quantile(ASSURANCE) * spread
        lost = min(round(expected * scale), self.confirm_items)
        return Flips(self.confirm_items, lost, min(int(flips.gained * scale), self.confirm_items - lost))

    def _too_low(self, evidence: Evidence, total: int) -> str | None:
        if not np.isfinite(evidence.candidate).all():
            return "an answer is not finite"
        found = compare(evidence, "source", Limit.of(self.budget))
        here = (found.interval.high - found.drop) / stats.quantile(self.budget.confidence)  # standard error
        there = here * float(np.sqrt(total / self.confirm_items))
        spread = stats.quantile(ASSURANCE) * float(np.hypot(here, there))  # of the difference between the two parts
        high = found.drop + spread + there * stats.quantile(self.budget.confidence)
        if np.array_equal(evidence.candidate, evidence.yardsticks["source"]):
            high = found.interval.high * total / self.confirm_items  # what is allowed for changes too rare to be seen
        seen = found.drop * evidence.n / total if evidence.n < total else high
        return None if seen < float(self.margin) else f"the drop may be {seen:.3g}, {float(self.margin):.3g} allowed"

    def _below_floor(self, evidence: Evidence) -> str | None:
        floor = self.budget.at_least
        if floor is None:
            return None
        if self.metric.kind is Kind.BINARY:
            flips = count_flips(evidence, "source")
            if flips.lost <= flips.gained:
                return None  # it may miss the floor, but not for what was compressed
            right = int(is_right(evidence.candidate).mean() * self.confirm_items)
            low = stats.clopper_pearson(right, self.confirm_items, self.budget.confidence).low
            return None if low >= floor else f"{percent(low)} is what would be proven, {percent(floor)} asked"
        found = level(evidence, floor, self.budget.confidence)
        return None if found.outcome is not Outcome.FAIL else f"{found.value:.4g} is beyond the floor {floor:.4g}"


def verify(ground: Ground, goal: Goal, assignment: Mapping[str, str], purpose: str = "verification") -> Verdict:
    """Run an assignment on the search items, few at first."""
    predict, total = ground.predictor(assignment, purpose), len(ground.items)
    metric = replace(ground.metric, labels_are_classes=False)  # a first look may well see one class only
    count, fault = min(FIRST_LOOK, total), None
    while True:
        part = ground.items.subset(np.arange(count))
        evidence = measure(predict, {"source": ground.yardstick}, part, metric, None, batch_items=64)
        fault = goal.falls(evidence, total)
        if fault is not None or count == total:
            break
        count = min(2 * count, total)
    return Verdict(
        assignment,
        ground.exact_bytes(assignment),
        fault is None,
        _drop(evidence),
        count,
        fault or "passes on the search items",
    )


def _drop(evidence: Evidence) -> float:
    metric = evidence.metric
    if metric.name == "agreement":
        return float(distances(evidence.candidate, np.ones((1, evidence.n)))[0].max())
    before, now = metric.total(evidence.yardsticks["source"]), metric.total(np.nan_to_num(evidence.candidate))
    return (before - now) if metric.higher_is_better else (now - before)


def drop_unit(metric: Metric) -> Unit:
    """Return what a drop is counted in."""
    if metric.name == "agreement":
        return Unit.FRACTION
    return Unit.POINTS if metric.is_proportion else metric.unit
