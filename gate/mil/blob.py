# SPDX-License-Identifier: Apache-2.0
"""Which bytes of `weight.bin` belong to a constant, and what do they mean?

MIL blob storage, version 2: a 64-byte header (count, version), then per blob a 64-byte metadata record at an
offset that the program names, which points to the data. The file is mapped, not read; an offset is believed
only after sentinel, type, size and bounds agree. Elements under eight bits are packed, lowest bits first.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gate.mil.errors import BadPackage

Array = npt.NDArray[Any]

HEADER_BYTES = 64
RESIDENT_BYTES = 2**23  # of a file that has been read; more is given back, and mapped again when somebody looks
METADATA = struct.Struct("<IIQQQ")
SENTINEL = 0xDEADBEEF
VERSION = 2

# The codes of the file, as MILBlob's `BlobDataType` numbers them.
STORED = {
    1: "float16",
    2: "float32",
    3: "uint8",
    4: "int8",
    5: "bfloat16",
    6: "int16",
    7: "uint16",
    8: "int4",
    9: "uint1",
    10: "uint2",
    11: "uint4",
    12: "uint3",
    13: "uint6",
    14: "int32",
    15: "uint32",
}

BITS = {
    "bool": 8,
    "uint1": 1,
    "uint2": 2,
    "uint3": 3,
    "uint4": 4,
    "int4": 4,
    "uint6": 6,
    "uint8": 8,
    "int8": 8,
    "float16": 16,
    "bfloat16": 16,
    "int16": 16,
    "uint16": 16,
    "float32": 32,
    "int32": 32,
    "uint32": 32,
    "float64": 64,
    "int64": 64,
    "uint64": 64,
}


@dataclass(frozen=True)
class Blob:
    """One blob as it lies in the file: `data` is a view on the mapping."""

    dtype: str
    data: npt.NDArray[np.uint8]


class BlobFile:
    """A mapped `weight.bin`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._resident = 0
        try:
            size = path.stat().st_size
            if size < HEADER_BYTES:
                raise BadPackage(f"{path.name}: {size} bytes, shorter than the {HEADER_BYTES}-byte header")
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise BadPackage(f"{path.name}: the program refers to it, but it can't be read ({error})") from None
        version = int.from_bytes(self._map[4:8], "little")
        if version != VERSION:
            raise BadPackage(f"{path.name}: blob storage version {version}, expected {VERSION}")

    def __len__(self) -> int:
        return len(self._map)

    def read(self, offset: int) -> Blob:
        """Return the blob whose metadata record is at `offset`."""
        where = f"{self.path.name}: blob at offset {offset}"
        if offset < HEADER_BYTES or offset % 64 or offset + METADATA.size > len(self):
            raise BadPackage(f"{where}: no metadata can be there (the file has {len(self)} bytes, records align to 64)")
        sentinel, code, size, start, _ = METADATA.unpack_from(self._map, offset)
        if sentinel != SENTINEL:
            raise BadPackage(f"{where}: found {sentinel:#x} where the sentinel {SENTINEL:#x} belongs")
        if code not in STORED:
            raise BadPackage(f"{where}: unknown element type {code}")
        if start < HEADER_BYTES or start + size > len(self):
            raise BadPackage(f"{where}: {size} bytes from {start} do not lie inside the file of {len(self)} bytes")
        self._give_back(size)
        return Blob(STORED[code], np.frombuffer(self._map, np.uint8, size, start))

    def _give_back(self, size: int) -> None:
        """Let go of the pages of what was read before: views on them stay valid."""
        self._resident += size
        if self._resident > RESIDENT_BYTES and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._resident = size


def packed_bytes(dtype: str, count: int) -> int:
    """Bytes that `count` elements of `dtype` take in the file."""
    return -(-count * BITS[dtype] // 8)


def unpack(data: npt.NDArray[np.uint8], dtype: str, count: int) -> Array:
    """Return `count` elements of `dtype` as numpy's nearest type (sub-byte types as uint8 or int8)."""
    bits = BITS[dtype]
    if bits >= 8:
        return _whole(data, dtype, count)
    values = _packed(data, bits, count)
    if dtype == "int4":
        return ((values ^ 8).astype(np.int8) - 8).astype(np.int8)
    return values


def _whole(data: npt.NDArray[np.uint8], dtype: str, count: int) -> Array:
    if dtype == "bfloat16":
        wide = data[: count * 2].view(np.uint16).astype(np.uint32) << 16
        return wide.view(np.float32)
    return data[: packed_bytes(dtype, count)].view(np.dtype(dtype))


def _packed(data: npt.NDArray[np.uint8], bits: int, count: int) -> npt.NDArray[np.uint8]:
    """Spread packed elements over one byte each; those of three or six bits lie in threes of bytes."""
    if bits in SPREAD:
        spread: npt.NDArray[np.uint8] = SPREAD[bits][data[: -(-count * bits // 8)]].view(np.uint8)
        return spread[:count]
    padded = np.zeros(-(-count * bits // 24) * 3, np.uint8)
    padded[: data.size] = data[: padded.size]
    lanes = 24 // bits  # elements in three bytes, one to a byte of an integer
    words, *higher = (byte.astype(f"u{lanes}") for byte in padded.reshape(-1, 3).T)
    for place, byte in enumerate(higher, start=1):
        words |= byte << (8 * place)
    low = (1 << bits) - 1
    elements = words & low
    for lane in range(1, lanes):
        elements |= ((words >> (lane * bits)) & low) << (8 * lane)
    found: npt.NDArray[np.uint8] = elements.view(np.uint8)
    return found[:count]


def refuse_indivisible(blocks: Sequence[int], shape: Sequence[int]) -> None:
    """Raise ValueError unless each axis divides into as many blocks as stated."""
    if len(blocks) != len(shape) or any(n < 1 or size % n for n, size in zip(blocks, shape, strict=True)):
        raise ValueError(f"{tuple(shape)} does not divide into blocks {tuple(blocks)}")


def scatter(values: Array, mask: Array) -> Array:
    """Put the values where `mask` is not zero, zeros elsewhere; ValueError when there are more or fewer than places."""
    chosen = mask.reshape(-1) != 0
    places = np.cumsum(chosen, dtype=np.int32 if chosen.size < 2**31 else np.int64)
    expected = int(places[-1]) if places.size else 0
    if expected != values.size:
        raise ValueError(f"{values.size} values for {expected} set bits of the mask")
    if not values.size:
        return np.zeros(mask.shape, values.dtype)
    bits = np.ascontiguousarray(values).reshape(-1).view(f"u{values.dtype.itemsize}")
    dense: Array = np.concatenate([bits[:1], bits]).take(places)
    dense *= chosen  # as integers: three times as fast as an assignment by mask
    return dense.view(values.dtype).reshape(mask.shape)


def _spread(bits: int) -> npt.NDArray[Any]:
    """Return, for each byte, its elements side by side as one integer: looked up in one step."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    elements = (np.arange(256, dtype=np.uint8)[:, None] >> shifts) & ((1 << bits) - 1)
    return np.ascontiguousarray(elements).view(f"u{8 // bits}").reshape(256)


SPREAD = {bits: _spread(bits) for bits in (1, 2, 4)}
