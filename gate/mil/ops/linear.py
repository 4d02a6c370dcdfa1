# SPDX-License-Identifier: Apache-2.0
"""Matrix products."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gate.mil.ops.registry import Ints, Rest, Tensors, is_stack, kernel, plan

SHARES = 8
WORTH_SHARING = 2**17  # weights


@kernel(fresh=True, rows=True)
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias, with `weight (out, in)`."""
    if not x.is_floating_point():
        exact = torch.matmul(x.double(), weight.double().T)  # integers up to 2⁵³ are exact
        return _integer(exact if bias is None else exact + bias)
    if is_stack(x) or x.dtype is not torch.float32:
        return F.linear(x, *_as(x, weight, bias))
    return plan_linear(list(x.shape), weight, bias)(x)


@plan(linear)
def plan_linear(sizes: Ints, weight: Tensor, bias: Tensor | None = None) -> Rest:
    """Return what `linear` comes down to for floats of these sizes."""
    if any(part is not None and part.dtype is not torch.float32 for part in (weight, bias)):
        return lambda x: F.linear(x, *_as(x, weight, bias))
    out, size = weight.shape
    one_row = math.prod(sizes) == size and (bias is None or bias.shape == (out,))
    if not one_row or weight.numel() < WORTH_SHARING or out % SHARES or not weight.is_contiguous():
        return lambda x: F.linear(x, weight, bias)
    # A product of one row would read the weights with one core alone; a batch of products reads them with all.
    parts = weight.view(SHARES, out // SHARES, size)
    added = None if bias is None else bias.reshape(SHARES, out // SHARES, 1)

    def shared(x: Tensor) -> Tensor:
        column = x.reshape(1, size).t().expand(SHARES, size, 1)
        row = torch.bmm(parts, column) if added is None else torch.baddbmm(added, parts, column)
        return row.view(*sizes[:-1], out)

    return shared


def _as(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return weights with the dtype of `x`: from iOS17 on integers may meet floats. What has it already is not copied."""
    return weight.to(x.dtype), None if bias is None else bias.to(x.dtype)


@kernel()
def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Batched product; a vector counts as a row on the left and as a column on the right."""
    x = x.transpose(-1, -2) if transpose_x and x.dim() > 1 else x
    y = y.transpose(-1, -2) if transpose_y and y.dim() > 1 else y
    if not x.is_floating_point() and not y.is_floating_point():
        return _integer(torch.matmul(x.double(), y.double()))
    return torch.matmul(x.float(), y.float())


@kernel()
def einsum(values: Tensors, equation: str) -> Tensor:
    return torch.einsum(equation, *values)


def _integer(x: Tensor) -> Tensor:
    return x.to(torch.int64)
