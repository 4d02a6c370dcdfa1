# SPDX-License-Identifier: Apache-2.0
"""`accuracy`: are the answers still good enough, and how sure can we be?

Each yardstick is its own row: `source` sees what conversion and compression cost, `base` a pull request whose weights are worse,
`release` ten small steps down; the floor `at_least` is a row without a yardstick. A row passes when the interval of the drop
clears the margin, fails when it lies beyond it, and is inconclusive otherwise, with the number of items that would decide.

Data without labels: the reference's answer is the label, and the check is called agreement. The statistics are in `gate.stats`, and in
words in docs/statistics.md.
"""

from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gate import earlier, groups, metrics, parts, regressions, stats, wording
from gate.baseline import Baseline
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
    write_per_item,
)
from gate.metrics import Kind, Metric, batched, distances
from gate.mil import MilError
from gate.quantity import Change, ChangeKind, percent
from gate.report import Basis, Bound, CheckName, Environment, Finding, Measurement, Outcome, Result, Severity, Unit
from gate.rules import random_ops
from gate.stats import Flips
from gate.waivers import accepts_a_value

__all__ = ["Evidence", "check_budget", "judge", "measure", "metric_for", "read_per_item", "rejudge", "write_per_item"]

Array = npt.NDArray[Any]

AGREEMENT_LIMIT = 0.10  # relative L2 of an output; design, "Defaults without a budget"
AGREEMENT_NOTE = 0.05
REPORT_OPTIONS = {"base": "--baseline report.json", "release": "--release report.json"}


def check_budget(metric: Metric, budget: AccuracyBudget) -> None:
    """Refuse a floor or margin in a form that could mean two things for this metric."""
    floor, where = budget.at_least, "budgets.accuracy"
    _check_drop(metric, budget.drop, f"{where}.drop")
    _check_drop(metric, budget.slice_drop, f"{where}.slice_drop")
    _check_class_drop(metric, budget.class_drop, f"{where}.class_drop")
    if metric.is_proportion and floor is not None and not 0 <= floor <= 1:
        raise ConfigError(f"{where}.at_least: found {floor:g}; {metric.name} is a proportion, write it as 92 %")
    if budget.not_worse is not None and metric.each is None:
        raise ConfigError(
            f"{where}.not_worse: {metric.name} says nothing of one item alone; it belongs to all together"
        )


def _check_drop(metric: Metric, drop: Change | None, where: str) -> None:
    if drop is None:
        return
    if metric.is_proportion and drop.kind is not ChangeKind.POINTS:
        raise ConfigError(
            f"{where}: found {drop}; {metric.name} is a proportion, write points, such as 1 point: "
            "1 % could mean one point or a hundredth of the value"
        )
    if not metric.is_proportion and drop.kind is ChangeKind.POINTS:
        raise ConfigError(f"{where}: found {drop}; {metric.name} is no proportion, write 0.3 in its unit or 5 %")
    if drop.value == 0:
        raise ConfigError(f"{where}: found {drop}; no number of items proves a drop of nothing, write a margin")


def _check_class_drop(metric: Metric, drop: Change | None, where: str) -> None:
    if drop is None:
        return
    if not metric.labels_are_classes:
        raise ConfigError(f"{where}: {metric.name} has no classes; accuracy, top_k and f1 have")
    if drop.kind is not ChangeKind.POINTS or drop.value == 0:
        raise ConfigError(f"{where}: found {drop}; it is about the share of a class that is right, write 5 points")


def judge(
    evidence: Evidence,
    budget: AccuracyBudget | None,
    environment: Environment = Environment(engine="mil"),  # noqa: B008
) -> tuple[Result, ...]:
    """Return the floor's row, if there is a floor, and one row per yardstick."""
    if budget is not None:
        check_budget(evidence.metric, budget)
    there = evidence.yardsticks.keys() | evidence.same
    asked = [name for name in (budget.against if budget else wording.YARDSTICKS) if name in there]
    rows = [row for name in asked for row in _judge_yardstick(evidence.paired(name), name, budget)]
    if budget is not None and budget.at_least is not None:
        rows.insert(0, _judge_floor(evidence, budget.at_least, budget.confidence))
    return tuple(row.model_copy(update={"environment": environment}) for row in rows)


def rejudge(
    path: Path, budget: AccuracyBudget | None, aggregate: Callable[[Array, Array], Array] | None = None
) -> tuple[Result, ...]:
    """Derive the verdict again from per_item.jsonl; a team's own aggregate has to be brought: (rows, weights) → figures."""
    return judge(read_per_item(path, aggregate), budget)


_row = partial(Result, check=CheckName.ACCURACY, required=True)


# --- one yardstick -----------------------------------------------------------------------------------------------------


def _judge_yardstick(evidence: Evidence, name: str, budget: AccuracyBudget | None) -> Iterator[Result]:
    """Yield the row of the whole, and those of its parts where they have limits."""
    if name in evidence.same:
        yield _identical(evidence, name)
        yield from parts.identical(name, budget) if budget else ()
    elif evidence.metric.name == "agreement":
        yield _judge_agreement(evidence, name)
    elif (unanswered := _not_finite(evidence, name)) is not None:
        yield unanswered
    else:
        yield _judge_whole(evidence, name, budget)
        yield from parts.rows(evidence, name, budget) if budget else ()


def _judge_whole(evidence: Evidence, name: str, budget: AccuracyBudget | None) -> Result:
    limit = Limit.of(budget)
    compared = compare(evidence, name, limit)
    show = wording.writer(evidence.metric, limit)
    return _row(
        outcome=compared.outcome,
        basis=_basis(evidence),
        against=name,
        measurements=_measurements(evidence, name, compared, limit),
        message=wording.compared(evidence, name, compared, limit),
        remedy=wording.remedy(evidence, compared, limit),
        findings=regressions.find(evidence, name, limit, show, parts.judged(budget)),
    )


def _basis(evidence: Evidence) -> Basis:
    """What the team's own metric says, the gate cannot verify."""
    return Basis.REPORTED if metrics.is_own(MetricChoice(name=evidence.metric.name)) else Basis.MEASURED


def _identical(evidence: Evidence, name: str) -> Result:
    what = "the program is" if not evidence.n else f"all {evidence.n:,} answers are"
    metric = evidence.metric
    zero = Measurement(name=f"{metric.name}_drop", value=0.0, unit=_drop_unit(metric, Limit()), n=evidence.n)
    return _row(
        outcome=Outcome.PASS,
        against=name,
        identical=True,
        measurements=(zero,),
        message=f"{what} equal to {wording.who(name)} bit for bit, so nothing is lost",
    )


def _not_finite(evidence: Evidence, name: str) -> Result | None:
    """Say that a NaN is no answer; on the yardstick's side nothing can be compared with it."""
    bad, other = (_unanswered(rows) for rows in (evidence.candidate, evidence.yardsticks[name]))
    if (new := bad & ~other).any():
        told = f"{int(new.sum()):,} of {evidence.n:,} answers are not finite, where {wording.who(name)} answers"
        return _row(against=name, outcome=Outcome.FAIL, message=told, findings=(_no_answers(told, evidence, new),))
    if other.any() and evidence.metric.kind is not Kind.BINARY:
        told = f"{int(other.sum()):,} answers of {wording.who(name)} are not finite; nothing can be compared with them"
        return _row(against=name, outcome=Outcome.ERROR, message=told, findings=(_no_answers(told, evidence, other),))
    return None


def _unanswered(rows: Array) -> Array:
    """Which items have a row with a number that is not finite?"""
    return np.asarray(~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1))


def _no_answers(told: str, evidence: Evidence, chosen: Array) -> Finding:
    named = regressions.examples(evidence, chosen)
    return Finding(rule="accuracy.not_finite", severity=Severity.ERROR, message=told, evidence=named)


# --- the floor ---------------------------------------------------------------------------------------------------------


def _judge_floor(evidence: Evidence, floor: float, confidence: float) -> Result:
    if evidence.metric.kind is not Kind.BINARY and (bad := _unanswered(evidence.candidate)).any():
        told = f"{int(bad.sum()):,} of {evidence.n:,} answers are not finite, so there is no figure to hold to a limit"
        return _row(outcome=Outcome.FAIL, message=told, findings=(_no_answers(told, evidence, bad),))
    found = level(evidence, floor, confidence)
    return _row(
        outcome=found.outcome,
        basis=_basis(evidence),
        measurements=(_floor_measurement(evidence, found, floor),),
        message=wording.level(evidence, found, floor, confidence),
        remedy=_floor_remedy(evidence, found.outcome),
    )


def _floor_measurement(evidence: Evidence, found: Level, floor: float) -> Measurement:
    return Measurement(
        name=wording.title(evidence),
        value=found.value,
        unit=evidence.metric.unit,
        limit=floor,
        bound=Bound.AT_LEAST if evidence.metric.higher_is_better else Bound.AT_MOST,
        low=_finite(found.interval.low, _is_open(evidence, found.outcome)),
        high=_finite(found.interval.high, _is_open(evidence, found.outcome)),
        n=evidence.n,
        confidence=found.interval.confidence,
        method=f"{found.interval.method}{wording.stopped(evidence)}",
    )


def _floor_remedy(evidence: Evidence, outcome: Outcome) -> str | None:
    match outcome:
        case Outcome.PASS:
            return None
        case Outcome.FAIL:
            return "train or choose a better model, compress less, or move the floor"
        case _ if evidence.stop is not Stop.ALL:
            return wording.STOPPED_FOR_ANOTHER
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
    told = f"output {worst} is {percent(value)} away from {wording.who(name)} over {wording.count(evidence.n)}"
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
        low=_finite(interval.low, _is_open(evidence, compared.outcome)),
        high=_finite(interval.high, _is_open(evidence, compared.outcome)),
        n=evidence.n,
        confidence=interval.confidence,
        method=f"{interval.method}{wording.stopped(evidence)}",
    )
    now = Measurement(
        name=wording.title(evidence), value=compared.now, unit=metric.unit, baseline=compared.before, n=evidence.n
    )
    if compared.flips is not None:
        return (drop, now, *_flip_measurements(compared.flips), *_reach(compared.flips, compared.worth, limit))
    return (drop, now, _not_worse(evidence, name, limit)) if metric.kind is Kind.MEAN else (drop, now)


def _is_open(evidence: Evidence, outcome: Outcome) -> bool:
    """Did evaluation end for another row, so that this one's interval would only say what was not looked at?"""
    return outcome is Outcome.INCONCLUSIVE and evidence.stop is not Stop.ALL


def _finite(end: float, is_open: bool) -> float | None:
    """Return an end of an interval; one of a single item has none."""
    return end if np.isfinite(end) and not is_open else None


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
    kept = groups.kept(evidence, name, 0.0)
    assert kept is not None  # each item of such a metric has a value
    interval = parts.share(evidence, kept, limit.confidence)
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


# --- the question ------------------------------------------------------------------------------------------------------


def _answer(subject: Subject) -> tuple[Result, ...]:
    """Run candidate and yardsticks on the data set, or, where there is none, on the bench's own samples."""
    bench, entry = subject.bench, subject.entry
    budget, source = entry.budgets.accuracy, _source_rows(subject)
    dataset = bench.dataset or unlabelled(bench)
    metric = load_metric(subject, dataset)
    if metric.name == "agreement" and (not bench.steady or random_ops(subject.candidate.package.path)):
        why = "The model draws random numbers, so its answers cannot agree with anyone's."
        return (not_run(CheckName.ACCURACY, why, required=budget is not None),)
    if budget is not None:
        check_budget(metric, budget)
    before, refused = _earlier(subject, dataset, metric)
    yardsticks = {**({"source": source} if source else {}), **before}
    if not yardsticks and (budget is None or budget.at_least is None or dataset.labels is None):
        why = "A finished package that ships as it is has nothing to be compared with; name a reference or a data set."
        return (not_run(CheckName.ACCURACY, why, required=budget is not None),)
    run = _predictor(subject, subject.candidate.package.path)
    same = _same(subject)
    try:
        evidence = measure(run, yardsticks, dataset, metric, _stopping(subject), seed=entry.splits.seed, same=same)
    except UsageError as error:
        if metric.name != "agreement":
            raise
        return (not_run(CheckName.ACCURACY, f"The answers cannot be compared: {error}"[:4_000]),)  # nobody gave labels
    if evidence.n:
        write_per_item(earlier.per_item_path(subject.out, entry.name, subject.candidate.policy.name), evidence)
    missing = [_not_paired(subject, name, why) for name, why in refused.items()]
    rows = judge(evidence, budget, subject.engine.environment)
    if entry.metric and metrics.is_own(
        entry.metric
    ):  # nobody but the pull request's own code says how good an answer is
        rows = tuple(row.model_copy(update={"basis": Basis.REPORTED}) for row in rows)
    return (*rows, *missing)


def _stopping(subject: Subject) -> AccuracyBudget | None:
    """The budget, by which evaluation stops; early nowhere where a waiver goes by the figure, which is that of all items."""
    budget, name = subject.entry.budgets.accuracy, subject.entry.name
    if budget is None or not accepts_a_value(subject.waivers, CheckName.ACCURACY, name, date.today()):
        return budget
    return budget.model_copy(update={"stop": "never"})


def load_metric(subject: Subject, dataset: Dataset) -> Metric:
    """Return the metric that the entry's answers are held to on these items."""
    entry, bench = subject.entry, subject.bench
    chosen = metric_for(entry.metric, entry.budgets.accuracy, dataset)
    own = bench.own_metric() if bench.own_metric and chosen and metrics.is_own(chosen) else metrics.NO_CODE
    return metrics.load(chosen, _class_names(subject), own.per_item, own.aggregate)


def metric_for(choice: MetricChoice | None, budget: AccuracyBudget | None, dataset: Dataset) -> MetricChoice | None:
    """Return the metric that the labels can be held to; None is agreement with the reference."""
    if dataset.labels is None:
        limited = budget is not None and (
            budget.at_least is not None or budget.drop is not None or budget.asks_every_item
        )
        if limited and choice is None:
            raise UsageError(
                f"budgets.accuracy: at_least and drop need labels; dataset {dataset.where} has none. Give it labels, or name a "
                "metric: then the reference's answers stand for labels"
            )
        return choice if limited or (choice is not None and choice.name == "agreement") else None
    if choice is None and not (dataset.labels.ndim == 1 and dataset.labels.dtype.kind in "iuU"):
        raise UsageError(f"dataset {dataset.where}: its labels are no classes; name a metric (docs/config.md)")
    return choice or MetricChoice(name="accuracy")


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
    """Return the earlier yardsticks that were asked for, and why the others have no row."""
    budget, same = subject.entry.budgets.accuracy, _same(subject)
    found: dict[str, Predict | Recorded] = {}
    refused: dict[str, str] = {}
    for name in budget.against if budget else ():
        if name == "source" or name in same:
            continue
        try:
            found[name] = _one_earlier(subject, name, dataset, metric)
        except UsageError as error:
            refused[name] = f"not compared with {wording.who(name)}: {error}"
    return found, refused


def _one_earlier(subject: Subject, name: str, dataset: Dataset, metric: Metric) -> Predict | Recorded:
    report = _reports(subject)[name]
    if report is None:
        raise UsageError(subject.refused.get(name, f"no report was given; name one with {REPORT_OPTIONS[name]}"))
    try:
        return earlier.yardstick(report, subject.entry.name, dataset, metric, subject.engine.environment.engine)
    except UsageError:
        package = earlier.package_of(report, subject.entry.name) if dataset.labels is not None else None
        if package is None:
            raise
        return _again(subject, package, dataset)


def _again(subject: Subject, package: Path, dataset: Dataset) -> Predict:
    """Judge an earlier package with these tools on these items: after an update, relative budgets go on to bind."""
    run = _predictor(subject, package)
    try:
        run(dataset.batch(np.arange(1)))
    except MilError as error:
        raise UsageError(f"its package cannot be run on these items ({error})") from None
    return run


def _reports(subject: Subject) -> dict[str, Baseline | None]:
    return {"base": subject.baseline, "release": subject.release}


def _same(subject: Subject) -> frozenset[str]:
    """The earlier yardsticks whose package is this very package."""
    budget, digest = subject.entry.budgets.accuracy, subject.candidate.package.digest
    shipped = {name: report and report.shipped(subject.entry.name) for name, report in _reports(subject).items()}
    equal = {name for name, one in shipped.items() if one and digest is not None and one.package_digest == digest}
    return frozenset(equal & set(budget.against)) if budget else frozenset()


def _not_paired(subject: Subject, name: str, why: str) -> Result:
    row = not_run(CheckName.ACCURACY, why, environment=subject.engine.environment)
    return row.model_copy(update={"against": name, "findings": (not_judged(CheckName.ACCURACY, why),)})


CHECK = Check(CheckName.ACCURACY, "Are the answers as good?", _answer)
