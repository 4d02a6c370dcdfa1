# SPDX-License-Identifier: Apache-2.0
"""On which inputs are programs compared, and what did each answer there?

The example inputs; the same values in another order (a branch that tracing dropped, or a constant that it baked, shows there);
other shapes where an input is flexible; the ends of a declared range of values; and items of the data set. Shuffling keeps
to the values that the author showed: nothing is invented that the model was never meant to see.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gate.config import AnyOfDim, Input, ModelEntry, RangeDim
from gate.data import Batch, Dataset, check_inputs, check_values
from gate.difference import compare, find_ranges
from gate.engine import Engine
from gate.errors import NoAnswer, SourceFault
from gate.metrics import OwnCode, batched
from gate.trail import Trail

Array = npt.NDArray[Any]
Sample = Mapping[str, Array]
Outputs = dict[str, Array]

References = Callable[[Sequence[Sample]], list[dict[str, Array]]]

SHUFFLES = 2
ITEMS = 16
STEADY = 1e-4  # of the range; threads may change the order of sums


class Drawn(NamedTuple):
    """Samples, where they come from in words, and of which kind each is: what was made up is not what was shown."""

    samples: tuple[Sample, ...]
    origin: str
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Bench:
    """Inputs, and the reference's answers to them."""

    samples: tuple[Sample, ...]
    origin: str  # "the example inputs, 2 shuffles of them and 16 items"
    reference: tuple[Mapping[str, Array], ...] | None = None
    reference_name: str = ""
    no_reference: str = ""  # why there is none
    dataset: Dataset | None = None
    example: Sample = field(default_factory=dict)
    references: References | None = None  # asks the reference about more samples
    steps: Callable[[Sample], Trail] | None = None  # watches the source run; only a torch source can be watched
    own_metric: Callable[[], OwnCode] | None = None  # looks at the team's own metric, which the worker runs
    kinds: tuple[str, ...] = ()  # of each sample
    stored: Outputs | None = None  # the reference's answers to all items, where it cannot be asked any more
    steady: bool = True  # does the reference give the same answer to the same input twice?
    _rows: dict[int, Mapping[str, Array]] = field(default_factory=dict, repr=False)
    _answers: dict[tuple[Any, ...], tuple[Mapping[str, Array], ...]] = field(default_factory=dict, repr=False)

    def answers(self, engine: Engine, package: Path, precision: str = "declared") -> tuple[Mapping[str, Array], ...]:
        """Return what a package answers to the samples, computed once."""
        key = (engine.environment, package, precision)
        if key not in self._answers:
            self._answers[key] = tuple(engine.load(package, precision).predict(self.samples))
        return self._answers[key]

    def ranges(self, reference: Sequence[Mapping[str, Array]]) -> list[dict[str, float]]:
        """Return the range of each output for each sample, among its kind."""
        return find_ranges(reference, self.kinds or ("",) * len(reference))

    def real(self) -> list[int]:
        """Positions of the samples that an app could send: all but the shuffled ones, whose boxes and masks are scrambled."""
        return [i for i in range(len(self.samples)) if not self.kinds or self.kinds[i] != "shuffled"]

    def inputs(self, batch: Batch) -> list[Sample]:
        """The items of a batch as the model takes them."""
        count = len(batch.ids)
        return [{name: fit(batch.inputs[name][i], like) for name, like in self.example.items()} for i in range(count)]

    def reference_rows(self, batch: Batch) -> Outputs:
        """Return the reference's answers to a batch, stacked; an item is asked about once."""
        if self.stored is not None:
            return {name: rows[batch.index] for name, rows in self.stored.items()}
        if self.references is None:
            raise NoAnswer("there is no reference to ask")
        missing = [k for k, index in enumerate(batch.index) if int(index) not in self._rows]
        samples = self.inputs(batch)
        for k, answer in zip(missing, self.references([samples[k] for k in missing]), strict=True):
            self._rows[int(batch.index[k])] = answer
        return batched([self._rows[int(index)] for index in batch.index])


def check_items(example: Sample, entry: ModelEntry, dataset: Dataset) -> None:
    """Refuse a data set that lacks an input of the model, or has items that it does not take."""
    check_inputs(dataset, {name: _sizes(entry, name, array.shape) for name, array in example.items()})
    for name, array in example.items():
        check_values(dataset, name, array.dtype)


def _sizes(entry: ModelEntry, name: str, shown: tuple[int, ...]) -> tuple[int | None, ...] | None:
    """Return the sizes that an input takes; None where they are known only after the conversion."""
    declared = next((one for one in entry.inputs if one.name == name), None)
    if entry.source.kind not in ("factory", "torchscript") or (declared is not None and declared.image is not None):
        return None
    if declared is None or declared.shape is None:
        return shown
    return tuple(dim if isinstance(dim, int) else None for dim in declared.shape)


def make_samples(example: Sample, inputs: Sequence[Input], dataset: Dataset | None, seed: int = 0) -> Drawn:
    """Return the samples on which programs are compared."""
    rng = np.random.default_rng(seed)
    groups: list[tuple[str, str, list[Sample]]] = [
        ("shown", "the example inputs", [example]),
        (
            "shuffled",
            "{n} shuffles of them",
            [{name: _shuffled(a, rng) for name, a in example.items()} for _ in range(SHUFFLES)],
        ),
        ("resized", "{n} other shapes", list(_other_shapes(example, inputs))),
        ("stressed", "{n} inputs from the declared ranges", list(_stressed(example, inputs, rng))),
        ("shown", "{n} items of the data set", list(_items(example, dataset, rng))),
    ]
    return Drawn(
        samples=tuple(s for _, _, samples in groups for s in samples),
        origin=", ".join(text.format(n=len(samples)) for _, text, samples in groups if samples),
        kinds=tuple(kind for kind, _, samples in groups for _ in samples),
    )


def answered(drawn: Drawn, references: References) -> tuple[Drawn, tuple[Mapping[str, Array], ...]]:
    """Ask the reference; a shuffled input that it does not take (a matrix that became singular) is left out, and said."""
    try:
        return drawn, tuple(references(drawn.samples))
    except SourceFault:
        if "shuffled" not in drawn.kinds:
            raise
    kept: list[tuple[Sample, str, Mapping[str, Array]]] = []
    for sample, kind in zip(drawn.samples, drawn.kinds, strict=True):
        try:
            kept.append((sample, kind, references([sample])[0]))
        except SourceFault:
            if kind != "shuffled":
                raise
    left_out = len(drawn.samples) - len(kept)
    origin = f"{drawn.origin} ({left_out} shuffled ones left out: the source does not take them)"
    return Drawn(tuple(s for s, _, _ in kept), origin, tuple(k for _, k, _ in kept)), tuple(a for _, _, a in kept)


def is_steady(drawn: Drawn, answers: Sequence[Mapping[str, Array]], references: References) -> bool:
    """Ask about the first sample again: dropout or noise in a source answers differently each time."""
    again = references(drawn.samples[:1])
    return all(d.sound and d.error <= STEADY for d in compare(answers[:1], again))


def probes(example: Sample) -> tuple[Sample, ...]:
    """Return inputs that take other branches than the example: negated, smaller and larger; integers stay among those shown."""
    return tuple({name: probe(array) for name, array in example.items()} for probe in PROBES)


PROBES: tuple[Callable[[Array], Array], ...] = (
    lambda a: -a if a.dtype.kind == "f" else np.full_like(a, a.min() if a.size else 0),
    lambda a: a * a.dtype.type(0.125) if a.dtype.kind == "f" else np.full_like(a, a.max() if a.size else 0),
    lambda a: a * a.dtype.type(8) if a.dtype.kind == "f" else a.reshape(-1)[::-1].reshape(a.shape).copy(),
)


def first_items(example: Sample, dataset: Dataset) -> Drawn:
    """Return the first items of a data set, in its order."""
    batch = dataset.batch(np.arange(min(ITEMS, len(dataset))))
    samples = tuple(
        {name: fit(batch.inputs[name][i], like) for name, like in example.items()} for i in range(len(batch.ids))
    )
    return Drawn(samples, f"the first {len(samples)} items of the data set", ("shown",) * len(samples))


def fit(item: Array, like: Array) -> Array:
    """Give an item of a data set the rank and type of a model input: a missing batch axis of 1 is added."""
    if item.ndim == like.ndim - 1 and like.shape[0] == 1:
        item = item[None]
    return np.ascontiguousarray(item, dtype=like.dtype)


def _shuffled(array: Array, rng: np.random.Generator) -> Array:
    """Shuffle each row for itself: a row whose values differ gets no equal ones, between which topk may choose as it likes."""
    axes = [axis for axis, size in enumerate(array.shape) if size > 1]
    return rng.permuted(array, axis=axes[-1]) if axes else array


def _other_shapes(example: Sample, inputs: Sequence[Input]) -> Iterator[Sample]:
    flexible = [i for i in inputs if i.shape and any(not isinstance(dim, int) for dim in i.shape)]
    for end in (min, max) if flexible else ():
        shapes = {
            i.name: tuple(_size(dim, n, end) for dim, n in zip(i.shape or (), example[i.name].shape, strict=True))
            for i in flexible
        }
        yield {name: np.resize(array, shapes.get(name, array.shape)) for name, array in example.items()}


def _size(dim: Any, shown: int, end: Any) -> int:
    if isinstance(dim, AnyOfDim):
        return int(end(dim.any_of))
    if isinstance(dim, RangeDim):
        low, high = dim.range
        return int(end(low, 2 * shown if high < 0 else min(high, max(4 * shown, low))))
    return shown


def _stressed(example: Sample, inputs: Sequence[Input], rng: np.random.Generator) -> Iterator[Sample]:
    ranges = {i.name: i.values for i in inputs if i.values}
    if not ranges:
        return
    for kind in ("uniform", "low", "high"):
        yield {name: _drawn(array, ranges.get(name), kind, rng) for name, array in example.items()}


def _drawn(array: Array, limits: tuple[float, float] | None, kind: str, rng: np.random.Generator) -> Array:
    if limits is None:
        return array
    low, high = limits
    if kind == "uniform":
        return rng.uniform(low, high, array.shape).astype(array.dtype)
    return np.full(array.shape, low if kind == "low" else high, dtype=array.dtype)


def _items(example: Sample, dataset: Dataset | None, rng: np.random.Generator) -> Iterator[Sample]:
    if dataset is None:
        return
    for index in rng.permutation(len(dataset))[:ITEMS]:
        batch = dataset.batch(np.array([index]))
        yield {name: fit(batch.inputs[name][0], like) for name, like in example.items()}
