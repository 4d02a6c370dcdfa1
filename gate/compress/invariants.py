# SPDX-License-Identifier: Apache-2.0
"""What did each step promise about a weight, and is it kept?

Linear quantization: no value moves by more than half a scale. A palette: every value is an entry of its table, the nearest one.
Pruning: survivors do not move, and the smallest became zero. Joint forms: both, survivors by the second. To each bound comes
what rounding to the stored type costs, derived beside it. `problem` asks besides whether the parameters are the best ones:
a bound alone would accept a table that somebody made up.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gate.compress.encoded import Array, Encoded, Form, decode, spread, tables
from gate.mil.blob import BITS
from gate.policy import Action, Palettize, Prune, Quantize

Floats = npt.NDArray[np.float32]
CHUNK = 2**18  # elements that are compared at a time, so that temporary arrays stay in the processor's cache
# Relative and absolute size of one unit in the last place. A table of float32 is held to float16's: scikit-learn's k-means
# compares squared distances in float32, whose cancellation costs about as much.
HALF_ULP = 2.0**-11
HALF_TINY = 2.0**-24
SINGLE_ULP = 2.0**-23
SINGLE_TINY = 2.0**-149

# All float16 values by their bits, and the bits in the order of the values (NaN last).
_WIDE: Floats = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
_ORDER = np.argsort(_WIDE, kind="stable")
_SORTED = _WIDE[_ORDER]
LEAST_KEYED = 4096  # values of a table from which on a look-up per float16 pattern pays


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
    table_bits: int | None = None  # of the integers that a quantized table is stored as
    table_scale: Array | None = None

    @classmethod
    def of(cls, encoded: Encoded) -> "Kept":
        """Take them from a compressed weight."""
        parts = encoded.parts
        values = next(parts[name] for name in ("data", "indices", "nonzero_data") if name in parts)
        scale = parts["scale"].array if "scale" in parts else None
        if "lut" not in parts:
            return cls(BITS[values.dtype], scale, None, encoded.axis)
        return cls(BITS[values.dtype], None, tables(encoded), encoded.axis, BITS[parts["lut"].dtype], scale)


@dataclass(frozen=True, eq=False)
class Census:
    """Which float16 patterns a weight has, and how often: counted once for all policies that ask."""

    patterns: npt.NDArray[np.uint16]
    counts: npt.NDArray[np.uint32]

    @classmethod
    def of(cls, weight: Array) -> "Census | None":
        """Count them; None where a weight is not float16, or too small for this to pay."""
        if weight.dtype != np.float16 or weight.size < LEAST_KEYED:
            return None
        counts = np.zeros(2**16, np.int64)
        for (bits,) in _chunks(_bits(weight)):
            counts += np.bincount(bits, minlength=2**16)
        patterns = np.flatnonzero(counts)
        return cls(patterns.astype(np.uint16), counts[patterns].astype(np.uint32))


@dataclass(frozen=True, eq=False)
class _Table:
    """A table (entries, length of a vector), and the vectors (…, length) that it stands for, before and after."""

    table: Floats
    old_block: Array  # views of the weight; vectors along the last axis
    new_block: Array

    @property
    def old(self) -> Array:
        """The vectors before; a copy where the block is not the whole weight."""
        return self.old_block.reshape(-1, self.table.shape[-1])

    @property
    def new(self) -> Array:
        """The vectors after."""
        return self.new_block.reshape(-1, self.table.shape[-1])

    @cached_property
    def entries(self) -> Floats:
        """Its entries in order, each once; of a table of single values."""
        return np.unique(self.table)

    @property
    def is_keyed(self) -> bool:
        """Does a look-up per float16 pattern pay?"""
        halves = self.old_block.dtype == np.float16 and self.new_block.dtype == np.float16
        return halves and self.table.shape[1] == 1 and self.old_block.size >= LEAST_KEYED

    def nearest(self) -> npt.NDArray[np.intp]:
        """Return the place of the nearest entry for each of the 65,536 float16 patterns: 0.5 MB, so it is not kept."""
        cuts = np.searchsorted(_SORTED, (self.entries[1:] + self.entries[:-1]) / 2)
        counts = np.diff(np.concatenate([[0], cuts, [_SORTED.size]]))
        places = np.empty(_SORTED.size, np.intp)
        places[_ORDER] = np.repeat(np.arange(self.entries.size), counts)
        return places

    @cached_property
    def odd(self) -> npt.NDArray[np.intp]:
        """Where a value did not become its nearest entry: in a few places, as a rule."""
        old, new = self.old, self.new
        expected = self.entries.astype(np.float16).view(np.uint16)[self.nearest()]
        rest = [
            start + np.flatnonzero(expected.take(was) != now)
            for start, (was, now) in zip(range(0, old.size, CHUNK), _chunks(_bits(old), _bits(new)), strict=True)
        ]
        return np.concatenate(rest)


def untouched(before: Array, after: Array) -> tuple[Bound, ...]:
    """Say how many values of a weight changed that none should."""
    return (Bound("values that changed", _differing(before, after), 0),)


def bounds(before: Array, after: Array, kept: Kept, actions: Sequence[Action]) -> tuple[Bound, ...]:
    """Measure what the applied actions promised. `before` and `after` are the weight as its consumers see it."""
    return _bounds(before, after, kept, actions, _tables(before, after, kept))


def _bounds(
    before: Array, after: Array, kept: Kept, actions: Sequence[Action], found_tables: Sequence[_Table]
) -> tuple[Bound, ...]:
    if before.shape != after.shape:
        return (Bound(f"elements of {after.shape}, expected {before.shape}", after.size, -1),)
    found: list[Bound] = []
    kinds = [type(action) for action in actions]
    for action in actions:
        match action:
            case Prune():
                found += _pruned(before, after, action, last=action is actions[-1])
            case Quantize() if Palettize in kinds:
                found += _quantized_table(kept, action)
            case Quantize():
                found += _quantized(before, after, kept, action, pruned=Prune in kinds)
            case Palettize():
                moved = _table_step(kept) if Quantize in kinds else 0.0
                found += _palettized(before, after, kept, action, found_tables, pruned=Prune in kinds, moved=moved)
    return tuple(found)


def problem(before: Array, encoded: Encoded, actions: Sequence[Action], census: Census | None = None) -> str | None:
    """Say what is wrong with a compressed weight that came from elsewhere; None when it can be used.

    `census` is that of `before`, for callers who have it.
    """
    if encoded.shape != before.shape:
        return f"it has shape {encoded.shape}, expected {before.shape}"
    try:
        after = decode(encoded, rounded=False)
    except (ValueError, IndexError, TypeError) as error:
        return f"it cannot be decoded ({error})"
    kept = Kept.of(encoded)
    stored = next((part.dtype for name, part in encoded.parts.items() if name in ("scale", "lut")), str(after.dtype))
    if stored != str(before.dtype):
        return f"it decodes to {stored}, expected {before.dtype}"
    if before.shape != after.shape:
        return f"it decodes to shape {after.shape}, expected {before.shape}"
    if "mask" in encoded.parts and encoded.parts["mask"].dtype != "uint1":
        return f"its mask is {encoded.parts['mask'].dtype}, expected uint1"
    found_tables = _tables(before, after, kept)
    palette = next((action for action in actions if isinstance(action, Palettize)), None)
    if palette is not None and kept.tables is not None:
        form = (kept.tables.shape[-1], kept.bits)
        if form[0] != palette.cluster_dim or form[1] > palette.bits:
            return f"it has vectors of {form[0]} and indices of {form[1]} bits, expected {palette.cluster_dim}, {palette.bits}"
    found = list(_bounds(before, after, kept, actions, found_tables))
    if palette is None:
        found += _scale_checks(before, kept, actions[-1])
    else:
        moved = _table_step(kept) if palette is not actions[-1] else 0.0
        found += _mean_checks(palette, found_tables, encoded.form is Form.SPARSE_PALETTE, moved, census)
    return next((str(bound) for bound in found if not bound.holds), None)


def sparsity(after: Array) -> float:
    """Return the part of a weight that is zero."""
    return 1 - float(np.count_nonzero(_magnitude(after))) / max(after.size, 1)


# Pruning


def _pruned(before: Array, after: Array, action: Prune, last: bool) -> Iterator[Bound]:
    zeros = after.size - int(np.count_nonzero(_magnitude(after)))
    yield Bound("values that are zero", zeros, promised_zeros(before.shape, action), at_least=True)
    if not last:
        return
    changed, largest, smallest = 0, 0, np.iinfo(_bits(before).dtype).max
    for old, new in _chunks(_bits(before), _bits(after)):
        alive = _magnitude(new) != 0
        size = _magnitude(old)
        changed += int(np.count_nonzero((old != new) & alive))
        dead = alive.astype(size.dtype) - 1  # all ones where it was pruned: ten times as fast as a choice by mask
        largest = max(largest, int((size & dead).max()))
        smallest = min(smallest, int((size | dead).min()))
    yield Bound("surviving values that changed", changed, 0)
    if action.n_m is None and 0 < zeros < after.size:
        yield Bound("largest value that was pruned", _from_bits(largest, before), _from_bits(smallest, before))


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
    relative, least = _last_place(before.dtype)
    allowed = _scale_allowance(kept.scale, levels) + least
    worst = 0.0
    for was, now, limit in rows(before, after, spread(allowed, before.shape)):
        old, new = widen(was), widen(now)
        allowance = np.abs(old)
        allowance *= relative
        allowance += limit
        error = np.subtract(old, new)
        np.abs(error, out=error)
        error /= allowance
        if pruned:
            error *= new != 0
        worst = _larger(worst, error)
    yield Bound("largest error, in half scales and rounding", worst, 1)


def _scale_allowance(scale: Array, levels: int) -> Floats:
    """Half a scale, and what storing it costs: half its last place, as often as the largest integer counts it.

    The second matters where a scale is so small that float16 holds it with few bits or as zero.
    """
    wide = widen(scale)
    stored: Floats = wide / 2 + np.float32(levels / 2) * _ulp(wide, scale.dtype)
    return stored


# Palettes


def _quantized_table(kept: Kept, action: Quantize) -> Iterator[Bound]:
    yield Bound("bits per table entry", kept.table_bits or 0, BITS[action.dtype])
    yield Bound("scales of the table", 0 if kept.table_scale is None else kept.table_scale.size, 1, at_least=True)


def _table_step(kept: Kept) -> float:
    """Return how far two entries of a quantized table can have moved apart: half a step each, and rounding of the scale."""
    if kept.table_scale is None or kept.table_bits is None:
        return 0.0
    allowed = _scale_allowance(kept.table_scale, 2**kept.table_bits - 1)
    return 2 * float(allowed.max())


def _palettized(
    before: Array,
    after: Array,
    kept: Kept,
    action: Palettize,
    found_tables: Sequence[_Table],
    pruned: bool,
    moved: float = 0.0,
) -> Iterator[Bound]:
    """Yield what a palette promises; its entries have `moved` by so much since the values were assigned to them."""
    if kept.tables is None:
        yield Bound("tables", 0, 1, at_least=True)
        return
    yield Bound("entries per table", kept.tables.shape[-2], 2**action.bits)
    if action.mode == "unique":
        yield Bound("values that changed", int(np.count_nonzero(before != after)), 0)
        return
    foreign, worst = 0, 0.0
    for table in found_tables:
        old, new = (table.old[table.odd], table.new[table.odd]) if table.is_keyed else (table.old, table.new)
        if pruned:
            survives = new[:, 0] != 0
            old, new = old[survives], new[survives]
        strangers, excess = _examine(table, old, new, action, moved)
        foreign, worst = foreign + strangers, excess if math.isnan(excess) else max(worst, excess)
    yield Bound("values that are not in their table", foreign, 0)
    yield Bound("distance beyond the nearest entry, in rounding", worst, 1)


def _tables(before: Array, after: Array, kept: Kept) -> tuple[_Table, ...]:
    """Return each table with the vectors that it stands for; none where there is no palette."""
    if kept.tables is None or before.shape != after.shape:
        return ()
    length = kept.tables.shape[-1]
    old, new = (_vectors(array, kept.axis, length) for array in (before, after))
    blocks = kept.tables.shape[:-2]
    places = (
        tuple(
            slice(i * (size // count), (i + 1) * (size // count))
            for i, count, size in zip(block, blocks, old.shape[:-1], strict=True)
        )
        for block in np.ndindex(*blocks)
    )
    tables_ = kept.tables.reshape(-1, *kept.tables.shape[-2:])
    return tuple(_Table(widen(table), old[where], new[where]) for table, where in zip(tables_, places, strict=True))


def _vectors(array: Array, axis: int | None, length: int) -> Array:
    if axis is None:
        return array[..., None]
    shape = (*array.shape[:axis], array.shape[axis] // length, length, *array.shape[axis + 1 :])
    return np.moveaxis(array.reshape(shape), axis + 1, -1)


def _examine(by: _Table, old: Array, new: Array, action: Palettize, moved: float) -> tuple[int, float]:
    """Count values that are not entries; measure how much farther than the nearest entry they are, in what is allowed."""
    slack = _table_slack(by.table, action) + moved
    foreign, worst = 0, 0.0
    step = max(1, CHUNK // by.table.size) if by.table.shape[1] > 1 else CHUNK
    for start in range(0, len(old), step):
        was, now = (widen(array[start : start + step]) for array in (old, new))
        nearest, inside = _distances(by, was, now)
        excess = np.sqrt(np.square(was - now).sum(1)) - nearest
        excess /= slack + 2 * HALF_ULP * (np.abs(was).max(1) + np.abs(now).max(1))
        foreign, worst = foreign + int(np.count_nonzero(~inside)), _larger(worst, excess)
    return foreign, worst


def _distances(by: _Table, was: Floats, now: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return the distance of each vector to its nearest entry, and whether its new value is an entry."""
    if by.table.shape[1] > 1:
        apart = np.square(was[:, None] - by.table[None]).sum(2).min(1)
        inside = (now[:, None] == by.table[None]).all(2).any(1)
        return np.sqrt(apart), inside
    entries = by.entries
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


def _scale_checks(before: Array, kept: Kept, action: Action) -> tuple[Bound, ...]:
    """Measure whether the scales are what the method gives."""
    if not isinstance(action, Quantize) or kept.scale is None:
        return ()
    return (Bound("scale, against that of its range", _scale_deviation(before, kept.scale, action), 1),)


def _mean_checks(
    action: Palettize, found_tables: Sequence[_Table], sparse: bool, moved: float, census: Census | None
) -> tuple[Bound, ...]:
    """Measure whether the entries of palettes are what k-means gives: the mean of the values that they stand for."""
    if action.mode != "kmeans" or action.cluster_dim != 1 or action.per_channel_scale or not found_tables:
        return ()
    deviation = _mean_deviation(found_tables, sparse, moved, census)
    return (Bound("table entry, against the mean of its values", deviation, 1),)


def _scale_deviation(before: Array, scale: Array, action: Quantize) -> float:
    """Return how far the scales are from the range of their block over the levels, in two last places.

    Pruning removes the smallest values, so it does not change the range.
    """
    low, high = _block_range(before, scale.shape)
    levels = 2 ** BITS[action.dtype] - 1
    if action.mode == "linear_symmetric":
        high = np.maximum(np.abs(low), np.abs(high))
        low, levels = -high, levels - 1
    expected = (np.maximum(high, 0) - np.minimum(low, 0)) / np.float32(levels)
    return _larger(0.0, np.abs(widen(scale) - expected) / (2 * _ulp(expected, scale.dtype)))


def _block_range(array: Array, blocks: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Return least and largest value of each block; of float16 by integers that sort alike, which are ten times as fast."""
    split = [part for size, count in zip(array.shape, blocks, strict=True) for part in (count, size // count)]
    axes = tuple(range(1, len(split), 2))
    bits = _bits(array).astype(f"i{array.dtype.itemsize}", copy=False).view(f"i{array.dtype.itemsize}")
    top = np.iinfo(bits.dtype).max
    ordered = (bits ^ ((bits >> (bits.dtype.itemsize * 8 - 1)) & top)).reshape(split)
    ends = (ordered.min(axes), ordered.max(axes))
    low, high = (widen((end ^ ((end >> (end.dtype.itemsize * 8 - 1)) & top)).view(array.dtype)) for end in ends)
    return low, high


def _mean_deviation(found_tables: Sequence[_Table], sparse: bool, moved: float, census: Census | None) -> float:
    """Return how far table entries are from the mean of the values that they stand for.

    coremltools clusters large float16 weights exactly; for others it stops when centres move by less than a tenth of the
    standard deviation. In a pruned weight the entry that stands for the zeros is left out: they are not stored.
    """
    worst = 0.0
    for table in found_tables:
        counts, sums, deviation = _by_entry(table, census if len(found_tables) == 1 else None)
        entries, used = table.entries, counts > 0
        if sparse:
            used &= np.abs(entries) > np.abs(entries).min()
        if used.any():
            exact = table.old_block.dtype == np.float16 and table.old_block.size >= 10_000
            slack = moved + 2 * _ulp(entries[used], table.old_block.dtype) + (0.0 if exact else 0.1 * deviation)
            worst = _larger(worst, np.abs(entries[used] - sums[used] / counts[used]) / slack)
    return worst


def _by_entry(by: _Table, census: Census | None) -> tuple[Any, Any, float]:
    """Return count and sum of the values that each entry stands for, and their standard deviation."""
    if by.is_keyed and (known := census or Census.of(by.old)):
        return _by_entry_of_bits(by, known)
    old, new, entries = by.old[:, 0], by.new[:, 0], by.entries
    counts, sums = np.zeros(entries.size), np.zeros(entries.size)
    total = square = 0.0
    for was, now in _chunks(old, new):
        wide = widen(was)
        places = np.minimum(np.searchsorted(entries, widen(now)), entries.size - 1)
        counts += np.bincount(places, minlength=entries.size)
        sums += np.bincount(places, wide, minlength=entries.size)
        total, square = total + float(wide.sum()), square + float(np.square(wide).sum())
    return counts, sums, math.sqrt(max(0.0, square / old.size - (total / old.size) ** 2))


def _by_entry_of_bits(by: _Table, census: Census) -> tuple[Any, Any, float]:
    """Do the same by one count of the float16 patterns: each stands for its nearest entry, but for a few that are corrected."""
    nearest, entries = by.nearest(), by.entries.size
    values = _WIDE[census.patterns].astype(np.float64)
    counts, sums = (
        np.bincount(nearest[census.patterns], weight, entries) for weight in (census.counts, census.counts * values)
    )
    was, now = (_bits(array)[by.odd, 0] for array in (by.old, by.new))
    for places, sign in ((nearest[was], -1), (nearest[now], 1)):
        counts += sign * np.bincount(places, minlength=entries)
        sums += sign * np.bincount(places, _WIDE[was], minlength=entries)
    elements = by.old_block.size
    mean = float(sums.sum()) / elements
    square = float((census.counts * np.square(values)).sum())
    return counts, sums, math.sqrt(max(0.0, square / elements - mean**2))


# Arithmetic


def widen(array: Array) -> Floats:
    """Return float32; of float16 by look-up, which is faster than numpy's conversion."""
    if array.dtype == np.float16:
        return _WIDE.take(array.view(np.uint16))
    return array.astype(np.float32, copy=False)


def _chunks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Yield the elements of arrays of one size, a chunk at a time."""
    flat = [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, CHUNK):
        yield tuple(array[start : start + CHUNK] for array in flat)


def rows(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Yield whole rows of arrays of one shape, about a chunk at a time; an array with a single row has it for all."""
    count = max(len(array) for array in arrays)
    step = max(1, CHUNK // max(1, arrays[0][:1].size))
    for start in range(0, count, step):
        yield tuple(array if len(array) < count else array[start : start + step] for array in arrays)


def _bits(array: Array) -> Array:
    """Return the elements as unsigned integers of their size."""
    if array.dtype.kind == "u":
        return array
    view: Array = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
    return view


def _magnitude(array: Array) -> Array:
    """Return the bits without the sign: integers that sort as magnitudes do."""
    bits = _bits(array)
    size: Array = bits & bits.dtype.type(np.iinfo(bits.dtype).max >> 1)
    return size


def _from_bits(bits: int, like: Array) -> float:
    return float(np.array([bits], f"u{like.dtype.itemsize}").view(like.dtype)[0])


def _differing(before: Array, after: Array) -> int:
    """Count values that are not equal bit for bit (NaN equals itself, -0 is not 0)."""
    if before.shape != after.shape:
        return max(before.size, after.size)
    return int(np.count_nonzero(_bits(before) != _bits(after.astype(before.dtype, copy=False))))


def _ulp(values: Floats, dtype: np.dtype[Any]) -> Floats:
    """Return at least one unit in the last place that values of this size have in `dtype`."""
    relative, least = _last_place(dtype)
    size: Floats = np.abs(values) * relative
    return np.maximum(size, least)


def _last_place(dtype: np.dtype[Any]) -> tuple[np.float32, np.float32]:
    """Return one unit in the last place, relative to a value and at least."""
    relative, least = (2 * HALF_ULP, HALF_TINY) if dtype == np.float16 else (SINGLE_ULP, SINGLE_TINY)
    return np.float32(relative), np.float32(least)


def _larger(worst: float, values: Array) -> float:
    """Return the larger of both; NaN when there is one."""
    here = float(values.max()) if values.size else 0.0
    return here if math.isnan(here) else max(worst, here)
