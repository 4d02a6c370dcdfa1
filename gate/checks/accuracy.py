# SPDX-License-Identifier: Apache-2.0
"""`accuracy`: are the answers still good enough, and how sure can we be?

Each yardstick is its own row: `source` sees what conversion and compression cost, `base` a pull request whose weights are worse,
`release` ten small steps down; the floor `at_least` is a row without a yardstick. A row passes when the interval of the drop
clears the margin, fails when it lies beyond it, and is inconclusive otherwise, with the number of items that would decide.

Data without labels: the reference's answer is the label, and the check is called agreement. The statistics are in `gate.stats`, and in
words in docs/statistics.md.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gate import metrics, stats
from gate.bench import Bench, stacked
from gate.checks.base import Check, Subject, not_run
from gate.config import AccuracyBudget
from gate.data import Batch, Dataset, from_items
from gate.errors import ConfigError
from gate.evidence import Evidence, Stop, floor_sequence, is_right, measure, read_per_item, write_per_item
from gate.metrics import Kind, Metric, distances
from gate.quantity import ChangeKind, percent, points
from gate.report import (
    Bound,
    CheckName,
    Environment,
    Finding,
    Measurement,
    Outcome,
    Result,
    Severity,
    Unit,
)
from gate.stats import Flips, Interval

__all__ = ["Evidence", "check_budget", "judge", "measure", "read_per_item", "rejudge", "write_per_item"]

Array = npt.NDArray[Any]

YARDSTICKS = {"source": "the original", "base": "the base branch", "release": "the last release"}
AGREEMENT_LIMIT = 0.10  # relative L2 of an output; design, "Defaults without a budget"
AGREEMENT_NOTE = 0.05
STOPPED_FOR_ANOTHER = "see the row that failed, for which evaluation stopped"
EXAMPLES = 10  # ids shown of each kind of flip
SMALLEST_GROUP = 5  # a slice or class with fewer items is not told apart


@dataclass(frozen=True)
class Comparison:
    """Candidate against one yardstick."""

    now: float
    before: float
    drop: float
    interval: Interval
    outcome: Outcome
    flips: Flips | None = None
    worth: float = 0  # independent items that the clustered ones are worth


def check_budget(metric: Metric, budget: AccuracyBudget) -> None:
    """Refuse a floor or margin in a form that could mean two things for this metric."""
    drop, floor = budget.drop, budget.at_least
    where = "budgets.accuracy"
    if metric.is_proportion and drop is not None and drop.kind is not ChangeKind.POINTS:
        raise ConfigError(
            f"{where}.drop: found {drop}; {metric.name} is a proportion, write points, such as 1 point: "
            "1 % could mean one point or a hundredth of the value"
        )
    if not metric.is_proportion and drop is not None and drop.kind is ChangeKind.POINTS:
        raise ConfigError(f"{where}.drop: found {drop}; {metric.name} is no proportion, write 0.3 in its unit or 5 %")
    if metric.is_proportion and floor is not None and not 0 <= floor <= 1:
        raise ConfigError(f"{where}.at_least: found {floor:g}; {metric.name} is a proportion, write it as 92 %")
    if drop is not None and drop.value == 0:
        raise ConfigError(f"{where}.drop: found {drop}; no number of items proves a drop of nothing, write a margin")


def judge(
    evidence: Evidence,
    budget: AccuracyBudget | None,
    environment: Environment = Environment(engine="mil"),  # noqa: B008
) -> tuple[Result, ...]:
    """Return the floor's row, if there is a floor, and one row per yardstick."""
    if budget is not None:
        check_budget(evidence.metric, budget)
    results = [_judge_yardstick(evidence, name, budget) for name in _asked(evidence, budget)]
    if budget is not None and budget.at_least is not None:
        results.insert(0, _judge_floor(evidence, budget.at_least, budget.confidence))
    return tuple(result.model_copy(update={"environment": environment}) for result in results)


def rejudge(path: Path, budget: AccuracyBudget | None) -> tuple[Result, ...]:
    """Derive the verdict again from per_item.jsonl."""
    return judge(read_per_item(path), budget)


def _asked(evidence: Evidence, budget: AccuracyBudget | None) -> list[str]:
    there = evidence.yardsticks.keys() | evidence.same
    return [name for name in (budget.against if budget else YARDSTICKS) if name in there]


# --- one yardstick -----------------------------------------------------------------------------------------------------


def _judge_yardstick(evidence: Evidence, name: str, budget: AccuracyBudget | None) -> Result:
    if name in evidence.same:
        return _identical(evidence, name)
    if evidence.metric.name == "agreement":
        return _judge_agreement(evidence, name)
    if (unanswered := _not_finite(evidence, name)) is not None:
        return unanswered
    compared = compare(evidence, name, budget)
    return Result(
        check=CheckName.ACCURACY,
        outcome=compared.outcome,
        against=name,
        measurements=_measurements(evidence, name, compared, budget),
        message=_message(evidence, name, compared, budget),
        remedy=_remedy(evidence, compared, budget),
        findings=(*_flips(evidence, name), *_groups(evidence, name, budget)),
        required=True,
    )


def _identical(evidence: Evidence, name: str) -> Result:
    what = "the program is" if not evidence.n else f"all {evidence.n:,} answers are"
    zero = Measurement(
        name=f"{evidence.metric.name}_drop", value=0.0, unit=_drop_unit(evidence.metric, None), n=evidence.n
    )
    return Result(
        check=CheckName.ACCURACY,
        outcome=Outcome.PASS,
        against=name,
        identical=True,
        measurements=(zero,),
        message=f"{what} equal to {YARDSTICKS.get(name, name)} bit for bit, so nothing is lost",
        required=True,
    )


def _not_finite(evidence: Evidence, name: str) -> Result | None:
    """Say that a NaN is no answer; on the yardstick's side nothing can be compared with it."""
    bad = ~np.isfinite(evidence.candidate.reshape(evidence.n, -1)).all(axis=1)
    other = ~np.isfinite(evidence.yardsticks[name].reshape(evidence.n, -1)).all(axis=1)
    new = bad & ~other
    row = partial(Result, check=CheckName.ACCURACY, against=name, required=True)
    if new.any():
        told = (
            f"{int(new.sum()):,} of {evidence.n:,} answers are not finite, where {YARDSTICKS.get(name, name)} answers"
        )
        return row(
            outcome=Outcome.FAIL, message=told, findings=(_ids_finding("accuracy.not_finite", told, evidence, new),)
        )
    if other.any() and evidence.metric.kind is not Kind.BINARY:
        told = f"{int(other.sum()):,} answers of {YARDSTICKS.get(name, name)} are not finite; nothing can be compared with them"
        return row(
            outcome=Outcome.ERROR, message=told, findings=(_ids_finding("accuracy.not_finite", told, evidence, other),)
        )
    return None


def _ids_finding(rule: str, message: str, evidence: Evidence, chosen: Array) -> Finding:
    return Finding(rule=rule, severity=Severity.ERROR, message=message, evidence=_examples(evidence, chosen))


def _examples(evidence: Evidence, chosen: Array) -> str:
    """Name the first items, in the order of the ids."""
    ids = sorted(evidence.ids[i] for i in np.flatnonzero(chosen))
    more = f" and {len(ids) - EXAMPLES:,} more" if len(ids) > EXAMPLES else ""
    return f"{', '.join(name[:80] for name in ids[:EXAMPLES])}{more}"


def compare(evidence: Evidence, name: str, budget: AccuracyBudget | None) -> Comparison:
    """Compare the candidate with a yardstick by the method that fits the metric."""
    confidence = budget.confidence if budget else AccuracyBudget().confidence
    if evidence.metric.kind is Kind.BINARY:
        return _compare_binary(evidence, name, _margin(budget), confidence)
    relative = budget is not None and budget.drop is not None and budget.drop.kind is ChangeKind.RELATIVE
    return _compare_by_bootstrap(evidence, name, _margin(budget), confidence, relative)


def _margin(budget: AccuracyBudget | None) -> Fraction | None:
    return stats.exact(budget.drop.value) if budget and budget.drop else None


def _compare_binary(evidence: Evidence, name: str, margin: Fraction | None, confidence: float) -> Comparison:
    now, before = is_right(evidence.candidate), is_right(evidence.yardsticks[name])
    flips = Flips(len(now), int((before & ~now).sum()), int((now & ~before).sum()))
    drops = before.astype(float) - now.astype(float)
    made = partial(Comparison, float(now.mean()), float(before.mean()), float(flips.drop), flips=flips)
    if evidence.clusters is not None:
        worth = stats.effective_size(drops, np.array(evidence.clusters))
        interval = _clustered(flips, worth, confidence)
        return made(interval, _decide(interval, margin), worth=worth)
    made = partial(made, worth=flips.n)
    if margin is None:
        return made(stats.tango_interval(flips, confidence), Outcome.PASS)
    if evidence.sequential:
        early, confidence = stats.shared_confidence(confidence)
        sequence = stats.ConfidenceSequence(float(margin), early)
        if (certain := sequence.update(drops)) is not None:
            return made(sequence.interval(), certain)
    worst, best = _extremes(evidence, name, flips, now, before)
    interval = replace(stats.tango_interval(worst, confidence), low=stats.tango_interval(best, confidence).low)
    outcomes = {stats.non_inferior(counts, margin, confidence) for counts in (worst, best)}
    return made(interval, outcomes.pop() if len(outcomes) == 1 else Outcome.INCONCLUSIVE)


def _extremes(evidence: Evidence, name: str, flips: Flips, now: Array, before: Array) -> tuple[Flips, Flips]:
    """Return the full set's counts at worst and at best; the same where every item was used."""
    left = evidence.total - evidence.n
    if left == 0:
        return flips, flips
    may_lose = evidence.right[name] - int(before.sum())
    worst = Flips(evidence.total, flips.lost + may_lose, flips.gained)
    return worst, Flips(evidence.total, flips.lost, flips.gained + left - may_lose)


def _clustered(flips: Flips, worth: float, confidence: float) -> Interval:
    scale = worth / flips.n
    low, high = stats.tango_bounds(worth, flips.lost * scale, flips.gained * scale, confidence)
    method = f"Tango score interval, {flips.n:,} clustered items worth {worth:.0f} independent ones"
    return Interval(float(low), float(high), confidence, method)


def _decide(interval: Interval, margin: Fraction | None) -> Outcome:
    return Outcome.PASS if margin is None else stats.decide(interval, float(margin))


def _compare_by_bootstrap(
    evidence: Evidence, name: str, margin: Fraction | None, confidence: float, relative: bool
) -> Comparison:
    metric, now, before = evidence.metric, evidence.candidate, evidence.yardsticks[name]
    sign = 1.0 if metric.higher_is_better else -1.0

    def drop(weights: Array) -> Array:
        reference = metric.figure(before, weights)
        difference = sign * (reference - metric.figure(now, weights))
        return difference / np.abs(reference) if relative else difference

    clusters = None if evidence.clusters is None else np.array(evidence.clusters)
    interval = stats.bootstrap(drop, evidence.n, confidence, clusters=clusters)
    changed = (now.reshape(evidence.n, -1) != before.reshape(evidence.n, -1)).any(axis=1)
    units = evidence.n if clusters is None else len(set(evidence.clusters or ()))
    if metric.span is not None and not relative:
        interval = _widened(interval, _changed_units(changed, clusters), units, metric.span)
    seen = float(drop(np.ones((1, evidence.n)))[0])
    return Comparison(metric.total(now), metric.total(before), seen, interval, _decide(interval, margin), worth=units)


def _changed_units(changed: Array, clusters: Array | None) -> int:
    return int(changed.sum()) if clusters is None else len(np.unique(clusters[changed]))


def _widened(interval: Interval, changed: int, units: int, span: float) -> Interval:
    """Allow for changes too rare to be in the sample: with few changed items a bootstrap is too sure of itself."""
    if changed >= stats.RARE:
        return interval
    reach = span * stats.rare_change(changed, units, interval.confidence)
    return replace(
        interval,
        low=min(interval.low, -reach),
        high=max(interval.high, reach),
        method=f"{interval.method}, widened since only {changed} changed",
    )


# --- the floor ---------------------------------------------------------------------------------------------------------


def _judge_floor(evidence: Evidence, floor: float, confidence: float) -> Result:
    metric = evidence.metric
    value = (
        float(is_right(evidence.candidate).mean()) if metric.kind is Kind.BINARY else metric.total(evidence.candidate)
    )
    interval = _level_interval(evidence, floor, confidence)
    outcome = _side(interval, floor, metric.higher_is_better)
    asked = f"{'at least' if metric.higher_is_better else 'at most'} {_show(metric, floor)} asked"
    between = f"the true value lies between {_show(metric, interval.low)} and {_show(metric, interval.high)}"
    return Result(
        check=CheckName.ACCURACY,
        outcome=outcome,
        measurements=(
            Measurement(
                name=_title(evidence),
                value=value,
                unit=metric.unit,
                limit=floor,
                bound=Bound.AT_LEAST if metric.higher_is_better else Bound.AT_MOST,
                low=interval.low,
                high=interval.high,
                n=evidence.n,
                confidence=interval.confidence,
                method=interval.method,
            ),
        ),
        message=f"{_level_words(evidence, value)}: {between} ({percent(confidence)} sure), {asked}{_open(evidence, outcome)}{_stopped(evidence)}",
        remedy=_floor_remedy(evidence, outcome),
        required=True,
    )


def _floor_remedy(evidence: Evidence, outcome: Outcome) -> str | None:
    match outcome:
        case Outcome.PASS:
            return None
        case Outcome.FAIL:
            return "train or choose a better model, compress less, or move the floor"
        case _ if evidence.stop is not Stop.ALL:
            return STOPPED_FOR_ANOTHER
        case _:
            return "evaluate more items: the value is nearer to the floor than this many can tell"


def _level_interval(evidence: Evidence, floor: float, confidence: float) -> Interval:
    """Return the interval of the candidate's own figure."""
    metric, rows, n = evidence.metric, evidence.candidate, evidence.n
    clusters = None if evidence.clusters is None else np.array(evidence.clusters)
    if metric.kind is not Kind.BINARY:
        interval = stats.bootstrap(partial(metric.figure, rows), n, confidence, clusters=clusters)
        units = n if clusters is None else len(np.unique(clusters))
        return (
            interval if interval.low < interval.high or metric.span is None else _around(interval, metric.span, units)
        )
    right = is_right(rows)
    if clusters is not None:
        worth = stats.effective_size(1.0 - right, clusters)
        return stats.clopper_pearson(float(right.mean()) * worth, worth, confidence)
    if evidence.sequential:
        early, confidence = stats.shared_confidence(confidence)
        sequence = floor_sequence(floor, early)
        if sequence.update(-right.astype(float)) is not None:
            found = sequence.interval()
            return replace(found, low=-found.high, high=-found.low)
    left = evidence.total - n
    worst, best = (stats.clopper_pearson(int(right.sum()) + more, evidence.total, confidence) for more in (0, left))
    return replace(worst, high=best.high)


def _around(interval: Interval, span: float, units: int) -> Interval:
    """Widen an interval that is a point, since every item was alike: others may not be."""
    reach = span * stats.rare_change(0, units, interval.confidence)
    return replace(interval, low=interval.low - reach, high=interval.high + reach)


def _side(interval: Interval, floor: float, higher_is_better: bool) -> Outcome:
    if higher_is_better:
        return stats.decide_floor(interval, floor)
    flipped = replace(interval, low=-interval.high, high=-interval.low)
    return stats.decide_floor(flipped, -floor)


# --- data without labels -----------------------------------------------------------------------------------------------


def _judge_agreement(evidence: Evidence, name: str) -> Result:
    """Hold the relative L2 distance of each output to the stated default; a rule about these items, not an estimate."""
    far = distances(evidence.candidate, np.ones((1, evidence.n)))[0]
    names = evidence.outputs or tuple(str(i) for i in range(len(far)))
    order = sorted(range(len(far)), key=lambda i: (-np.nan_to_num(far[i], nan=np.inf), names[i]))
    worst, value = names[order[0]], float(far[order[0]])
    if not np.isfinite(value):
        told = f"answers at output {worst} are not finite"
        return Result(check=CheckName.ACCURACY, outcome=Outcome.FAIL, against=name, message=told, required=True)
    outcome = Outcome.PASS if value <= AGREEMENT_LIMIT else Outcome.FAIL
    told = f"output {worst} is {percent(value)} away from {YARDSTICKS.get(name, name)} over {evidence.n:,} items"
    return Result(
        check=CheckName.ACCURACY,
        outcome=outcome,
        against=name,
        measurements=tuple(_distance(evidence, names[i], float(far[i])) for i in order if np.isfinite(far[i])),
        message=f"{told} without labels (relative L2 distance, {percent(AGREEMENT_LIMIT)} allowed)",
        remedy="give a labelled dataset to see whether this costs accuracy, or compress less"
        if outcome is Outcome.FAIL
        else None,
        findings=()
        if value <= AGREEMENT_NOTE
        else (_note("accuracy.disagreement", told, "label some items to see what this costs"),),
        required=True,
    )


def _distance(evidence: Evidence, output: str, value: float) -> Measurement:
    return Measurement(
        name=f"agreement of {output}",
        value=value,
        unit=Unit.FRACTION,
        limit=AGREEMENT_LIMIT,
        n=evidence.n,
        method="relative L2 distance over all items",
    )


# --- what the row says -------------------------------------------------------------------------------------------------


def _title(evidence: Evidence) -> str:
    """The metric's name; agreement where the reference's answers stand for labels."""
    return evidence.metric.name if evidence.labelled else f"agreement ({evidence.metric.name})"


def _drop_unit(metric: Metric, budget: AccuracyBudget | None) -> Unit:
    if budget and budget.drop and budget.drop.kind is ChangeKind.RELATIVE:
        return Unit.FRACTION
    return Unit.POINTS if metric.is_proportion else metric.unit


def _measurements(
    evidence: Evidence, name: str, compared: Comparison, budget: AccuracyBudget | None
) -> tuple[Measurement, ...]:
    metric, interval = evidence.metric, compared.interval
    unit, margin = _drop_unit(metric, budget), _margin(budget)
    drop = Measurement(
        name=f"{metric.name}_drop",
        value=compared.drop,
        unit=unit,
        limit=None if margin is None else float(margin),
        low=interval.low,
        high=interval.high,
        n=evidence.n,
        confidence=interval.confidence,
        method=f"{interval.method}{_stopped(evidence)}",
    )
    now = Measurement(
        name=_title(evidence), value=compared.now, unit=metric.unit, baseline=compared.before, n=evidence.n
    )
    more = (*_flip_measurements(compared), *_not_worse(evidence, name, interval.confidence), *_reach(compared, margin))
    return (drop, now, *more)


def _flip_measurements(compared: Comparison) -> tuple[Measurement, ...]:
    if compared.flips is None:
        return ()
    flips = compared.flips
    return (
        Measurement(name="right_to_wrong", value=flips.lost, unit=Unit.COUNT, n=flips.n),
        Measurement(name="wrong_to_right", value=flips.gained, unit=Unit.COUNT, n=flips.n),
        Measurement(
            name="worse_at_all_p",
            value=stats.mcnemar_exact(flips),
            unit=Unit.NUMBER,
            n=flips.n,
            method="McNemar exact, one-sided",
        ),
    )


def _not_worse(evidence: Evidence, name: str, confidence: float) -> tuple[Measurement, ...]:
    """Return the share of items that did not become worse, for metrics whose items are more or less good."""
    if evidence.metric.kind is not Kind.MEAN:
        return ()
    gain = evidence.candidate - evidence.yardsticks[name]
    kept = gain >= 0 if evidence.metric.higher_is_better else gain <= 0
    interval = stats.clopper_pearson(int(kept.sum()), evidence.n, confidence)
    share = Measurement(
        name="not_worse",
        value=float(kept.mean()),
        unit=Unit.FRACTION,
        low=interval.low,
        high=interval.high,
        n=evidence.n,
        confidence=confidence,
        method=interval.method,
    )
    return (share,)


def _reach(compared: Comparison, margin: Fraction | None) -> tuple[Measurement, ...]:
    """Return what this many items can prove and detect, where the flips tell it."""
    if compared.flips is None:
        return ()
    flips, confidence = compared.flips, compared.interval.confidence
    provable = stats.provable_margin(compared.worth, float(flips.discordance), confidence)
    detectable = stats.detectable_drop(compared.worth, float(flips.discordance), float(margin or 0), confidence)
    how = "for an equally good model, in four runs out of five"
    return (
        Measurement(name="provable_margin", value=provable, unit=Unit.POINTS, n=flips.n, method=how),
        Measurement(
            name="detectable_drop", value=detectable, unit=Unit.POINTS, n=flips.n, method="in four runs out of five"
        ),
    )


def _message(evidence: Evidence, name: str, compared: Comparison, budget: AccuracyBudget | None) -> str:
    metric = evidence.metric
    relative = budget is not None and budget.drop is not None and budget.drop.kind is ChangeKind.RELATIVE
    show = percent if relative else partial(_show_change, metric)
    level = _level_words(evidence, compared.now)
    other = f"{YARDSTICKS.get(name, name)} {_show(metric, compared.before)}"
    text = f"{level}, {other}: {_drop_words(compared, budget, show)}"
    return f"{text}{_open(evidence, compared.outcome)}{_stopped(evidence)}"


def _open(evidence: Evidence, outcome: Outcome) -> str:
    """Say why a row has no verdict."""
    if outcome is not Outcome.INCONCLUSIVE:
        return ""
    return ": too few items to say" if evidence.stop is Stop.ALL else ": left open"


def _drop_words(compared: Comparison, budget: AccuracyBudget | None, show: Callable[[float], str]) -> str:
    """Say the end of the interval that decides; both where none does."""
    low, high = compared.interval.low, compared.interval.high
    sure = f"({percent(budget.confidence if budget else compared.interval.confidence)} sure)"
    both = f"the loss lies between {show(low)} and {show(high)} {sure}"
    if budget is None or budget.drop is None:
        return f"{both}; no limit is set"
    allowed = f"{show(budget.drop.value)} allowed"
    match compared.outcome:
        case Outcome.PASS if high <= 0:
            return f"nothing is lost {sure}, {allowed}"
        case Outcome.PASS:
            return f"the loss is at most {show(high)} {sure}, {allowed}"
        case Outcome.FAIL:
            return f"the loss is at least {show(low)} {sure}, {allowed}"
        case _:
            return f"{both}, {allowed}"


def _level_words(evidence: Evidence, value: float) -> str:
    shown = _show(evidence.metric, value)
    if evidence.metric.kind is Kind.BINARY and evidence.labelled:
        return f"{shown} of {evidence.n:,} items right"
    if evidence.metric.kind is Kind.BINARY:
        return f"{shown} of {evidence.n:,} items answered as before"
    return f"{_title(evidence)} {shown} on {evidence.n:,} items"


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count:,} items"


def _show(metric: Metric, value: float) -> str:
    match metric.unit:
        case Unit.FRACTION:
            return percent(value)
        case Unit.DECIBEL:
            return f"{value:.4g} dB"
        case _:
            return f"{value:.4g}"


def _show_change(metric: Metric, value: float) -> str:
    return points(value) if metric.is_proportion else _show(metric, value)


def _stopped(evidence: Evidence) -> str:
    """Say that, and why, not all items were used."""
    if evidence.stop is Stop.ALL:
        return ""
    used = f"; stopped after {evidence.n:,} of {evidence.total:,} items"
    if evidence.stop is Stop.CURTAILED:
        return f"{used}, since the others cannot change the verdict (curtailment)"
    return f"{used}, by when the verdict was certain enough (confidence sequence)"


def _remedy(evidence: Evidence, compared: Comparison, budget: AccuracyBudget | None) -> str | None:
    margin = _margin(budget)
    if compared.outcome is Outcome.PASS or margin is None or budget is None:
        return None
    if compared.outcome is Outcome.FAIL:
        return "see which items went wrong; compress less, keep the layers that matter in float32, or train again"
    if evidence.stop is not Stop.ALL:
        return STOPPED_FOR_ANOTHER
    if compared.flips is None:
        return "evaluate more items, or allow a larger drop"
    return _more_items(compared.flips, compared.worth, margin, budget.confidence)


def _more_items(flips: Flips, worth: float, margin: Fraction, confidence: float) -> str:
    """Say how many further items would decide, and what these could prove."""
    provable = points(_rounded_up(stats.provable_margin(worth, float(flips.discordance), confidence)))
    these = (
        f"with these {flips.n:,}, the smallest margin that an equally good model can be expected to meet is {provable}"
    )
    needed = stats.required_items(flips, margin, confidence)
    if needed is None:
        return f"the drop seen is exactly the margin, which no number of items can decide; {these}"
    further = max(int(np.ceil(needed * flips.n / worth)) - flips.n, 1)
    return f"about {further:,} further items would decide, if answers keep changing as they do here; {these}"


def _rounded_up(value: float) -> float:
    """Round a share up to a tenth of a point."""
    return float(np.ceil(value * 1000) / 1000)


# --- details for engineers ---------------------------------------------------------------------------------------------


def _note(rule: str, message: str, advice: str = "", *, warn: bool = True, shown: str | None = None) -> Finding:
    severity = Severity.WARNING if warn else Severity.INFO
    return Finding(rule=rule, severity=severity, message=message, advice=advice, evidence=shown)


def _flips(evidence: Evidence, name: str) -> tuple[Finding, ...]:
    """Name items that changed sides."""
    if evidence.metric.kind is not Kind.BINARY:
        return ()
    now, before = is_right(evidence.candidate), is_right(evidence.yardsticks[name])
    directions = (("right to wrong", before & ~now), ("wrong to right", now & ~before))
    return tuple(
        _note(
            "accuracy.flips",
            f"went from {told}: {_items(int(chosen.sum()))}",
            warn=False,
            shown=_examples(evidence, chosen),
        )
        for told, chosen in directions
        if chosen.any()
    )


def _groups(evidence: Evidence, name: str, budget: AccuracyBudget | None) -> tuple[Finding, ...]:
    """Tell the worst slice and the worst class, and every one whose drop exceeds the margin, corrected for their number."""
    found: list[Finding] = []
    for what, groups in (("slice", evidence.slices), ("class", evidence.classes)):
        if groups is not None and evidence.stop is Stop.ALL:
            found += _worst_groups(evidence, name, budget, what, np.array(groups))
    return tuple(found)


def _worst_groups(
    evidence: Evidence, name: str, budget: AccuracyBudget | None, what: str, groups: Array
) -> list[Finding]:
    found, sizes = np.unique(groups, return_counts=True)
    names = [str(group) for group, size in zip(found, sizes, strict=True) if size >= SMALLEST_GROUP]
    drops = {group: _group_drop(evidence, name, groups == group) for group in names}
    if len(drops) < 2:
        return []
    margin = _margin(budget) or Fraction(0)
    level = 1 - (budget.confidence if budget else AccuracyBudget().confidence)
    tested = stats.holm([_group_p(evidence, name, groups == group, margin) for group in names])
    beyond = {group: p for group, p in zip(names, tested, strict=True) if p < level}
    worst = max(names, key=lambda group: (drops[group], group))
    told: list[tuple[str, float | None]] = list(beyond.items())
    if not told and drops[worst] > 0:
        told = [(worst, None)]
    return [
        _group_finding(evidence, what, group, drops[group], int((groups == group).sum()), p, margin)
        for group, p in told
    ]


def _group_finding(
    evidence: Evidence, what: str, group: str, drop: float, size: int, p: float | None, margin: Fraction
) -> Finding:
    lost = f"{what} {group}: {_show_change(evidence.metric, drop)} lost on {_items(size)}"
    if p is None:
        return _note(f"accuracy.worst_{what}", f"{lost}, the most of any {what}; within what chance does", warn=False)
    allowed = f"more than the {_show_change(evidence.metric, float(margin))} allowed" if margin else "more than nothing"
    return _note(
        f"accuracy.{what}_drop",
        f"{lost}, {allowed} (p = {p:.2g} after correction for all of them)",
        f"look at the items of this {what}; the mean over all items hides them",
    )


def _group_drop(evidence: Evidence, name: str, chosen: Array) -> float:
    metric = evidence.metric
    sign = 1.0 if metric.higher_is_better else -1.0
    return sign * (metric.total(evidence.yardsticks[name][chosen]) - metric.total(evidence.candidate[chosen]))


def _group_p(evidence: Evidence, name: str, chosen: Array, margin: Fraction) -> float:
    """Return the p-value of "this group loses more than the margin"; 1 where the metric allows no simple test."""
    now, before = evidence.candidate[chosen], evidence.yardsticks[name][chosen]
    if evidence.metric.kind is Kind.BINARY:
        now, before = is_right(now), is_right(before)
        flips = Flips(len(now), int((before & ~now).sum()), int((now & ~before).sum()))
        return stats.excess_p(flips, margin) if flips.lost else 1.0
    return 1.0


# --- the question ------------------------------------------------------------------------------------------------------


def _answer(subject: Subject) -> tuple[Result, ...]:
    """Run candidate and yardsticks on the data set, or, where there is none, on the bench's own samples."""
    bench, entry, engine = subject.bench, subject.entry, subject.engine
    budget = entry.budgets.accuracy
    source = _source_rows(subject)
    if source is None:
        why = "A finished package that ships as it is has nothing to be compared with; name a reference or a data set."
        return (not_run(CheckName.ACCURACY, why, required=budget is not None),)
    dataset = bench.dataset or unlabelled(bench)
    session = engine.load(subject.candidate.package.path)
    evidence = measure(
        lambda batch: stacked(session.predict(bench.inputs(batch))),
        {"source": source},
        dataset,
        metrics.load(entry.metric) if dataset.labels is not None else metrics.load(None),
        budget,
        seed=entry.splits.seed,
        same=_same(subject),
    )
    if evidence.n:
        write_per_item(subject.out / "per_item" / f"{entry.name}-{subject.candidate.policy.name}.jsonl", evidence)
    return (*judge(evidence, budget, engine.environment), *_missing(subject))


def _source_rows(subject: Subject) -> Callable[[Batch], Any] | None:
    """The reference's answers; for a compressed package without a reference, those of the package before compression."""
    bench = subject.bench
    if bench.references is not None:
        return bench.reference_rows
    if subject.compressed is None or subject.before is None:
        return None
    session = subject.engine.load(subject.before)
    return lambda batch: stacked(session.predict(bench.inputs(batch)))


def unlabelled(bench: Bench) -> Dataset:
    """The bench's samples of the example's shape, as a data set without labels."""
    shapes = {name: array.shape for name, array in bench.example.items()}
    samples = [s for s in bench.samples if {name: array.shape for name, array in s.items()} == shapes]
    inputs = {name: np.stack([sample[name] for sample in samples]) for name in bench.example}
    return from_items(
        "the bench",
        [dict(zip(inputs, row, strict=True)) for row in zip(*inputs.values(), strict=True)],
        [None] * len(samples),
        {},
    )


def _earlier(subject: Subject) -> list[str]:
    budget = subject.entry.budgets.accuracy
    return [name for name in budget.against if name != "source"] if budget else []


def _same(subject: Subject) -> frozenset[str]:
    """The earlier yardsticks whose package is this very package."""
    shipped = subject.baseline.shipped(subject.entry.name) if subject.baseline else None
    digest = subject.candidate.package.digest
    equal = shipped is not None and digest is not None and shipped.package_digest == digest
    return frozenset(_earlier(subject)) if equal else frozenset()


def _missing(subject: Subject) -> Iterator[Result]:
    """Say of each earlier yardstick that was asked for why it gave no row."""
    for name in set(_earlier(subject)) - _same(subject):
        why = f"This version cannot pair items with {YARDSTICKS[name]}; only an unchanged package is recognised."
        yield not_run(CheckName.ACCURACY, why, environment=subject.engine.environment).model_copy(
            update={"against": name}
        )


CHECK = Check(CheckName.ACCURACY, "Are the answers as good?", _answer)
