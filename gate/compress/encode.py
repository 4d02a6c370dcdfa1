# SPDX-License-Identifier: Apache-2.0
"""What do a policy's steps make of one weight?

The numbers are coremltools' own: its per-weight functions are called with the parameters that its passes would pass, so a
package made here decodes to what `coremltools.optimize.coreml` makes, bit for bit. Two exceptions, where coremltools 9.0 is
wrong: a per-channel scale (it reduces over the output channels instead of keeping them; here it is per output channel), and
quantization of float16 values so large that its arithmetic in float16 overflows (here it is done in float32).
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gate.compress.encoded import Array, Encoded, Form, Tensor, decode
from gate.policy import Action, Palettize, Prune, Quantize


@dataclass(frozen=True)
class Axes:
    """Which axes of a weight are its channels (as its consumers use it), and in how many groups a convolution splits it."""

    inputs: int | None
    outputs: int | None
    groups: int = 1
    structured: bool = True  # feeds only `weight` of conv and linear: n:m pruning is defined there


@dataclass(frozen=True)
class Skip:
    """Why a step left a weight alone; `expected` where nobody would want it otherwise."""

    why: str
    expected: bool = False


class CannotEncode(Exception):
    """A step does not apply to this weight; the message says why, and the weight stays as it was."""


def encode(weight: Array, actions: Sequence[Action], axes: Axes) -> tuple[Encoded | None, tuple[str | None, ...]]:
    """Apply the actions in order; return the result, and for each action why it was skipped (None: it was applied)."""
    encoded: Encoded | None = None
    reasons: list[str | None] = []
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # channels of zeros; bounds are checked later
        for action in actions:
            try:
                encoded = _apply(weight, encoded, action, axes)
                reasons.append(None)
            except CannotEncode as reason:
                reasons.append(str(reason))
    return encoded, tuple(reasons)


def refusal(shape: tuple[int, ...], action: Action, axes: Axes) -> str | None:
    """Say why an action cannot apply to a weight of that shape; what coremltools would only log.

    (With a per-channel scale it logs after it has changed the weight: coremltools pull request 2777.)
    """
    match action:
        case Prune():
            return _prune_refusal(shape, action, axes)
        case _ if axes.inputs is None or axes.outputs is None:
            return "the ops that read it disagree about its channels"
        case Quantize(granularity="per_block", block_size=size) if shape[axes.inputs] % size:
            return f"its {shape[axes.inputs]} input channels are not divisible by blocks of {size}"
        case Palettize():
            return _palette_refusal(shape[axes.outputs], action, axes)
    return None


def _prune_refusal(shape: tuple[int, ...], action: Prune, axes: Axes) -> str | None:
    if action.n_m is None:
        return None
    if not axes.structured:
        return "n:m pruning is defined for the weights of conv and linear only"
    if action.n_m[1] > shape[1] / 2:
        return f"its {shape[1]} input channels are too few for groups of {action.n_m[1]}"
    return None


def _palette_refusal(channels: int, action: Palettize, axes: Axes) -> str | None:
    group = action.group_size if action.granularity == "per_grouped_channel" else channels
    if channels % group:
        return f"its {channels} output channels are not divisible by groups of {group}"
    if group % action.cluster_dim or (channels // axes.groups) % action.cluster_dim:
        return f"its {channels} output channels are not divisible by vectors of {action.cluster_dim}"
    return None


def _apply(weight: Array, before: Encoded | None, action: Action, axes: Axes) -> Encoded:
    if not np.isfinite(weight).all():
        raise CannotEncode("it holds infinite or NaN values")
    if before is None:
        return _FIRST[type(action)](weight, action, axes)
    if "lut" in before.parts:
        return _quantize_table(before, action)
    return _sparse(before, _FIRST[type(action)](decode(before), action, axes))


def _quantize(weight: Array, action: Quantize, axes: Axes) -> Encoded:
    sizes = _block_sizes(weight, action.granularity, axes, action.block_size, 1)
    mode = action.mode.upper()
    quantizer = _passes().linear_quantize_weights
    params = quantizer.blockwise_compress_by_dtype(_wide_enough(weight, action), action.dtype, mode, sizes)
    parts = {"data": Tensor.of(params.data, action.dtype), "scale": Tensor.of(params.scale.astype(weight.dtype))}
    if params.offset is not None:
        parts["offset"] = Tensor.of(params.offset, action.dtype)
    return Encoded(Form.LINEAR, weight.shape, parts)


def _quantize_table(palette: Encoded, action: Action) -> Encoded:
    """Store the entries of the tables as integers of one scale."""
    assert isinstance(action, Quantize)
    lut = palette.parts["lut"].array
    quantizer = _passes().linear_quantize_weights
    wide = _wide_enough(lut, action)
    params = quantizer.blockwise_compress_by_dtype(wide, action.dtype, action.mode.upper(), [0] * lut.ndim)
    parts = {"lut": Tensor.of(params.data, action.dtype), "scale": Tensor.of(params.scale.astype(lut.dtype))}
    if params.offset is not None:
        parts["offset"] = Tensor.of(params.offset, action.dtype)
    form = Form.SCALED_PALETTE if palette.form is Form.PALETTE else palette.form
    return Encoded(form, palette.shape, {**palette.parts, **parts}, palette.axis)


def _wide_enough(weight: Array, action: Quantize) -> Array:
    """Return the weight in a type that holds what is computed with it: its range, and for an offset 255 times an end of it."""
    products = 255.0 if action.mode == "linear" else 2.0
    largest = float(np.abs(weight).max())
    return weight.astype(np.float32) if largest * products > np.finfo(weight.dtype).max else weight


def _palettize(weight: Array, action: Palettize, axes: Axes) -> Encoded:
    assert axes.outputs is not None
    scale = _channel_scale(weight, axes.outputs) if action.per_channel_scale else None
    params = _passes().palettize_weights.blockwise_compress(
        weight if scale is None else (weight / scale).astype(weight.dtype),
        action.mode.upper(),
        None if action.mode == "unique" else action.bits,
        _block_sizes(weight, action.granularity, axes, 0, action.group_size),
        cluster_dim=action.cluster_dim,
        channel_axis=axes.outputs,
    )
    if params is None or params.lut.shape[-2] > 2**action.bits:
        raise CannotEncode(f"it has more than {2**action.bits} distinct values")
    bits = int(math.log2(params.lut.shape[-2]))
    parts = {"indices": Tensor.of(params.indices, f"uint{bits}"), "lut": Tensor.of(params.lut)}
    if scale is None:
        return Encoded(Form.PALETTE, weight.shape, parts, params.vector_axis)
    return Encoded(Form.SCALED_PALETTE, weight.shape, parts | _scaled(params.lut, scale), params.vector_axis)


def _channel_scale(weight: Array, axis: int) -> Array:
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale: Array = np.abs(weight).max(axis=others, keepdims=True)
    scale[scale == 0] = 1
    return scale


def _scaled(lut: Array, scale: Array) -> dict[str, Tensor]:
    """Store a scale per channel as Core ML reads it: tables repeated per channel, each with its own factor."""
    channels = (*scale.shape, 1, 1)
    repeated = lut
    for axis, size in enumerate(channels[:-2]):
        if size > repeated.shape[axis]:
            repeated = np.repeat(repeated, size // repeated.shape[axis], axis)
    return {"lut": Tensor.of(repeated), "scale": Tensor.of(scale.reshape(channels))}


def _prune(weight: Array, action: Prune, axes: Axes) -> Encoded:
    prune = _passes().prune_weights
    if action.n_m is None:
        params = prune.compress_by_magnitude(weight, action.sparsity)
    else:
        params = prune.compress_by_nm_sparsity(weight, action.n_m, 1)
    if params.nonzero_data.size == 0:
        raise CannotEncode("nothing would be left of it")
    parts = {"mask": Tensor("uint1", weight.shape, params.mask), "nonzero_data": Tensor.of(params.nonzero_data)}
    return Encoded(Form.SPARSE, weight.shape, parts)


def _sparse(pruned: Encoded, dense: Encoded) -> Encoded:
    """Keep of a compressed dense weight only what the pruning left."""
    mask = pruned.parts["mask"]
    values = dense.parts["data" if dense.form is Form.LINEAR else "indices"]
    kept = Tensor.of(values.array[mask.array != 0], values.dtype)
    others = {name: part for name, part in dense.parts.items() if part is not values}
    form = Form.SPARSE_LINEAR if dense.form is Form.LINEAR else Form.SPARSE_PALETTE
    return Encoded(form, pruned.shape, {"mask": mask, "nonzero_data": kept, **others})


def _block_sizes(weight: Array, granularity: str, axes: Axes, inputs: int, outputs: int) -> list[int]:
    """Return the elements that share parameters along each axis, 0 for all, as coremltools infers them."""
    assert axes.inputs is not None
    assert axes.outputs is not None
    sizes = [0] * weight.ndim
    if granularity == "per_block":
        sizes[axes.inputs] = inputs
    if granularity != "per_tensor":
        sizes[axes.outputs] = outputs
    return sizes


_FIRST: Mapping[type[Action], Callable[[Array, Any, Axes], Encoded]] = {
    Quantize: _quantize,
    Palettize: _palettize,
    Prune: _prune,
}


def _passes() -> Any:
    """Return coremltools' compression passes, without its warnings: what is skipped is told by our own reasons."""
    from coremltools.optimize.coreml import _quantization_passes

    logging.getLogger("coremltools").setLevel(logging.ERROR)
    return _quantization_passes
