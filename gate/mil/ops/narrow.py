# SPDX-License-Identifier: Apache-2.0
"""What do composite ops give when every step inside is float16?

Nobody outside Apple knows how the Neural Engine computes a softmax or a layer norm. `narrow` evaluates each as its
textbook chain with every intermediate rounded, the pessimistic end of what a float16 engine may do, and adds two
cliffs that users have measured on the Neural Engine: softplus is 0 above x = 10.4 (apple/coremltools#2687), and
log-sum-exp is 0 once the sum overflows (#2690). `accumulate16` also keeps running sums in half, one addition after
the other; no Apple engine is known to, it bounds the worst case.

Same names and parameters as the kernels; the table is looked up where an op's result is rounded to float16.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gate.mil.numerics import half
from gate.mil.ops import conv as conv_ops
from gate.mil.ops import pool as pool_ops
from gate.mil.ops.registry import ACCUMULATE16, NARROW, Ints, variant

SOFTPLUS_CLIFF = 10.4  # measured: 10.408, apple/coremltools#2687


@variant(NARROW)
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    e = half(torch.exp(half(x - torch.amax(x, axis, keepdim=True))))
    return e / half(torch.sum(e, axis, keepdim=True))


@variant(NARROW)
def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), and the Neural Engine's cliff."""
    return torch.where(x > SOFTPLUS_CLIFF, torch.zeros_like(x), torch.log(half(1 + half(torch.exp(x)))))


@variant(NARROW)
def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    shape = (-1, *[1] * (x.dim() - 2)) if alpha.dim() else ()
    inner = half(softplus(half(beta.reshape(shape) * x)))
    return alpha.reshape(shape) * inner


@variant(NARROW)
def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        return x * half(sigmoid(half(1.702 * x)))
    if mode == "TANH_APPROXIMATION":
        cube = half(half(x * x) * x)
        inner = half(half(x + half(0.044715 * cube)) * math.sqrt(2 / math.pi))
        return half(0.5 * x) * half(1 + half(torch.tanh(inner)))
    return half(0.5 * x) * half(1 + half(torch.erf(half(x * math.sqrt(0.5)))))


@variant(NARROW)
def silu(x: Tensor) -> Tensor:
    return x * half(sigmoid(x))


@variant(NARROW)
def sigmoid(x: Tensor) -> Tensor:
    return 1 / half(1 + half(torch.exp(-x)))


@variant(NARROW)
def softsign(x: Tensor) -> Tensor:
    return x / half(1 + x.abs())


@variant(NARROW)
def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    return torch.log(half(x + epsilon))


@variant(NARROW)
def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    return 1 / half(torch.sqrt(half(x + epsilon)))


@variant(NARROW)
def inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    return 1 / half(x + epsilon)


@variant(NARROW)
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Fold into one multiplication and one addition, as compilers do."""
    scale = half(torch.rsqrt(half(variance + epsilon)))
    scale = scale if gamma is None else half(scale * gamma)
    shift = -half(mean * scale)
    shift = shift if beta is None else half(beta + shift)
    shape = (-1, *[1] * (x.dim() - 2))
    return half(x * scale.reshape(shape)) + shift.reshape(shape)


@variant(NARROW)
def instance_norm(x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5) -> Tensor:
    return _affine(_standardise(x, list(range(2, x.dim())), epsilon), gamma, beta, [1])


@variant(NARROW)
def layer_norm(
    x: Tensor,
    axes: Ints | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    axes = sorted(a % x.dim() for a in axes) if axes else list(range(x.dim()))
    return _affine(_standardise(x, axes, epsilon), gamma, beta, axes)


def _standardise(x: Tensor, axes: Ints, epsilon: float) -> Tensor:
    centred = half(x - _mean(x, axes, True))
    variance = _mean(half(centred * centred), axes, True)
    return half(centred * half(torch.rsqrt(half(variance + epsilon))))


def _affine(x: Tensor, gamma: Tensor | None, beta: Tensor | None, axes: Ints) -> Tensor:
    shape = [n if i in axes else 1 for i, n in enumerate(x.shape)]
    x = x if gamma is None else half(x * gamma.reshape(shape))
    return x if beta is None else x + beta.reshape(shape)


@variant(NARROW)
def l2_norm(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    total = half(torch.sum(half(x * x), (-3, -2, -1), keepdim=True))
    return x * half(torch.rsqrt(half(total + epsilon)))


@variant(NARROW)
def local_response_norm(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    squares = half(x * x).unsqueeze(1).flatten(3)
    padded = F.pad(squares, (0, 0, size // 2, (size - 1) // 2))
    mean = half(F.avg_pool2d(padded, (size, 1), stride=1)).squeeze(1).reshape(x.shape)
    return x / half(torch.pow(half(half(mean * alpha) + k), beta))


@variant(NARROW)
def l2_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    root = pool_ops.l2_pool(torch.sqrt(half(x * x)), kernel_sizes, pad_type, strides, pad, ceil_mode)
    return torch.sqrt(half(root * root))


@variant(NARROW)
def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    scores = half(half(query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2))
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = half(scores + attn_mask)
    return half(softmax(scores)) @ value


def _axes(x: Tensor, axes: Ints | None) -> Ints:
    return axes if axes else list(range(x.dim()))


def _mean(x: Tensor, axes: Ints, keep_dims: bool) -> Tensor:
    """Sum, then divide: the sum is where float16 overflows."""
    count = math.prod(x.shape[a] for a in axes)
    return half(half(torch.sum(x, axes, keep_dims)) / count)


@variant(NARROW)
def reduce_mean(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return _mean(x, _axes(x, axes), keep_dims)


@variant(NARROW)
def reduce_l2_norm(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return torch.sqrt(half(torch.sum(half(x * x), _axes(x, axes), keep_dims)))


@variant(NARROW)
def reduce_sum_square(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return torch.sum(half(x * x), _axes(x, axes), keep_dims)


@variant(NARROW)
def reduce_log_sum(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return torch.log(half(torch.sum(x, _axes(x, axes), keep_dims)))


@variant(NARROW)
def reduce_log_sum_exp(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """log Σ exp without a shift, and the Neural Engine's 0 once the sum overflows."""
    total = half(torch.sum(half(torch.exp(x)), _axes(x, axes), keep_dims))
    return torch.where(torch.isinf(total), torch.zeros_like(total), torch.log(total))


@variant(NARROW)
def cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Running sum, rounded after each addition: the running sum is the result, so no engine can hide it."""
    x = torch.flip(x, [axis]) if reverse else x
    totals = list(itertools.accumulate(x.unbind(axis), lambda a, b: half(a + b)))
    if exclusive:
        totals = [torch.zeros_like(totals[0]), *totals[:-1]]
    total = torch.stack(totals, axis)
    return torch.flip(total, [axis]) if reverse else total


# --- accumulate16: one half addition after another ---


def running_sum(x: Tensor, axis: int) -> Tensor:
    """Sum along an axis, rounding after each addition."""
    total = torch.zeros_like(x.select(axis, 0))
    for term in x.unbind(axis):
        total = half(total + term)
    return total


def _running_sum(x: Tensor, axes: Ints, keep_dims: bool) -> Tensor:
    positive = sorted(a % x.dim() for a in axes)
    rest = [a for a in range(x.dim()) if a not in positive]
    flat = x.permute(*rest, *positive).reshape(*[x.shape[a] for a in rest], -1)
    total = running_sum(flat, -1)
    return total.reshape([1 if a in positive else n for a, n in enumerate(x.shape)]) if keep_dims else total


@variant(ACCUMULATE16, "reduce_sum")
def reduce_sum16(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return _running_sum(x, _axes(x, axes), keep_dims)


@variant(ACCUMULATE16, "reduce_mean")
def reduce_mean16(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Scale first, then add: what a half engine does to save the sum from overflow."""
    axes = _axes(x, axes)
    return _running_sum(x, axes, keep_dims) / math.prod(x.shape[a] for a in axes)


@variant(ACCUMULATE16, "reduce_sum_square")
def reduce_sum_square16(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return _running_sum(half(x * x), _axes(x, axes), keep_dims)


@variant(ACCUMULATE16, "reduce_l2_norm")
def reduce_l2_norm16(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return torch.sqrt(_running_sum(half(x * x), _axes(x, axes), keep_dims))


@variant(ACCUMULATE16, "softmax")
def softmax16(x: Tensor, axis: int = -1) -> Tensor:
    e = half(torch.exp(half(x - torch.amax(x, axis, keepdim=True))))
    return e / _running_sum(e, [axis], True)


@variant(ACCUMULATE16, "matmul")
def matmul16(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    x = x.transpose(-1, -2) if transpose_x and x.dim() > 1 else x
    y = y.transpose(-1, -2) if transpose_y and y.dim() > 1 else y
    left, right = x if x.dim() > 1 else x[None], y if y.dim() > 1 else y[:, None]
    total = product16(left, right)
    total = total if x.dim() > 1 else total.squeeze(-2)
    return total if y.dim() > 1 else total.squeeze(-1)


def product16(x: Tensor, y: Tensor) -> Tensor:
    """x (…, m, k) · y (…, k, n), one rounded multiply-add after another along k."""
    total = x.new_zeros(())
    for k in range(x.shape[-1]):
        total = half(total + x[..., :, k : k + 1] * y[..., k : k + 1, :])
    return total


@variant(ACCUMULATE16, "linear")
def linear16(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    total = product16(x if x.dim() > 1 else x[None], weight.T)
    total = total if x.dim() > 1 else total[0]
    return total if bias is None else total + bias


@variant(ACCUMULATE16, "conv")
def conv16(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """Add the contribution of each input channel and kernel element in turn."""
    rank = x.dim() - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    window = list(weight.shape[2:])
    padding = conv_ops.spatial_padding(pad_type, pad, list(x.shape[2:]), window, strides, dilations)
    x = conv_ops.pad_spatial(x, padding)
    sizes = [(n - (k - 1) * d - 1) // s + 1 for n, k, d, s in zip(x.shape[2:], window, dilations, strides, strict=True)]
    per_group, outs = x.shape[1] // groups, weight.shape[0] // groups
    grouped = x.reshape(x.shape[0], groups, per_group, 1, *x.shape[2:])
    taps = weight.reshape(1, groups, outs, per_group, *window)
    total = x.new_zeros(())
    for c, place in itertools.product(range(per_group), itertools.product(*map(range, window))):
        seen = grouped[:, :, c][_place(_reach(place, dilations, strides, sizes))]
        tap = taps[:, :, :, c][_place(place)]
        total = half(total + seen * tap.reshape(1, groups, outs, *[1] * rank))
    total = total.reshape(x.shape[0], weight.shape[0], *sizes)
    return total if bias is None else total + bias.reshape(-1, *[1] * rank)


def _reach(place: tuple[int, ...], dilations: Ints, strides: Ints, sizes: Ints) -> list[slice]:
    """Return what one kernel element sees, for each output place."""
    rows = zip(place, dilations, strides, sizes, strict=True)
    return [slice(p * d, p * d + s * (n - 1) + 1, s) for p, d, s, n in rows]


def _place(indices: Iterable[int | slice]) -> Any:
    """Index the last axes."""
    return (..., *indices)
