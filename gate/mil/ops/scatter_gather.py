# SPDX-License-Identifier: Apache-2.0
"""Reading and writing at computed places.

What an index outside the tensor means has changed: before iOS17 a negative one counts from the end and any other is an
error; since then both are errors under `validate_indices`, and "undefined but memory safe" without it. There we read
the nearest place and write nothing, so that a wrong index never looks right.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gate.mil.ops.registry import Ints, Rest, is_stack, kernel, plan

IOS17 = "CoreML7"


@kernel(exact=True)
def gather(x: Tensor, indices: Tensor, axis: int = 0, batch_dims: int = 0) -> Tensor:
    return _gather(x, _from_end(indices, x.shape[axis]), axis, batch_dims)


@kernel("gather", since=IOS17, exact=True)
def gather_ios17(
    x: Tensor, indices: Tensor, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    return _gather(x, _nearest(indices, x.shape[axis], validate_indices), axis, batch_dims)


@kernel(exact=True)
def gather_along_axis(x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
    return x.gather(axis, _from_end(indices, x.shape[axis]))


@kernel("gather_along_axis", since=IOS17, exact=True)
def gather_along_axis_ios17(x: Tensor, indices: Tensor, axis: int = 0, validate_indices: bool = False) -> Tensor:
    return x.gather(axis, _nearest(indices, x.shape[axis], validate_indices))


@kernel(exact=True)
def gather_nd(x: Tensor, indices: Tensor, batch_dims: int = 0) -> Tensor:
    sizes = x.shape[batch_dims : batch_dims + indices.shape[-1]]
    places = [_from_end(i, n) for i, n in zip(indices.unbind(-1), sizes, strict=True)]
    return x[(*_batch_places(x, indices, batch_dims), *places)]


@kernel("gather_nd", since=IOS17, exact=True)
def gather_nd_ios17(x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    sizes = x.shape[batch_dims : batch_dims + indices.shape[-1]]
    places = [_nearest(i, n, validate_indices) for i, n in zip(indices.unbind(-1), sizes, strict=True)]
    return x[(*_batch_places(x, indices, batch_dims), *places)]


@kernel()
def scatter(data: Tensor, indices: Tensor, updates: Tensor, axis: int = 0, mode: str = "add") -> Tensor:
    return _scatter_slices(data, _from_end(indices, data.shape[axis]), updates, axis, mode)


@kernel("scatter", since=IOS17)
def scatter_ios17(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> Tensor:
    size = data.shape[axis]
    if _all_inside(indices, size):
        return _scatter_slices(data, indices.long(), updates, axis, mode)
    places = _or_past_the_end(indices, size, validate_indices)
    return _scatter_slices(_with_spare(data, axis), places, updates, axis, mode).narrow(axis, 0, size)


@plan(scatter)
@plan(scatter_ios17)
def plan_scatter(
    sizes: Ints, indices: Tensor, axis: int = 0, mode: str = "add", validate_indices: bool = False
) -> Rest | None:
    """Return what `scatter` comes down to for indices that make a slice: `x[:, 1:-1] = y` is converted to flat places."""
    flat = len(sizes) == 1 and mode == "update" and indices.dim() == 1 and _all_inside(indices, sizes[0])
    shape, strides = _slice(indices.long()) if flat else ([], [])
    if not shape:
        return None
    first = int(indices[0])

    def assigned(data: Tensor, updates: Tensor) -> Tensor:
        written = data.clone(memory_format=torch.contiguous_format)
        written.as_strided(shape, strides, first).copy_(updates.reshape(shape))
        return written

    return assigned


@kernel()
def scatter_along_axis(data: Tensor, indices: Tensor, updates: Tensor, axis: int = 0, mode: str = "add") -> Tensor:
    return _scatter(data, _from_end(indices, data.shape[axis]), updates, axis, mode)


@kernel("scatter_along_axis", since=IOS17)
def scatter_along_axis_ios17(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> Tensor:
    size = data.shape[axis]
    if _all_inside(indices, size):
        return _scatter(data, indices.long(), updates, axis, mode)
    places = _or_past_the_end(indices, size, validate_indices)
    return _scatter(_with_spare(data, axis), places, updates, axis, mode).narrow(axis, 0, size)


@kernel()
def scatter_nd(data: Tensor, indices: Tensor, updates: Tensor, mode: str = "add") -> Tensor:
    sizes = data.shape[: indices.shape[-1]]
    places = [_from_end(i, n) for i, n in zip(indices.unbind(-1), sizes, strict=True)]
    return _scatter_rows(data, _flat_place(places, sizes), updates, mode)


@kernel("scatter_nd", since=IOS17)
def scatter_nd_ios17(
    data: Tensor, indices: Tensor, updates: Tensor, mode: str = "add", validate_indices: bool = False
) -> Tensor:
    sizes = data.shape[: indices.shape[-1]]
    columns = list(zip(indices.unbind(-1), sizes, strict=True))
    if columns and all(_all_inside(i, n) for i, n in columns):
        return _scatter_rows(data, _flat_place([i.long() for i, _ in columns], sizes), updates, mode)
    inside = torch.stack([_inside(i, n) for i, n in columns]).all(0)
    flat = _flat_place([_nearest(i, n, validate_indices) for i, n in columns], sizes)
    places = torch.where(inside, flat, math.prod(sizes))
    return _scatter_rows(data, places, updates, mode, spare=True)


# --- places


def _from_end(indices: Tensor, size: int) -> Tensor:
    """Count negative indices from the end, as before iOS17."""
    if _all_inside(indices, size):
        return indices.long()
    return torch.where(indices < 0, indices + size, indices).long()


def _inside(indices: Tensor, size: int) -> Tensor:
    return (indices >= 0) & (indices < size)


def _all_inside(indices: Tensor, size: int) -> bool:
    """Say whether all indices are known to be inside, in one pass over them; in a stack of samples nothing is known."""
    if is_stack(indices) or not indices.numel():
        return False
    low, high = indices.aminmax()
    return bool(low.item() >= 0 and high.item() < size)


def _nearest(indices: Tensor, size: int, validate: bool) -> Tensor:
    _validate(indices, size, validate)
    return indices.clamp(0, size - 1).long()


def _or_past_the_end(indices: Tensor, size: int, validate: bool) -> Tensor:
    """Send what is outside to the spare place behind the last."""
    _validate(indices, size, validate)
    return torch.where(_inside(indices, size), indices, size).long()


def _validate(indices: Tensor, size: int, validate: bool) -> None:
    if validate and not bool(_inside(indices, size).all()):
        raise IndexError(f"indices from {int(indices.min())} to {int(indices.max())}, expected 0 to {size - 1}")


def _with_spare(data: Tensor, axis: int) -> Tensor:
    """Add one slice for updates that must go nowhere."""
    return torch.cat([data, torch.zeros_like(data.narrow(axis, 0, 1))], axis)


def _batch_places(x: Tensor, indices: Tensor, batch_dims: int) -> list[Tensor]:
    """Number each batch dimension, shaped to broadcast with a column of `indices`."""
    rank = indices.dim() - 1
    return [torch.arange(x.shape[d]).reshape([-1 if i == d else 1 for i in range(rank)]) for d in range(batch_dims)]


def _flat_place(places: list[Tensor], sizes: torch.Size) -> Tensor:
    flat = torch.zeros((), dtype=torch.long)
    for place, size in zip(places, sizes, strict=True):
        flat = flat * size + place
    return flat


def _slice(places: Tensor) -> tuple[Ints, Ints]:
    """Return the shape and strides of a slice that has these flat places, in order; two empty lists if there is none."""
    shape: Ints = []
    strides: Ints = []
    if not bool((places.diff() > 0).all()):
        return [], []
    while len(places) > 1:
        steps = places.diff()
        run = int((steps == steps[0]).long().cumprod(0).sum()) + 1
        if len(places) % run:
            return [], []
        runs = places.reshape(-1, run)
        if not torch.equal(runs - runs[:, :1], (runs[:1] - runs[0, 0]).expand_as(runs)):
            return [], []
        shape, strides, places = [run, *shape], [int(steps[0]), *strides], runs[:, 0]
    return shape, strides


# --- reading and writing


def _gather(x: Tensor, places: Tensor, axis: int, batch_dims: int) -> Tensor:
    axis %= x.dim()
    shape = x.shape[:axis] + places.shape[batch_dims:] + x.shape[axis + 1 :]
    if not batch_dims:
        return x.index_select(axis, places.reshape(-1)).reshape(shape)
    batch = places.shape[:batch_dims]
    spread = [1] * (axis - batch_dims), [1] * (x.dim() - axis - 1)
    index = places.reshape(*batch, *spread[0], math.prod(places.shape[batch_dims:]), *spread[1])
    return torch.take_along_dim(x, index, axis).reshape(shape)


def _scatter_slices(data: Tensor, places: Tensor, updates: Tensor, axis: int, mode: str) -> Tensor:
    """Write slices along an axis; `updates` has the dimensions of `places` in place of it."""
    axis %= data.dim()
    shape = [*data.shape[:axis], places.numel(), *data.shape[axis + 1 :]]
    index = places.reshape([-1 if i == axis else 1 for i in range(data.dim())]).expand(shape)
    return _scatter(data, index, updates.reshape(shape), axis, mode)


def _scatter_rows(data: Tensor, places: Tensor, updates: Tensor, mode: str, spare: bool = False) -> Tensor:
    """Write to the flat places of the leading dimensions; with `spare`, the one past the end goes nowhere."""
    row = updates.shape[places.dim() :]
    rows = data.reshape(-1, *row)
    rows = _with_spare(rows, 0) if spare else rows
    written = _scatter_slices(rows, places.reshape(-1), updates.reshape(-1, *row), 0, mode)
    return (written[:-1] if spare else written).reshape(data.shape)


def _scatter(data: Tensor, index: Tensor, updates: Tensor, axis: int, mode: str) -> Tensor:
    """Write elements along an axis; several to one place accumulate (under `update` the last one stays)."""
    match mode:
        case "update":
            return data.scatter(axis, index, updates)
        case "add":
            return data.scatter_add(axis, index, updates)
        case "sub":
            return data.scatter_add(axis, index, -updates)
        case "mul":
            return data.scatter_reduce(axis, index, updates, "prod")
        case "div":
            divisor = torch.ones_like(data).scatter_reduce(axis, index, updates, "prod")
            return data / divisor if data.is_floating_point() else data.div(divisor, rounding_mode="trunc")
        case "max":
            return data.scatter_reduce(axis, index, updates, "amax")
        case "min":
            return data.scatter_reduce(axis, index, updates, "amin")
    raise ValueError(f"mode {mode!r} is not one of update, add, sub, mul, div, max, min")
