# SPDX-License-Identifier: Apache-2.0
"""Does every slice, every class and nearly every item keep its limit, too?

Rows of the accuracy check that a team asks for with `slice_drop`, `class_drop` and `not_worse`. One row tells of all slices, and
names those that broke the limit, or that have too few items to show that they keep it.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gate import stats, wording
from gate.comparison import Limit
from gate.config import AccuracyBudget, NotWorseBudget
from gate.errors import UsageError
from gate.evidence import Evidence, Stop
from gate.groups import Group, as_classes, compare_groups, kept
from gate.quantity import percent
from gate.report import Bound, CheckName, Finding, Measurement, Outcome, Result, Severity, Unit
from gate.stats import Interval

Array = npt.NDArray[Any]
NAMED = 5  # groups in a sentence; the measurements hold them all
PLURALS = {"slice": "slices", "class": "classes"}
_row = partial(Result, check=CheckName.ACCURACY, required=True)


def rows(evidence: Evidence, name: str, budget: AccuracyBudget) -> Iterator[Result]:
    """Yield a row for each limit on parts of the data."""
    if budget.slice_drop is not None:
        yield _family(evidence, name, "slice", evidence.slices, Limit.at(budget.slice_drop, budget.confidence))
    if budget.class_drop is not None:
        by_class = evidence if evidence.metric.right is None else as_classes(evidence, name)
        yield _family(by_class, name, "class", evidence.classes, Limit.at(budget.class_drop, budget.confidence))
    if budget.not_worse is not None:
        yield _no_regression(evidence, name, budget.not_worse, budget.confidence)


def identical(name: str, budget: AccuracyBudget) -> Iterator[Result]:
    """Yield the same rows for a candidate that is the yardstick, bit for bit."""
    asked = {
        "each slice": budget.slice_drop,
        "each class": budget.class_drop,
        "each item": budget.not_worse,
    }
    for part in (part for part, limit in asked.items() if limit is not None):
        told = f"equal to {wording.who(name)} bit for bit, so {part} is as good"
        yield _row(outcome=Outcome.PASS, against=name, slice=part, identical=True, message=told)


def judged(budget: AccuracyBudget | None) -> frozenset[str]:
    """Which kinds of groups have a row of their own."""
    limits = {"slice": budget.slice_drop, "class": budget.class_drop} if budget else {}
    return frozenset(what for what, limit in limits.items() if limit is not None)


# --- slices and classes --------------------------------------------------------------------------------------------------


def _family(evidence: Evidence, name: str, what: str, labels: Sequence[str] | None, limit: Limit) -> Result:
    if labels is None:
        raise UsageError(f"budgets.accuracy.{what}_drop: {_missing(what)}")
    row = partial(_row, against=name, slice=f"each {what}")
    if evidence.stop is not Stop.ALL:
        told = f"left open, since another limit is broken for sure{wording.stopped(evidence)}"
        return row(outcome=Outcome.INCONCLUSIVE, message=told, remedy=wording.STOPPED_FOR_ANOTHER)
    groups = compare_groups(evidence, name, labels, limit)
    show = wording.writer(evidence.metric, limit)
    broken = [group for group in groups if group.beyond is not None]
    open_ = [group for group in groups if group.beyond is None and not group.keeps]
    silent = len(set(labels)) - len(groups)  # on which the metric has no value
    outcome = Outcome.FAIL if broken else Outcome.INCONCLUSIVE if open_ or silent else Outcome.PASS
    worst = sorted(broken, key=_lost_at_least, reverse=True) or sorted(open_ or groups, key=_may_lose, reverse=True)
    allowed = f"{show(float(limit.margin or 0))} allowed"
    sure = f"({percent(limit.confidence)} sure)"
    tell = {
        Outcome.FAIL: lambda: f"{_lost(broken, what, len(groups), show)} {sure}, {allowed}",
        Outcome.INCONCLUSIVE: lambda: f"{_undecided(worst, what, len(groups), silent, show)} {sure}, {allowed}",
        Outcome.PASS: lambda: (
            f"none of {_many(len(groups), what)} loses more than {show(_outward(worst[0], limit))} {sure}, {allowed}"
        ),
    }
    return row(
        outcome=outcome,
        measurements=tuple(_measurements(worst, groups, what, evidence, limit)),
        message=tell[outcome](),
        remedy=_remedy(outcome, what, worst, limit),
        findings=tuple(_finding(group, what, show) for group in broken),
    )


def _missing(what: str) -> str:
    if what == "slice":
        return "the dataset says no slice of its items; give each one, or leave the budget out"
    return "this metric or dataset has no classes; it needs labels that are classes, and accuracy, top_k or f1"


def _many(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {PLURALS[what]}"


def _may_lose(group: Group) -> float:
    return group.compared.interval.high


def _lost_at_least(group: Group) -> float:
    return group.beyond or 0.0


def _outward(group: Group, limit: Limit) -> float:
    return wording.outward(group.compared.interval.high, float(limit.margin or 0), up=True)


def _lost(broken: Sequence[Group], what: str, of: int, show: Callable[[float], str]) -> str:
    ordered = sorted(broken, key=_lost_at_least, reverse=True)
    named = ", ".join(f"{group.name} at least {show(group.beyond or 0)}" for group in ordered[:NAMED])
    more = f" and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
    corrected = f", corrected for {_many(of, what)}" if of > 1 else ""
    return f"{_many(len(broken), what)} of {of} lost more than allowed: {named}{more}{corrected}"


def _undecided(worst: Sequence[Group], what: str, of: int, silent: int, show: Callable[[float], str]) -> str:
    parts = []
    if worst:
        first = worst[0]
        up_to = f"up to {show(_may_lose(first))}" if np.isfinite(_may_lose(first)) else "any amount"
        few = f"{_many(len(worst), what)} of {of} {'has' if len(worst) == 1 else 'have'} too few items to tell"
        parts.append(f"{few}; {first.name} ({wording.count(first.n)}) may lose {up_to}")
    if silent:
        parts.append(f"on {_many(silent, what)} the metric has no value")
    return "; ".join(parts)


def _measurements(
    worst: Sequence[Group], groups: Sequence[Group], what: str, evidence: Evidence, limit: Limit
) -> Iterator[Measurement]:
    """Yield the deciding group first, then each by name."""
    unit = Unit.FRACTION if limit.relative else Unit.POINTS if evidence.metric.is_proportion else evidence.metric.unit

    def of(group: Group, title: str) -> Measurement:
        interval = group.compared.interval
        return Measurement(
            name=title,
            value=group.compared.drop,
            unit=unit,
            limit=float(limit.margin or 0),
            low=interval.low if np.isfinite(interval.low) else None,
            high=interval.high if np.isfinite(interval.high) else None,
            n=group.n,
            confidence=interval.confidence,
            method=interval.method,
        )

    yield from (of(group, f"{what}_drop") for group in worst[:1])
    yield from (of(group, f"{what}_drop:{group.name}"[:400]) for group in groups[:9_000])


def _finding(group: Group, what: str, show: Callable[[float], str]) -> Finding:
    told = f"{what} {group.name}: {show(group.compared.drop)} lost on {wording.count(group.n)}"
    return Finding(rule=f"accuracy.{what}_drop", severity=Severity.ERROR, message=told)


def _remedy(outcome: Outcome, what: str, worst: Sequence[Group], limit: Limit) -> str | None:
    match outcome:
        case Outcome.PASS:
            return None
        case Outcome.FAIL:
            return f"look at the items of this {what}; compress less, or train with more like them"
        case _ if not worst:
            return "give each one items on which the metric has a value"
        case _:
            first = worst[0]
            ask = wording.remedy_open(first.n, first.compared, limit)
            return f"for {what} {first.name}, {ask}"


# --- item by item ----------------------------------------------------------------------------------------------------------


def _no_regression(evidence: Evidence, name: str, budget: NotWorseBudget, confidence: float) -> Result:
    """Hold the share of items that did not become worse to its floor."""
    row = partial(_row, against=name, slice="each item")
    unchanged = kept(evidence, name, budget.by)
    assert unchanged is not None  # `check_budget` refuses other metrics
    if evidence.stop is not Stop.ALL:
        told = f"left open, since another limit is broken for sure{wording.stopped(evidence)}"
        return row(outcome=Outcome.INCONCLUSIVE, message=told, remedy=wording.STOPPED_FOR_ANOTHER)
    interval = share(evidence, unchanged, confidence)
    outcome = stats.decide_floor(interval, budget.share)
    measured = Measurement(
        name="not_worse",
        value=float(unchanged.mean()),
        unit=Unit.FRACTION,
        limit=budget.share,
        bound=Bound.AT_LEAST,
        low=interval.low,
        high=interval.high,
        n=evidence.n,
        confidence=confidence,
        method=interval.method,
    )
    return row(
        outcome=outcome,
        measurements=(measured,),
        message=_kept_words(evidence, int((~unchanged).sum()), interval, budget, outcome),
        remedy=None if outcome is Outcome.PASS else "see which items became worse in per_item.jsonl; compress less",
    )


def share(evidence: Evidence, chosen: Array, confidence: float) -> Interval:
    """Return the interval of a share of the items."""
    if evidence.clusters is not None:
        return stats.clustered_share(1.0 - chosen, np.array(evidence.clusters), confidence)
    return stats.clopper_pearson(int(chosen.sum()), evidence.n, confidence)


def _kept_words(evidence: Evidence, worse: int, interval: Interval, budget: NotWorseBudget, outcome: Outcome) -> str:
    by = f" by more than {budget.by:g}" if budget.by else ""
    low, high = percent(float(np.floor(interval.low * 1e4)) / 1e4), percent(float(np.ceil(interval.high * 1e4)) / 1e4)
    held = {
        Outcome.PASS: f"at least {low} of all keep their quality",
        Outcome.FAIL: f"at most {high} of all keep their quality",
    }.get(outcome, f"too few items to tell; {low} to {high} of all keep their quality")
    sure = f"{percent(interval.confidence)} sure{' of each end' if outcome is Outcome.INCONCLUSIVE else ''}"
    asked = f"at least {percent(budget.share)} asked"
    return f"{worse:,} of {wording.count(evidence.n)} became worse{by}: {held} ({sure}), {asked}"
