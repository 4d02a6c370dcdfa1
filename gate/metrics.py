# SPDX-License-Identifier: Apache-2.0
"""How good is an answer, item by item, and what figure do the items make together?

A metric turns the outputs of a batch into one row of numbers per item, and the rows into the figure that people know. The rows
are chosen so that the figure follows from their weighted sums (the counts of an F1, the squared error of an RMSE): that is what
lets a bootstrap draw the items again without running the model again. Only `map` ranks all detections together.

A row that is not finite says that the answer was not. Which model gave the answer, and how good is good enough, is not known here.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from gate.config import MetricChoice
from gate.document import Record, parse
from gate.errors import ConfigError, UsageError
from gate.report import Unit

Array = npt.NDArray[Any]
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
    labels_are_classes: bool = False  # one class per item, so that a drop can be told per class
    parameters: Mapping[str, Any] = field(default_factory=dict)

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
    """Return the output that a metric reads: the named one, or the only one."""
    if name is None and len(outputs) == 1:
        return np.asarray(next(iter(outputs.values())))
    if name is None:
        raise UsageError(
            f"metric {metric}: the model has outputs {', '.join(sorted(outputs))}; say which one with {parameter}: NAME"
        )
    if name not in outputs:
        raise UsageError(f"metric {metric}: {parameter}: found {name!r}, expected one of {', '.join(sorted(outputs))}")
    return np.asarray(outputs[name])


def _is_text(values: Array) -> bool:
    return bool(values.dtype.kind in "US") or (
        values.dtype == object and len(values) > 0 and isinstance(values[0], str)
    )


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


def _class_labels(labels: Any, values: Array, metric: str) -> Array:
    """Check that labels are whole numbers (or names, where the model names its classes) that the output can express."""
    labels = np.asarray(labels)
    if labels.ndim > 1 and labels.size == len(labels):
        labels = labels.reshape(len(labels))
    if labels.ndim != 1:
        raise UsageError(f"metric {metric}: label has shape {labels.shape}, expected one class per item")
    if _is_text(labels):
        if not _is_text(values):
            raise UsageError(f"metric {metric}: labels are names, the output is numbers; write labels as class numbers")
        return np.asarray(labels.astype(str))
    if labels.dtype.kind == "f" and (labels != np.round(labels)).any():
        raise UsageError(
            f"metric {metric}: found label {labels[labels != np.round(labels)][0]}, expected whole classes"
        )
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

    output: str | None = Field(default=None, description="the output that is read; the only one by default")


class Threshold(Parameters):
    """Of metrics on classes."""

    threshold: float | None = Field(
        default=None, description="for a model with one score: at least this is class 1; 0.5 by default"
    )


# --- classes -----------------------------------------------------------------------------------------------------------


def accuracy(given: Threshold) -> Metric:
    """Share of items whose class is right."""

    def answer(outputs: Outputs) -> Array:
        return _predicted(class_scores(pick(outputs, given.output, "accuracy"), "accuracy"), given.threshold)

    def per_item(outputs: Outputs, labels: Any) -> Array:
        values = class_scores(pick(outputs, given.output, "accuracy"), "accuracy")
        right = _predicted(values, given.threshold) == _class_labels(labels, values, "accuracy")
        return np.where(_finite(values), right.astype(float), np.nan)

    return Metric("accuracy", Kind.BINARY, Unit.FRACTION, True, per_item, answer, mean_figure, 1.0, True)


# --- outputs against outputs -------------------------------------------------------------------------------------------


def agreement(given: Parameters) -> Metric:
    """Relative L2 distance of the output that is furthest from the reference's; the figure for data without labels."""

    def answer(outputs: Outputs) -> Outputs:
        return outputs if given.output is None else {given.output: pick(outputs, given.output, "agreement")}

    def per_item(outputs: Outputs, labels: Outputs) -> Array:
        return np.concatenate([_squares(outputs, name, labels[name]) for name in sorted(labels)], axis=1)

    return Metric(
        "agreement", Kind.COMPOSITE, Unit.FRACTION, False, per_item, answer, lambda r, w: distances(r, w).max(axis=1)
    )


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


METRICS: dict[str, tuple[type[Parameters], Callable[[Any], Metric]]] = {
    "accuracy": (Threshold, accuracy),
    "agreement": (Parameters, agreement),
}


def load(choice: MetricChoice | None) -> Metric:
    """Return the metric that gate.yml names, its parameters checked; agreement where it names none."""
    choice = choice or MetricChoice(name="agreement")
    if choice.name not in METRICS:
        close = difflib.get_close_matches(choice.name, METRICS, n=1, cutoff=0.5)
        hint = f'did you mean "{close[0]}"?' if close else f"known: {', '.join(METRICS)}, or path.py"
        raise ConfigError(f"metric: unknown name {choice.name!r} ({hint})")
    schema, make = METRICS[choice.name]
    given = parse(schema, choice.parameters, f"metric {choice.name}", ConfigError)
    return replace(make(given), parameters=given.model_dump(exclude_unset=True))
