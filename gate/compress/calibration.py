# SPDX-License-Identifier: Apache-2.0
"""Which range of values does each activation have, over all calibration items?

The evaluator runs every item, on any operating system, and an observer sees each op's result. (coremltools 9.0 needs macOS for
it, and its `_update_tensor_range` overwrites the running minimum and maximum with each sample before it compares: what remains
is the range of the last sample.)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from gate import mil
from gate.errors import NoAnswer
from gate.mil.program import Op, Program
from gate.policy import QuantizeActivations

Array = npt.NDArray[Any]
BINS = 4096  # of a histogram: sixteen for each step of the 8-bit result
LEAST_SCALE = 2.0**-20  # float16 holds it with four bits, and the next smaller ones with fewer


@dataclass(frozen=True)
class Calibration:
    """Items to calibrate on, and where they come from, in words; `remarks` is what a reader should know about them."""

    samples: Sequence[Mapping[str, Array]]
    origin: str
    remarks: tuple[str, ...] = ()


class Range(NamedTuple):
    """The values that an integer must be able to stand for."""

    low: float
    high: float

    def joined(self, other: "Range") -> "Range":
        """Return the range that holds both."""
        return Range(min(self.low, other.low), max(self.high, other.high))


EMPTY = Range(np.inf, -np.inf)
Ranges = dict[str, Range]  # by the name of a tensor


class _Observer(Protocol):
    """Sees the values of one tensor, item by item."""

    def see(self, values: Any) -> None:
        """Take one item's values into account."""

    @property
    def range(self) -> Range:
        """The range so far."""


@dataclass
class _MinMax:
    """From the least to the greatest value of all items."""

    range: Range = EMPTY

    def see(self, values: Any) -> None:
        self.range = self.range.joined(_ends(values))


@dataclass
class _MovingAverage:
    """An average of the items' own ends that forgets: one odd item moves it by 1 - momentum only."""

    momentum: float
    range: Range = EMPTY

    def see(self, values: Any) -> None:
        ends, kept = _ends(values), self.momentum
        if self.range is EMPTY:
            self.range = ends
        else:
            self.range = Range(*(kept * old + (1 - kept) * new for old, new in zip(self.range, ends, strict=True)))


@dataclass
class _Percentile:
    """The least range that leaves out at most a given part of all values, half of it at each end; needs a pass of `_MinMax`."""

    percentile: float
    whole: Range
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def see(self, values: Any) -> None:
        low, high = self.whole
        if high > low:
            self.counts += np.histogram(values.numpy(), BINS, (low, high))[0]

    @property
    def range(self) -> Range:
        low, high = self.whole
        below = np.cumsum(self.counts)
        if not below[-1]:
            return self.whole
        outside = (1 - self.percentile / 100) / 2 * below[-1]
        first = int(np.searchsorted(below, outside, side="right"))
        last = int(np.searchsorted(below, below[-1] - outside, side="left"))
        step = (high - low) / BINS
        return Range(low + first * step, low + (last + 1) * step)


def _ends(values: Any) -> Range:
    least, greatest = values.aminmax()
    return Range(float(least), float(greatest))


def calibrate(package: Path, calibration: Calibration, step: QuantizeActivations) -> Ranges:
    """Return the range of every floating-point tensor of the package, inputs included, by its name.

    NoAnswer where a value is infinite or not a number: no integer stands for it.
    """
    if step.observer == "moving_average":
        found = _watch(package, calibration, lambda name: _MovingAverage(step.momentum))
    else:
        found = _watch(package, calibration, lambda name: _MinMax())
    if step.observer == "percentile":
        whole = found
        found = _watch(package, calibration, lambda name: _Percentile(step.percentile, whole[name]))
    return {name: _representable(ends) for name, ends in found.items()}


def _watch(package: Path, calibration: Calibration, new: Callable[[str], _Observer]) -> Ranges:
    evaluator = mil.load(package)
    observers: dict[str, _Observer] = {}

    def observe(op: Op, inputs: Mapping[str, Any], results: tuple[Any, ...]) -> None:
        for value, result in zip(op.outputs, results, strict=True):
            see(value.name, result)

    def see(name: str, values: Any) -> None:
        if not getattr(values, "is_floating_point", bool)() or not values.numel():
            return
        if not values.isfinite().all():
            raise NoAnswer(
                f"calibration: {name} has infinite or NaN values for an item of {calibration.origin}; "
                "no 8-bit range holds them: cure float16 first, or leave the item out"
            )
        if name not in observers:
            observers[name] = new(name)
        observers[name].see(values)

    for sample in calibration.samples:
        read = evaluator.features.read(sample)
        for name, values in read.items():
            see(name, values)
        evaluator.run(read, evaluator.make_state(), observe=observe)
    return {name: observer.range for name, observer in observers.items()}


def _representable(ends: Range) -> Range:
    """Widen what is so narrow that float16 has no scale for it, such as an activation that was always zero."""
    low, high = ends
    if max(high, 0.0) - min(low, 0.0) < 255 * LEAST_SCALE:
        return Range(min(low, 0.0), min(low, 0.0) + 255 * LEAST_SCALE)
    return ends


def share_at_concats(program: Program, ranges: Ranges) -> Ranges:
    """Give the inputs and the output of a concat one range, as coremltools does: hardware joins them without arithmetic."""
    groups: list[set[str]] = []
    for function in program.functions.values():
        for op in function.body.walk():
            if op.type == "concat":
                names = {value.name for value in (*op.inputs["values"], *op.outputs)} & ranges.keys()
                touched = [group for group in groups if group & names]
                groups = [group for group in groups if not group & names] + [names.union(*touched)]
    shared = dict(ranges)
    for group in groups:
        for name in group:
            shared[name] = Range(min(ranges[n].low for n in group), max(ranges[n].high for n in group))
    return shared
