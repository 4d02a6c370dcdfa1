# SPDX-License-Identifier: Apache-2.0
"""Is what is prepared at load the same op, only sooner?"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from torch import Tensor, nn

import gate.mil
from gate.mil.batch import Stack
from gate.mil.compiler import Step, compile_function
from gate.mil.constants import Constants
from gate.mil.errors import OpFailed
from gate.mil.evaluator import Run
from gate.mil.numerics import Rounding
from gate.mil.ops import conv as conv_ops
from gate.mil.ops.conv import conv
from gate.mil.ops.linear import SHARES, WORTH_SHARING, linear
from gate.mil.ops.pool import max_pool
from gate.mil.ops.registry import PLANS
from gate.mil.program import Block, Constant, Function, Op, TensorType, Value
from gate.mil.quick import Quick, QuickBody, quick
from tests.mil.models import convert
from tests.mil.programs import one_op, run_op
from tests.mil.test_blocks import loaded as build

needs_packing = pytest.mark.skipif(not conv_ops.PACKS, reason="this machine's torch packs no weights")


def loaded(module: nn.Module, shape: tuple[int, ...], precision: str = "float32") -> gate.mil.Evaluator:
    inputs = [ct.TensorType("x", shape=shape, dtype=np.float32)]
    stored = ct.precision.FLOAT32 if precision == "float32" else ct.precision.FLOAT16
    return gate.mil.load(convert(module, (torch.zeros(shape),), inputs, precision=stored), precision=precision)


def packed_filters(evaluator: gate.mil.Evaluator) -> list[Tensor]:
    return [s.constants["weight"] for s in evaluator.plan.body.steps if s.packed]


CONVOLUTIONS = {
    "plain": nn.Conv2d(16, 24, 3),
    "padded": nn.Conv2d(16, 24, 5, padding=2),
    "strided": nn.Conv2d(16, 40, 3, stride=2, padding=1),
    "dilated": nn.Conv2d(16, 24, 3, padding=2, dilation=2),
    "grouped": nn.Conv2d(16, 32, 3, groups=4),
    "depthwise": nn.Conv2d(16, 96, 5, groups=16, padding=2),
    "pointwise": nn.Conv2d(16, 80, 1),
    "no-bias": nn.Conv2d(16, 24, 3, bias=False),
}


@needs_packing
@pytest.mark.parametrize("module", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_packed_filters_convolve_alike(module: nn.Module) -> None:
    torch.manual_seed(0)
    evaluator = loaded(module, (1, 16, 40, 36))
    (filters,) = packed_filters(evaluator)
    assert torch.equal(filters.to_dense(), module.weight)
    x = torch.randn(1, 16, 40, 36)
    (found,) = evaluator.run({"x": x}).values()
    with torch.no_grad():
        assert torch.allclose(found, module(x), atol=2e-6)


@needs_packing
def test_nothing_that_is_not_a_number_is_lost() -> None:
    torch.manual_seed(0)
    evaluator = loaded(nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.ReLU()), (1, 16, 40, 36))
    x = torch.randn(1, 16, 40, 36)
    x[0, 3, 7, 7], x[0, 5, 20, 20] = np.nan, np.inf
    (found,) = evaluator.run({"x": x}).values()
    (observed,) = evaluator.run({"x": x}, observe=lambda *_: None).values()
    assert found.isnan().sum() > 24 * 8  # nine places of the first; those of the second are plus or minus infinity
    assert torch.equal(found.nan_to_num(), observed.nan_to_num())


@needs_packing
def test_who_observes_sees_plain_filters() -> None:
    module, seen = nn.Conv2d(16, 24, 3), {}
    evaluator = loaded(module, (1, 16, 40, 36))
    evaluator.run({"x": torch.zeros(1, 16, 40, 36)}, observe=lambda op, inputs, _: seen.update({op.type: inputs}))
    assert torch.equal(seen["conv"]["weight"], module.weight)


@needs_packing
def test_packed_filters_are_shared_and_the_plain_ones_let_go() -> None:
    evaluator = loaded(nn.Conv2d(16, 24, 3), (1, 16, 40, 36))
    assert packed_filters(evaluator)
    held = [t for t in evaluator.constants._tensors.values() if t.dim() == 4]
    assert all(t.is_mkldnn for t in held)
    (one,), (same,) = packed_filters(evaluator), packed_filters(evaluator.at("declared"))
    assert one is same


@needs_packing
@pytest.mark.parametrize("precision", ["float32", "declared", "narrow"])
def test_a_stack_of_samples_runs_as_rows(precision: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, groups=24), nn.MaxPool2d(2))
    evaluator = loaded(module, (1, 3, 40, 36), precision)
    assert len(packed_filters(evaluator)) == 2
    samples = [{"x": torch.randn(1, 3, 40, 36).numpy()} for _ in range(5)]
    for together, sample in zip(evaluator.predict(samples), samples, strict=True):
        (a,), (b,) = together.values(), evaluator.predict(sample).values()
        np.testing.assert_allclose(a, b, rtol=2**-10, atol=1e-3)


def test_other_weights_are_packed_in_their_turn() -> None:
    module = nn.Conv2d(16, 24, 3, bias=False)
    evaluator = loaded(module, (1, 16, 40, 36))
    (name,) = (a.name for op in evaluator.function.body.walk() for a in op.inputs.get("weight", ()))
    twice = evaluator.with_weights({name: 2 * module.weight.detach().numpy()})
    x = {"x": torch.randn(1, 16, 40, 36)}
    (once,), (doubled,) = evaluator.run(x).values(), twice.run(x).values()
    assert torch.equal(doubled, 2 * once)


def test_a_convolution_of_one_place_is_a_product() -> None:
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(256, 512, 1))
    evaluator = loaded(module, (2, 256, 12, 12))
    assert not packed_filters(evaluator)
    x = torch.randn(2, 256, 12, 12)
    (found,) = evaluator.run({"x": x}).values()
    with torch.no_grad():
        assert torch.allclose(found, module(x), atol=1e-5)


def rows() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    out = SHARES * (WORTH_SHARING // SHARES // 256)
    return (*(torch.randn(s, generator=generator) for s in ((1, 1, 256), (out, 256))), torch.randn(out))


@pytest.mark.parametrize("with_bias", [True, False])
def test_one_row_is_multiplied_by_all_cores(with_bias: bool) -> None:
    x, weight, bias = rows()
    expected = nn.functional.linear(x.double(), weight.double(), bias.double() if with_bias else None)
    found = linear(x, weight, bias if with_bias else None)
    assert found.shape == (1, 1, weight.shape[0])
    assert torch.allclose(found.double(), expected, atol=1e-4)
    views = linear(x, weight.t().contiguous().t(), bias if with_bias else None)  # a weight that is no constant
    assert torch.allclose(views, found, atol=1e-4)


@pytest.mark.parametrize(
    ("weight", "bias"), [([[1, 2], [3, 4], [5, 6]], [1, 0, 1]), ([[1.5, 2.0]], [3]), ([[1, 2]], [0.5])]
)
def test_floats_meet_integers(weight: list[list[float]], bias: list[float]) -> None:
    """As iOS17 allows it: coremltools' own tests found that a plan had not."""
    x = np.array([[1.0, -2.0]], np.float32)
    expected = torch.tensor(x @ np.array(weight, np.float32).T + np.array(bias, np.float32))
    (found,) = run_op("linear", {"x": x, "weight": weight, "bias": bias}, (expected,))
    assert torch.equal(found, expected)


PLANNED: dict[str, tuple[Callable[..., Any], tuple[int, ...], dict[str, Any]]] = {
    "conv": (conv, (1, 4, 9, 9), {"weight": torch.randn(6, 4, 3, 3), "pad_type": "same"}),
    "conv-1d": (conv, (2, 4, 9), {"weight": torch.randn(6, 4, 3), "pad_type": "custom", "pad": [2, 1]}),
    "linear": (linear, (3, 5), {"weight": torch.randn(7, 5), "bias": torch.randn(7)}),
    "one-row": (linear, (1, 1, 256), dict(zip(("weight", "bias"), rows()[1:], strict=True))),
    "max-pool": (max_pool, (1, 4, 9, 9), {"kernel_sizes": [3, 3], "strides": [2, 2], "pad_type": "same"}),
    "max-pool-1d": (max_pool, (1, 4, 9), {"kernel_sizes": [4], "pad_type": "custom", "pad": [2, 2]}),
    "max-pool-large": (max_pool, (1, 4, 90, 90), {"kernel_sizes": [3, 3], "pad_type": "custom", "pad": [1, 1, 1, 1]}),
}


@pytest.mark.parametrize(("kernel", "sizes", "constants"), PLANNED.values(), ids=PLANNED.keys())
def test_a_plan_is_its_kernel(kernel: Callable[..., Any], sizes: tuple[int, ...], constants: dict[str, Any]) -> None:
    x = torch.randn(sizes)
    assert torch.equal(PLANS[kernel](list(sizes), **constants)(x), kernel(x, **constants))


@pytest.mark.parametrize("pad", [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0]])
@pytest.mark.parametrize("side", [9, 90])
def test_pooling_does_not_depend_on_how_values_lie(pad: list[int], side: int) -> None:
    x = torch.randn(2, 8, side, side)
    x[0, 0, 4, 4] = np.nan
    arguments = ([3, 3], "custom", [2, 2], pad)
    found = [max_pool(y, *arguments) for y in (x, x.contiguous(memory_format=torch.channels_last))]
    assert torch.equal(found[0].isnan(), found[1].isnan())
    assert torch.equal(found[0].nan_to_num(), found[1].nan_to_num())


def test_what_no_plan_can_be_made_of_is_told_when_it_runs() -> None:
    inputs = {"x": np.ones((1, 4, 9, 9), np.float32), "kernel_sizes": [2], "pad_type": "valid"}
    _, plan, values = one_op("max_pool", inputs, (torch.ones(1, 4, 4, 4),))
    slots = [*values, *plan.presets[1:]]
    with pytest.raises(OpFailed, match="max_pool"):
        Run(plan, slots).quickly(quick(plan).body.steps)


def test_a_bias_may_lie_in_any_way() -> None:
    """oneDNN reads it as one block, whatever its strides: found by who reviewed this."""
    weight, x = torch.randn(24, 16, 3, 3), torch.randn(1, 16, 40, 36)
    hint = conv_ops.Hint([0, 0], [1, 1], [1, 1], 1, list(x.shape))
    filters = conv_ops.packed(weight, hint) if conv_ops.PACKS else weight
    for bias in (torch.tensor(0.5).expand(24), torch.randn(24, 2)[:, 1], torch.randn(24)):
        assert torch.allclose(conv(x, filters, bias), nn.functional.conv2d(x, weight, bias), atol=1e-5)


def test_one_row_with_a_bias_for_all() -> None:
    x, weight, _ = rows()
    bias = torch.tensor([2.0])
    assert torch.allclose(linear(x, weight, bias), linear(x, weight) + 2, atol=1e-4)
    assert linear(x.double(), weight, bias).dtype == torch.float64


@needs_packing
def test_inputs_of_several_sizes_share_packed_filters() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filters = nn.Conv2d(16, 24, 3, padding=1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.filters(x), self.filters(x[:, :, ::2, ::2])

    one, other = packed_filters(loaded(Head(), (1, 16, 40, 36)))
    assert one is other


def test_the_evaluator_needs_no_onednn() -> None:
    """As in a torch for a Mac of today."""
    code = """
import torch
torch.backends.mkldnn.is_available = lambda: False
class Nothing:
    def __getattr__(self, name): raise AttributeError(name)
torch.ops.mkldnn = Nothing()
from gate.mil.ops import conv
assert not conv.PACKS
print(conv.conv(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3)).sum().item())
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(printed) == 36


def test_a_stack_of_what_has_no_declared_rounding() -> None:
    """A cast to a type that the program may declare and nothing computes with."""
    x = np.array([[1.0, -2.0]], np.float32)
    function, plan, _ = one_op("cast", {"x": x, "dtype": "int32"}, (torch.ones(1, 2),), declared=("int64",))
    (found,) = Stack(plan, function).run([{"x": torch.tensor(x)}, {"x": torch.tensor(-x)}]).values()
    assert [row.tolist() for row in found] == [[[1, -2]], [[-1, 2]]]


def countdown(x: Any) -> Any:
    """Halve `x` three times and write it into rows 2, 1 and 0; each step has another way of reading its inputs."""

    def body(n: Any, x: Any, rows: Any) -> Any:
        n = mb.sub(x=n, y=1)
        half = mb.linear(x=x, weight=np.eye(4, dtype=np.float32) / 2, bias=np.zeros(4, np.float32))
        signed = mb.select(cond=mb.equal(x=mb.mod(x=n, y=2), y=0), a=half, b=mb.sub(x=0.0, y=half))
        wide = mb.concat(values=(signed, x), axis=1)
        begin, end = mb.stack(values=(0, mb.sub(x=n, y=n)), axis=0), mb.stack(values=(1, mb.add(x=n, y=4)), axis=0)
        row = mb.reshape(x=mb.slice_by_index(x=wide, begin=begin, end=end, end_mask=[False, True]), shape=[1, 8])
        row = mb.slice_by_size(x=row, begin=[0, 0], size=[1, 4])
        return n, half, mb.scatter(data=rows, indices=mb.expand_dims(x=n, axes=[0]), updates=row, axis=0, mode="update")

    start = (3, x, np.zeros((3, 4), np.float32))
    return mb.while_loop(_cond=lambda n, x, rows: mb.greater(x=n, y=0), _body=body, loop_vars=start)[2]


@pytest.mark.parametrize("rounding", [Rounding(), Rounding(as_half=True)], ids=["as-declared", "as-half"])
def test_a_loop_runs_through_prepared_steps_alike(rounding: Rounding) -> None:
    feed = {"x": np.array([[8.0, 0.1, 1e4, -0.0]], np.float32)}
    evaluator = build(countdown, feed).at(rounding)
    (found,), (observed,) = (evaluator.predict(feed, observe=o).values() for o in (None, lambda *_: None))
    np.testing.assert_array_equal(found, observed)
    np.testing.assert_array_equal(found[:, 0], [1.0, -2.0, 4.0])
    steps = [step for body in evaluator._quick.blocks.values() for step in body.steps]
    assert {"linear", "select", "concat", "scatter"} <= {s.step.op.type for s in steps if isinstance(s, Quick)}
    assert not [step for step in steps if isinstance(step, Step)]


def test_a_block_given_what_it_does_not_declare_runs_as_written() -> None:
    body = QuickBody((), ((torch.float32, (1, 4)), None))
    assert body.takes((torch.zeros(1, 4), [torch.zeros(1)]))
    assert not body.takes((torch.zeros(2, 4), None))
    assert not body.takes((torch.zeros(1, 4).int(), None))


def test_a_damaged_loop_ends_in_an_error() -> None:
    """The weights of its body are laid out for one row; it is given two."""
    two_rows, one_row, answer = TensorType("float32", (2, 256)), TensorType("float32", (1, 256)), TensorType("bool", ())
    weight = Constant("w", TensorType("float32", (512, 256)), np.ones((512, 256), np.float32))
    yes = Constant("yes", answer, np.array(True))
    x, row, go = Value("x", two_rows), Value("row", one_row), Value("go", answer)
    product, result = Value("product", TensorType("float32", (1, 512))), Value("result", two_rows)
    condition = Block((Value("unread", one_row),), (Op("identity", "go", {"x": (yes,)}, (go,)),), (go,))
    body = Block((row,), (Op("linear", "product", {"x": (row,), "weight": (weight,)}, (product,)),), (product,))
    loop = Op("while_loop", "loop", {"loop_vars": (x,)}, (result,), (condition, body))
    function = Function("main", "CoreML7", Block((x,), (loop,), (result,)))
    plan = compile_function(function, lambda op: Rounding(), Rounding(), Constants())
    values = list(plan.presets)
    values[plan.body.inputs[0]] = torch.ones(2, 256)
    prepared = quick(plan)
    with pytest.raises(OpFailed, match="product.*shape"):
        Run(plan, values, prepared=prepared).quickly(prepared.body.steps)


def test_a_step_that_cannot_read_its_inputs_is_named() -> None:
    inputs = {"indices": np.array([1, 0]), "one_hot_vector_size": np.array([2, 3])}
    _, plan, values = one_op("one_hot", inputs, (torch.ones(2, 2),))
    with pytest.raises(OpFailed, match="one_hot"):
        Run(plan, [*values, *plan.presets[2:]]).quickly(quick(plan).body.steps)


FAULTS_OF_LATER_RUNS = """
import resource, sys, torch
from gate.mil.evaluator import load

evaluator = load(sys.argv[1])
feed = {"x": torch.ones(1, 64, 160, 160)}
for _ in range(3):
    evaluator.run(feed)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    evaluator.run(feed)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's way to keep what was freed")
def test_a_run_takes_the_memory_that_the_last_one_freed(tmp_path: Path) -> None:
    """Without it, twenty runs are handed 63,000 new pages."""
    module = nn.Sequential(*(nn.Conv2d(64, 64, 1, groups=64) for _ in range(3)))
    path = tmp_path / "large.mlpackage"
    inputs = [ct.TensorType("x", shape=(1, 64, 160, 160), dtype=np.float32)]
    convert(module, (torch.zeros(1, 64, 160, 160),), inputs).save(str(path))
    printed = subprocess.run(
        [sys.executable, "-c", FAULTS_OF_LATER_RUNS, str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert int(printed) < 30_000
