# SPDX-License-Identifier: Apache-2.0
"""Reading and writing at computed places. Negative indices count from the end."""

from __future__ import annotations

import torch
from torch import Tensor

from gate.mil.ops.registry import kernel


@kernel(exact=True)
def gather(x: Tensor, indices: Tensor, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """Take slices of `x` along `axis`; the first `batch_dims` axes of `x` and `indices` run together."""
    axis %= max(x.dim(), 1)
    places = wrapped(indices, x.shape[axis])
    if batch_dims == 0:
        taken = torch.index_select(x, axis, places.reshape(-1))
        return taken.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    lead, rest = x.shape[:batch_dims], indices.shape[batch_dims:]
    flat = places.reshape(*lead, *[1] * (axis - batch_dims), -1, *[1] * (x.dim() - axis - 1))
    flat = flat.expand(*x.shape[:axis], flat.shape[axis], *x.shape[axis + 1 :])
    return torch.gather(x, axis, flat).reshape(*x.shape[:axis], *rest, *x.shape[axis + 1 :])


def wrapped(indices: Tensor, size: int) -> Tensor:
    """Return indices as int64, those below zero counted from the end."""
    places = indices.long()
    return torch.where(places < 0, places + size, places)
