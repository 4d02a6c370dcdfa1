# SPDX-License-Identifier: Apache-2.0
"""Weights that are stored compressed, decoded once when the program is loaded.

These kernels work on numpy arrays of the stored elements (sub-byte ones one to a byte) and compute in float32.
Until iOS17 indices and masks are bits packed into bytes; from iOS18 on they are tensors of sub-byte type.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gate.mil.blob import BITS, Array, packed_bytes, refuse_indivisible, scatter, unpack
from gate.mil.ops.registry import Ints, kernel

PIECE = 2**16  # bytes looked up at once: numpy widens indices to eight bytes, which then stay in the cache
INDEX_TYPES = {2: "uint1", 4: "uint2", 8: "uint3", 16: "uint4", 64: "uint6", 256: "uint8"}


@kernel()
def constexpr_affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: int) -> Array:
    """scale · (data - zero_point), both of one value or of one for each index of `axis`."""
    shape = [1] * quantized_data.ndim
    shape[axis] = -1
    spread = [shape if p.ndim and p.size > 1 else [1] * quantized_data.ndim for p in (scale, zero_point)]
    shifted = quantized_data.astype(np.float32)
    if np.any(zero_point):
        shifted -= zero_point.astype(np.float32).reshape(spread[1])
    shifted *= scale.astype(np.float32).reshape(spread[0])
    return shifted


@kernel()
def constexpr_blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """scale · (data - offset), where one scale serves a block of `data.shape / scale.shape` elements."""
    blocks = _blocks(data.shape, scale.shape)
    spread = [n for size in scale.shape for n in (size, 1)]
    out = data.astype(np.float32).reshape(blocks)
    if offset is not None:
        out -= offset.astype(np.float32).reshape(spread)
    out *= scale.astype(np.float32).reshape(spread)
    return out.reshape(data.shape)


@kernel()
def constexpr_cast(source_val: Array, output_dtype: str) -> Array:
    return source_val.astype({"fp32": np.float32, "fp16": np.float16}[output_dtype])


@kernel(exact=True)
def constexpr_lut_to_dense(indices: Array, lut: Array, shape: Ints) -> Array:
    """Look up packed indices in one table."""
    if lut.size not in INDEX_TYPES:
        raise ValueError(f"a table of {lut.size} entries; expected one of {', '.join(map(str, INDEX_TYPES))}")
    dtype, count = INDEX_TYPES[lut.size], int(np.prod(shape))
    if indices.size < packed_bytes(dtype, count):
        raise ValueError(f"{indices.size} bytes of indices, {shape} needs {packed_bytes(dtype, count)}")
    return _looked_up(indices.reshape(-1), _wide(lut.reshape(-1)), BITS[dtype], count).reshape(shape)


def _looked_up(packed: Array, lut: Array, bits: int, count: int) -> Array:
    """Look up packed indices, all of a byte in one step where they fill it."""
    if bits not in (2, 4) or lut.itemsize != 4:
        return lut.take(unpack(packed, f"uint{bits}", count))
    per_byte = 8 // bits
    rows = lut.take(unpack(np.arange(256, dtype=np.uint8), f"uint{bits}", 256 * per_byte)).reshape(256, per_byte)
    wide = rows.view({2: np.float64, 4: np.complex128}[per_byte]).reshape(256)
    used = packed[: -(-count // per_byte)]
    found = np.empty(used.size, wide.dtype)
    for i in range(0, used.size, PIECE):
        np.take(wide, used[i : i + PIECE], out=found[i : i + PIECE], mode="wrap")
    return found.view(lut.dtype)[:count]


def _wide(lut: Array) -> Array:
    """Return a table of floats as float32, which is what kernels read."""
    return lut.astype(np.float32) if lut.dtype.kind == "f" else lut


@kernel("constexpr_lut_to_dense", exact=True, since="CoreML8")
def constexpr_lut_to_dense_grouped(indices: Array, lut: Array, vector_axis: int | None = None) -> Array:
    """Look up in the table of each element's block; `lut (*blocks, entries, vector)`."""
    *groups, entries, size = lut.shape
    offsets = np.arange(int(np.prod(groups)), dtype=np.intp) * entries
    spread = [n for g in groups for n in (g, 1)]
    if indices.size and int(indices.max()) >= entries:
        raise ValueError(f"index {int(indices.max())} in a table of {entries} entries")
    places = indices if len(offsets) == 1 else indices.reshape(_blocks(indices.shape, groups)) + offsets.reshape(spread)
    lut = _wide(lut)
    if size == 1:
        return lut.reshape(-1).take(places).reshape(indices.shape)
    if vector_axis is None:
        raise ValueError(f"vectors of {size} elements without a vector_axis")
    vectors = lut.reshape(-1, size).take(places, axis=0).reshape(*indices.shape, size)
    axis = vector_axis % indices.ndim
    shape = [n * size if i == axis else n for i, n in enumerate(indices.shape)]
    return np.moveaxis(vectors, -1, axis + 1).reshape(shape)


@kernel(exact=True)
def constexpr_sparse_to_dense(nonzero_data: Array, mask: Array, shape: Ints) -> Array:
    """Spread the data over the set bits of a packed mask."""
    bits = unpack(mask.reshape(-1), "uint1", int(np.prod(shape)))
    return scatter(nonzero_data, bits).reshape(shape)


@kernel("constexpr_sparse_to_dense", exact=True, since="CoreML8")
def constexpr_sparse_to_dense_masked(nonzero_data: Array, mask: Array) -> Array:
    return scatter(nonzero_data, mask)


@kernel(since="CoreML8")
def constexpr_lut_to_sparse(
    indices_mask: Array, indices_nonzero_data: Array, lut: Array, vector_axis: int | None = None
) -> tuple[Array, Array]:
    """Look up what a mask lets through; a vector makes the mask as much longer."""
    dense = constexpr_lut_to_dense_grouped(scatter(indices_nonzero_data, indices_mask), lut, vector_axis)
    mask = indices_mask
    if lut.shape[-1] > 1:
        mask = np.repeat(mask, lut.shape[-1], axis=vector_axis)
    return mask, dense[mask != 0]


@kernel(since="CoreML8")
def constexpr_sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None = None
) -> tuple[Array, Array]:
    dense = constexpr_blockwise_shift_scale(scatter(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask != 0]


def _blocks(shape: Sequence[int], groups: Sequence[int]) -> list[int]:
    """Return the shape with each axis split into (groups, block)."""
    refuse_indivisible(groups, shape)
    return [part for n, g in zip(shape, groups, strict=True) for part in (g, n // g)]
