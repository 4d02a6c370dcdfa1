# SPDX-License-Identifier: Apache-2.0
"""Arithmetic, comparison and logic of two tensors, broadcast against each other."""

from __future__ import annotations

import torch
from torch import Tensor

from gate.mil.ops.registry import kernel


@kernel(fresh=True)
def add(x: Tensor, y: Tensor) -> Tensor:
    return x + y


@kernel()
def equal(x: Tensor, y: Tensor) -> Tensor:
    return x == y


@kernel()
def floor_div(x: Tensor, y: Tensor) -> Tensor:
    """Quotient rounded toward minus infinity."""
    return torch.floor(x / y) if x.is_floating_point() else torch.floor_divide(x, _nonzero(y))


@kernel()
def greater(x: Tensor, y: Tensor) -> Tensor:
    return x > y


@kernel()
def greater_equal(x: Tensor, y: Tensor) -> Tensor:
    return x >= y


@kernel()
def less(x: Tensor, y: Tensor) -> Tensor:
    return x < y


@kernel()
def less_equal(x: Tensor, y: Tensor) -> Tensor:
    return x <= y


@kernel()
def logical_and(x: Tensor, y: Tensor) -> Tensor:
    return torch.logical_and(x, y)


@kernel()
def logical_or(x: Tensor, y: Tensor) -> Tensor:
    return torch.logical_or(x, y)


@kernel()
def logical_xor(x: Tensor, y: Tensor) -> Tensor:
    return torch.logical_xor(x, y)


@kernel(exact=True, fresh=True)
def maximum(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x, y)


@kernel(exact=True, fresh=True)
def minimum(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(x, y)


@kernel()
def mod(x: Tensor, y: Tensor) -> Tensor:
    """Remainder with the sign of `y`."""
    return torch.remainder(x, y if y.is_floating_point() else _nonzero(y))


@kernel(fresh=True)
def mul(x: Tensor, y: Tensor) -> Tensor:
    return x * y


@kernel()
def not_equal(x: Tensor, y: Tensor) -> Tensor:
    return x != y


@kernel(fresh=True)
def pow(x: Tensor, y: Tensor) -> Tensor:
    return torch.pow(x, y)


@kernel(fresh=True)
def real_div(x: Tensor, y: Tensor) -> Tensor:
    """Quotient; of integers, truncated toward zero."""
    return x / y if x.is_floating_point() else torch.div(x, _nonzero(y), rounding_mode="trunc")


@kernel(fresh=True)
def sub(x: Tensor, y: Tensor) -> Tensor:
    return x - y


def _nonzero(y: Tensor) -> Tensor:
    """Replace integer zeros: torch would end the process's evaluation, Core ML's result is undefined."""
    return torch.where(y == 0, torch.ones_like(y), y)
