# SPDX-License-Identifier: Apache-2.0
"""Was a torch model compressed before it came here, so that the conversion must keep it?

`coremltools.optimize.torch` writes buffers beside each weight (`fc._COREML_/weight/lut`), which the converter reads. A checkpoint
of an older version has palettized weights and no buffers: such weights are told by their few values, and converted by
coremltools' palettization pipeline, which stores them before a batch norm is fused into them and the values are many again.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

MARK = "_COREML_/"
KIND = "/compression_type"
MOST_VALUES = 256  # of an 8-bit table
LEAST_ELEMENTS = 2048  # coremltools' palettization pipeline leaves smaller weights alone
GLANCE = 8192  # values that tell almost every ordinary weight at once


def declared_weights(module: "nn.Module") -> int:
    """Count the weights that say they are compressed."""
    return sum(MARK in name and name.endswith(KIND) for name in _state_names(module))


def is_silently_palettized(module: "nn.Module") -> bool:
    """Does a weight have as few values as a table holds, without a buffer that says so?"""
    if declared_weights(module):
        return False
    return any(_has_few_values(weight) for weight in _weights(module))


def _state_names(module: "nn.Module") -> list[str]:
    return [name for name, _ in module.named_buffers()]


def _weights(module: "nn.Module") -> "Iterator[Tensor]":
    for weight in module.parameters():
        if weight.dim() > 1 and weight.numel() > LEAST_ELEMENTS and weight.is_floating_point():
            yield weight.detach()


def _has_few_values(weight: "Tensor") -> bool:
    values = weight.reshape(-1)
    return _distinct(values[:GLANCE]) <= MOST_VALUES and 1 < _distinct(values) <= MOST_VALUES


def _distinct(values: "Tensor") -> int:
    return int(values.unique().numel())  # type: ignore[no-untyped-call]
