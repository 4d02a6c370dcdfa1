# SPDX-License-Identifier: Apache-2.0
"""Activations."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gate.mil.ops.registry import kernel

SIXTH = 0.1666666716337204  # one sixth as float32


@kernel()
def clamped_relu(x: Tensor, alpha: float, beta: float) -> Tensor:
    """min(beta, x if x ≥ 0 else alpha x)."""
    return torch.clamp(torch.where(x >= 0, x, x * alpha), max=beta)


@kernel(fresh=True, rows=True)
def elu(x: Tensor, alpha: float) -> Tensor:
    return F.elu(x, alpha)


@kernel(fresh=True, rows=True)
def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode == "TANH_APPROXIMATION":
        return F.gelu(x, approximate="tanh")
    return x * torch.sigmoid(1.702 * x) if mode == "SIGMOID_APPROXIMATION" else F.gelu(x)


@kernel(fresh=True, rows=True)
def leaky_relu(x: Tensor, alpha: float) -> Tensor:
    return F.leaky_relu(x, alpha)


@kernel(fresh=True)
def linear_activation(x: Tensor, alpha: float, beta: float = 0.0) -> Tensor:
    return torch.add(torch.tensor(beta), x, alpha=alpha)


@kernel()
def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """x if x ≥ 0 else alpha[channel] x, for `x (n, c, …)`."""
    return torch.where(x >= 0, x, x * _channels(alpha, x))


@kernel(exact=True, fresh=True, rows=True)
def relu(x: Tensor) -> Tensor:
    return torch.relu(x)


@kernel(exact=True, fresh=True, rows=True)
def relu6(x: Tensor) -> Tensor:
    return torch.clamp(x, 0, 6)


@kernel()
def scaled_tanh(x: Tensor, alpha: float = 1.0, beta: float = 1.0) -> Tensor:
    return alpha * torch.tanh(beta * x)


@kernel(fresh=True, rows=True)
def sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


@kernel(fresh=True, rows=True)
def sigmoid_hard(x: Tensor, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """min(max(alpha · x + beta, 0), 1); torch knows the one of hard swish in one pass."""
    if beta == 0.5 and alpha == SIXTH:
        return F.hardsigmoid(x)
    return torch.add(torch.tensor(beta), x, alpha=alpha).clamp_(0, 1)


@kernel(fresh=True, rows=True)
def silu(x: Tensor) -> Tensor:
    return F.silu(x)


@kernel(rows=True)
def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), which is x above 20 to within float32."""
    return F.softplus(x, threshold=20)


@kernel()
def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """alpha[channel] log(1 + exp(beta[channel] x))."""
    return _channels(alpha, x) * softplus(_channels(beta, x) * x)


@kernel(fresh=True)
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


@kernel()
def softsign(x: Tensor) -> Tensor:
    return x / (1 + x.abs())


@kernel(exact=True, fresh=True, rows=True)
def thresholded_relu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x ≥ alpha, else 0."""
    return F.threshold(x, below(alpha), 0.0)


def below(alpha: float) -> float:
    """Return the float32 before `alpha`: what is above the one is at or above the other."""
    return float(np.nextafter(np.float32(alpha), np.float32("-inf")))


def _channels(parameter: Tensor, x: Tensor) -> Tensor:
    """Shape a parameter of each channel so that it broadcasts over `x (n, c, …)`."""
    return parameter.reshape(-1, *[1] * (x.dim() - 2)) if parameter.dim() else parameter
