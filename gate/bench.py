# SPDX-License-Identifier: Apache-2.0
"""On which inputs are programs compared, and what did each answer there?

The example inputs; the same values in another order (a branch that tracing dropped, or a constant that it baked, shows there);
other shapes where an input is flexible; the ends of a declared range of values; and items of the data set. Shuffling keeps
to the values that the author showed: nothing is invented that the model was never meant to see.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gate.config import AnyOfDim, Input, RangeDim
from gate.data import Dataset
from gate.engine import Engine

Array = npt.NDArray[Any]
Sample = Mapping[str, Array]

References = Callable[[Sequence[Sample]], list[dict[str, Array]]]

SHUFFLES = 2
ITEMS = 16


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
    _answers: dict[tuple[Path, str], tuple[Mapping[str, Array], ...]] = field(default_factory=dict, repr=False)

    def answers(self, engine: Engine, package: Path, precision: str = "declared") -> tuple[Mapping[str, Array], ...]:
        """Return what a package answers to the samples, computed once."""
        key = (package, precision)
        if key not in self._answers:
            self._answers[key] = tuple(engine.load(package, precision).predict(self.samples))
        return self._answers[key]


def make_samples(
    example: Sample, inputs: Sequence[Input], dataset: Dataset | None, seed: int = 0
) -> tuple[tuple[Sample, ...], str]:
    """Return the samples, and where they come from in words."""
    rng = np.random.default_rng(seed)
    groups: dict[str, list[Sample]] = {
        "the example inputs": [example],
        "{n} shuffles of them": [{name: _shuffled(a, rng) for name, a in example.items()} for _ in range(SHUFFLES)],
        "{n} other shapes": list(_other_shapes(example, inputs)),
        "{n} inputs from the declared ranges": list(_stressed(example, inputs, rng)),
        "{n} items of the data set": list(_items(example, dataset, rng)),
    }
    told = [text.format(n=len(samples)) for text, samples in groups.items() if samples]
    return tuple(s for samples in groups.values() for s in samples), ", ".join(told)


def interface_example(package: Path, seed: int = 0) -> dict[str, Array]:
    """Make seeded inputs for a finished package from its own description: noise for floats, zeros and ones for integers."""
    from gate.mil.program import load_program

    rng = np.random.default_rng(seed)
    return {feature.name: _noise(feature, rng) for feature in load_program(package).spec.description.input}


def _noise(feature: Any, rng: np.random.Generator) -> Array:
    if feature.type.WhichOneof("Type") == "imageType":
        image = feature.type.imageType
        return rng.integers(0, 256, (image.height, image.width, 3), dtype=np.uint8)
    array = feature.type.multiArrayType
    name = array.ArrayDataType.Name(array.dataType)
    if name == "INT32":
        return rng.integers(0, 2, tuple(array.shape)).astype(np.int32)
    return rng.standard_normal(tuple(array.shape)).astype(np.float16 if name == "FLOAT16" else np.float32)


def fit(item: Array, like: Array) -> Array:
    """Give an item of a data set the rank and type of a model input: a missing batch axis of 1 is added."""
    if item.ndim == like.ndim - 1 and like.shape[0] == 1:
        item = item[None]
    return np.ascontiguousarray(item, dtype=like.dtype)


def _shuffled(array: Array, rng: np.random.Generator) -> Array:
    return rng.permutation(array.reshape(-1)).reshape(array.shape)


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
    count = len(next(iter(dataset.inputs.values())))
    for index in rng.permutation(count)[:ITEMS]:
        yield {name: fit(dataset.inputs[name][index], example[name]) for name in example}
