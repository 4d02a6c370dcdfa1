# SPDX-License-Identifier: Apache-2.0
"""Reductions over axes (all of them without `axes`)."""

from __future__ import annotations

import torch
from torch import Tensor

from gate.mil.ops.registry import Ints, kernel


def _axes(x: Tensor, axes: Ints | None) -> Ints:
    return axes if axes else list(range(x.dim()))


@kernel()
def reduce_argmax(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    return torch.argmax(x, axis, keep_dims)


@kernel()
def reduce_argmin(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    return torch.argmin(x, axis, keep_dims)


@kernel()
def reduce_l1_norm(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return torch.sum(x.abs(), _axes(x, axes), keep_dims)


@kernel()
def reduce_l2_norm(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return torch.sqrt(torch.sum(x.float() * x.float(), _axes(x, axes), keep_dims))


@kernel()
def reduce_log_sum(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return torch.log(torch.sum(x, _axes(x, axes), keep_dims))


@kernel()
def reduce_log_sum_exp(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return torch.logsumexp(x, _axes(x, axes), keep_dims)


@kernel(exact=True)
def reduce_max(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return torch.amax(x, _axes(x, axes), keep_dims)


@kernel(fresh=True)
def reduce_mean(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Mean; of integers, truncated toward zero."""
    if x.is_floating_point():
        return torch.mean(x, _axes(x, axes), keep_dims)
    return torch.mean(x.double(), _axes(x, axes), keep_dims).trunc().to(torch.int64)


@kernel(exact=True)
def reduce_min(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return torch.amin(x, _axes(x, axes), keep_dims)


@kernel()
def reduce_prod(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    for axis in sorted((a % x.dim() for a in _axes(x, axes)), reverse=True):
        x = torch.prod(x, axis, keep_dims)
    return x


@kernel(fresh=True)
def reduce_sum(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return torch.sum(x, _axes(x, axes), keep_dims)


@kernel(fresh=True)
def reduce_sum_square(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return torch.sum(x * x, _axes(x, axes), keep_dims)
