# SPDX-License-Identifier: Apache-2.0
"""Normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gate.mil.ops.registry import Ints, kernel


@kernel(fresh=True)
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


@kernel(fresh=True)
def instance_norm(x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5) -> Tensor:
    """Normalise over the spatial axes of `x (n, c, *spatial)`."""
    axes = list(range(2, x.dim()))
    return _affine(_standardise(x, axes, epsilon), gamma, beta, [1])


@kernel(fresh=True)
def l2_norm(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Divide by the length over the last three axes."""
    return x * torch.rsqrt(torch.sum(x * x, (-3, -2, -1), keepdim=True) + epsilon)


@kernel()
def layer_norm(
    x: Tensor,
    axes: Ints | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Normalise over `axes`, which `gamma` and `beta` span."""
    axes = sorted(a % x.dim() for a in axes) if axes else list(range(x.dim()))
    if axes == list(range(axes[0], x.dim())):
        return F.layer_norm(x, x.shape[axes[0] :], gamma, beta, epsilon)
    return _affine(_standardise(x, axes, epsilon), gamma, beta, axes)


@kernel()
def local_response_norm(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha / size · Σ x²)^beta over `size` neighbouring channels."""
    return F.local_response_norm(x, size, alpha, beta, k)


def _standardise(x: Tensor, axes: Ints, epsilon: float) -> Tensor:
    centred = x - torch.mean(x, axes, keepdim=True)
    return centred * torch.rsqrt(torch.mean(centred * centred, axes, keepdim=True) + epsilon)


def _affine(x: Tensor, gamma: Tensor | None, beta: Tensor | None, axes: Ints) -> Tensor:
    shape = [n if i in axes else 1 for i, n in enumerate(x.shape)]
    x = x if gamma is None else x * gamma.reshape(shape)
    return x if beta is None else x + beta.reshape(shape)
