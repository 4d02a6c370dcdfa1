# SPDX-License-Identifier: Apache-2.0
"""How much worse is the candidate than a yardstick, how good is it by itself, and within which bounds?

Chooses the method that fits the metric and the evidence: counts of flips where an item is right or wrong, a bootstrap where it is
not; with clusters, with items left out by early stopping, and with changes too rare for a bootstrap to see. Words are not made here.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gate import stats
from gate.config import AccuracyBudget
from gate.errors import UsageError
from gate.evidence import Evidence, floor_sequence, is_right
from gate.metrics import Kind, Metric
from gate.quantity import ChangeKind
from gate.report import Outcome
from gate.stats import Flips, Interval

Array = npt.NDArray[Any]

DEFAULT_CONFIDENCE = AccuracyBudget().confidence


@dataclass(frozen=True)
class Limit:
    """The budget of one comparison, as numbers; no margin where none was set."""

    margin: Fraction | None = None
    relative: bool = False
    confidence: float = DEFAULT_CONFIDENCE

    @classmethod
    def of(cls, budget: AccuracyBudget | None) -> "Limit":
        """Read a budget."""
        if budget is None or budget.drop is None:
            return cls(confidence=budget.confidence if budget else DEFAULT_CONFIDENCE)
        relative = budget.drop.kind is ChangeKind.RELATIVE
        return cls(stats.exact(budget.drop.value), relative, budget.confidence)


@dataclass(frozen=True)
class Comparison:
    """Candidate against one yardstick; a drop is positive where the candidate is worse."""

    now: float
    before: float
    drop: float
    interval: Interval
    outcome: Outcome
    worth: float  # independent items that the items are worth
    flips: Flips | None = None


@dataclass(frozen=True)
class Level:
    """The candidate's own figure, held to a floor."""

    value: float
    interval: Interval
    outcome: Outcome


def compare(evidence: Evidence, name: str, limit: Limit) -> Comparison:
    """Compare the candidate with a yardstick."""
    if evidence.metric.kind is Kind.BINARY:
        return _compare_flips(evidence, name, limit)
    return _compare_by_bootstrap(evidence, name, limit)


def count_flips(evidence: Evidence, name: str, chosen: Array | slice = slice(None)) -> Flips:
    """Count the items that changed sides, of all or of the chosen ones."""
    now, before = is_right(evidence.candidate[chosen]), is_right(evidence.yardsticks[name][chosen])
    return Flips(len(now), int((before & ~now).sum()), int((now & ~before).sum()))


# --- right or wrong ------------------------------------------------------------------------------------------------------


def _compare_flips(evidence: Evidence, name: str, limit: Limit) -> Comparison:
    now, before = is_right(evidence.candidate), is_right(evidence.yardsticks[name])
    flips = count_flips(evidence, name)
    drops = before.astype(float) - now.astype(float)
    worth = float(flips.n) if evidence.clusters is None else stats.effective_size(drops, np.array(evidence.clusters))
    if evidence.clusters is not None:
        interval = _clustered(flips, worth, limit.confidence)
        outcome = _decide(interval, limit)
    elif limit.margin is None:
        interval, outcome = stats.tango_interval(flips, limit.confidence), Outcome.PASS
    else:
        interval, outcome = _tested(evidence, name, flips, drops, limit.margin, limit.confidence)
    return Comparison(float(now.mean()), float(before.mean()), float(flips.drop), interval, outcome, worth, flips)


def _tested(
    evidence: Evidence, name: str, flips: Flips, drops: Array, margin: Fraction, confidence: float
) -> tuple[Interval, Outcome]:
    """Decide by the sequence if it was watched and is certain, else by the counts of the full set, known or bounded."""
    if evidence.sequential:
        early, confidence = stats.shared_confidence(confidence)
        sequence = stats.ConfidenceSequence(float(margin), early)
        if (certain := sequence.update(drops)) is not None:
            return sequence.interval(), certain
    worst, best = _extremes(evidence, name, flips)
    interval = replace(stats.tango_interval(worst, confidence), low=stats.tango_interval(best, confidence).low)
    outcomes = {stats.non_inferior(counts, margin, confidence) for counts in (worst, best)}
    return interval, outcomes.pop() if len(outcomes) == 1 else Outcome.INCONCLUSIVE


def _extremes(evidence: Evidence, name: str, flips: Flips) -> tuple[Flips, Flips]:
    """Return the full set's counts at worst and at best; the same where every item was used."""
    left = evidence.total - evidence.n
    if left == 0:
        return flips, flips
    may_lose = evidence.right[name] - int(is_right(evidence.yardsticks[name]).sum())
    worst = Flips(evidence.total, flips.lost + may_lose, flips.gained)
    return worst, Flips(evidence.total, flips.lost, flips.gained + left - may_lose)


def _clustered(flips: Flips, worth: float, confidence: float) -> Interval:
    scale = worth / flips.n
    low, high = stats.tango_bounds(worth, flips.lost * scale, flips.gained * scale, confidence)
    method = f"Tango score interval, {flips.n:,} clustered items worth {worth:.0f} independent ones"
    return Interval(float(low), float(high), confidence, method)


def _decide(interval: Interval, limit: Limit) -> Outcome:
    return Outcome.PASS if limit.margin is None else stats.decide(interval, float(limit.margin))


# --- anything else -------------------------------------------------------------------------------------------------------


def _compare_by_bootstrap(evidence: Evidence, name: str, limit: Limit) -> Comparison:
    metric, now, before = evidence.metric, evidence.candidate, evidence.yardsticks[name]
    totals = metric.total(now), metric.total(before)
    _require_values(metric, totals, limit)
    sign = 1.0 if metric.higher_is_better else -1.0

    def drop(weights: Array) -> Array:
        reference = metric.figure(before, weights)
        difference = sign * (reference - metric.figure(now, weights))
        return difference / np.abs(reference) if limit.relative else difference

    clusters, units = _units(evidence)
    interval = stats.bootstrap(drop, evidence.n, limit.confidence, clusters=clusters, resamples=metric.resamples)
    if metric.span is not None and not limit.relative:
        changed = (now.reshape(evidence.n, -1) != before.reshape(evidence.n, -1)).any(axis=1)
        moved = int(changed.sum()) if clusters is None else len(np.unique(clusters[changed]))
        interval = _widened(interval, moved, units, metric.span)
    interval = replace(interval, method=f"paired {interval.method}")
    seen = float(drop(np.ones((1, evidence.n)))[0])
    return Comparison(*totals, seen, interval, _decide(interval, limit), units)


def _require_values(metric: Metric, totals: tuple[float, float], limit: Limit) -> None:
    """Refuse data on which the figure is not defined."""
    if not np.isfinite(totals).all():
        raise UsageError(
            f"metric {metric.name}: has no value on these items (nothing to count); do the labels hold what it looks for?"
        )
    if limit.relative and totals[1] == 0:
        raise UsageError(
            f"budgets.accuracy.drop: {metric.name} was 0 before, of which there is no percentage; write the margin in its unit"
        )


def _units(evidence: Evidence) -> tuple[Array | None, int]:
    """Return the clusters, if there are any, and how many units a bootstrap draws from."""
    if evidence.clusters is None:
        return None, evidence.n
    return np.array(evidence.clusters), len(set(evidence.clusters))


def _widened(interval: Interval, changed: int, units: int, span: float) -> Interval:
    """Allow for changes too rare to be in the sample: with few changed items a bootstrap is too sure of itself."""
    if changed >= stats.RARE:
        return interval
    reach = span * stats.rare_change(changed, units, interval.confidence)
    method = f"{interval.method}, widened since only {changed} changed"
    return replace(interval, low=min(interval.low, -reach), high=max(interval.high, reach), method=method)


# --- the floor ---------------------------------------------------------------------------------------------------------


def level(evidence: Evidence, floor: float, confidence: float) -> Level:
    """Hold the candidate's own figure to a floor, or to a ceiling where less is better."""
    metric, rows = evidence.metric, evidence.candidate
    if metric.kind is Kind.BINARY:
        value, interval = float(is_right(rows).mean()), _share_interval(evidence, floor, confidence)
    else:
        value = metric.total(rows)
        _require_values(metric, (value, value), Limit())
        interval = _figure_interval(evidence, confidence)
    if metric.higher_is_better:
        return Level(value, interval, stats.decide_floor(interval, floor))
    mirrored = replace(interval, low=-interval.high, high=-interval.low)
    return Level(value, interval, stats.decide_floor(mirrored, -floor))


def _share_interval(evidence: Evidence, floor: float, confidence: float) -> Interval:
    right = is_right(evidence.candidate)
    if evidence.clusters is not None:
        worth = stats.effective_size(1.0 - right, np.array(evidence.clusters))
        return stats.clopper_pearson(float(right.mean()) * worth, worth, confidence)
    if evidence.sequential:
        early, confidence = stats.shared_confidence(confidence)
        sequence = floor_sequence(floor, early)
        if sequence.update(-right.astype(float)) is not None:
            found = sequence.interval()
            return replace(found, low=-found.high, high=-found.low)
    hits, left = int(right.sum()), evidence.total - evidence.n
    worst, best = (stats.clopper_pearson(hits + more, evidence.total, confidence) for more in (0, left))
    return replace(worst, high=best.high)


def _figure_interval(evidence: Evidence, confidence: float) -> Interval:
    metric, (clusters, units) = evidence.metric, _units(evidence)
    figure = partial(metric.figure, evidence.candidate)
    interval = stats.bootstrap(figure, evidence.n, confidence, clusters=clusters, resamples=metric.resamples)
    if metric.span is None or interval.low < interval.high:
        return interval
    reach = metric.span * stats.rare_change(0, units, confidence)  # every item was alike, but others may not be
    return replace(interval, low=interval.low - reach, high=interval.high + reach)
