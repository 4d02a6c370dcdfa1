# SPDX-License-Identifier: Apache-2.0
"""How good is an answer, item by item, and what figure do the items make together?

A metric turns the outputs of a batch into one row of numbers per item, and the rows into the figure that people know. The rows
are chosen so that the figure follows from their weighted sums (the counts of an F1, the squared error of an RMSE): that is what
lets a bootstrap draw the items again without running the model again. Only `map` ranks all detections together.

A row that is not finite says that the answer was not. Which model gave the answer, and how good is good enough, is not known here.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import sparse

from gate import boxes as boxes_of
from gate.config import MetricChoice
from gate.document import Record, parse
from gate.errors import ConfigError, UsageError
from gate.report import Unit
from gate.stats import RESAMPLES

Array = npt.NDArray[Any]
HIGHEST_DB = 150.0  # float32 resolves 150 dB; what is nearer counts as that

Outputs = Mapping[str, Array]
"""Model outputs by name; the first axis is the item."""


class Kind(StrEnum):
    """What an item's row says."""

    BINARY = "binary"  # 1 right, 0 wrong
    MEAN = "mean"  # the figure is the mean of the rows
    COMPOSITE = "composite"  # the figure is made of sums, or of all items together


@dataclass(frozen=True)
class Metric:
    """A metric with its parameters bound."""

    name: str
    kind: Kind
    unit: Unit
    higher_is_better: bool
    per_item: Callable[[Outputs, Any], Array]  # (outputs, labels) → one row per item
    answer: Callable[[Outputs], Any]  # the outputs as if they were labels, for data without labels
    figure: Callable[[Array, Array], Array]  # (rows, weights (resamples, items)) → (resamples,)
    span: float | None = None  # greatest minus least value of the figure, where it is bounded
    resamples: int = RESAMPLES  # of a bootstrap; fewer where a figure takes long
    labels_are_classes: bool = False  # one class per item, so that a drop can be told per class
    needs_reference: bool = False  # compares with the reference's outputs whether or not there are labels
    parameters: Mapping[str, Any] = field(default_factory=dict)
    each: Callable[[Array], Array] | None = None  # rows → the figure of each item alone, where it has one
    right: Callable[[Array], Array] | None = None  # rows → 1 where the item is right, of metrics on classes

    @property
    def is_aggregated(self) -> bool:
        """Does a function of the team make the figure?"""
        return self.kind is Kind.COMPOSITE and is_own(MetricChoice(name=self.name))

    @property
    def is_proportion(self) -> bool:
        """Is the figure a share of 100 %, so that a drop is in points?"""
        return self.unit is Unit.FRACTION

    def total(self, rows: Array) -> float:
        """Return the figure of all items."""
        return float(self.figure(rows, np.ones((1, len(rows))))[0])


def mean_figure(rows: Array, weights: Array) -> Array:
    """The mean of the rows."""
    return np.asarray(weights @ rows / weights.sum(axis=1))


def _figure_of_sums(of: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    """Make a figure from a function of the summed rows."""
    return lambda rows, weights: of(weights @ rows)


def _ratio(above: Array, below: Array) -> Array:
    """Divide, and say NaN where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(below > 0, above / below, np.nan))


# --- reading outputs and labels ----------------------------------------------------------------------------------------


def pick(outputs: Outputs, name: str | None, metric: str, parameter: str = "output") -> Array:
    """Return the output that a metric reads: the named one, or the only one beside a classifier's label."""
    if name is None:
        read = {key: values for key, values in outputs.items() if not _is_label(np.asarray(values))} or outputs
        if len(read) == 1:
            return np.asarray(next(iter(read.values())))
        raise UsageError(
            f"metric {metric}: the model has outputs {', '.join(sorted(read))}; say which one with {parameter}: NAME"
        )
    if name not in outputs:
        raise UsageError(f"metric {metric}: {parameter}: found {name!r}, expected one of {', '.join(sorted(outputs))}")
    return np.asarray(outputs[name])


def batched(samples: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """Make outputs with the item as first axis of outputs item by item, as an engine returns them.

    A model's own batch axis of 1 is dropped; outputs of unequal length (lists of boxes) are filled up with -1, below any score.
    """
    return {name: _one_array([sample[name] for sample in samples]) for name in (samples[0] if samples else {})}


def _one_array(values: Sequence[Any]) -> Array:
    if isinstance(values[0], dict | str):
        return np.array(values, dtype=object if isinstance(values[0], dict) else str)
    arrays = [np.asarray(value) for value in values]
    arrays = [a[0] if a.ndim and len(a) == 1 else a for a in arrays]
    if len({a.shape for a in arrays}) == 1:
        return np.stack(arrays)
    if len({a.shape[1:] for a in arrays}) > 1:
        raise UsageError(
            f"outputs have unequal shapes: {sorted({a.shape for a in arrays})}; only the first axis may vary"
        )
    full = np.full((len(arrays), max(map(len, arrays)), *arrays[0].shape[1:]), -1, dtype=arrays[0].dtype)
    for row, array in zip(full, arrays, strict=True):
        row[: len(array)] = array
    return full


def _is_text(values: Array) -> bool:
    return bool(values.dtype.kind in "US") or (
        values.dtype == object and len(values) > 0 and isinstance(values[0], str)
    )


def _is_label(values: Array) -> bool:
    """Is this a classifier's label? It is text or int64, which no other output of a Core ML model can be."""
    return _is_text(values) or (values.ndim == 1 and values.dtype == np.int64)


def class_scores(values: Array, metric: str) -> Array:
    """Return (n, classes) scores, or (n,) labels where the model gives the label itself."""
    if len(values) and values.dtype == object and isinstance(values[0], dict):
        names = sorted(values[0], key=str)
        return np.array([[float(item[name]) for name in names] for item in values])
    if values.ndim > 1 and values.size == len(values) * max(values.shape[1:]):
        values = values.reshape(len(values), -1)
    if values.ndim > 2:
        raise UsageError(f"metric {metric}: the output has shape {values.shape}, expected (items, classes)")
    return values


def _predicted(values: Array, threshold: float | None) -> Array:
    """Return the class that each item is given: the label itself, the largest score, or one score held to the threshold."""
    if _is_text(values) or (values.ndim == 1 and values.dtype.kind in "iu"):
        return values
    single = values.reshape(len(values), -1)
    if single.shape[1] == 1:
        return np.asarray((single[:, 0] >= (0.5 if threshold is None else threshold)).astype(np.int64))
    return np.asarray(single.argmax(axis=1))


def _finite(values: Array) -> Array:
    """Say for each item whether all of its numbers are finite."""
    if values.dtype.kind != "f":
        return np.ones(len(values), dtype=bool)
    return np.asarray(np.isfinite(values.reshape(len(values), -1)).all(axis=1))


def class_labels(labels: Any, metric: str) -> Array:
    """Check what can be known of labels without an answer: one class per item, a name or a whole number from 0."""
    labels = np.asarray(labels)
    if labels.ndim > 1 and labels.size == len(labels):
        labels = labels.reshape(len(labels))
    if labels.ndim != 1:
        raise UsageError(f"metric {metric}: label has shape {labels.shape}, expected one class per item")
    if _is_text(labels):
        return np.asarray(labels.astype(str))
    if labels.dtype.kind == "f" and (labels != np.round(labels)).any():
        raise UsageError(
            f"metric {metric}: found label {labels[labels != np.round(labels)][0]}, expected whole classes"
        )
    _check_range(labels, None, metric)
    return np.asarray(labels)


def _class_labels(labels: Any, values: Array, metric: str) -> Array:
    """Check that labels are whole numbers (or names, where the model names its classes) that the output can express."""
    labels = class_labels(labels, metric)
    if _is_text(labels):
        if not _is_text(values):
            raise UsageError(f"metric {metric}: labels are names, the output is numbers; write labels as class numbers")
        return np.asarray(labels)
    count = values.shape[1] if values.ndim == 2 else 1
    _check_range(labels, max(count, 2) if values.dtype.kind == "f" else None, metric)
    return np.asarray(labels.astype(str if _is_text(values) else np.int64))


def _check_range(labels: Array, count: int | None, metric: str) -> None:
    if len(labels) and labels.min() < 0:
        raise UsageError(f"metric {metric}: found label {labels.min():g}, expected classes from 0")
    if count is not None and len(labels) and labels.max() >= count:
        raise UsageError(
            f"metric {metric}: found label {labels.max():g}, but the output has {count} classes (0 to {count - 1})"
        )


def _paired(values: Array, labels: Any, metric: str) -> tuple[Array, Array]:
    """Return output and target, flattened per item, of equal shape."""
    target = np.asarray(labels)
    if values.size != target.size or len(values) != len(target):
        raise UsageError(
            f"metric {metric}: the output has shape {values.shape}, the label {target.shape}; expected equal"
        )
    flat = (len(values), -1)
    return values.reshape(flat).astype(np.float64), target.reshape(flat).astype(np.float64)


# --- parameters --------------------------------------------------------------------------------------------------------


class Parameters(Record):
    """What every metric takes."""

    output: str | None = Field(
        default=None, description="the output that is read; the only one by default, a classifier's label left aside"
    )


class Classes(Parameters):
    """Of metrics on one class per item."""

    class_names: tuple[str, ...] = Field(
        default=(),
        description="names of the classes, where labels are names and the output is not; the model's by default",
    )


class Threshold(Classes):
    """Of metrics that need a decision."""

    threshold: float | None = Field(
        default=None, description="for a model with one score: at least this is class 1; 0.5 by default"
    )


# --- classes -----------------------------------------------------------------------------------------------------------


def _read_classes(outputs: Outputs, labels: Any, given: Classes, metric: str) -> tuple[Array, Array]:
    """Return the output and the labels in one form: class numbers, or names where the model answers with names."""
    values = class_scores(pick(outputs, given.output, metric), metric)
    return values, _class_labels(_named(np.asarray(labels), values, given.class_names, metric), values, metric)


def _named(labels: Array, values: Array, names: Sequence[str], metric: str) -> Array:
    """Translate labels where one side has names and the other numbers."""
    if not names or _is_text(labels) == _is_text(values):
        return labels
    if _is_text(values):
        _check_range(labels, len(names), metric)
        return np.asarray(np.array(names)[labels.astype(int)])
    return _numbered(labels, names, metric)


def accuracy(given: Threshold) -> Metric:
    """Share of items whose class is right."""

    def answer(outputs: Outputs) -> Array:
        return _predicted(class_scores(pick(outputs, given.output, "accuracy"), "accuracy"), given.threshold)

    def per_item(outputs: Outputs, labels: Any) -> Array:
        values, true = _read_classes(outputs, labels, given, "accuracy")
        right = _predicted(values, given.threshold) == true
        return np.where(_finite(values), right.astype(float), np.nan)

    return Metric(
        "accuracy", Kind.BINARY, Unit.FRACTION, True, per_item, answer, mean_figure, 1.0, labels_are_classes=True
    )


class TopK(Classes):
    """Of `top_k`."""

    k: int = Field(default=5, ge=1, description="how many of the best classes may hold the right one")


def top_k(given: TopK) -> Metric:
    """Share of items whose class is among the k best; of equal scores the lower class counts as better."""

    def answer(outputs: Outputs) -> Array:
        return np.asarray(class_scores(pick(outputs, given.output, "top_k"), "top_k").argmax(axis=1))

    def per_item(outputs: Outputs, labels: Any) -> Array:
        values, true = _read_classes(outputs, labels, given, "top_k")
        if values.ndim != 2 or values.shape[1] <= given.k:
            raise UsageError(
                f"metric top_k: the output has shape {values.shape}, expected more than k = {given.k} classes"
            )
        own = values[np.arange(len(values)), true][:, None]
        ahead = (values > own).sum(axis=1) + ((values == own) & (np.arange(values.shape[1]) < true[:, None])).sum(
            axis=1
        )
        return np.where(_finite(values), (ahead < given.k).astype(float), np.nan)

    return Metric(
        "top_k", Kind.BINARY, Unit.FRACTION, True, per_item, answer, mean_figure, 1.0, labels_are_classes=True
    )


class F1(Threshold):
    """Of `f1`."""

    average: Literal["macro", "binary"] = Field(
        default="macro", description="the mean over the classes that occur, or the one class `positive`"
    )
    positive: int = Field(default=1, ge=0, description="the class of `average: binary`")


def f1(given: F1) -> Metric:
    """F1 of classes: twice the hits by twice the hits and the misses of both kinds."""

    def answer(outputs: Outputs) -> Array:
        return _predicted(class_scores(pick(outputs, given.output, "f1"), "f1"), given.threshold)

    def per_item(outputs: Outputs, labels: Any) -> Array:
        values, true = _read_classes(outputs, labels, given, "f1")
        if _is_text(values):
            values, true = (_numbered(side, given.class_names, "f1") for side in (values, true))
        rows = np.stack([_predicted(values, given.threshold), true], axis=1).astype(float)
        return np.where(_finite(values)[:, None], rows, np.nan)

    def figure(rows: Array, weights: Array) -> Array:
        said, true = rows.T.astype(int)
        count = max(int(rows.max()) + 1, given.positive + 1)
        hit = said == true
        hits = weights[:, hit] @ _one_hot(said[hit], count)
        each = _ratio(2 * hits, weights @ _one_hot(said, count) + weights @ _one_hot(true, count))
        return each[:, given.positive] if given.average == "binary" else _mean_known(each)

    return Metric(
        "f1",
        Kind.COMPOSITE,
        Unit.FRACTION,
        True,
        per_item,
        answer,
        figure,
        1.0,
        labels_are_classes=True,
        right=lambda rows: (rows[:, 0] == rows[:, 1]).astype(float),
    )


def _numbered(labels: Array, names: Sequence[str], metric: str) -> Array:
    """Return the number of each named class."""
    if not names:
        raise UsageError(
            f"metric {metric}: the output is names; list them: outputs: [{{name: …, classes: labels.txt}}]"
        )
    unknown = sorted(set(labels.tolist()) - set(names))
    if unknown:
        raise UsageError(f"metric {metric}: found {unknown[0]!r}, which is not among the {len(names)} class names")
    return np.array([names.index(label) for label in labels])


def _one_hot(classes: Array, count: int) -> Any:
    """Return one row per item with a 1 at its class; sparse, since there may be thousands of classes."""
    return sparse.csr_array((np.ones(len(classes)), (np.arange(len(classes)), classes)), shape=(len(classes), count))


def _mean_known(values: Array) -> Array:
    """Average over the classes that occur."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1))


# --- masks -------------------------------------------------------------------------------------------------------------


class Regions(Parameters):
    """Of `miou`."""

    classes: int | None = Field(
        default=None, ge=2, description="number of classes, where the output is classes, not scores"
    )
    ignore: int | None = Field(default=None, description="label of pixels that do not count, such as 255")
    threshold: float = Field(default=0.5, description="for an output with one score per pixel")


def miou(given: Regions) -> Metric:
    """Mean over the classes that occur of intersection by union, in pixels, over all items."""

    def answer(outputs: Outputs) -> Array:
        return _mask(pick(outputs, given.output, "miou"), given)[0]

    def per_item(outputs: Outputs, labels: Any) -> Array:
        values = pick(outputs, given.output, "miou")
        said, count = _mask(values, given)
        true = np.asarray(labels)
        true = true.reshape(said.shape) if true.size == said.size and len(true) == len(said) else true
        if true.shape != said.shape:
            raise UsageError(f"metric miou: the mask has shape {said.shape}, the label {true.shape}; expected equal")
        counted = np.ones(true.shape, dtype=bool) if given.ignore is None else true != given.ignore
        _check_range(true[counted], count, "miou")
        rows = np.stack([_regions(s[c], t[c], count) for s, t, c in zip(said, true, counted, strict=True)])
        return np.where(_finite(values)[:, None], rows, np.nan)

    def figure(sums: Array) -> Array:
        return _mean_known(_ratio(*np.split(sums, 2, axis=1)))

    return Metric(
        "miou", Kind.COMPOSITE, Unit.FRACTION, True, per_item, answer, _figure_of_sums(figure), 1.0, each=figure
    )


def _mask(values: Array, given: Regions) -> tuple[Array, int]:
    """Return the class of each pixel (n, height, width) and how many classes there are."""
    if values.dtype.kind != "f":
        if given.classes is None:
            raise UsageError("metric miou: the output is classes; say how many there are with classes: N")
        return values, given.classes
    if values.ndim == 4 and values.shape[1] > 1:
        return np.asarray(values.argmax(axis=1)), values.shape[1]
    if values.ndim not in (3, 4):
        raise UsageError(f"metric miou: the output has shape {values.shape}, expected (items, classes, height, width)")
    return np.asarray((values.reshape(len(values), *values.shape[-2:]) >= given.threshold).astype(np.int64)), 2


def _regions(said: Array, true: Array, count: int) -> Array:
    """Count pixels of intersection and of union, per class."""
    both, mine, theirs = (
        np.bincount(classes.astype(int), minlength=count)[:count].astype(float)
        for classes in (said[said == true], said, true)
    )
    return np.concatenate([both, mine + theirs - both])


# --- outputs against outputs -------------------------------------------------------------------------------------------


def agreement(given: Parameters) -> Metric:
    """Relative L2 distance of the output that is furthest from the reference's; the figure for data without labels."""

    def answer(outputs: Outputs) -> Outputs:
        return outputs if given.output is None else {given.output: pick(outputs, given.output, "agreement")}

    def per_item(outputs: Outputs, labels: Outputs) -> Array:
        return np.concatenate([_squares(outputs, name, labels[name]) for name in sorted(labels)], axis=1)

    def figure(rows: Array, weights: Array) -> Array:
        return np.asarray(distances(rows, weights).max(axis=1))

    return Metric("agreement", Kind.COMPOSITE, Unit.FRACTION, False, per_item, answer, figure, needs_reference=True)


def _squares(outputs: Outputs, name: str, reference: Array) -> Array:
    """Return each item's squared distance and squared length; of text, the number of differences and of items."""
    values = pick(outputs, name, "agreement")
    if _is_text(values):
        return np.stack([(values != reference).astype(float), np.ones(len(values))], axis=1)
    seen, expected = _paired(values, reference, f"agreement of {name}")
    return np.stack([((seen - expected) ** 2).sum(axis=1), (expected**2).sum(axis=1)], axis=1)


def distances(rows: Array, weights: Array) -> Array:
    """Return the relative L2 distance of each output, in the order of their names: (resamples, outputs)."""
    sums = weights @ rows
    error, length = sums[:, 0::2], sums[:, 1::2]
    return np.asarray(np.sqrt(np.where(error == 0, 0.0, error / np.maximum(length, 1e-12))))


class Peak(Parameters):
    """Of `psnr`."""

    peak: float = Field(default=1.0, gt=0, description="the largest value a signal can have, such as 255")


class Distribution(Parameters):
    """Of `kl`."""

    logits: bool = Field(default=False, description="output and label are logits, to be put through softmax")


def rmse(given: Parameters) -> Metric:
    """Root of the mean squared error over all numbers of all items."""

    def rows(seen: Array, true: Array) -> Array:
        return np.stack([((seen - true) ** 2).sum(axis=1), np.full(len(seen), float(seen.shape[1]))], axis=1)

    def each(sums: Array) -> Array:
        return np.asarray(np.sqrt(_ratio(sums[:, 0], sums[:, 1])))

    made = _on_pairs(
        "rmse", given, rows, Kind.COMPOSITE, Unit.NUMBER, higher_is_better=False, figure=_figure_of_sums(each)
    )
    return replace(made, each=each)


def mae(given: Parameters) -> Metric:
    """Mean absolute error."""
    return _on_pairs(
        "mae", given, lambda s, t: np.abs(s - t).mean(axis=1), Kind.MEAN, Unit.NUMBER, higher_is_better=False
    )


def psnr(given: Peak) -> Metric:
    """Peak signal-to-noise ratio of each item, in dB, averaged."""

    def rows(seen: Array, true: Array) -> Array:
        return _decibels(np.full(len(seen), given.peak**2), ((seen - true) ** 2).mean(axis=1))

    return _on_pairs("psnr", given, rows, Kind.MEAN, Unit.DECIBEL, higher_is_better=True)


def snr(given: Parameters) -> Metric:
    """Signal-to-noise ratio of each item, in dB, averaged."""

    def rows(seen: Array, true: Array) -> Array:
        return _decibels((true**2).mean(axis=1), ((seen - true) ** 2).mean(axis=1))

    return _on_pairs("snr", given, rows, Kind.MEAN, Unit.DECIBEL, higher_is_better=True)


def _decibels(signal: Array, noise: Array) -> Array:
    """Return 10·log10 of the ratio, between ±HIGHEST_DB: an exact answer would have no finite ratio."""
    floor = np.finfo(np.float64).tiny
    ratio = 10 * np.log10(np.maximum(signal, floor)) - 10 * np.log10(np.maximum(noise, floor))
    return np.asarray(np.where(np.isfinite(noise), np.clip(ratio, -HIGHEST_DB, HIGHEST_DB), np.nan))


def cosine(given: Parameters) -> Metric:
    """Cosine of the angle between output and label of each item, averaged; of two zero vectors 1, of one 0."""

    def rows(seen: Array, true: Array) -> Array:
        lengths = np.linalg.norm(seen, axis=1), np.linalg.norm(true, axis=1)
        both = lengths[0] * lengths[1]
        value = (seen * true).sum(axis=1) / np.where(both == 0, 1.0, both)
        return np.asarray(np.where(both == 0, (lengths[0] == lengths[1]).astype(float), value))

    return _on_pairs("cosine", given, rows, Kind.MEAN, Unit.NUMBER, higher_is_better=True, span=2.0)


def kl(given: Distribution) -> Metric:
    """Kullback-Leibler divergence of the output from the label's distribution, in nats, averaged."""

    def rows(seen: Array, true: Array) -> Array:
        q, p = (_log_shares(values, given.logits) for values in (seen, true))
        return np.asarray(np.where(p > -np.inf, np.exp(p) * (p - q), 0.0).sum(axis=1))

    return _on_pairs("kl", given, rows, Kind.MEAN, Unit.NUMBER, higher_is_better=False)


def _log_shares(values: Array, logits: bool) -> Array:
    """Return log probabilities that add up to 1; a share below 1e-12 counts as that, or the divergence would be infinite."""
    if logits:
        values = values - values.max(axis=1, keepdims=True)
        return np.asarray(values - np.log(np.exp(values).sum(axis=1, keepdims=True)))
    shares = np.maximum(values, 1e-12)
    return np.asarray(np.log(shares / shares.sum(axis=1, keepdims=True)))


def _on_pairs(
    name: str,
    given: Parameters,
    rows: Callable[[Array, Array], Array],
    kind: Kind,
    unit: Unit,
    *,
    higher_is_better: bool,
    figure: Callable[[Array, Array], Array] = mean_figure,
    span: float | None = None,
) -> Metric:
    """Make a metric that compares an output with a label of equal shape, number by number."""

    def per_item(outputs: Outputs, labels: Any) -> Array:
        with np.errstate(invalid="ignore", over="ignore"):
            return rows(*_paired(pick(outputs, given.output, name), labels, name))

    def answer(outputs: Outputs) -> Array:
        return pick(outputs, given.output, name)

    return Metric(name, kind, unit, higher_is_better, per_item, answer, figure, span)


# --- text --------------------------------------------------------------------------------------------------------------


class Words(Parameters):
    """Of `wer`."""

    per: Literal["word", "character"] = Field(default="word", description="what an error is counted in")
    blank: int | None = Field(default=None, description="CTC: the class between symbols; repeated classes are one")
    vocabulary: tuple[str, ...] = Field(default=(), description="text of each class, where the output is classes")


def wer(given: Words) -> Metric:
    """Word error rate: insertions, deletions and substitutions per true word, over all items."""

    def answer(outputs: Outputs) -> Array:
        return np.array([_joined(tokens, given) for tokens in _transcripts(outputs, given)])

    def per_item(outputs: Outputs, labels: Any) -> Array:
        said = _transcripts(outputs, given)
        true = [_tokens(label, given) for label in labels]
        rows = np.array([[_edits(s, t), len(t)] for s, t in zip(said, true, strict=True)], dtype=float)
        return np.where(_finite(pick(outputs, given.output, "wer"))[:, None], rows, np.nan)

    def figure(sums: Array) -> Array:
        return _ratio(sums[:, 0], sums[:, 1])

    return Metric(
        "wer", Kind.COMPOSITE, Unit.FRACTION, False, per_item, answer, _figure_of_sums(figure), 1.0, each=figure
    )


def _transcripts(outputs: Outputs, given: Words) -> list[list[str]]:
    """Read text, classes (n, time) or scores (n, time, classes) as words or characters."""
    values = pick(outputs, given.output, "wer")
    if values.dtype.kind == "f":
        if values.ndim != 3:
            raise UsageError(
                f"metric wer: the output has shape {values.shape}, expected (items, time, classes) or text"
            )
        values = values.argmax(axis=2)
    return [_tokens(_without_blanks(row, given.blank), given) for row in values]


def _without_blanks(classes: Any, blank: int | None) -> Any:
    """Decode CTC greedily: repeated classes are one, and blanks separate."""
    if blank is None or isinstance(classes, str):
        return classes
    changed = np.append(True, classes[1:] != classes[:-1])
    return classes[changed & (classes != blank)]


def _tokens(item: Any, given: Words) -> list[str]:
    if isinstance(item, str):
        return item.split() if given.per == "word" else list(item)
    classes = [int(value) for value in np.asarray(item).ravel() if value >= 0]  # negative classes fill labels up
    if not given.vocabulary:
        return [str(value) for value in classes]
    if classes and max(classes) >= len(given.vocabulary):
        raise UsageError(f"metric wer: found class {max(classes)}, but vocabulary has {len(given.vocabulary)} entries")
    return _tokens("".join(given.vocabulary[value] for value in classes), given)


def _joined(tokens: list[str], given: Words) -> str:
    """Write tokens as a label that `_tokens` reads back."""
    return ("" if given.per == "character" else " ").join(tokens)


def _edits(said: list[str], true: list[str]) -> int:
    """Return the Levenshtein distance, one row of the table at a time."""
    row = list(range(len(true) + 1))
    for i, word in enumerate(said, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(true, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


# --- boxes -------------------------------------------------------------------------------------------------------------


class Boxes(Record):
    """Of `map`."""

    boxes: str = Field(description="output with boxes (items, boxes, 4)")
    scores: str = Field(description="output with scores, (items, boxes) or (items, boxes, classes)")
    classes: str | None = Field(
        default=None, description="output with the class of each box, if scores are one per box"
    )
    layout: Literal["xyxy", "xywh", "cxcywh"] = Field(default="xyxy", description="of boxes, here and in labels")
    iou: float | Literal["coco"] = Field(
        default=0.5, description="overlap that is a hit; coco is the mean of 0.5 to 0.95"
    )
    score_threshold: float = Field(default=0.0, description="boxes below this score are not counted")
    most: int = Field(default=100, ge=1, description="boxes per image and class that are counted")


COCO_IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())


def mean_average_precision(given: Boxes) -> Metric:
    """Mean average precision of boxes by COCO's rules; a label is a list of (class, box), filled up with class -1."""
    ious = COCO_IOUS if given.iou == "coco" else (float(given.iou),)

    def answer(outputs: Outputs) -> Array:
        boxes, scores, names = _detections(outputs, given)
        kept = np.where(scores >= given.score_threshold, names, boxes_of.NOTHING)
        return np.concatenate([kept[..., None], boxes], axis=2)

    def per_item(outputs: Outputs, labels: Any) -> Array:
        boxes, scores, names = _detections(outputs, given)
        true = _true_boxes(labels, len(boxes))
        rows = [_image_row(*item, given, ious) for item in zip(boxes, scores, names, true, strict=True)]
        padded = np.full((len(rows), max(map(len, rows), default=0)), boxes_of.NOTHING)
        for target, row in zip(padded, rows, strict=True):
            target[: len(row)] = row
        padded[~(_finite(boxes) & _finite(scores))] = np.nan
        return padded

    def figure(rows: Array, weights: Array) -> Array:
        return boxes_of.mean_average_precision(rows, weights, len(ious))

    return Metric("map", Kind.COMPOSITE, Unit.FRACTION, True, per_item, answer, figure, 1.0, resamples=1_000)


def _detections(outputs: Outputs, given: Boxes) -> tuple[Array, Array, Array]:
    """Return boxes (n, k, 4), scores (n, k) and classes (n, k); with a score per class, each class is its own detection."""
    boxes = pick(outputs, given.boxes, "map", "boxes").astype(float)
    scores = pick(outputs, given.scores, "map", "scores").astype(float)
    if boxes.ndim != 3 or boxes.shape[2] != 4 or scores.shape[:2] != boxes.shape[:2]:
        raise UsageError(
            f"metric map: boxes have shape {boxes.shape}, scores {scores.shape}; expected (n, k, 4) and (n, k)"
        )
    if given.classes is not None:
        names = pick(outputs, given.classes, "map", "classes").astype(float)
        return boxes, scores.reshape(names.shape), names
    scores = scores.reshape(*boxes.shape[:2], -1)
    count = scores.shape[2]
    names = np.broadcast_to(np.arange(float(count)), scores.shape)
    flat = (len(boxes), -1)
    return np.repeat(boxes, count, axis=1), scores.reshape(flat), names.reshape(flat)


def _true_boxes(labels: Any, count: int) -> Array:
    true = np.asarray(labels, dtype=float)
    if true.ndim != 3 or true.shape[2] != 5 or len(true) != count:
        raise UsageError(f"metric map: label has shape {true.shape}, expected (items, boxes, 5): class and box")
    return true


def _image_row(boxes: Array, scores: Array, names: Array, true: Array, given: Boxes, ious: tuple[float, ...]) -> Array:
    kept, real = (scores >= given.score_threshold) & (names >= 0), true[:, 0] >= 0
    found = boxes_of.to_corners(boxes[kept], given.layout)
    wanted = boxes_of.to_corners(true[real, 1:], given.layout)
    return boxes_of.match_image(found, scores[kept], names[kept], wanted, true[real, 0], ious, given.most)


# --- the team's own ------------------------------------------------------------------------------------------------------


class Own(Record):
    """Of a metric in path.py; further keys are the team's own, and go to its function."""

    model_config = Record.model_config | {"extra": "allow"}

    higher_is_better: bool = Field(default=True, description="direction")
    unit: Literal["proportion", "number"] = Field(default="number", description="a proportion is shown in per cent")
    binary: bool = Field(default=False, description="each item is right (1) or wrong (0)")


PerItem = Callable[[Outputs, Any], Array]
Aggregate = Callable[[Array, Array], Array]
"""Makes the figure from rows under weights, which say how often each item counts: (resamples, items) → (resamples,)."""


@dataclass(frozen=True)
class OwnCode:
    """What the worker runs for us of a team's metric file."""

    per_item: PerItem
    aggregate: Aggregate | None = None


def own_rows(choice: MetricChoice, values: Sequence[float | tuple[float, ...]]) -> Array:
    """Make rows of what the team's function said of each item."""
    lengths = {len(value) if isinstance(value, tuple) else 0 for value in values}
    if len(lengths) > 1:
        raise UsageError(f"metric {choice.name}: found items of {sorted(lengths)} numbers, expected as many for each")
    return np.array(values, dtype=float)


def own(name: str, given: Own, code: OwnCode) -> Metric:
    """Make a metric of the per-item numbers that the worker gets from the team's code; their mean, or its aggregate, is the figure."""
    if given.binary and code.aggregate is not None:
        raise ConfigError(
            f"metric {name}: binary: true says that the figure is a share, but its file has aggregate(items)"
        )
    proportion = given.binary or given.unit == "proportion"
    kind = Kind.BINARY if given.binary else Kind.COMPOSITE if code.aggregate else Kind.MEAN
    return Metric(
        name,
        kind,
        Unit.FRACTION if proportion else Unit.NUMBER,
        given.higher_is_better,
        lambda outputs, labels: _checked_rows(name, given, code, outputs, labels),
        lambda outputs: _no_labels(name),
        code.aggregate or mean_figure,
        1.0 if proportion else None,
        resamples=RESAMPLES if code.aggregate is None else OWN_RESAMPLES,
    )


OWN_RESAMPLES = 1_000  # of an aggregate, which their code computes one draw at a time


def _checked_rows(name: str, given: Own, code: OwnCode, outputs: Outputs, labels: Any) -> Array:
    """Ask the team's code about the answers that are finite; the others have no value, whatever it would say."""
    finite = np.logical_and.reduce([_finite(np.asarray(values)) for values in outputs.values()])
    asked = {key: np.asarray(values)[finite] for key, values in outputs.items()}
    chosen = labels if finite.all() else np.asarray(labels)[finite]
    rows = np.asarray(code.per_item(asked, chosen), dtype=float) if finite.any() else np.zeros(0)
    count = int(finite.sum())
    if len(rows) != count or rows.ndim > (2 if code.aggregate else 1):
        raise UsageError(f"metric {name}: found shape {rows.shape}, expected one number for each of {count} items")
    if given.binary and not np.isin(rows, (0, 1)).all():
        raise UsageError(f"metric {name}: found {rows[~np.isin(rows, (0, 1))][0]:g}, but binary: true says 0 or 1")
    full = np.full((len(finite), *rows.shape[1:]), np.nan)
    full[finite] = rows
    return full


def _no_labels(name: str) -> Any:
    raise UsageError(f"metric {name}: a metric of your own needs labels")


def _never(outputs: Outputs, labels: Any) -> Array:
    raise UsageError("a metric of your own runs in the worker; here only its recorded values can be judged")


def no_aggregate(rows: Array, weights: Array) -> Array:
    """Stand for an aggregate that is not at hand."""
    raise UsageError("the figure is made by the team's own aggregate(items); bring it to derive the verdict again")


NO_CODE = OwnCode(_never)


METRICS: dict[str, tuple[type[Record], Callable[[Any], Metric]]] = {
    "accuracy": (Threshold, accuracy),
    "top_k": (TopK, top_k),
    "f1": (F1, f1),
    "miou": (Regions, miou),
    "map": (Boxes, mean_average_precision),
    "wer": (Words, wer),
    "rmse": (Parameters, rmse),
    "mae": (Parameters, mae),
    "psnr": (Peak, psnr),
    "snr": (Parameters, snr),
    "cosine": (Parameters, cosine),
    "kl": (Distribution, kl),
    "agreement": (Parameters, agreement),
}


def is_own(choice: MetricChoice) -> bool:
    """Is this the team's own code?"""
    return choice.name.endswith(".py") or ".py:" in choice.name


def own_parameters(choice: MetricChoice) -> dict[str, Any]:
    """Return the keys that are for the team's function, not for us."""
    return {name: value for name, value in choice.parameters.items() if name not in Own.model_fields}


def check_direction(choice: MetricChoice, said: bool | None) -> None:
    """Refuse a metric file that says another direction than gate.yml: one of them would call a loss a gain."""
    asked = bool(choice.parameters.get("higher_is_better", True))
    if said is not None and said is not asked:
        raise ConfigError(
            f"metric {choice.name}: its file says higher_is_better = {said}, gate.yml means {asked}; "
            f"write higher_is_better: {str(said).lower()} beside its name"
        )


def load(
    choice: MetricChoice | None,
    class_names: Sequence[str] = (),
    per_item: PerItem = _never,
    aggregate: Aggregate | None = None,
) -> Metric:
    """Return the metric that gate.yml names, its parameters checked; agreement where it names none.

    class_names are those of the model's output; `per_item` and `aggregate` get a team's own metric's values from the worker.
    """
    choice = choice or MetricChoice(name="agreement")
    if is_own(choice):
        given = parse(Own, choice.parameters, f"metric {choice.name}", ConfigError)
        return _with_parameters(own(choice.name, given, OwnCode(per_item, aggregate)), given)
    if choice.name not in METRICS:
        close = difflib.get_close_matches(choice.name, METRICS, n=1, cutoff=0.5)
        hint = f'did you mean "{close[0]}"?' if close else f"known: {', '.join(METRICS)}, or path.py"
        raise ConfigError(f"metric: unknown name {choice.name!r} ({hint})")
    schema, make = METRICS[choice.name]
    parameters = dict(choice.parameters)
    if class_names and "class_names" in schema.model_fields:
        parameters.setdefault("class_names", tuple(class_names))
    parsed = parse(schema, parameters, f"metric {choice.name}", ConfigError)
    return _with_parameters(make(parsed), parsed)


def _with_parameters(metric: Metric, given: Record) -> Metric:
    """Keep what was asked for, as JSON would, so that an earlier report's protocol can be compared."""
    each = metric.each if metric.kind is Kind.COMPOSITE else np.asarray
    return replace(metric, parameters=given.model_dump(mode="json", exclude_unset=True), each=each)
