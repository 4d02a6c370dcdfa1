# SPDX-License-Identifier: Apache-2.0
"""How is an accuracy verdict told to someone who is no statistician?

Each sentence says what was counted, what that means for items that nobody has seen yet and how sure that is, and what was allowed. Only
the end of the interval that decides is told; both where none does. Ends are rounded away from the middle, never across the limit.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from gate import stats
from gate.comparison import Comparison, Level, Limit
from gate.evidence import Evidence, Stop
from gate.metrics import Kind, Metric
from gate.quantity import percent, points
from gate.report import Outcome, Unit
from gate.stats import Flips, Interval

YARDSTICKS = {"source": "the original", "base": "the base branch", "release": "the last release"}
STOPPED_FOR_ANOTHER = "see the row that failed, for which evaluation stopped"
Show = Callable[[float], str]


def who(name: str) -> str:
    """Name a yardstick."""
    return YARDSTICKS.get(name, name)


def count(items: int) -> str:
    """Write a number of items."""
    return "1 item" if items == 1 else f"{items:,} items"


def title(evidence: Evidence) -> str:
    """The metric's name; agreement where the reference's answers stand for labels."""
    return evidence.metric.name if evidence.labelled else f"agreement ({evidence.metric.name})"


def writer(metric: Metric, limit: Limit) -> Show:
    """Return what writes a drop."""
    if limit.relative:
        return percent
    return _points if metric.is_proportion else partial(figure, metric)


def _points(value: float) -> str:
    shown = points(value)
    return shown if abs(value) >= 0.0001 or value == 0 else f"{value * 100:.1g} points"


def figure(metric: Metric, value: float) -> str:
    """Write a figure; a proportion with one decimal, and more where that would make it 100 %."""
    if metric.unit is not Unit.FRACTION:
        return f"{value:.4g} dB" if metric.unit is Unit.DECIBEL else f"{value:.4g}"
    decimals = next((d for d in range(1, 6) if value >= 1 or round(100 * value, d) < 100), 6)
    return f"{round(100 * value, decimals):g} %"


def outward(value: float, margin: float, *, up: bool) -> float:
    """Round an end away from the middle, to as many digits as keep it on its side of the margin."""
    if not np.isfinite(value):
        return value
    for digits in range(4, 12):
        scaled = value * 10**digits
        rounded = float(np.ceil(scaled - 1e-6) if up else np.floor(scaled + 1e-6)) / float(10**digits)
        if (rounded < margin) == (value < margin) and (rounded > margin) == (value > margin):
            return rounded
    return value


# --- what was counted ----------------------------------------------------------------------------------------------------


def counted(evidence: Evidence, value: float) -> str:
    """Say how good the candidate is on the items that were used."""
    items = count(evidence.n) if evidence.stop is Stop.ALL else f"the first {count(evidence.n)}"
    items += " that both have answered" if evidence.partial else ""
    shown = figure(evidence.metric, value)
    if evidence.metric.kind is not Kind.BINARY:
        return f"{title(evidence)} {shown} on {items}"
    return f"{shown} of {items} {'right' if evidence.labelled else 'answered as before'}"


def stopped(evidence: Evidence) -> str:
    """Say why not all items were used."""
    if evidence.stop is Stop.ALL:
        return ""
    used = f"; stopped after {evidence.n:,} of {evidence.total:,} items"
    if evidence.stop is Stop.CURTAILED:
        return f"{used}, since the others cannot change the verdict (curtailment)"
    return f"{used}, by when the verdict was certain enough (confidence sequence)"


def _whatever(evidence: Evidence) -> str:
    """A verdict before the end holds for every way that the remaining items could turn out."""
    if evidence.stop is not Stop.CURTAILED:
        return ""
    return f"whatever the other {evidence.total - evidence.n:,} items show, over all {evidence.total:,} "


# --- against a yardstick ---------------------------------------------------------------------------------------------------


def compared(evidence: Evidence, name: str, found: Comparison, limit: Limit) -> str:
    """Say what a comparison found."""
    said = f"{counted(evidence, found.now)}, {who(name)} {figure(evidence.metric, found.before)}"
    return f"{said}: {loss(evidence, found, limit)}{stopped(evidence)}"


def loss(evidence: Evidence, found: Comparison, limit: Limit) -> str:
    """Say how large the loss is, and how sure that is."""
    show, sure = writer(evidence.metric, limit), f"({percent(limit.confidence)} sure)"
    margin = float(limit.margin) if limit.margin is not None else np.inf
    low, high = outward(found.interval.low, margin, up=False), outward(found.interval.high, margin, up=True)
    both = f"({percent(limit.confidence)} sure of each end)"
    if limit.margin is None:
        return f"{between(low, high, show)} {both}; no limit is set"
    allowed = f"{show(margin)} allowed"
    match found.outcome:
        case Outcome.PASS if high <= 0:
            return f"{_whatever(evidence)}nothing is lost {sure}, {allowed}"
        case Outcome.PASS:
            return f"{_whatever(evidence)}the loss is at most {show(high)} {sure}, {allowed}"
        case Outcome.FAIL:
            return f"{_whatever(evidence)}the loss is at least {show(low)} {sure}, {allowed}"
        case _ if evidence.stop is not Stop.ALL:
            return "left open, since another limit is broken for sure"
        case _:
            return f"too few items to tell; {between(low, high, show)} {both}, {allowed}"


def between(low: float, high: float, show: Show) -> str:
    """Say where the loss may lie; below zero it is a gain."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return "the loss may be anything"
    if high <= 0:
        return f"nothing is lost, and {show(-high)} to {show(-low)} may be gained" if low < 0 else "nothing is lost"
    if low < 0:
        return f"in truth up to {show(high)} may be lost, or up to {show(-low)} gained"
    return f"in truth between {show(low)} and {show(high)} are lost"


def remedy(evidence: Evidence, found: Comparison, limit: Limit) -> str | None:
    """Say what to do about it."""
    match found.outcome:
        case Outcome.PASS:
            return None
        case Outcome.FAIL:
            return "see which items went wrong; compress less, keep the layers that matter in float32, or train again"
        case _ if evidence.stop is not Stop.ALL:
            return STOPPED_FOR_ANOTHER
        case _:
            return remedy_open(evidence.n, found, limit)


def remedy_open(n: int, found: Comparison, limit: Limit) -> str:
    """Say how many further items would decide."""
    if found.flips is not None:
        return more_flips(found.flips, found.worth, limit)
    return more_items(n, found.interval, found.drop, limit)


def more_items(n: int, interval: Interval, drop: float, limit: Limit) -> str:
    """Say how many items would decide, if the interval narrows with the root of their number."""
    assert limit.margin is not None
    distance, half = abs(float(limit.margin) - drop), (interval.high - interval.low) / 2
    if not np.isfinite(half) or half == 0 or distance < half / 100:
        return "evaluate more items, or allow a larger drop"
    z = stats.quantile(limit.confidence)
    needed = n * ((1 + stats.quantile(stats.POWER) / z) * half / distance) ** 2
    return f"about {max(int(np.ceil(needed)) - n, 1):,} further items would decide, if they are like these; or allow a larger drop"


def more_flips(flips: Flips, worth: float, limit: Limit) -> str:
    """Say how many further items would decide, and what these could prove."""
    assert limit.margin is not None
    provable = stats.provable_margin(worth, float(flips.discordance), limit.confidence)
    up = points(float(np.ceil(provable * 1000)) / 1000)  # to the next tenth of a point
    these = f"with these {flips.n:,}, the smallest margin that an equally good model can be expected to meet is {up}"
    needed = stats.required_items(flips, limit.margin, limit.confidence)
    if needed is None:
        return f"the drop seen is exactly the margin, which no number of items can decide; {these}"
    further = max(int(np.ceil(needed * flips.n / worth)) - flips.n, 1)
    return f"about {further:,} further items would decide, if answers keep changing as they do here; {these}"


# --- the floor -------------------------------------------------------------------------------------------------------------


def level(evidence: Evidence, found: Level, floor: float, confidence: float) -> str:
    """Say what a floor found; less is better for an error, whose floor is a ceiling."""
    said = counted(evidence, found.value)
    if found.outcome is Outcome.INCONCLUSIVE and evidence.stop is not Stop.ALL:
        return f"{said}: left open, since another limit is broken for sure{stopped(evidence)}"
    asked = f"{'at least' if evidence.metric.higher_is_better else 'at most'} {figure(evidence.metric, floor)} asked"
    sure = f"{percent(confidence)} sure{' of each end' if found.outcome is Outcome.INCONCLUSIVE else ''}"
    return f"{said}: {_held(evidence, found)} ({sure}), {asked}{stopped(evidence)}"


def _held(evidence: Evidence, found: Level) -> str:
    """Say the end of the interval that decides about a floor."""
    show, low, high = partial(figure, evidence.metric), found.interval.low, found.interval.high
    if not (np.isfinite(low) and np.isfinite(high)):
        return "too few items to tell; one alone says nothing of others"
    if found.outcome is Outcome.INCONCLUSIVE:
        return f"too few items to tell; in truth it lies between {show(low)} and {show(high)}"
    low_decides = (found.outcome is Outcome.PASS) is evidence.metric.higher_is_better
    end = f"at least {show(low)}" if low_decides else f"at most {show(high)}"
    return f"{_whatever(evidence)}the true value is {end}"
