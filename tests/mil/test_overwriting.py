# SPDX-License-Identifier: Apache-2.0
"""Is a value written over only where nobody can tell?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from torch import nn

import gate.mil
from gate.mil.numerics import Precision
from gate.mil.overwriting import OVERWRITE, overwriting
from tests.mil.models import convert
from tests.mil.test_blocks import loaded

PARAMETERS = {"alpha": 0.1, "beta": 0.75}
PAIRS = [(kernel, name, over) for kernel, places in OVERWRITE.items() for name, over in places.items()]


def arguments(kernel: Callable[..., Any]) -> dict[str, Any]:
    """Return values of every kind, in a number that no vector width divides."""
    generator = torch.Generator().manual_seed(0)
    special = torch.tensor([0.0, -0.0, 0.1, -0.1, 3e38, -3e38, 1e-45, np.inf, -np.inf, np.nan])
    names = [n for n in kernel.__annotations__ if n != "return"]
    draws = (torch.cat([special, torch.randn(1013, generator=generator) * 3]).reshape(1, 3, 341, 1) for _ in names)
    return {name: PARAMETERS.get(name, values) for name, values in zip(names, draws, strict=True)}


@pytest.mark.parametrize(("kernel", "name", "over"), PAIRS, ids=[f"{k.__name__}-{n}" for k, n, _ in PAIRS])
def test_the_bits_are_those_of_the_kernel(kernel: Callable[..., Any], name: str, over: Callable[..., Any]) -> None:
    inputs = arguments(kernel)
    wanted = kernel(**inputs)
    result = over(**inputs)
    assert result.data_ptr() == inputs[name].data_ptr()
    assert torch.equal(result.view(torch.int32), wanted.view(torch.int32))


class Mobile(nn.Module):
    """Squeeze, hard swish, and a skip: what a mobile network writes over and what it must not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.down, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.hardswish(self.first(x))
        y = torch.relu(self.second(x))
        y = y * torch.sigmoid(self.down(y.mean((2, 3), keepdim=True)))
        return self.head((x + y).clamp(-1, 1).mean((2, 3)))


@pytest.mark.parametrize("precision", list(Precision))
def test_a_run_gives_the_bits_of_an_observed_run(precision: Precision) -> None:
    torch.manual_seed(0)
    inputs = [ct.TensorType("x", shape=(1, 3, 9, 9), dtype=np.float32)]
    evaluator = gate.mil.load(convert(Mobile(), (torch.zeros(1, 3, 9, 9),), inputs), precision=precision)
    x = {"x": torch.randn(1, 3, 9, 9)}
    before = x["x"].clone()
    (alone,) = evaluator.run(x).values()
    (again,) = evaluator.run(x).values()
    (observed,) = evaluator.run(x, observe=lambda *_: None).values()
    assert torch.equal(alone, observed)
    assert torch.equal(again, observed)
    assert torch.equal(x["x"], before)


def test_a_stack_of_samples_gives_what_single_runs_give() -> None:
    torch.manual_seed(0)
    inputs = [ct.TensorType("x", shape=(1, 3, 9, 9), dtype=np.float32)]
    evaluator = gate.mil.load(convert(Mobile(), (torch.zeros(1, 3, 9, 9),), inputs))
    samples = [{"x": torch.randn(1, 3, 9, 9)} for _ in range(5)]
    for together, sample in zip(evaluator.predict(samples), samples, strict=True):
        (a,), (b,) = together.values(), evaluator.predict(sample).values()
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), rtol=2**-10, atol=1e-3)


def written_over(build: Callable[..., Any], inputs: Mapping[str, Any]) -> list[str]:
    """Return the types of the ops that write over an argument; the results must be those of the plain steps."""
    evaluator = loaded(build, dict(inputs))
    tensors = evaluator.features.read(inputs)
    plain = evaluator.run(tensors, observe=lambda *_: None)
    assert all(torch.equal(plain[name], x) for name, x in evaluator.run(tensors).items())
    steps = zip(evaluator.plan.body.steps, overwriting(evaluator.plan).steps, strict=True)
    return [old.op.type for old, new in steps if new.function is not old.function]


X = {"x": np.array([[-1.0, 2.0, -3.0]], np.float32)}


def viewed(x: Any) -> Any:
    doubled = mb.add(x=x, y=x)
    return mb.relu(x=doubled), mb.reshape(x=doubled, shape=[3])


def read_again(x: Any) -> Any:
    doubled = mb.add(x=x, y=x)
    return mb.concat(values=[mb.relu(x=doubled), mb.sigmoid(x=doubled)], axis=0)


def returned(x: Any) -> Any:
    doubled = mb.add(x=x, y=x)
    return doubled, mb.relu(x=doubled)


def read_in_a_block(x: Any) -> Any:
    doubled = mb.add(x=x, y=x)
    relu = mb.relu(x=doubled)
    branch = {"_true_fn": lambda: mb.mul(x=doubled, y=2.0), "_false_fn": lambda: mb.mul(x=doubled, y=3.0)}
    return relu, mb.cond(pred=mb.less(x=mb.reduce_sum(x=relu, axes=[0, 1], keep_dims=False), y=9.0), **branch)


@pytest.mark.parametrize(
    ("build", "found"),
    [
        pytest.param(lambda x: mb.relu(x=mb.add(x=x, y=x)), ["relu"], id="dead"),
        pytest.param(lambda x: mb.relu(x=x), [], id="input"),
        pytest.param(lambda x: mb.add(x=mb.exp(x=x), y=np.ones((2, 1), np.float32)), [], id="broadcast"),
        pytest.param(lambda x: mb.add(x=np.ones((1, 3), np.float32), y=mb.exp(x=x)), ["add"], id="second"),
        pytest.param(viewed, [], id="view"),
        pytest.param(read_again, ["sigmoid"], id="read-again"),
        pytest.param(returned, [], id="output"),
        pytest.param(read_in_a_block, [], id="block"),
    ],
)
def test_only_dead_memory_of_the_run_is_written_over(build: Callable[..., Any], found: list[str]) -> None:
    assert written_over(build, X) == found
