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
    # From iOS17 on integers may meet floats; what has x's dtype already is not copied.
    weight, bias = weight.to(x.dtype), bias if bias is None else bias.to(x.dtype)
    return F.linear(x, weight, bias) if is_stack(x) else product(list(x.shape), weight, bias)(x)


@plan(linear)
def product(sizes: Ints, weight: Tensor, bias: Tensor | None = None) -> Rest:
    """Return what `linear` comes down to for floats of these sizes."""
    if any(part is not None and part.dtype is not torch.float32 for part in (weight, bias)):
        return lambda x: linear(x, weight, bias)
    out, size = weight.shape
    several = math.prod(sizes) != size or out % SHARES or weight.numel() < WORTH_SHARING or not weight.is_contiguous()
    if several:
        return lambda x: F.linear(x, weight, bias)
    # One row: a product would read the weights with one core alone, a batch of products reads them with all.
    parts = weight.view(SHARES, out // SHARES, size)
    added = None if bias is None else bias.view(SHARES, out // SHARES, 1)

    def shared(x: Tensor) -> Tensor:
        column = x.reshape(1, size).t().expand(SHARES, size, 1)
        row = torch.bmm(parts, column) if added is None else torch.baddbmm(added, parts, column)
        return row.view(*sizes[:-1], out)

    return shared


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
