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
from gate.quantity import Change, ChangeKind
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
        return cls.at(budget.drop, budget.confidence)

    @classmethod
    def at(cls, drop: Change, confidence: float) -> "Limit":
        """Read one margin."""
        return cls(stats.exact(drop.value), drop.kind is ChangeKind.RELATIVE, confidence)


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


def count_flips(evidence: Evidence, name: str) -> Flips:
    """Count the items that changed sides."""
    now, before = is_right(evidence.candidate), is_right(evidence.yardsticks[name])
    return Flips(len(now), int((before & ~now).sum()), int((now & ~before).sum()))


# --- right or wrong ------------------------------------------------------------------------------------------------------


def _compare_flips(evidence: Evidence, name: str, limit: Limit) -> Comparison:
    now, before = is_right(evidence.candidate), is_right(evidence.yardsticks[name])
    flips = count_flips(evidence, name)
    drops = before.astype(float) - now.astype(float)
    worth = float(flips.n)
    if evidence.clusters is not None:
        interval, worth = stats.clustered_bounds(flips, drops, np.array(evidence.clusters), limit.confidence)
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
    moved = _moved(now, before, clusters)
    span = _span(metric, now, before) / (abs(totals[1]) if limit.relative else 1.0)
    interval = _widened(interval, moved, units, span)
    interval = replace(interval, method=f"paired {interval.method}")
    seen = float(drop(np.ones((1, evidence.n)))[0])
    return Comparison(*totals, seen, interval, _decide(interval, limit), units)


def has_value(evidence: Evidence, name: str, *, relative: bool) -> bool:
    """Is the metric defined on these items? (An F1 of a class that is not among them is not.)"""
    now, before = (evidence.metric.total(rows) for rows in (evidence.candidate, evidence.yardsticks[name]))
    return bool(np.isfinite(now) and np.isfinite(before) and not (relative and before == 0))


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


def _moved(now: Array, before: Array, clusters: Array | None) -> int:
    """Count the items, or clusters, on which the two sides differ at all; lists of detections may differ in length."""
    width = max(now.reshape(len(now), -1).shape[1], before.reshape(len(before), -1).shape[1])
    changed = (_padded(now, width) != _padded(before, width)).any(axis=1)
    return int(changed.sum()) if clusters is None else len(np.unique(clusters[changed]))


def _padded(rows: Array, width: int) -> Array:
    flat = rows.reshape(len(rows), -1)
    return np.pad(flat, ((0, 0), (0, width - flat.shape[1])), constant_values=-1.0)


def _span(metric: Metric, *sides: Array) -> float:
    """Return how far one item can move the figure; of an unbounded one, as far as the values seen lie apart or reach."""
    if metric.span is not None:
        return metric.span
    values = np.concatenate(sides) if metric.kind is Kind.MEAN else np.array([metric.total(rows) for rows in sides])
    return float(max(np.ptp(values), np.abs(values).max()))


def _widened(interval: Interval, changed: int, units: int, span: float) -> Interval:
    """Allow for changes too rare to be in the sample: with few changed items a bootstrap is too sure of itself."""
    if changed >= stats.RARE:
        return interval
    reach = span * stats.rare_change(changed, units, interval.confidence) if units > 1 else np.inf
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
        return stats.clustered_share(1.0 - right, np.array(evidence.clusters), confidence)
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
    if interval.low < interval.high:
        return interval
    # every item was alike, but others may not be
    reach = _span(metric, evidence.candidate) * stats.rare_change(0, units, confidence) if units > 1 else np.inf
    return replace(interval, low=interval.low - reach, high=interval.high + reach)
