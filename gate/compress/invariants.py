# SPDX-License-Identifier: Apache-2.0
"""What did each step promise about a weight, and is it kept?

Linear quantization: no value moves by more than half a scale. A palette: every value is an entry of its table, the nearest one.
Pruning: survivors do not move, and the smallest became zero. Joint forms: both, survivors by the second. To each bound comes
what rounding to the stored type costs, derived beside it. `spot_checks` asks besides whether the parameters are the best ones:
a bound alone would accept a table that somebody made up.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gate.compress.encoded import Array, Encoded, Form, decode, scaled_tables, spread
from gate.mil.blob import BITS
from gate.policy import Action, Palettize, Prune, Quantize

Floats = npt.NDArray[np.float32]
CHUNK = 2**22  # elements that are compared at a time
# Relative and absolute size of one unit in the last place. A table of float32 is held to float16's: scikit-learn's k-means
# compares squared distances in float32, whose cancellation costs about as much.
HALF_ULP = 2.0**-11
HALF_TINY = 2.0**-24
SINGLE_ULP = 2.0**-23
SINGLE_TINY = 2.0**-149


@dataclass(frozen=True)
class Bound:
    """One promise: `found` must not exceed `limit` (or, with `at_least`, not fall below it)."""

    what: str
    found: float
    limit: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Is it kept? NaN is not."""
        return self.found >= self.limit if self.at_least else self.found <= self.limit

    def __str__(self) -> str:
        return f"{self.what}: {self.found:.6g}, promised at {'least' if self.at_least else 'most'} {self.limit:.6g}"


@dataclass(frozen=True, eq=False)
class Kept:
    """The stored parameters that a bound needs, in the shapes of iOS18's ops: one per block along each axis."""

    bits: int
    scale: Array | None = None
    tables: Array | None = None  # (blocks …, entries, length of a vector)
    axis: int | None = None  # of vectors

    @classmethod
    def of(cls, encoded: Encoded) -> "Kept":
        """Take them from a compressed weight."""
        parts = encoded.parts
        values = next(parts[name] for name in ("data", "indices", "nonzero_data") if name in parts)
        if encoded.form is Form.SCALED_PALETTE:
            tables = scaled_tables(parts["lut"].array, parts["scale"].array)
            return cls(BITS[values.dtype], None, tables, encoded.axis)
        scale, lut = (parts[name].array if name in parts else None for name in ("scale", "lut"))
        return cls(BITS[values.dtype], scale, lut, encoded.axis)


def untouched(before: Array, after: Array) -> tuple[Bound, ...]:
    """Say how many values of a weight changed that none should."""
    return (Bound("values that changed", _differing(before, after), 0),)


def bounds(before: Array, after: Array, kept: Kept, actions: Sequence[Action]) -> tuple[Bound, ...]:
    """Measure what the applied actions promised. `before` and `after` are the weight as its consumers see it."""
    if before.shape != after.shape:
        return (Bound(f"elements of {after.shape}, expected {before.shape}", after.size, -1),)
    found: list[Bound] = []
    for action in actions:
        match action:
            case Prune():
                found += _pruned(before, after, action, last=action is actions[-1])
            case Quantize():
                found += _quantized(before, after, kept, action, pruned=len(actions) > 1)
            case Palettize():
                found += _palettized(before, after, kept, action, pruned=len(actions) > 1)
    return tuple(found)


def problem(before: Array, encoded: Encoded, actions: Sequence[Action]) -> str | None:
    """Say what is wrong with a compressed weight that came from elsewhere; None when it can be used."""
    if encoded.shape != before.shape:
        return f"it has shape {encoded.shape}, expected {before.shape}"
    try:
        after = decode(encoded)
    except (ValueError, IndexError, TypeError) as error:
        return f"it cannot be decoded ({error})"
    kept = Kept.of(encoded)
    if after.dtype != before.dtype:
        return f"it decodes to {after.dtype}, expected {before.dtype}"
    found = [*bounds(before, after, kept, actions), *spot_checks(before, encoded, kept, actions)]
    return next((str(bound) for bound in found if not bound.holds), None)


def sparsity(after: Array) -> float:
    """Return the part of a weight that is zero."""
    return 1 - float(np.count_nonzero(after)) / max(after.size, 1)


# Pruning


def _pruned(before: Array, after: Array, action: Prune, last: bool) -> Iterator[Bound]:
    zeros = after.size - int(np.count_nonzero(after))
    yield Bound("values that are zero", zeros, promised_zeros(before.shape, action), at_least=True)
    zero = after == 0
    if last:
        yield Bound("surviving values that changed", _differing(before[~zero], after[~zero]), 0)
        if action.n_m is None and zero.any() and not zero.all():
            magnitude = np.abs(before)
            smallest = float(magnitude[~zero].min())
            yield Bound("largest value that was pruned", float(magnitude[zero].max()), smallest)


def promised_zeros(shape: tuple[int, ...], action: Prune) -> float:
    """Return the least number of zeros: coremltools prunes up to a percentile of n - 1 intervals, or n of each m channels."""
    elements = math.prod(shape)
    if action.n_m is None:
        return action.sparsity * (elements - 1)
    n, m = action.n_m
    rest = shape[1] % m
    return elements // shape[1] * (shape[1] // m * n + max(0, n - (m - rest) if rest else 0))


# Linear quantization


def _quantized(before: Array, after: Array, kept: Kept, action: Quantize, pruned: bool) -> Iterator[Bound]:
    yield Bound("bits per value", kept.bits, BITS[action.dtype])
    if kept.scale is None:
        yield Bound("scales", 0, 1, at_least=True)
        return
    levels = 2 ** BITS[action.dtype] - 1
    allowed = _scale_allowance(kept.scale, levels)
    worst = 0.0
    for old, new, limit in _slices(before, after, spread(allowed, before.shape)):
        error = np.abs(old - new)
        error /= limit + _ulp(old, before.dtype)
        worst = max(worst, _largest(error[new != 0] if pruned else error))
    yield Bound("largest error, in half scales and rounding", worst, 1)


def _scale_allowance(scale: Array, levels: int) -> Floats:
    """Half a scale, and what storing it costs: half its last place, as often as the largest integer counts it.

    The second matters where a scale is so small that float16 holds it with few bits or as zero.
    """
    wide = scale.astype(np.float32)
    stored: Floats = wide / 2 + levels / 2 * _ulp(wide, scale.dtype)
    return stored


# Palettes


def _palettized(before: Array, after: Array, kept: Kept, action: Palettize, pruned: bool) -> Iterator[Bound]:
    if kept.tables is None:
        yield Bound("tables", 0, 1, at_least=True)
        return
    yield Bound("entries per table", kept.tables.shape[-2], 2**action.bits)
    if action.mode == "unique":
        yield Bound("values that changed", int(np.count_nonzero(before != after)), 0)
        return
    foreign, worst = 0, 0.0
    for table, old, new in _by_table(before, after, kept):
        if pruned:
            survives = new[..., 0] != 0
            old, new = old[survives], new[survives]
        if new.size:
            strangers, excess = _nearest(table, old, new, action)
            foreign, worst = foreign + strangers, max(worst, excess)
    yield Bound("values that are not in their table", foreign, 0)
    yield Bound("distance beyond the nearest entry, in rounding", worst, 1)


def _by_table(before: Array, after: Array, kept: Kept) -> Iterator[tuple[Floats, Array, Array]]:
    """Yield each table (entries, length) with the vectors (…, length) that it stands for."""
    assert kept.tables is not None
    length = kept.tables.shape[-1]
    old, new = (_vectors(array, kept.axis, length) for array in (before, after))
    blocks = kept.tables.shape[:-2]
    for block in np.ndindex(*blocks):
        where = tuple(
            slice(i * (size // count), (i + 1) * (size // count))
            for i, count, size in zip(block, blocks, old.shape[:-1], strict=True)
        )
        table = kept.tables[block].astype(np.float32)
        yield table, old[where].reshape(-1, length), new[where].reshape(-1, length)


def _vectors(array: Array, axis: int | None, length: int) -> Array:
    if axis is None:
        return array[..., None]
    shape = (*array.shape[:axis], array.shape[axis] // length, length, *array.shape[axis + 1 :])
    return np.moveaxis(array.reshape(shape), axis + 1, -1)


def _nearest(table: Floats, old: Array, new: Array, action: Palettize) -> tuple[int, float]:
    """Count values that are not entries; measure how much farther than the nearest entry they are, in what is allowed."""
    slack = _table_slack(table, action)
    foreign, worst = 0, 0.0
    step = max(1, CHUNK // max(table.size, 1)) if table.shape[1] > 1 else CHUNK
    for start in range(0, len(old), step):
        was, now = (array[start : start + step].astype(np.float32) for array in (old, new))
        nearest, inside = _distances(table, was, now)
        excess = np.sqrt(((was - now) ** 2).sum(1)) if table.shape[1] > 1 else np.abs(was - now)[:, 0]
        excess -= nearest
        excess /= slack + 2 * HALF_ULP * (np.abs(was).max(1) + np.abs(now).max(1))
        foreign, worst = foreign + int(np.count_nonzero(~inside)), max(worst, _largest(excess))
    return foreign, worst


def _distances(table: Floats, was: Floats, now: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return the distance of each vector to its nearest entry, and whether its new value is an entry."""
    if table.shape[1] > 1:
        apart = ((was[:, None] - table[None]) ** 2).sum(2).min(1)
        inside = (now[:, None] == table[None]).all(2).any(1)
        return np.sqrt(apart), inside
    entries = np.unique(table)
    middles = (entries[1:] + entries[:-1]) / 2
    nearest = np.abs(was[:, 0] - entries[np.searchsorted(middles, was[:, 0])])
    place = np.minimum(np.searchsorted(entries, now[:, 0]), entries.size - 1)
    return nearest, entries[place] == now[:, 0]


def _table_slack(table: Floats, action: Palettize) -> float:
    """Return what rounding costs everywhere in a table: uniform ones are computed in float16, three roundings an index."""
    span = float(table.max() - table.min())
    uniform = 6 * HALF_ULP * span if action.mode == "uniform" else 0.0
    scaled = 2 * HALF_ULP * span if action.per_channel_scale else 0.0
    return uniform + scaled + HALF_TINY


# Are the parameters the best ones?


def spot_checks(before: Array, encoded: Encoded, kept: Kept, actions: Sequence[Action]) -> tuple[Bound, ...]:
    """Measure whether the parameters are what the method gives, as far as a glance tells."""
    match actions[-1]:
        case Quantize() as action if kept.scale is not None:
            source = before if len(actions) == 1 else np.where(decode(encoded) != 0, before, 0).astype(before.dtype)
            return (Bound("scale, against that of its range", _scale_deviation(source, kept.scale, action), 1),)
        case Palettize(mode="kmeans", cluster_dim=1, per_channel_scale=False) as action:
            return (Bound("table entry, against the mean of its values", _mean_deviation(before, encoded, kept), 1),)
    return ()


def _scale_deviation(before: Array, scale: Array, action: Quantize) -> float:
    """Return how far the scales are from the range of their block over the levels, in two last places."""
    low, high = _block_range(before, scale.shape)
    levels = 2 ** BITS[action.dtype] - 1
    if action.mode == "linear_symmetric":
        high, low, levels = np.maximum(np.abs(low), np.abs(high)), -np.maximum(np.abs(low), np.abs(high)), levels - 1
    else:
        high, low = np.maximum(high, 0), np.minimum(low, 0)
    expected = (high - low) / levels
    return _largest(np.abs(scale.astype(np.float32) - expected) / (2 * _ulp(expected, scale.dtype)))


def _block_range(array: Array, blocks: tuple[int, ...]) -> tuple[Floats, Floats]:
    split = [part for size, count in zip(array.shape, blocks, strict=True) for part in (count, size // count)]
    grouped = array.reshape(split)
    axes = tuple(range(1, len(split), 2))
    return grouped.min(axes).astype(np.float32), grouped.max(axes).astype(np.float32)


def _mean_deviation(before: Array, encoded: Encoded, kept: Kept) -> float:
    """Return how far table entries are from the mean of the values that they stand for.

    coremltools clusters large float16 weights exactly; for others it stops when centres move by less than a tenth of the
    standard deviation. In a pruned weight the entry that stands for the zeros is left out: they are not stored.
    """
    after = decode(encoded)
    exact = before.dtype == np.float16 and after.size // max(1, math.prod(kept.tables.shape[:-2])) >= 10_000  # type: ignore[union-attr]
    worst = 0.0
    for table, old, new in _by_table(before, after, kept):
        was, now = old[:, 0].astype(np.float32), new[:, 0].astype(np.float32)
        entries = np.unique(table)
        counts, sums = _histogram(entries, was, now)
        used = counts > 0
        if encoded.form is Form.SPARSE_PALETTE:
            used &= np.abs(entries) > np.abs(entries).min()
        if used.any():
            slack = 2 * _ulp(entries[used], before.dtype) + (0 if exact else 0.1 * float(was.std()))
            worst = max(worst, _largest(np.abs(entries[used] - sums[used] / counts[used]) / slack))
    return worst


def _histogram(entries: Floats, was: Floats, now: Floats) -> tuple[Any, Any]:
    places = np.searchsorted(entries, now)
    size = entries.size
    return np.bincount(places, minlength=size)[:size], np.bincount(places, was, minlength=size)[:size]


# Arithmetic


def _slices(before: Array, after: Array, limit: Floats) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Yield rows of some million elements, in float32."""
    rows = max(1, CHUNK // max(1, before[:1].size))
    for start in range(0, len(before), rows):
        here = slice(start, start + rows)
        scale = limit if limit.shape[0] == 1 else limit[here]
        yield before[here].astype(np.float32), after[here].astype(np.float32), scale


def _differing(before: Array, after: Array) -> int:
    """Count values that are not equal bit for bit (NaN equals itself, -0 is not 0)."""
    if before.shape != after.shape:
        return max(before.size, after.size)
    wide = after.astype(before.dtype, copy=False)
    kind = f"u{before.dtype.itemsize}"
    return int(np.count_nonzero(np.ascontiguousarray(before).view(kind) != np.ascontiguousarray(wide).view(kind)))


def _ulp(values: Floats, dtype: np.dtype[Any]) -> Floats:
    """Return at least one unit in the last place that values of this size have in `dtype`."""
    relative, least = (2 * HALF_ULP, HALF_TINY) if dtype == np.float16 else (SINGLE_ULP, SINGLE_TINY)
    size: Floats = np.abs(values) * np.float32(relative)
    return np.maximum(size, np.float32(least), out=size) if size.ndim else np.maximum(size, np.float32(least))


def _largest(values: Array) -> float:
    """Return the largest value; NaN when there is one, 0 when there is none."""
    return float(values.max()) if values.size else 0.0
