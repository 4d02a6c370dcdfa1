# SPDX-License-Identifier: Apache-2.0
"""Which items did the candidate get right, and which did the models get right that it is compared with?

Evidence is one row of numbers per item and side, gathered in a seeded random order until the verdict is certain or the items are
used up. Models are callables from a batch to outputs; what runs them is not known here. `per_item.jsonl` holds the same, so that
anyone can derive the verdict again without a model.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gate import stats
from gate.config import AccuracyBudget, MetricChoice
from gate.data import Batch, Dataset
from gate.errors import UsageError
from gate.files import write_text
from gate.metrics import Kind, Metric, Outputs, class_labels, load, no_aggregate
from gate.report import Outcome

Array = npt.NDArray[Any]
Predict = Callable[[Batch], Outputs]
"""Runs a model on a batch; the first axis of each output is the item."""

SCHEMA = "gate.per_item/1"
BATCH_ITEMS = 32  # between two looks at the evidence


class Stop(StrEnum):
    """Why evaluation ended."""

    ALL = "all items"
    CURTAILED = "curtailed"
    SEQUENTIAL = "sequential"


@dataclass(frozen=True, eq=False)
class Evidence:
    """Rows of the candidate and of each yardstick, item by item, in the order in which they were evaluated."""

    metric: Metric
    ids: tuple[str, ...]
    candidate: Array
    yardsticks: Mapping[str, Array]
    total: int  # items of the data set, evaluated or not
    labelled: bool = True
    stop: Stop = Stop.ALL
    sequential: bool = (
        False  # looked at along the way under a confidence sequence, which uses some of the allowed error
    )
    right: Mapping[str, int] = field(
        default_factory=dict
    )  # of all items; how many the yardstick gets right, where known
    same: frozenset[str] = frozenset()  # yardsticks whose program or answers equal the candidate's bit for bit
    outputs: tuple[str, ...] = ()  # names, in the order of agreement's columns
    slices: tuple[str, ...] | None = None
    clusters: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    dataset: str = ""  # digest
    has: Mapping[str, Array] = field(
        default_factory=dict
    )  # of a yardstick that lacks items: which of these it answered
    partial: bool = False  # a part that an earlier report answered, too
    shared: Mapping[str, int] = field(default_factory=dict)  # of the same: how many of the data set's items it answered

    @property
    def n(self) -> int:
        """Items that were evaluated."""
        return len(self.ids)

    def paired(self, name: str) -> "Evidence":
        """Return the part that a yardstick answered, too: all of it, unless an earlier report stopped early."""
        if name not in self.has:
            return self
        part = self.subset(np.flatnonzero(self.has[name]))
        stop = Stop.ALL if part.n == self.shared[name] else self.stop
        return replace(part, total=self.shared[name], stop=stop, sequential=self.sequential, partial=True)

    def subset(self, index: Array) -> "Evidence":
        """Return the items at these positions, as if there were no others."""

        def chosen(values: Sequence[str] | None) -> tuple[str, ...] | None:
            return None if values is None else tuple(values[i] for i in index)

        return replace(
            self,
            ids=tuple(self.ids[i] for i in index),
            candidate=self.candidate[index],
            yardsticks={name: rows[index] for name, rows in self.yardsticks.items()},
            total=len(index),
            stop=Stop.ALL,
            sequential=False,
            slices=chosen(self.slices),
            clusters=chosen(self.clusters),
            classes=chosen(self.classes),
            has={name: has[index] for name, has in self.has.items()},
        )


@dataclass(frozen=True, eq=False)
class Recorded:
    """A yardstick that need not run: its rows are known from an earlier report, by id."""

    rows: Mapping[str, Array]


def recorded(earlier: Evidence, dataset: Dataset, metric: Metric) -> Recorded:
    """Take an earlier candidate as a yardstick; raise UsageError with the reason where it cannot be compared with.

    One that stopped early lacks items; then the two are paired on those that both have.
    """
    if (earlier.metric.kind, _protocol(earlier.metric)) != (metric.kind, _protocol(metric)):
        raise UsageError(
            f"it measured by another protocol ({_protocol(earlier.metric)}, now {_protocol(metric)}); run it again on this metric"
        )
    if not earlier.labelled or dataset.labels is None:
        raise UsageError("its values follow from its own reference's answers, since the data has no labels")
    if earlier.dataset != dataset.digest:
        raise UsageError("it was measured on other data (the digests differ); run it again on this data")
    if not set(dataset.ids) & set(earlier.ids):
        raise UsageError("it has none of these items, since its verdict needed no evaluation; run it with stop: never")
    return Recorded(dict(zip(earlier.ids, earlier.candidate, strict=True)))


def _protocol(metric: Metric) -> str:
    """Write a metric with its parameters: f1 (average: binary)."""
    given = ", ".join(f"{name}: {value}" for name, value in metric.parameters.items())
    return f"{metric.name} ({given})" if given else metric.name


def measure(
    predict: Predict,
    yardsticks: Mapping[str, Predict | Recorded],
    dataset: Dataset,
    metric: Metric,
    budget: AccuracyBudget | None,
    *,
    seed: int = 0,
    same: frozenset[str] = frozenset(),
    batch_items: int = BATCH_ITEMS,
) -> Evidence:
    """Run the candidate and its yardsticks, the first of which labels unlabelled data, until the verdict is certain.

    `same` names yardsticks whose program is known to be the candidate's: they are not run, and where nothing else is asked,
    neither is the candidate.
    """
    floor = budget is not None and budget.at_least is not None
    if yardsticks.keys() <= same and not floor:
        return _nothing_to_run(dataset, metric, same)
    check_labels(dataset, metric)
    order = np.random.default_rng(seed).permutation(len(dataset))
    asked = {name: run for name, run in yardsticks.items() if name not in same}
    curtails = metric.kind is Kind.BINARY and dataset.labels is not None and dataset.clusters is None
    early = _Early(budget, len(dataset)) if curtails and budget and budget.stop != "never" else None
    known = {
        name: _known(yardstick, dataset, metric, batch_items)
        for name, yardstick in asked.items()
        if early or isinstance(yardstick, Recorded)
    }
    gathered = _Gathered(metric, asked, known)
    if early:
        early.watch(known)
    for index in _batches(order, batch_items):
        gathered.add(dataset.batch(index), predict)
        if (
            early
            and early.decided(gathered.newest, index)
            and not (gathered.identical and early.stop is Stop.CURTAILED)
        ):
            break  # curtailment saves next to nothing on a pass: better to see whether all answers are identical
    return gathered.evidence(dataset, order, same, early)


def _nothing_to_run(dataset: Dataset, metric: Metric, same: frozenset[str]) -> Evidence:
    return Evidence(
        metric, (), np.zeros(0), {}, len(dataset), dataset.labels is not None, same=same, dataset=dataset.digest
    )


def _batches(order: Array, size: int) -> Iterator[Array]:
    for start in range(0, len(order), size):
        yield order[start : start + size]


def check_labels(dataset: Dataset, metric: Metric) -> None:
    """Refuse data on which the metric says nothing; known before any model has run."""
    if dataset.labels is None or not metric.labels_are_classes:
        return
    try:
        found = np.unique(class_labels(dataset.labels, metric.name))
    except UsageError as error:
        raise UsageError(f"dataset {dataset.where}: {error}") from None
    if len(found) < 2:
        raise UsageError(
            f"dataset {dataset.where}: every label is {found[0]}; {metric.name} needs at least two classes, "
            "or a constant answer would be perfect"
        )


@dataclass(frozen=True, eq=False)
class _Known:
    """A yardstick's rows on every item, in the order of the data, digests of its outputs, and which items it answered."""

    rows: Array
    digests: list[bytes]
    has: Array

    @property
    def right(self) -> int:
        return int(is_right(self.rows[self.has]).sum())


def _known(yardstick: Predict | Recorded, dataset: Dataset, metric: Metric, size: int) -> _Known:
    """Return a yardstick's rows on every item; runs it if it must."""
    if isinstance(yardstick, Recorded):
        nothing = np.full_like(next(iter(yardstick.rows.values())), np.nan)
        rows_by_id = np.stack([yardstick.rows.get(name, nothing) for name in dataset.ids])
        return _Known(rows_by_id, [b""] * len(dataset), np.array([name in yardstick.rows for name in dataset.ids]))
    rows: list[Array] = []
    digests: list[bytes] = []
    for index in _batches(np.arange(len(dataset)), size):
        batch = dataset.batch(index)
        outputs = _ask(yardstick, batch)
        rows.append(metric.per_item(outputs, batch.labels))
        digests += _digests(outputs, len(index))
    return _Known(_stacked(rows), digests, np.ones(len(dataset), dtype=bool))


def _ask(run: Predict, batch: Batch) -> Outputs:
    outputs = run(batch)
    for name, values in outputs.items():
        if len(values) != len(batch.ids):
            raise UsageError(
                f"output {name}: found {len(values)} rows for {len(batch.ids)} items; the first axis is the item"
            )
    return outputs


def _stacked(rows: Sequence[Array]) -> Array:
    """Concatenate batches; rows of unequal length (lists of detections) are filled up with -1."""
    widths = [r.shape[1] for r in rows if r.ndim > 1]
    if not widths:
        return np.concatenate(rows) if rows else np.zeros(0)
    width = max(widths)
    wide = [_without_values(r, width) if r.ndim == 1 else r for r in rows]
    return np.concatenate([np.pad(r, ((0, 0), (0, width - r.shape[1])), constant_values=-1.0) for r in wide])


def _without_values(rows: Array, width: int) -> Array:
    """Give a batch of which no answer was finite the width of the others: a team's own metric was never asked about it."""
    if np.isfinite(rows).any():
        raise UsageError("metric: found one number for some items and several for others, expected as many for each")
    return np.full((len(rows), width), np.nan)


def _digests(outputs: Outputs, count: int) -> list[bytes]:
    """Return a digest of each item's outputs; labels alone prove no identity, so without a number of type float none."""
    arrays = [np.ascontiguousarray(outputs[name]) for name in sorted(outputs)]
    if not any(a.dtype.kind == "f" for a in arrays):
        return [b""] * count
    return [
        hashlib.sha256(b"".join(a[i].tobytes() for a in arrays if a.dtype != object)).digest() for i in range(count)
    ]


class _Gathered:
    """Rows as they come in, batch by batch."""

    def __init__(self, metric: Metric, asked: Mapping[str, Predict | Recorded], known: Mapping[str, _Known]) -> None:
        self._metric, self._asked, self._known = metric, asked, known
        self._running = {n: run for n, run in asked.items() if n not in known and not isinstance(run, Recorded)}
        self._candidate: list[Array] = []
        self._yardsticks: dict[str, list[Array]] = {name: [] for name in asked}
        self._differs: set[str] = set()
        self._outputs: tuple[str, ...] = ()

    def add(self, batch: Batch, predict: Predict) -> None:
        """Run what is not known yet on a batch and keep its rows."""
        answers = {name: _ask(run, batch) for name, run in self._running.items()}
        labels = self._labels_of(answers) if batch.labels is None or self._metric.needs_reference else batch.labels
        outputs = _ask(predict, batch)
        digests = _digests(outputs, len(batch.ids))
        self._candidate.append(self._metric.per_item(outputs, labels))
        for name in self._asked:
            if name in self._known:
                known = self._known[name]
                rows, other = known.rows[batch.index], [known.digests[i] for i in batch.index]
            else:
                rows, other = self._metric.per_item(answers[name], labels), _digests(answers[name], len(batch.ids))
            self._yardsticks[name].append(rows)
            if b"" in digests or digests != other:
                self._differs.add(name)

    def _labels_of(self, answers: Mapping[str, Outputs]) -> Any:
        if not answers:
            raise UsageError("the data has no labels and there is no reference whose answers could stand for them")
        labels = self._metric.answer(next(iter(answers.values())))
        self._outputs = tuple(sorted(labels)) if isinstance(labels, Mapping) else ()
        return labels

    @property
    def identical(self) -> bool:
        """Did no answer differ from any yardstick's so far, in any bit?"""
        return bool(self._asked) and not self._differs

    @property
    def newest(self) -> Array:
        """The candidate's rows of the last batch."""
        return self._candidate[-1]

    def evidence(self, dataset: Dataset, order: Array, same: frozenset[str], early: "_Early | None") -> Evidence:
        """Close the books."""
        candidate = _stacked(self._candidate)
        index = order[: len(candidate)]
        used = dataset.subset(index)
        return Evidence(
            metric=self._metric,
            ids=used.ids,
            candidate=candidate,
            yardsticks={name: _stacked(rows) for name, rows in self._yardsticks.items()},
            total=len(dataset),
            labelled=dataset.labels is not None and not self._metric.needs_reference,
            stop=early.stop if early and len(candidate) < len(dataset) else Stop.ALL,
            sequential=early is not None and early.sequential,
            right={name: known.right for name, known in self._known.items()} if early else {},
            same=same | (self._asked.keys() - self._differs if len(candidate) == len(dataset) else set()),
            outputs=self._outputs,
            slices=used.slices,
            clusters=used.clusters,
            classes=tuple(map(str, used.labels))
            if used.labels is not None and self._metric.labels_are_classes
            else None,
            dataset=dataset.digest,
            has={name: known.has[index] for name, known in self._known.items() if not known.has.all()},
            shared={name: int(known.has.sum()) for name, known in self._known.items() if not known.has.all()},
        )


def is_right(rows: Array) -> Array:
    """Read rows of a binary metric; an answer that is not finite is wrong."""
    return np.asarray(np.nan_to_num(rows, nan=0.0) == 1)


class _Early:
    """Watches every question of the budget, and says when the verdict is certain."""

    def __init__(self, budget: AccuracyBudget, total: int) -> None:
        self._budget, self._total = budget, total
        self.sequential = budget.stop == "sequential"
        self.stop = Stop.CURTAILED
        self._questions: list[_Question] = []

    def watch(self, known: Mapping[str, _Known]) -> None:
        """Begin, with every yardstick's rows on the whole data set."""
        budget = self._budget
        early, final = stats.shared_confidence(budget.confidence) if self.sequential else (None, budget.confidence)
        if budget.drop is not None:
            margin = stats.exact(budget.drop.value)
            for yardstick in known.values():
                sequence = early and stats.ConfidenceSequence(float(margin), early)
                curtailment = stats.Curtailment(yardstick.right, int(yardstick.has.sum()), margin, final)
                self._questions.append(_Question(yardstick, curtailment, sequence or None))
        if budget.at_least is not None:
            sequence = early and floor_sequence(budget.at_least, early)
            floor = stats.FloorCurtailment(self._total, budget.at_least, final)
            self._questions.append(_Question(None, floor, sequence or None))

    def decided(self, candidate: Array, index: Array) -> bool:
        """Take the newest rows; is the verdict certain? One failure is enough for that, a pass takes every question.

        What is certain to stay inconclusive goes on, since its reader needs the narrowest interval.
        """
        answers = [question.update(candidate, index) for question in self._questions]
        failed = [stop for outcome, stop in answers if outcome is Outcome.FAIL]
        stops = failed or [stop for _, stop in answers]
        self.stop = Stop.SEQUENTIAL if Stop.SEQUENTIAL in stops else Stop.CURTAILED
        if failed or self._budget.asks_every_item:
            return bool(failed)
        return bool(answers) and all(outcome is Outcome.PASS for outcome, _ in answers)


def floor_sequence(floor: float, confidence: float) -> stats.ConfidenceSequence:
    """Watch a floor: each item's drop is minus its being right, so that the proportion is above the floor when that is below."""
    return stats.ConfidenceSequence(-floor, confidence, (-1, 0))


class _Question:
    """One yardstick, or the floor, and what may answer it before all items are used."""

    def __init__(
        self,
        yardstick: _Known | None,
        curtailment: stats.Curtailment | stats.FloorCurtailment,
        sequence: stats.ConfidenceSequence | None,
    ) -> None:
        self._yardstick, self._curtailment, self._sequence = yardstick, curtailment, sequence

    def update(self, candidate: Array, index: Array) -> tuple[Outcome | None, Stop]:
        """Take the newest rows, of the items at these positions; return the answer, if it is certain, and what made it so."""
        right, other = self._both(candidate, index)
        certain = self._curtailment.update(right, other)
        seen = self._sequence and self._sequence.update(other.astype(float) - right.astype(float))
        return (seen, Stop.SEQUENTIAL) if seen else (certain, Stop.CURTAILED)

    def _both(self, candidate: Array, index: Array) -> tuple[Array, Array]:
        """Return who is right, candidate and yardstick, on the items that both answered; a floor has no yardstick."""
        right = is_right(candidate)
        if self._yardstick is None:
            return right, np.zeros_like(right)
        both = self._yardstick.has[index]
        return right[both], is_right(self._yardstick.rows[index])[both]


# --- per_item.jsonl ----------------------------------------------------------------------------------------------------


def write_per_item(path: Path, evidence: Evidence) -> str:
    """Write the evidence, a line that describes it and one line per item; return the digest of the bytes."""
    head = {
        "schema": SCHEMA,
        "metric": {"name": evidence.metric.name, **evidence.metric.parameters},
        "aggregate": evidence.metric.is_aggregated,
        "dataset": evidence.dataset,
        "total": evidence.total,
        "labelled": evidence.labelled,
        "stop": evidence.stop,
        "sequential": evidence.sequential,
        "right": dict(evidence.right),
        "same": sorted(evidence.same),
        "outputs": list(evidence.outputs),
        "shared": dict(evidence.shared),
    }
    lines = [head, *(_item(evidence, i) for i in range(evidence.n))]
    text = "".join(json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n" for line in lines)
    write_text(path, text)
    return hashlib.sha256(text.encode()).hexdigest()


def _item(evidence: Evidence, i: int) -> dict[str, Any]:
    optional = {"slice": evidence.slices, "cluster": evidence.clusters, "class": evidence.classes}
    return {
        "id": evidence.ids[i],
        "candidate": _plain(evidence.candidate[i]),
        **{name: values[i] for name, values in optional.items() if values is not None},
        "yardsticks": {
            name: _plain(rows[i])
            for name, rows in evidence.yardsticks.items()
            if name not in evidence.has or evidence.has[name][i]
        },
    }


def _plain(row: Array) -> Any:
    """Make a number or list that JSON can hold; what is not finite becomes null."""
    values = [None if not np.isfinite(v) else float(v) for v in np.atleast_1d(row)]
    return values[0] if np.ndim(row) == 0 else values


def read_per_item(path: Path, aggregate: Callable[[Array, Array], Array] | None = None) -> Evidence:
    """Read what `write_per_item` wrote; the figure of a team's own aggregate is asked of `aggregate` when it is needed."""
    try:
        head, *items = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if head["schema"] != SCHEMA:
            raise UsageError(f"{path}: found schema {head['schema']!r}, expected {SCHEMA!r}")
        own = (aggregate or no_aggregate) if head["aggregate"] else None
        return _read(head, items, load(MetricChoice(**head["metric"]), aggregate=own))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not a per-item file of this version: {error!r}") from None


def _read(head: Mapping[str, Any], items: list[dict[str, Any]], metric: Metric) -> Evidence:
    def column(name: str) -> tuple[str, ...] | None:
        return tuple(item[name] for item in items) if items and name in items[0] else None

    shared = dict(head["shared"])
    names = dict.fromkeys(name for item in items for name in item["yardsticks"])
    return Evidence(
        metric=metric,
        ids=tuple(item["id"] for item in items),
        candidate=np.array([item["candidate"] for item in items], dtype=float),
        yardsticks={name: _rows_of(name, items) for name in names},
        total=head["total"],
        labelled=head["labelled"],
        stop=Stop(head["stop"]),
        sequential=head["sequential"],
        right=head["right"],
        same=frozenset(head["same"]),
        outputs=tuple(head["outputs"]),
        slices=column("slice"),
        clusters=column("cluster"),
        classes=column("class"),
        dataset=head["dataset"],
        has={name: np.array([name in item["yardsticks"] for item in items]) for name in shared},
        shared=shared,
    )


def _rows_of(name: str, items: list[dict[str, Any]]) -> Array:
    """Read a yardstick's rows; null was a number that is not finite, and what it did not answer becomes NaN."""
    rows = [item["yardsticks"].get(name) for item in items]
    like = next(row for row in rows if row is not None) if any(row is not None for row in rows) else 0.0
    nothing = np.full(np.shape(like), np.nan).tolist()
    return np.array([nothing if row is None else row for row in rows], dtype=float)
