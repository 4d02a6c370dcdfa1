# SPDX-License-Identifier: Apache-2.0
"""Making, ordering, joining and splitting tensors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gate.mil.ops.registry import Ints, Tensors, bounded, kernel

WORTH_SELECTING = 4096  # elements; below, sorting all of them is quicker than finding the largest (measured)


@kernel(exact=True)
def band_part(x: Tensor, lower: int = -1, upper: int = -1) -> Tensor:
    """Keep `lower` diagonals below and `upper` above the main one (all when negative)."""
    x = x if lower < 0 else torch.triu(x, -lower)
    return x if upper < 0 else torch.tril(x, upper)


@kernel()
def cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Running sum; exclusive ones begin with 0 and leave out the last."""
    x = torch.flip(x, [axis]) if reverse else x
    total = torch.cumsum(x, axis)
    if exclusive:
        zero = torch.zeros_like(total.narrow(axis, 0, 1))
        total = torch.cat([zero, total.narrow(axis, 0, x.shape[axis] - 1)], axis)
    return torch.flip(total, [axis]) if reverse else total


@kernel(exact=True)
def fill(shape: Ints, value: Tensor | None = None) -> Tensor:
    return _full(shape, value)


@kernel(exact=True)
def fill_like(ref_tensor: Tensor, value: Tensor | None = None) -> Tensor:
    return _full(list(ref_tensor.shape), value)


def _full(shape: Ints, value: Tensor | None) -> Tensor:
    shape = bounded(shape)
    return torch.zeros(shape) if value is None else value.reshape([1] * len(shape)).expand(shape)


@kernel(exact=True, batch=False)
def non_zero(x: Tensor) -> Tensor:
    """Indices of the elements that are not zero, one row each."""
    return torch.nonzero(x)


@kernel(exact=True)
def one_hot(
    indices: Tensor,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: Tensor | None = None,
    off_value: Tensor | None = None,
) -> Tensor:
    """`on_value` where the new axis equals the index; an index outside gives no hot place."""
    axis = axis + indices.dim() + 1 if axis < 0 else axis
    bounded([*indices.shape, one_hot_vector_size])
    classes = torch.arange(one_hot_vector_size).reshape(-1, *[1] * (indices.dim() - axis))
    hot = indices.long().unsqueeze(axis) == classes
    on = torch.tensor(1) if on_value is None else on_value
    off = torch.zeros_like(on) if off_value is None else off_value
    return torch.where(hot, on, off)


@kernel(exact=True)
def pad(x: Tensor, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """Pad the last `len(pad) / 2` axes, (before, after) each."""
    pairs = [(pad[2 * i], pad[2 * i + 1]) for i in range(len(pad) // 2)]
    bounded(n + sum(pair) for n, pair in zip(x.shape[x.dim() - len(pairs) :], pairs, strict=True))
    if mode == "constant":
        flat = [n for pair in reversed(pairs) for n in pair]
        return F.pad(x, flat, value=bool(constant_val) if x.dtype is torch.bool else constant_val)
    axes = _padded_axes(x, pairs, mode)
    if axes:
        flat = [n for pair in reversed(pairs[len(pairs) - axes :]) for n in pair]
        last = x.shape[x.dim() - axes :]
        padded = F.pad(x.reshape(1, -1, *last), flat, mode=mode)
        return padded.reshape(*x.shape[: x.dim() - axes], *padded.shape[2:])
    for axis, (before, after) in zip(range(x.dim() - len(pairs), x.dim()), pairs, strict=True):
        if before or after:
            x = torch.index_select(x, axis, _mirror(x.shape[axis], before, after, mode))
    return x


def _padded_axes(x: Tensor, pairs: list[tuple[int, int]], mode: str) -> int:
    """Return how many of the last axes torch's own padding takes; 0 where it knows no such padding."""
    axes = next((len(pairs) - i for i, pair in enumerate(pairs) if any(pair)), 0)
    if axes > 3 or x.dtype is not torch.float32 or mode not in ("reflect", "replicate") or not x.numel():
        return 0
    padded = zip(reversed(x.shape), reversed(pairs[len(pairs) - axes :]), strict=False)
    within = (min(pair) >= 0 and (mode == "replicate" or max(pair) < size) for size, pair in padded)
    return axes if all(within) else 0


def _mirror(size: int, before: int, after: int, mode: str) -> Tensor:
    """Return the source index of each place of a padded axis."""
    places = torch.arange(-before, size + after)
    if mode == "replicate":
        return places.clamp(0, size - 1)
    if mode == "reflect":
        period = max(2 * (size - 1), 1)
        folded = places % period
        return torch.minimum(folded, period - folded)
    if mode == "symmetric":
        folded = places % (2 * size)
        return torch.minimum(folded, 2 * size - 1 - folded)
    raise ValueError(f"mode {mode!r}: expected constant, reflect, replicate or symmetric")


@kernel()
def range_1d(end: Tensor, start: Tensor, step: Tensor) -> Tensor:
    """start, start + step, … below end."""
    first, by = start.item(), step.item()
    (count,) = bounded([max(math.ceil((end.item() - first) / by), 0)])
    return first + by * torch.arange(count)


@kernel(exact=True)
def tile(x: Tensor, reps: Ints) -> Tensor:
    bounded(n * r for n, r in zip(x.shape, reps, strict=True))
    return x.repeat(reps)


@kernel(exact=True)
def argsort(x: Tensor, axis: int = -1, ascending: bool = False) -> Tensor:
    """Indices that sort; equal values keep their order."""
    return torch.sort(x, dim=axis, descending=not ascending, stable=True).indices


@kernel(exact=True)
def topk(
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Tensor | tuple[Tensor, Tensor]:
    """Largest `k` (smallest if ascending) and where they are; the first of equal values wins, all of them if `k` is -1."""
    if x.numel() >= WORTH_SELECTING and 0 <= 2 * k <= x.shape[axis] and x.dtype in (torch.float32, torch.int32):
        indices = torch.topk(_ranks(x, axis, ascending), k, axis, largest=not ascending).indices
        values = x.gather(axis, indices)
    else:
        values, indices = torch.sort(x, dim=axis, descending=not ascending, stable=True)
        count = x.shape[axis] if k == -1 else k
        values, indices = values.narrow(axis, 0, count), indices.narrow(axis, 0, count)
    return (values, indices) if return_indices else values


def _ranks(x: Tensor, axis: int, ascending: bool) -> Tensor:
    """Return integers in the order of `x` without two alike: the value in the high half, then the place, the first one ahead.

    The bits of floats are in order as integers once those of negative ones are turned; NaN is above infinity, 0 equals -0.
    """
    if x.is_floating_point():
        bits = x.nan_to_num(math.nan, math.inf, -math.inf).add_(0.0).view(torch.int32)
        x = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    places = torch.arange(x.shape[axis]) if ascending else torch.arange(x.shape[axis] - 1, -1, -1)
    return (x.long() * 2**32).add_(places.reshape([-1] + [1] * (x.dim() - 1 - axis % x.dim())))


@kernel(exact=True)
def flatten2d(x: Tensor, axis: int = 1) -> Tensor:
    """(product of the axes before, product of the rest)."""
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@kernel(exact=True)
def shape(x: Tensor) -> Tensor:
    return torch.tensor(list(x.shape), dtype=torch.int32)


@kernel(exact=True)
def concat(values: Tensors, axis: int, interleave: bool = False) -> Tensor:
    """Join along an axis; interleaved: the first of each, the second of each, …"""
    if values[0].dim() == 0:
        return torch.stack(values)
    if interleave:
        axis %= values[0].dim()
        return torch.stack(values, axis + 1).flatten(axis, axis + 1)
    return torch.cat(values, axis)


@kernel(exact=True)
def split(x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None) -> tuple[Tensor, ...]:
    if split_sizes is not None:
        return torch.split(x, split_sizes, axis)
    if not num_splits:
        raise ValueError("neither num_splits nor split_sizes is given")
    return torch.split(x, x.shape[axis] // num_splits, axis)


@kernel(exact=True)
def stack(values: Tensors, axis: int) -> Tensor:
    return torch.stack(values, axis)


@kernel(exact=True)
def identity(x: Tensor) -> Tensor:
    return x
