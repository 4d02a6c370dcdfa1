# SPDX-License-Identifier: Apache-2.0
"""Activations to and from 8 bits; decoders of weights are in `constexpr_ops`."""

from __future__ import annotations

from torch import Tensor

from gate.mil.ops.registry import kernel

RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


@kernel()
def quantize(
    input: Tensor, scale: Tensor, output_dtype: str, zero_point: Tensor | None = None, axis: int | None = None
) -> Tensor:
    """Return clip(round(input / scale) + zero_point), rounding half to even."""
    steps = (input / _along(scale, input, axis)).round()
    if zero_point is not None:
        steps = steps + _along(zero_point, input, axis)
    return steps.clamp(*RANGES[output_dtype]).int()


@kernel()
def dequantize(input: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int | None = None) -> Tensor:
    steps = input if zero_point is None else input - _along(zero_point, input, axis)
    return steps * _along(scale, input, axis)


def _along(parameter: Tensor, input: Tensor, axis: int | None) -> Tensor:
    """Shape a vector so that it broadcasts along an axis."""
    if parameter.dim() == 0 or axis is None:
        return parameter
    shape = [1] * input.dim()
    shape[axis] = -1
    return parameter.reshape(shape)
