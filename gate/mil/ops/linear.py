# SPDX-License-Identifier: Apache-2.0
"""Matrix products."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gate.mil.ops.registry import Tensors, kernel


@kernel(fresh=True)
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias, with `weight (out, in)`."""
    if not x.is_floating_point():
        product = torch.matmul(x.double(), weight.double().T)  # integers up to 2⁵³ are exact
        return _integer(product if bias is None else product + bias)
    # From iOS17 on integers may meet floats; what has x's dtype already is not copied.
    return F.linear(x, weight.to(x.dtype), bias if bias is None else bias.to(x.dtype))


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
