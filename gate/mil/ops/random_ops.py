# SPDX-License-Identifier: Apache-2.0
"""Random tensors, the same on each run.

An op with a seed of its own repeats its values with every prediction; one without (`seed=-1`) draws from the
evaluator's generator. Apple's generator is not public: values differ from a device's, distributions don't.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gate.mil.ops.registry import Context, Ints, kernel


@kernel(batch=False)
def random_bernoulli(shape: Ints, context: Context, prob: float = 0.5, seed: int = -1) -> Tensor:
    return (torch.rand(shape, generator=_generator(context, seed)) < prob).float()


@kernel(batch=False)
def random_categorical(x: Tensor, context: Context, mode: str = "logits", size: int = 1, seed: int = -1) -> Tensor:
    weights = x.softmax(-1) if mode == "logits" else x
    rows = weights.reshape(-1, x.shape[-1])
    drawn = rows.multinomial(size, replacement=True, generator=_generator(context, seed))
    return drawn.reshape(*x.shape[:-1], size).float()


@kernel(batch=False)
def random_normal(shape: Ints, context: Context, mean: float = 0.0, stddev: float = 1.0, seed: int = -1) -> Tensor:
    return torch.randn(shape, generator=_generator(context, seed)) * stddev + mean


@kernel(batch=False)
def random_uniform(shape: Ints, context: Context, low: float = 0.0, high: float = 1.0, seed: int = -1) -> Tensor:
    return torch.rand(shape, generator=_generator(context, seed)) * (high - low) + low


def _generator(context: Context, seed: int) -> torch.Generator:
    return context.generator if seed < 0 else torch.Generator().manual_seed(seed)
