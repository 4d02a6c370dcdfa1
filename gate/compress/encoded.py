# SPDX-License-Identifier: Apache-2.0
"""What is a compressed weight? Its parts as they lie in a package, and how they become numbers again.

The parts carry the names and shapes that iOS18's `constexpr_*` ops give them; `package.py` writes the older forms from the
same bytes. Decoding follows the definition of those ops, in float32, rounded once to the weight's own type.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from gate.mil.blob import BITS, refuse_indivisible, scatter, unpack

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


class Form(StrEnum):
    """How a weight is stored."""

    LINEAR = "linear"
    PALETTE = "palette"
    SCALED_PALETTE = "scaled palette"
    SPARSE = "sparse"
    SPARSE_LINEAR = "sparse linear"
    SPARSE_PALETTE = "sparse palette"


PARTS: Mapping[Form, tuple[frozenset[str], frozenset[str]]] = {  # needed, optional
    Form.LINEAR: (frozenset({"data", "scale"}), frozenset({"offset"})),
    Form.PALETTE: (frozenset({"indices", "lut"}), frozenset()),
    Form.SCALED_PALETTE: (frozenset({"indices", "lut", "scale"}), frozenset({"offset"})),
    Form.SPARSE: (frozenset({"mask", "nonzero_data"}), frozenset()),
    Form.SPARSE_LINEAR: (frozenset({"mask", "nonzero_data", "scale"}), frozenset({"offset"})),
    Form.SPARSE_PALETTE: (frozenset({"mask", "nonzero_data", "lut"}), frozenset({"scale", "offset"})),
}


TABLE = ("lut", "scale", "offset")


@dataclass(frozen=True, eq=False)
class Tensor:
    """One part: elements under eight bits are packed, lowest bits first, as a weight file holds them."""

    dtype: str
    shape: tuple[int, ...]
    data: Bytes

    @classmethod
    def of(cls, array: Array, dtype: str | None = None) -> "Tensor":
        """Pack an array."""
        name = dtype or str(array.dtype)
        return cls(name, array.shape, pack(array, BITS[name]))

    @property
    def array(self) -> Array:
        """The elements, sub-byte ones one to a byte."""
        return unpack(self.data, self.dtype, int(np.prod(self.shape))).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Encoded:
    """A compressed weight. `axis` is the axis of vectors in a palette that holds vectors, else None."""

    form: Form
    shape: tuple[int, ...]
    parts: Mapping[str, Tensor]
    axis: int | None = None

    @property
    def stored_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.data.size for part in self.parts.values())


def pack(array: Array, bits: int) -> Bytes:
    """Return the bytes of an array, `bits` per element, lowest bits first."""
    if bits >= 8:
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    values = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    spread = np.empty((values.size, bits), np.uint8)
    for bit in range(bits):
        np.bitwise_and(values >> bit, 1, out=spread[:, bit])
    return np.packbits(spread.reshape(-1), bitorder="little")


def decode(encoded: Encoded, *, rounded: bool = True) -> Array:
    """Return the weight that a runtime computes with; linear forms not rounded to their type (float32) when asked."""
    parts = {name: part.array for name, part in encoded.parts.items()}
    match encoded.form:
        case Form.LINEAR:
            return _dequantized(parts["data"], parts["scale"], parts.get("offset"), rounded)
        case Form.PALETTE:
            return _looked_up(parts["indices"], parts["lut"], encoded.axis)
        case Form.SCALED_PALETTE:
            return _looked_up(parts["indices"], tables(encoded), encoded.axis)
        case Form.SPARSE:
            return scatter(parts["nonzero_data"], parts["mask"])
        case Form.SPARSE_LINEAR:
            dense = scatter(parts["nonzero_data"], parts["mask"])
            weight = _dequantized(dense, parts["scale"], parts.get("offset"), rounded)
        case Form.SPARSE_PALETTE:
            weight = _looked_up(scatter(parts["nonzero_data"], parts["mask"]), tables(encoded), None)
    bits = weight.view(f"u{weight.dtype.itemsize}")
    bits *= parts["mask"]
    return weight


def spread(blocks: Array, shape: tuple[int, ...]) -> Array:
    """Repeat each block's value over its elements, so that `blocks` broadcasts against `shape`."""
    refuse_indivisible(blocks.shape, shape)
    for axis, size in enumerate(shape):
        if blocks.shape[axis] not in (1, size):
            blocks = np.repeat(blocks, size // blocks.shape[axis], axis)
    return blocks


def _dequantized(data: Array, scale: Array, offset: Array | None, rounded: bool) -> Array:
    values = data.astype(np.float32)
    if offset is not None:
        values -= spread(offset, data.shape).astype(np.float32)
    values *= spread(scale, data.shape).astype(np.float32)
    return values.astype(scale.dtype) if rounded else values


def tables(encoded: Encoded) -> Array:
    """Return the tables as they are looked up in: times a scale per channel, or their integers as numbers."""
    lut, scale, offset = (encoded.parts[name].array if name in encoded.parts else None for name in TABLE)
    assert lut is not None
    return lut if scale is None else _dequantized(lut, scale, offset, True)


def _looked_up(indices: Array, lut: Array, axis: int | None) -> Array:
    """Index the tables: `lut` is (blocks per axis …, entries, vector length)."""
    vector = lut.shape[-1]
    blocks = lut.shape[:-2]
    refuse_indivisible(blocks, indices.shape)
    if lut.size == lut.shape[-2]:
        return lut.reshape(-1).take(indices)
    out = np.empty((*indices.shape, vector), lut.dtype)
    for block in np.ndindex(*blocks):
        where = tuple(
            slice(i * (size // count), (i + 1) * (size // count))
            for i, count, size in zip(block, blocks, indices.shape, strict=True)
        )
        out[where] = np.take(lut[block], indices[where], axis=0)
    if axis is None:
        return out[..., 0]
    along = np.moveaxis(out, -1, axis + 1)
    return along.reshape(*indices.shape[:axis], indices.shape[axis] * vector, *indices.shape[axis + 1 :])
