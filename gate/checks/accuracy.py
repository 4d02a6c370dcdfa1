# SPDX-License-Identifier: Apache-2.0
"""`accuracy`: are the answers still good enough, and how sure can we be?

Each yardstick is its own row: `source` sees what conversion and compression cost, `base` a pull request whose weights are worse,
`release` ten small steps down; the floor `at_least` is a row without a yardstick. A row passes when the interval of the drop
clears the margin, fails when it lies beyond it, and is inconclusive otherwise, with the number of items that would decide.

Data without labels: the reference's answer is the label, and the check is called agreement. The statistics are in `gate.stats`, and in
words in docs/statistics.md.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gate import metrics, regressions, stats
from gate.bench import Bench
from gate.checks.base import Check, Subject, not_judged, not_run
from gate.comparison import Comparison, Level, Limit, compare, level
from gate.config import AccuracyBudget, MetricChoice
from gate.data import Dataset, from_items
from gate.errors import ConfigError, UsageError
from gate.evidence import (
    Evidence,
    Predict,
    Recorded,
    Stop,
    measure,
    read_per_item,
    recorded,
    write_per_item,
)
from gate.files import sha256_file
from gate.metrics import Kind, Metric, batched, distances
from gate.quantity import ChangeKind, percent, points
from gate.report import Bound, CheckName, Environment, Finding, Measurement, Outcome, Result, Severity, Unit
from gate.rules import random_ops
from gate.stats import Flips

__all__ = ["Evidence", "check_budget", "judge", "measure", "read_per_item", "rejudge", "write_per_item"]

Array = npt.NDArray[Any]

YARDSTICKS = {"source": "the original", "base": "the base branch", "release": "the last release"}
AGREEMENT_LIMIT = 0.10  # relative L2 of an output; design, "Defaults without a budget"
AGREEMENT_NOTE = 0.05
STOPPED_FOR_ANOTHER = "see the row that failed, for which evaluation stopped"


def check_budget(metric: Metric, budget: AccuracyBudget) -> None:
    """Refuse a floor or margin in a form that could mean two things for this metric."""
    drop, floor, where = budget.drop, budget.at_least, "budgets.accuracy"
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
    there = evidence.yardsticks.keys() | evidence.same
    asked = [name for name in (budget.against if budget else YARDSTICKS) if name in there]
    rows = [_judge_yardstick(evidence, name, Limit.of(budget)) for name in asked]
    if budget is not None and budget.at_least is not None:
        rows.insert(0, _judge_floor(evidence, budget.at_least, budget.confidence))
    return tuple(row.model_copy(update={"environment": environment}) for row in rows)


def rejudge(path: Path, budget: AccuracyBudget | None) -> tuple[Result, ...]:
    """Derive the verdict again from per_item.jsonl."""
    return judge(read_per_item(path), budget)


_row = partial(Result, check=CheckName.ACCURACY, required=True)


# --- one yardstick -----------------------------------------------------------------------------------------------------


def _judge_yardstick(evidence: Evidence, name: str, limit: Limit) -> Result:
    if name in evidence.same:
        return _identical(evidence, name)
    if evidence.metric.name == "agreement":
        return _judge_agreement(evidence, name)
    if (unanswered := _not_finite(evidence, name)) is not None:
        return unanswered
    compared = compare(evidence, name, limit)
    show = _writer(evidence.metric, limit)
    said = f"{_level_words(evidence, compared.now)}, {_who(name)} {_figure(evidence.metric, compared.before)}"
    return _row(
        outcome=compared.outcome,
        against=name,
        measurements=_measurements(evidence, name, compared, limit),
        message=f"{said}: {_loss_words(compared, limit, show)}{_ending(evidence, compared.outcome)}",
        remedy=_remedy(evidence, compared, limit),
        findings=regressions.find(evidence, name, limit, show),
    )


def _who(name: str) -> str:
    return YARDSTICKS.get(name, name)


def _identical(evidence: Evidence, name: str) -> Result:
    what = "the program is" if not evidence.n else f"all {evidence.n:,} answers are"
    metric = evidence.metric
    zero = Measurement(name=f"{metric.name}_drop", value=0.0, unit=_drop_unit(metric, Limit()), n=evidence.n)
    return _row(
        outcome=Outcome.PASS,
        against=name,
        identical=True,
        measurements=(zero,),
        message=f"{what} equal to {_who(name)} bit for bit, so nothing is lost",
    )


def _not_finite(evidence: Evidence, name: str) -> Result | None:
    """Say that a NaN is no answer; on the yardstick's side nothing can be compared with it."""
    bad, other = (
        ~np.isfinite(rows.reshape(evidence.n, -1)).all(axis=1)
        for rows in (evidence.candidate, evidence.yardsticks[name])
    )
    if (new := bad & ~other).any():
        told = f"{int(new.sum()):,} of {evidence.n:,} answers are not finite, where {_who(name)} answers"
        return _row(against=name, outcome=Outcome.FAIL, message=told, findings=(_no_answers(told, evidence, new),))
    if other.any() and evidence.metric.kind is not Kind.BINARY:
        told = f"{int(other.sum()):,} answers of {_who(name)} are not finite; nothing can be compared with them"
        return _row(against=name, outcome=Outcome.ERROR, message=told, findings=(_no_answers(told, evidence, other),))
    return None


def _no_answers(told: str, evidence: Evidence, chosen: Array) -> Finding:
    named = regressions.examples(evidence, chosen)
    return Finding(rule="accuracy.not_finite", severity=Severity.ERROR, message=told, evidence=named)


# --- the floor ---------------------------------------------------------------------------------------------------------


def _judge_floor(evidence: Evidence, floor: float, confidence: float) -> Result:
    metric, found = evidence.metric, level(evidence, floor, confidence)
    low, high = _figure(metric, found.interval.low), _figure(metric, found.interval.high)
    asked = f"{'at least' if metric.higher_is_better else 'at most'} {_figure(metric, floor)} asked"
    said = f"{_level_words(evidence, found.value)}: the true value lies between {low} and {high}"
    return _row(
        outcome=found.outcome,
        measurements=(_floor_measurement(evidence, found, floor),),
        message=f"{said} ({percent(confidence)} sure), {asked}{_ending(evidence, found.outcome)}",
        remedy=_floor_remedy(evidence, found.outcome),
    )


def _floor_measurement(evidence: Evidence, found: Level, floor: float) -> Measurement:
    return Measurement(
        name=_title(evidence),
        value=found.value,
        unit=evidence.metric.unit,
        limit=floor,
        bound=Bound.AT_LEAST if evidence.metric.higher_is_better else Bound.AT_MOST,
        low=found.interval.low,
        high=found.interval.high,
        n=evidence.n,
        confidence=found.interval.confidence,
        method=f"{found.interval.method}{_stopped(evidence)}",
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


# --- data without labels -----------------------------------------------------------------------------------------------


def _judge_agreement(evidence: Evidence, name: str) -> Result:
    """Hold the relative L2 distance of each output to the stated default; a rule about these items, not an estimate."""
    far = dict(zip(evidence.outputs, distances(evidence.candidate, np.ones((1, evidence.n)))[0].tolist(), strict=True))
    broken = [output for output, value in far.items() if not np.isfinite(value)]
    if broken:
        return _row(outcome=Outcome.FAIL, against=name, message=f"answers at output {broken[0]} are not finite")
    order = sorted(far, key=lambda output: (-far[output], output))
    worst, value = order[0], far[order[0]]
    agrees = value <= AGREEMENT_LIMIT
    told = f"output {worst} is {percent(value)} away from {_who(name)} over {regressions.count(evidence.n)}"
    note = Finding(rule="accuracy.disagreement", severity=Severity.WARNING, message=told, advice="label some items")
    return _row(
        outcome=Outcome.PASS if agrees else Outcome.FAIL,
        against=name,
        measurements=tuple(_distance(evidence, output, far[output]) for output in order),
        message=f"{told} without labels (relative L2 distance, {percent(AGREEMENT_LIMIT)} allowed)",
        remedy=None if agrees else "give a labelled dataset to see whether this costs accuracy, or compress less",
        findings=() if value <= AGREEMENT_NOTE else (note,),
    )


def _distance(evidence: Evidence, output: str, value: float) -> Measurement:
    return Measurement(
        name=f"distance:{output}",
        value=value,
        unit=Unit.FRACTION,
        limit=AGREEMENT_LIMIT,
        n=evidence.n,
        method="relative L2 distance over all items",
    )


# --- the numbers of a row ------------------------------------------------------------------------------------------------


def _title(evidence: Evidence) -> str:
    """The metric's name; agreement where the reference's answers stand for labels."""
    return evidence.metric.name if evidence.labelled else f"agreement ({evidence.metric.name})"


def _drop_unit(metric: Metric, limit: Limit) -> Unit:
    if limit.relative:
        return Unit.FRACTION
    return Unit.POINTS if metric.is_proportion else metric.unit


def _measurements(evidence: Evidence, name: str, compared: Comparison, limit: Limit) -> tuple[Measurement, ...]:
    metric, interval = evidence.metric, compared.interval
    drop = Measurement(
        name=f"{metric.name}_drop",
        value=compared.drop,
        unit=_drop_unit(metric, limit),
        limit=None if limit.margin is None else float(limit.margin),
        low=interval.low,
        high=interval.high,
        n=evidence.n,
        confidence=interval.confidence,
        method=f"{interval.method}{_stopped(evidence)}",
    )
    now = Measurement(
        name=_title(evidence), value=compared.now, unit=metric.unit, baseline=compared.before, n=evidence.n
    )
    if compared.flips is not None:
        return (drop, now, *_flip_measurements(compared.flips), *_reach(compared.flips, compared.worth, limit))
    return (drop, now, _not_worse(evidence, name, limit)) if metric.kind is Kind.MEAN else (drop, now)


def _flip_measurements(flips: Flips) -> tuple[Measurement, ...]:
    exact, p = "McNemar exact, one-sided", stats.mcnemar_exact(flips)
    return (
        Measurement(name="right_to_wrong", value=flips.lost, unit=Unit.COUNT, n=flips.n),
        Measurement(name="wrong_to_right", value=flips.gained, unit=Unit.COUNT, n=flips.n),
        Measurement(name="worse_at_all_p", value=p, unit=Unit.NUMBER, n=flips.n, method=exact),
    )


def _reach(flips: Flips, worth: float, limit: Limit) -> tuple[Measurement, ...]:
    """Return what this many items can prove and detect."""
    discordance, margin = float(flips.discordance), float(limit.margin or 0)
    provable = stats.provable_margin(worth, discordance, limit.confidence)
    detectable = stats.detectable_drop(worth, discordance, margin, limit.confidence)
    often = "in four runs out of five"
    equal = f"for an equally good model, {often}"
    return (
        Measurement(name="provable_margin", value=provable, unit=Unit.POINTS, n=flips.n, method=equal),
        Measurement(name="detectable_drop", value=detectable, unit=Unit.POINTS, n=flips.n, method=often),
    )


def _not_worse(evidence: Evidence, name: str, limit: Limit) -> Measurement:
    """Return the share of items that did not become worse, for metrics whose items are more or less good."""
    gain = evidence.candidate - evidence.yardsticks[name]
    kept = gain >= 0 if evidence.metric.higher_is_better else gain <= 0
    interval = stats.clopper_pearson(int(kept.sum()), evidence.n, limit.confidence)
    return Measurement(
        name="not_worse",
        value=float(kept.mean()),
        unit=Unit.FRACTION,
        low=interval.low,
        high=interval.high,
        n=evidence.n,
        confidence=interval.confidence,
        method=interval.method,
    )


# --- the words of a row --------------------------------------------------------------------------------------------------


def _level_words(evidence: Evidence, value: float) -> str:
    shown, items = _figure(evidence.metric, value), regressions.count(evidence.n)
    if evidence.metric.kind is not Kind.BINARY:
        return f"{_title(evidence)} {shown} on {items}"
    return f"{shown} of {items} {'right' if evidence.labelled else 'answered as before'}"


def _loss_words(compared: Comparison, limit: Limit, show: Callable[[float], str]) -> str:
    """Say the end of the interval that decides; both where none does."""
    low, high = _outward(compared.interval.low, limit, up=False), _outward(compared.interval.high, limit, up=True)
    sure = f"({percent(limit.confidence)} sure)"
    if limit.margin is None:
        return f"the loss lies between {show(low)} and {show(high)} {sure}; no limit is set"
    allowed = f"{show(float(limit.margin))} allowed"
    match compared.outcome:
        case Outcome.PASS if high <= 0:
            return f"nothing is lost {sure}, {allowed}"
        case Outcome.PASS:
            return f"the loss is at most {show(high)} {sure}, {allowed}"
        case Outcome.FAIL:
            return f"the loss is at least {show(low)} {sure}, {allowed}"
        case _:
            return f"the loss lies between {show(low)} and {show(high)} {sure}, {allowed}"


def _outward(value: float, limit: Limit, *, up: bool) -> float:
    """Round an end away from the middle, to as many digits as keep it on its side of the margin."""
    margin = float(limit.margin) if limit.margin is not None else np.inf
    for digits in range(4, 12):
        scaled = value * 10**digits
        rounded = float(np.ceil(scaled - 1e-6) if up else np.floor(scaled + 1e-6)) / float(10**digits)
        if (rounded < margin) == (value < margin) and (rounded > margin) == (value > margin):
            return rounded
    return value


def _writer(metric: Metric, limit: Limit) -> Callable[[float], str]:
    """Return what writes a drop."""
    if limit.relative:
        return percent
    return _points if metric.is_proportion else partial(_figure, metric)


def _points(value: float) -> str:
    shown = points(value)
    return shown if abs(value) >= 0.0001 or value == 0 else f"{value * 100:.1g} points"


def _figure(metric: Metric, value: float) -> str:
    """Write a figure; a proportion with one decimal, and more where that would make it 100 %."""
    if metric.unit is not Unit.FRACTION:
        return f"{value:.4g} dB" if metric.unit is Unit.DECIBEL else f"{value:.4g}"
    decimals = next((d for d in range(1, 6) if value >= 1 or round(100 * value, d) < 100), 6)
    return f"{round(100 * value, decimals):g} %"


def _ending(evidence: Evidence, outcome: Outcome) -> str:
    """Say why a row has no verdict, and why not all items were used."""
    if outcome is not Outcome.INCONCLUSIVE:
        return _stopped(evidence)
    return ": too few items to say" if evidence.stop is Stop.ALL else f": left open{_stopped(evidence)}"


def _stopped(evidence: Evidence) -> str:
    if evidence.stop is Stop.ALL:
        return ""
    used = f"; stopped after {evidence.n:,} of {evidence.total:,} items"
    if evidence.stop is Stop.CURTAILED:
        return f"{used}, since the others cannot change the verdict (curtailment)"
    return f"{used}, by when the verdict was certain enough (confidence sequence)"


def _remedy(evidence: Evidence, compared: Comparison, limit: Limit) -> str | None:
    match compared.outcome:
        case Outcome.PASS:
            return None
        case Outcome.FAIL:
            return "see which items went wrong; compress less, keep the layers that matter in float32, or train again"
        case _ if evidence.stop is not Stop.ALL:
            return STOPPED_FOR_ANOTHER
        case _ if compared.flips is None:
            return "evaluate more items, or allow a larger drop"
        case _:
            return _more_items(compared.flips, compared.worth, limit)


def _more_items(flips: Flips, worth: float, limit: Limit) -> str:
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


# --- the question ------------------------------------------------------------------------------------------------------


def _answer(subject: Subject) -> tuple[Result, ...]:
    """Run candidate and yardsticks on the data set, or, where there is none, on the bench's own samples."""
    bench, entry = subject.bench, subject.entry
    budget, source = entry.budgets.accuracy, _source_rows(subject)
    dataset = bench.dataset or unlabelled(bench)
    chosen = _metric_for(entry.metric, budget, dataset)
    if chosen is None and (not bench.steady or random_ops(subject.candidate.package.path)):
        why = "The model draws random numbers, so its answers cannot agree with anyone's."
        return (not_run(CheckName.ACCURACY, why, required=budget is not None),)
    metric = metrics.load(chosen, _class_names(subject), *((bench.own_metric,) if bench.own_metric else ()))
    earlier, refused = _earlier(subject, dataset, metric)
    yardsticks = {**({"source": source} if source else {}), **earlier}
    if not yardsticks and (budget is None or budget.at_least is None or dataset.labels is None):
        why = "A finished package that ships as it is has nothing to be compared with; name a reference or a data set."
        return (not_run(CheckName.ACCURACY, why, required=budget is not None),)
    run = _predictor(subject, subject.candidate.package.path)
    same = _same(subject)
    try:
        evidence = measure(run, yardsticks, dataset, metric, budget, seed=entry.splits.seed, same=same)
    except UsageError as error:
        if chosen is not None:
            raise
        return (not_run(CheckName.ACCURACY, f"The answers cannot be compared: {error}"[:4_000]),)  # nobody gave labels
    if evidence.n:
        write_per_item(per_item_path(subject.out, entry.name, subject.candidate.policy.name), evidence)
    missing = [_not_paired(subject, name, why) for name, why in refused.items()]
    return (*judge(evidence, budget, subject.engine.environment), *missing)


def _metric_for(choice: MetricChoice | None, budget: AccuracyBudget | None, dataset: Dataset) -> MetricChoice | None:
    """Return the metric that the labels can be held to; None is agreement with the reference."""
    if dataset.labels is None:
        if budget is not None and (budget.at_least is not None or budget.drop is not None):
            raise UsageError(f"budgets.accuracy: at_least and drop need labels; dataset {dataset.where} has none")
        return choice if choice is not None and choice.name == "agreement" else None
    if choice is None and not (dataset.labels.ndim == 1 and dataset.labels.dtype.kind in "iuU"):
        raise UsageError(f"dataset {dataset.where}: its labels are no classes; name a metric (docs/config.md)")
    return choice or MetricChoice(name="accuracy")


def per_item_path(out: Path, entry: str, policy: str) -> Path:
    """Where the items of a candidate are written."""
    return out / "per_item" / entry / f"{policy}.jsonl"


def _class_names(subject: Subject) -> tuple[str, ...]:
    """The names in the file of the one output that has classes; they translate labels that are names."""
    files = [output.classes for output in subject.entry.outputs if output.classes]
    if len(files) != 1:
        return ()
    lines = (subject.config.folder / files[0]).read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def _predictor(subject: Subject, package: Path) -> Predict:
    session = subject.engine.load(package)
    return lambda batch: batched(session.predict(subject.bench.inputs(batch)))


def _source_rows(subject: Subject) -> Predict | None:
    """The reference's answers; for a compressed package without a reference, those of the package before compression."""
    if subject.bench.references is not None:
        return subject.bench.reference_rows
    if subject.compressed is None or subject.before is None:
        return None
    return _predictor(subject, subject.before)


def unlabelled(bench: Bench) -> Dataset:
    """What an app could send, of the example's shape, as a data set without labels."""
    shapes = {name: array.shape for name, array in bench.example.items()}
    real = [bench.samples[i] for i in bench.real()]
    samples = [sample for sample in real if {name: array.shape for name, array in sample.items()} == shapes]
    return from_items("the bench", samples, [None] * len(samples), {})


def _earlier(
    subject: Subject, dataset: Dataset, metric: Metric
) -> tuple[dict[str, Predict | Recorded], dict[str, str]]:
    """Return the earlier yardsticks that were asked for, from the baseline's items, and why the others have no row."""
    budget, same = subject.entry.budgets.accuracy, _same(subject)
    names = [name for name in budget.against if name != "source"] if budget else []
    found: dict[str, Predict | Recorded] = {}
    refused: dict[str, str] = {}
    for name in names:
        if name in same:
            continue
        if name != "base":
            refused[name] = f"nothing to compare with {_who(name)}: --baseline brings the base branch's report only"
            continue
        try:
            found[name] = recorded(_baseline_items(subject), dataset, metric)
        except UsageError as error:
            refused[name] = f"nothing to compare with {_who(name)}: {error}"
    return found, refused


def _baseline_items(subject: Subject) -> Evidence:
    """Read the baseline's items of this model entry; their digest must be the one in its report."""
    baseline, entry = subject.baseline, subject.entry.name
    model = next((m for m in baseline.report.models if m.name == entry), None) if baseline else None
    if baseline is None or model is None:
        raise UsageError("there is no baseline of this model entry")
    path = per_item_path(baseline.folder, entry, model.shipped.policy)
    if model.data is None or model.data.per_item is None or not path.is_file():
        raise UsageError("the baseline brings no per-item values")
    if sha256_file(path) != model.data.per_item:
        raise UsageError(f"{path.name} is not the file that the baseline's report names; its digest differs")
    return read_per_item(path)


def _same(subject: Subject) -> frozenset[str]:
    """The earlier yardsticks whose package is this very package."""
    budget = subject.entry.budgets.accuracy
    shipped = subject.baseline.shipped(subject.entry.name) if subject.baseline else None
    digest = subject.candidate.package.digest
    if budget is None or shipped is None or digest is None or shipped.package_digest != digest:
        return frozenset()
    return frozenset({"base"} & set(budget.against))


def _not_paired(subject: Subject, name: str, why: str) -> Result:
    row = not_run(CheckName.ACCURACY, why, environment=subject.engine.environment)
    return row.model_copy(update={"against": name, "findings": (not_judged(CheckName.ACCURACY, why),)})


CHECK = Check(CheckName.ACCURACY, "Are the answers as good?", _answer)
