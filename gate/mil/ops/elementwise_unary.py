# SPDX-License-Identifier: Apache-2.0
"""Functions of one element."""

from __future__ import annotations

import torch
from torch import Tensor

from gate.mil.ops.registry import kernel


@kernel(exact=True)
def abs(x: Tensor) -> Tensor:
    return torch.abs(x)


@kernel()
def acos(x: Tensor) -> Tensor:
    return torch.acos(x)


@kernel()
def asin(x: Tensor) -> Tensor:
    return torch.asin(x)


@kernel()
def atan(x: Tensor) -> Tensor:
    return torch.atan(x)


@kernel()
def atanh(x: Tensor) -> Tensor:
    return torch.atanh(x)


@kernel(exact=True)
def ceil(x: Tensor) -> Tensor:
    return torch.ceil(x)


@kernel(exact=True, fresh=True, rows=True)
def clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Bound by `alpha` below and `beta` above."""
    return torch.clamp(x, alpha, beta)


@kernel(fresh=True)
def cos(x: Tensor) -> Tensor:
    return torch.cos(x)


@kernel()
def cosh(x: Tensor) -> Tensor:
    return torch.cosh(x)


@kernel(fresh=True)
def erf(x: Tensor) -> Tensor:
    return torch.erf(x)


@kernel(fresh=True, rows=True)
def exp(x: Tensor) -> Tensor:
    return torch.exp(x)


@kernel()
def exp2(x: Tensor) -> Tensor:
    return torch.exp2(x.float())


@kernel(exact=True)
def floor(x: Tensor) -> Tensor:
    return torch.floor(x)


@kernel(fresh=True)
def inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    """1 / (x + epsilon)."""
    return torch.reciprocal(x + epsilon)


@kernel(fresh=True)
def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    """Natural logarithm of x + epsilon."""
    return torch.log(x + epsilon)


@kernel()
def logical_not(x: Tensor) -> Tensor:
    return torch.logical_not(x)


@kernel(exact=True)
def round(x: Tensor) -> Tensor:
    """Round to the nearest integer, halves to even."""
    return torch.round(x)


@kernel(fresh=True)
def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    """1 / √(x + epsilon)."""
    return torch.rsqrt(x + epsilon)


@kernel(exact=True)
def sign(x: Tensor) -> Tensor:
    return torch.sign(x)


@kernel(fresh=True)
def sin(x: Tensor) -> Tensor:
    return torch.sin(x)


@kernel()
def sinh(x: Tensor) -> Tensor:
    return torch.sinh(x)


@kernel(fresh=True, rows=True)
def sqrt(x: Tensor) -> Tensor:
    return torch.sqrt(x)


@kernel(fresh=True, rows=True)
def square(x: Tensor) -> Tensor:
    return x * x


@kernel()
def tan(x: Tensor) -> Tensor:
    return torch.tan(x)


@kernel(fresh=True, rows=True)
def tanh(x: Tensor) -> Tensor:
    return torch.tanh(x)


@kernel(exact=True)
def threshold(x: Tensor, alpha: float) -> Tensor:
    """max(x, alpha)."""
    return torch.clamp(x, min=alpha)


@kernel(rows=True)
def cast(x: Tensor, dtype: str) -> Tensor:
    """Convert; floats become integers by dropping the fraction. The declared output type does the rest."""
    if dtype == "bool":
        return x != 0
    return x.float() if dtype.startswith("fp") else x.trunc() if x.is_floating_point() else x
