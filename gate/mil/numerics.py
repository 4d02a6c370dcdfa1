# SPDX-License-Identifier: Apache-2.0
"""When does a value lose precision, and which dtype does it have?

Every float lives in a float32 tensor, whatever the program declares; a float16 value is a float32 that float16
can represent. Kernels compute in float32 and `settle` rounds their result once, to nearest even, overflowing to
infinity and keeping subnormals, as IEEE 754 and as `torch.half` do. (Computing in half itself is 50 times slower
on a CPU and accumulates in ways that no Apple engine does.) Integers live in int32 tensors and wrap at the width
that the program declares; MIL programs have no 64-bit values. docs/evaluator.md says what Apple's engines do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gate.mil.blob import Array
from gate.mil.errors import Unsupported

FLOATS = frozenset({"float16", "float32", "float64", "bfloat16"})
SIGNED = {"int4": 4, "int8": 8, "int16": 16}
UNSIGNED = {"uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6, "uint8": 8, "uint16": 16}
INTS = frozenset({*SIGNED, *UNSIGNED, "int32", "uint32", "int64", "uint64"})


class Precision(StrEnum):
    """How float16 results are rounded; each mode includes the losses of the one before."""

    FLOAT32 = "float32"
    DECLARED = "declared"
    NARROW = "narrow"
    ACCUMULATE16 = "accumulate16"


@dataclass(frozen=True)
class Rounding:
    """How one op rounds. `as_half` also makes float32 values float16: "what if this op ran in half?"."""

    precision: Precision = Precision.DECLARED
    as_half: bool = False

    def halves(self, dtype: str) -> bool:
        """Say whether values of this type are rounded to float16."""
        if self.precision is Precision.FLOAT32:
            return False
        return dtype == "float16" or (self.as_half and dtype in FLOATS)


Settle = Callable[[Tensor], Tensor]
SMALLEST = 2.0**-24  # the least positive float16
BUMPED_ELEMENTS = 400  # larger constants are not looked through


def half(x: Tensor) -> Tensor:
    """Round to the nearest float16 value, as a float32 tensor."""
    return x.half().float()


def half_constant(x: Tensor) -> Tensor:
    """Round a float32 constant as coremltools' float16 cast does: what would vanish becomes the least float16."""
    rounded = half(x)
    if x.numel() >= BUMPED_ELEMENTS:
        return rounded
    return torch.where((rounded == 0) & (x != 0), torch.sign(x) * SMALLEST, rounded)


def half_(x: Tensor) -> Tensor:
    """Round in place: for a large tensor half the time, since it needs no new memory."""
    return x.copy_(x.half()) if x.dtype is torch.float32 else half(x)


def settle(dtype: str, rounding: Rounding, fresh: bool = False) -> Settle:
    """Return the function that makes a kernel's result a value of the declared dtype; a `fresh` one may be changed."""
    if rounding.halves(dtype):
        return half_ if fresh else half
    if dtype in FLOATS:
        return _float
    if dtype == "bool":
        return _bool
    if dtype in SIGNED:
        return _wrap(-(1 << SIGNED[dtype] - 1), SIGNED[dtype])
    if dtype in UNSIGNED:
        return _wrap(0, UNSIGNED[dtype])
    if dtype in INTS:
        return _int32
    raise Unsupported(f"values of type {dtype!r} can't be computed with")


def keep(dtype: str) -> Settle:
    """Return the cheaper `settle` of an op that only moves values, or picks among them."""
    if dtype in FLOATS:
        return _float
    return _bool if dtype == "bool" else _int32


def _float(x: Tensor) -> Tensor:
    return x if x.dtype is torch.float32 else x.float()


def _bool(x: Tensor) -> Tensor:
    return x if x.dtype is torch.bool else x != 0


def _int32(x: Tensor) -> Tensor:
    return x if x.dtype is torch.int32 else x.to(torch.int32)


def _wrap(low: int, bits: int) -> Settle:
    """Keep the low `bits` bits, read as an integer that starts at `low`."""
    mask = (1 << bits) - 1

    def wrap(x: Tensor) -> Tensor:
        return ((_int32(x) - low) & mask) + low

    return wrap


def tensor(array: Array) -> Tensor:
    """Return a numpy array as the tensor that kernels compute with (float32 ones are shared, not copied)."""
    kind = array.dtype.kind
    if kind == "f":
        whole = array.dtype == np.float32 and array.flags.writeable and array.flags.c_contiguous
        return torch.from_numpy(array if whole else np.array(array, np.float32))
    if kind == "b":
        return torch.from_numpy(np.array(array))
    if kind in "iu":
        return torch.from_numpy(np.array(array).astype(np.int32))
    raise Unsupported(f"an array of {array.dtype} can't be computed with")


def array(x: Tensor, dtype: str) -> Array:
    """Return a tensor as the numpy array of the declared dtype."""
    if dtype == "float16":
        return x.detach().half().contiguous().numpy()  # a copy, since floats are float32 here
    numpy_dtype: Any = {"bfloat16": "float32"}.get(dtype, dtype)
    return x.detach().numpy().astype(numpy_dtype, order="C")
