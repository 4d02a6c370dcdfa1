# SPDX-License-Identifier: Apache-2.0
"""Convolutions in one, two and three dimensions."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gate.mil.ops.registry import Filters, Ints, Layout, Rest, bounded, kernel, layout, plan
from gate.mil.program import DAMAGE, Op, TensorType

Padding = list[tuple[int, int]]  # before and after, for each spatial dimension
CONVOLVE: dict[int, Callable[..., Tensor]] = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}

SCATTER: dict[int, Callable[..., Tensor]] = {
    1: torch.conv_transpose1d,
    2: torch.conv_transpose2d,
    3: torch.conv_transpose3d,
}

PACKS = torch.backends.mkldnn.is_available() and platform.machine() == "x86_64"  # type: ignore[no-untyped-call]
WORTH_PACKING = 2**18  # multiplications; below, the call costs more


def spatial_padding(
    pad_type: str, pad: Ints | None, sizes: Ints, kernel_sizes: Ints, strides: Ints, dilations: Ints
) -> Padding:
    """Return (before, after) for each spatial dimension, by coremltools' rule for each `pad_type`."""
    if pad_type == "valid":
        return [(0, 0)] * len(sizes)
    if pad_type == "custom":
        pad = pad or [0] * 2 * len(sizes)
        return [(pad[2 * i], pad[2 * i + 1]) for i in range(len(sizes))]
    padding = []
    for size, k, stride, dilation in zip(sizes, kernel_sizes, strides, dilations, strict=True):
        extent = (k - 1) * dilation + 1
        total = max(extent - stride if size % stride == 0 else extent - size % stride, 0)
        less, more = total // 2, total - total // 2
        padding.append((less, more) if pad_type == "same" else (more, less))
    return padding


def pad_spatial(x: Tensor, padding: Padding, value: float = 0.0) -> Tensor:
    """Pad the last dimensions; torch counts them from the last."""
    flat = [n for pair in reversed(padding) for n in pair]
    if not any(flat):
        return x
    bounded(n + sum(pair) for n, pair in zip(x.shape[2:], padding, strict=True))
    return F.pad(x, flat, value=value)


@kernel(fresh=True, rows=True)
def conv(
    x: Tensor,
    weight: Filters,
    bias: Tensor | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """Convolve `x (n, c, *spatial)` with `weight (out, c / groups, *kernel)`."""
    return plan_conv(list(x.shape), weight, bias, strides, pad_type, pad, dilations, groups)(x)


@plan(conv)
def plan_conv(
    sizes: Ints,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Rest:
    """Return what `conv` comes down to for inputs of these sizes."""
    out, window, rank = weight.shape[0], list(weight.shape[2:]), len(sizes) - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    padding = spatial_padding(pad_type, pad, sizes[2:], window, strides, dilations)
    if is_product(sizes[2:], window, padding, groups):
        matrix = weight.flatten(1)
        return lambda x: F.linear(x.flatten(1), matrix, bias).reshape(x.shape[0], out, *window)
    function, before = CONVOLVE[rank], [before for before, _ in padding]
    if any(before != after for before, after in padding):
        return lambda x: function(pad_spatial(x, padding), weight, bias, strides, [0] * rank, dilations, groups)
    if weight.is_mkldnn:
        convolve, dense = torch.ops.mkldnn._convolution_pointwise, None if bias is None else bias.contiguous()
        return lambda x: convolve(x, weight, dense, before, strides, dilations, groups, "none", [], "")
    return lambda x: function(x, weight, bias, strides, before, dilations, groups)


def is_product(sizes: Ints, window: Ints, padding: Padding, groups: int) -> bool:
    """Say whether a convolution sees one place through a window of one: a matrix product, which starts ten times as fast."""
    return groups == 1 and {*sizes, *window} == {1} and not any(map(any, padding))


class Hint(NamedTuple):
    """What oneDNN wants to know before it packs filters."""

    padding: Ints
    strides: Ints
    dilations: Ints
    groups: int
    sizes: Ints


@layout("Filters")
def filters(op: Op, constants: Mapping[str, Any]) -> Layout:
    """Lay out the filters of a 2-D convolution: packed by oneDNN if its sizes are known and large, else channels last."""
    kinds = [v.type for v in (op.inputs["x"][0], op.inputs["weight"][0], op.outputs[0])]
    sizes, window, made = ((kind.sizes or []) if isinstance(kind, TensorType) else [] for kind in kinds)
    try:
        hint = _hint(sizes, window, **{n: v for n, v in constants.items() if n not in ("x", "weight", "bias")})
    except DAMAGE:
        hint = None  # the run says what is wrong
    if hint is None or math.prod(made) * math.prod(window[1:]) < WORTH_PACKING:
        return Layout("channels last", channels_last)
    # Inputs of other sizes share what was packed for the first: it is for all of them alike, as far as we measured.
    return Layout(f"packed for {hint[:-1]}", lambda weight: packed(weight, hint))


def _hint(
    sizes: Ints,
    window: Ints,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Hint | None:
    """Return what packing needs; nothing if oneDNN can't pack such filters, or must not."""
    strides, dilations = strides or [1, 1], dilations or [1, 1]
    sound = PACKS and len(sizes) == len(window) == 4 and len(strides) == len(dilations) == 2
    if not sound or min(*sizes, *window, *strides, *dilations, groups) < 1:
        return None
    if sizes[1] != window[1] * groups or window[0] % groups:
        return None
    padding = spatial_padding(pad_type, pad, sizes[2:], window[2:], strides, dilations)
    if is_product(sizes[2:], window[2:], padding, groups) or any(before != after for before, after in padding):
        return None
    return Hint([before for before, _ in padding], strides, dilations, groups, sizes)


def packed(weight: Tensor, hint: Hint) -> Tensor:
    """Pack filters once, which torch does anew for each convolution with plain ones."""
    try:
        result: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, *hint)
    except RuntimeError:  # no floats, or sizes that oneDNN can't do
        return channels_last(weight)
    return result


def channels_last(weight: Tensor) -> Tensor:
    """Lay out the filters of a 2-D convolution as torch convolves them faster; others stay."""
    return weight.contiguous(memory_format=torch.channels_last) if weight.dim() == 4 else weight


@kernel()
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Ints | None = None,
    output_shape: Ints | None = None,
    pad_type: str = "valid",
    strides: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """Scatter `x (n, c, *spatial)` through `weight (c, out / groups, *kernel)`, then crop to the declared size."""
    rank = x.dim() - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    reach = zip(x.shape[2:], weight.shape[2:], strides, dilations, strict=True)
    bounded([x.shape[0], weight.shape[1] * groups, *((n - 1) * s + (k - 1) * d + 1 for n, k, s, d in reach)])
    full = SCATTER[rank](x, weight, bias, strides, [0] * rank, [0] * rank, groups, dilations)
    for i in range(rank):
        before, size = _crop(i, x, full, pad_type, pad, output_shape, strides)
        axis = i + 2
        if before + size > full.shape[axis]:  # rows that no input reaches hold the bias alone
            full = _extend(full, axis, before + size - full.shape[axis], bias)
        full = full.narrow(axis, before, size)
    return full


def _crop(
    i: int, x: Tensor, full: Tensor, pad_type: str, pad: Ints | None, output_shape: Ints | None, strides: Ints
) -> tuple[int, int]:
    """Return first row and number of rows to keep of spatial dimension `i`."""
    axis, have = i + 2, full.shape[i + 2]
    before, after = (pad[2 * i], pad[2 * i + 1]) if pad and pad_type == "custom" else (0, 0)
    wanted = output_shape[axis] if output_shape else have - before - after
    if pad_type in ("same", "same_lower"):
        wanted = output_shape[axis] if output_shape else x.shape[axis] * strides[i]
        excess = max(have - wanted, 0)
        before = excess // 2 if pad_type == "same" else excess - excess // 2
    return before, wanted


def _extend(x: Tensor, axis: int, count: int, bias: Tensor | None) -> Tensor:
    shape = [*x.shape[:axis], count, *x.shape[axis + 1 :]]
    rows = x.new_zeros(shape) if bias is None else bias.reshape(1, -1, *[1] * (x.dim() - 2)).expand(shape)
    return torch.cat([x, rows], axis)


@kernel()
def conv_quantized(
    x: Tensor,
    weight: Tensor,
    quantization_type: str,
    quant_scale: Tensor,
    quant_bias: Tensor,
    nbits: int = 8,
    bias: Tensor | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """Convolve with `weight * quant_scale + quant_bias`; the look-up form was never specified."""
    if quantization_type != "linear":
        raise ValueError(f"quantization_type {quantization_type!r}: only 'linear' has a definition")
    shape = (-1, *[1] * (weight.dim() - 1))
    decoded = weight.float() * quant_scale.reshape(shape) + quant_bias.reshape(shape)
    return conv(x, decoded, None if bias is None else bias.float(), strides, pad_type, pad, dilations, groups)
