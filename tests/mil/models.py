# SPDX-License-Identifier: Apache-2.0
"""Small models, converted once for a test session."""

from __future__ import annotations

import functools
import logging
from typing import Any

import coremltools as ct
import numpy as np
import torch
from torch import nn

logging.getLogger("coremltools").setLevel(logging.CRITICAL)


class Mixed(nn.Module):
    """A convolution, an embedding and two matrix products: each place where weights are compressed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 16, 3, padding=1)
        self.hidden = nn.Linear(256, 64)
        self.embedding = nn.Embedding(50, 32)
        self.head = nn.Linear(96, 32)

    def forward(self, x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x)).reshape(1, 256)
        return self.head(torch.cat([self.hidden(x), self.embedding(i)[:, 0]], 1))


def mixed_inputs() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {"x": generator.standard_normal((1, 4, 4, 4)).astype(np.float32), "i": np.array([[7]], np.int32)}


@functools.lru_cache
def mixed(target: ct.target = ct.target.iOS18, precision: ct.precision = ct.precision.FLOAT16) -> Any:
    torch.manual_seed(0)
    example = tuple(torch.from_numpy(x) for x in mixed_inputs().values())
    inputs = [
        ct.TensorType("x", shape=(1, 4, 4, 4), dtype=np.float32),
        ct.TensorType("i", shape=(1, 1), dtype=np.int32),
    ]
    return convert(Mixed(), example, inputs, target=target, precision=precision)


def convert(
    module: nn.Module,
    example: tuple[torch.Tensor, ...],
    inputs: list[Any],
    target: ct.target = ct.target.iOS17,
    precision: ct.precision = ct.precision.FLOAT16,
    **options: Any,
) -> Any:
    """Convert by the trace route."""
    traced = torch.jit.trace(module.eval(), example, check_trace=False)
    return ct.convert(traced, inputs=inputs, minimum_deployment_target=target, compute_precision=precision, **options)
