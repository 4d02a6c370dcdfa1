# SPDX-License-Identifier: Apache-2.0
"""Moving values without computing: shape, order, windows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gate.mil.ops.registry import Bools, Ints, Tensors, kernel


@kernel(exact=True)
def depth_to_space(x: Tensor, block_size: int) -> Tensor:
    """Spread channels over blocks of pixels; the block is the slow part of the channel index."""
    n, c, h, w = x.shape
    b = block_size
    blocks = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // (b * b), h * b, w * b)


@kernel(exact=True)
def space_to_depth(x: Tensor, block_size: int) -> Tensor:
    """Undo `depth_to_space`."""
    n, c, h, w = x.shape
    b = block_size
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


@kernel(exact=True)
def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    return F.pixel_shuffle(x, upscale_factor)


@kernel(exact=True)
def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    return F.pixel_unshuffle(x, downscale_factor)


@kernel(exact=True)
def expand_dims(x: Tensor, axes: Ints) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


@kernel(exact=True)
def squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    """Drop axes of size one; others that are named stay."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@kernel(exact=True)
def reshape(x: Tensor, shape: Ints) -> Tensor:
    """Reshape; -1 takes the rest, and 0 the size of x as far from the last axis (1 beyond its first)."""
    if 0 in shape and x.numel():
        sizes = [1] * (len(shape) - x.dim()) + list(x.shape[-len(shape) :])
        shape = [size if n == 0 else n for n, size in zip(shape, sizes, strict=True)]
    return x.reshape(shape)


@kernel(exact=True)
def reshape_like(x: Tensor, ref_tensors: Tensors, begins: Tensors, ends: Tensors, end_masks: Tensors) -> Tensor:
    """Reshape to parts of other tensors' shapes, joined."""
    shape: list[int] = []
    for ref, begin, end, mask in zip(ref_tensors, begins, ends, end_masks, strict=True):
        shape += ref.shape[int(begin) :] if bool(mask) else ref.shape[int(begin) : int(end)]
    return x.reshape(shape)


@kernel(exact=True)
def reverse(x: Tensor, axes: Ints | None = None) -> Tensor:
    return torch.flip(x, axes if axes is not None else list(range(x.dim())))


@kernel(exact=True)
def reverse_sequence(x: Tensor, lengths: Tensor, seq_axis: int = 0, batch_axis: int = 0) -> Tensor:
    """Reverse the first `lengths[i]` elements along `seq_axis` of each entry of `batch_axis`."""
    places = torch.arange(x.shape[seq_axis]).reshape(_along(x, seq_axis))
    limits = lengths.long().reshape(_along(x, batch_axis))
    source = torch.where(places < limits, limits - 1 - places, places)
    return torch.gather(x, seq_axis, source.expand(x.shape))


def _along(x: Tensor, axis: int) -> list[int]:
    return [-1 if i == axis % x.dim() else 1 for i in range(x.dim())]


@kernel(exact=True)
def slice_by_index(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """x[begin : end : stride] as numpy reads it; masks say "from the start", "to the end", "this one, without its axis"."""
    bounds = _bounds(list(x.shape), begin, end, stride, begin_mask, end_mask, squeeze_mask)
    for axis, (first, count, step) in enumerate(bounds):
        x = _take(x, axis, first, count, step)
    dropped = [i for i, mask in enumerate(squeeze_mask or []) if mask]
    return x.squeeze(tuple(dropped)) if dropped else x


def _bounds(
    sizes: Ints,
    begin: Ints,
    end: Ints,
    stride: Ints | None,
    begin_mask: Bools | None,
    end_mask: Bools | None,
    squeeze_mask: Bools | None,
) -> list[tuple[int, int, int]]:
    """Return (first, count, step) for each axis."""
    off = [False] * len(sizes)
    rows = zip(
        sizes,
        begin,
        end,
        stride or [1] * len(sizes),
        begin_mask or off,
        end_mask or off,
        squeeze_mask or off,
        strict=True,
    )
    bounds = []
    for size, b, e, step, open_begin, open_end, single in rows:
        if single:
            bounds.append((b % size if size else 0, 1, 1))
            continue
        places = range(*slice(None if open_begin else b, None if open_end else e, step).indices(size))
        bounds.append((places.start, len(places), step))
    return bounds


def _take(x: Tensor, axis: int, first: int, count: int, step: int) -> Tensor:
    if step == 1:
        return x if count == x.shape[axis] else x.narrow(axis, min(first, x.shape[axis]), count)
    return torch.index_select(x, axis, first + step * torch.arange(count))


@kernel(exact=True)
def slice_by_size(x: Tensor, begin: Ints, size: Ints) -> Tensor:
    """Take `size` elements from `begin`; -1 takes the rest."""
    for axis, (b, n) in enumerate(zip(begin, size, strict=True)):
        first = b + x.shape[axis] if b < 0 else b
        x = x.narrow(axis, first, x.shape[axis] - first if n == -1 else n)
    return x


@kernel(exact=True, since="CoreML8")
def slice_update(
    x: Tensor,
    update: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """Replace what `slice_by_index` would read."""
    bounds = _bounds(list(x.shape), begin, end, stride, begin_mask, end_mask, squeeze_mask)
    part = update.reshape([count for _, count, _ in bounds]).to(x.dtype)
    if all(step > 0 for _, _, step in bounds):
        out = x.clone()
        out[tuple(slice(first, first + count * step, step) for first, count, step in bounds)] = part
        return out
    places = [first + step * torch.arange(count) for first, count, step in bounds]
    return x.index_put(tuple(torch.meshgrid(*places, indexing="ij")), part)


@kernel(exact=True)
def transpose(x: Tensor, perm: Ints) -> Tensor:
    return x.permute(perm)


@kernel(exact=True)
def sliding_windows(x: Tensor, axis: int, size: int, stride: int = 1) -> Tensor:
    """Lay out windows of `size` along `axis`: (…, windows, size, …)."""
    axis %= x.dim()
    return torch.movedim(x.unfold(axis, size, stride), -1, axis + 1)


@kernel(exact=True)
def space_to_batch(x: Tensor, block_shape: Ints, paddings: Ints) -> Tensor:
    """Pad the image (zeros), then move blocks of pixels to the batch axis."""
    top, bottom, left, right = paddings
    x = F.pad(x, (left, right, top, bottom))
    n, c, h, w = x.shape
    bh, bw = block_shape
    blocks = x.reshape(n, c, h // bh, bh, w // bw, bw).permute(3, 5, 0, 1, 2, 4)
    return blocks.reshape(n * bh * bw, c, h // bh, w // bw)


@kernel(exact=True)
def batch_to_space(x: Tensor, block_shape: Ints, crops: Ints) -> Tensor:
    """Undo `space_to_batch`, then crop."""
    n, c, h, w = x.shape
    bh, bw = block_shape
    blocks = x.reshape(bh, bw, n // (bh * bw), c, h, w).permute(2, 3, 4, 0, 5, 1)
    image = blocks.reshape(n // (bh * bw), c, h * bh, w * bw)
    top, bottom, left, right = crops
    return image[:, :, top : image.shape[2] - bottom, left : image.shape[3] - right]
