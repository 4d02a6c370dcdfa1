# SPDX-License-Identifier: Apache-2.0
"""Branches, loops, and lists of tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gate.mil.ops.registry import Context, Ints, Result, Strings, TensorList, Tensors, kernel
from gate.mil.program import ListType, TensorType

# A loop that runs longer is taken for one that never ends. 448 is what a speech decoder needs.
MAX_ITERATIONS = 1_000_000


@kernel(exact=True, batch=False)
def cond(pred: bool, context: Context) -> Result:
    branch = context.op.blocks[0 if pred else 1]
    return _results(context.run_block(branch, ()))


@kernel(exact=True, batch=False)
def while_loop(loop_vars: Tensors, context: Context) -> Result:
    condition, body = context.op.blocks
    values: tuple[Any, ...] = tuple(loop_vars)
    for _ in range(MAX_ITERATIONS):
        (proceed,) = context.run_block(condition, values)
        if not bool(proceed):
            return _results(values)
        values = context.run_block(body, values)
    raise ValueError(f"still running after {MAX_ITERATIONS} iterations")


@kernel(batch=False)
def make_list(
    context: Context, elem_shape: Strings, init_length: int = 1, dynamic_length: bool = True, dtype: str = "fp32"
) -> TensorList:
    """Make a list of zeros, of the shape in the declared type of the result; `elem_shape` names unknown sizes."""
    (kind,) = context.outputs
    assert isinstance(kind, ListType)
    assert isinstance(kind.element, TensorType)
    shape = [size or 1 for size in kind.element.shape or ()]
    return [torch.zeros(shape, dtype=TORCH_DTYPES[dtype])] * init_length


TORCH_DTYPES = {"fp16": torch.float32, "fp32": torch.float32, "int32": torch.int32, "bool": torch.bool}


@kernel(batch=False)
def list_length(ls: TensorList) -> Tensor:
    return torch.tensor(len(ls), dtype=torch.int32)


@kernel(exact=True, batch=False)
def list_read(ls: TensorList, index: int) -> Tensor:
    return ls[_inside(ls, index)]


@kernel(exact=True, batch=False)
def list_write(ls: TensorList, index: int, value: Tensor) -> TensorList:
    return _write(ls, {index: value})


@kernel(exact=True, batch=False)
def list_gather(ls: TensorList, indices: Ints) -> Tensor:
    return torch.stack([ls[_inside(ls, i)] for i in indices])


@kernel(exact=True, batch=False)
def list_scatter(ls: TensorList, indices: Ints, value: Tensor) -> TensorList:
    return _write(ls, dict(zip(indices, value.unbind(0), strict=True)))


def _results(values: tuple[Any, ...]) -> Result:
    return values if len(values) != 1 else values[0]


def _inside(ls: TensorList, index: int) -> int:
    if not 0 <= index < len(ls):
        raise IndexError(f"index {index} of a list of {len(ls)}")
    return index


def _write(ls: TensorList, values: dict[int, Tensor]) -> TensorList:
    """Replace elements; the list grows by zeros up to an index behind its end."""
    if min(values, default=0) < 0 or max(values, default=0) > MAX_ITERATIONS:
        raise IndexError(f"can't write to index {min(values)} to {max(values)} of a list of {len(ls)}")
    missing = max(values, default=-1) + 1 - len(ls)
    written = ls if missing <= 0 else [*ls, *[torch.zeros_like(next(iter(values.values())))] * missing]
    return [values.get(i, old) for i, old in enumerate(written)]


@kernel(exact=True)
def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`a` where the condition holds, else `b`."""
    return torch.where(cond, a, b)
