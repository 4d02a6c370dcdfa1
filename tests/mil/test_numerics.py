# SPDX-License-Identifier: Apache-2.0
"""Where do the four precisions round, and where do they overflow?"""

from __future__ import annotations

import inspect
import math
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch

import gate.mil
from gate.mil import MilError
from gate.mil.numerics import Precision, Rounding, array, half, half_, settle, tensor
from gate.mil.ops.registry import ACCUMULATE16, KERNELS, NARROW
from tests.mil.models import mixed, mixed_inputs
from tests.mil.op_cases import Row, a
from tests.mil.programs import run_op

INF, NAN = math.inf, math.nan
DECLARED, FLOAT32 = Rounding(Precision.DECLARED), Rounding(Precision.FLOAT32)

# nearest even, the largest finite value, the first that overflows, the smallest subnormal, and what is lost below it
EDGES = torch.tensor([2049.0, 2051.0, 65504.0, 65519.0, 65520.0, -65520.0, 2.0**-24, 2.0**-25, 3 * 2.0**-26])
ROUNDED = torch.tensor([2048.0, 2052.0, 65504.0, 65504.0, INF, -INF, 2.0**-24, 0.0, 2.0**-24])


@pytest.mark.parametrize("function", [half, half_])
def test_half_rounds_as_ieee_754_does(function: Any) -> None:
    assert torch.equal(function(EDGES.clone()), ROUNDED)


def test_only_float16_is_rounded_and_only_where_it_is_declared() -> None:
    assert torch.equal(settle("float16", DECLARED)(EDGES), ROUNDED)
    assert torch.equal(settle("float32", DECLARED)(EDGES), EDGES)
    assert torch.equal(settle("float16", FLOAT32)(EDGES), EDGES)
    assert torch.equal(settle("float32", Rounding(Precision.DECLARED, as_half=True))(EDGES), ROUNDED)


@pytest.mark.parametrize(
    ("dtype", "value", "wrapped"),
    [("int8", 128, -128), ("int8", -129, 127), ("uint8", 256, 0), ("uint8", -1, 255), ("int16", 32768, -32768), ("uint16", 65536, 0), ("int4", 8, -8), ("int32", 5, 5)],
)  # fmt: skip
def test_integers_wrap_at_their_width(dtype: str, value: int, wrapped: int) -> None:
    assert settle(dtype, DECLARED)(torch.tensor([value])).tolist() == [wrapped]


def test_arrays_come_and_go_in_their_dtype() -> None:
    for dtype in ("float16", "float32", "int32", "bool"):
        given = np.array([0, 1], dtype)
        assert array(tensor(given), dtype).dtype == given.dtype


NARROW_ROWS = [
    Row("softplus", {"x": a([10.0, 10.5])}, [10.0, 0.0], note="cliff"),
    Row("softplus_parametric", {"x": a([[[20.0]]]), "alpha": [1.0], "beta": [1.0]}, [[[0.0]]], note="cliff"),
    Row("reduce_log_sum_exp", {"x": a([11.0, 11.0]), "axes": [0]}, 0.0, note="cliff"),
    Row("reduce_mean", {"x": np.full(2, 40000.0), "axes": [0]}, INF),
    Row("reduce_l2_norm", {"x": a([300.0, 400.0]), "axes": [0]}, INF),
    Row("reduce_sum_square", {"x": a([256.0]), "axes": [0]}, INF),
    Row("reduce_log_sum", {"x": np.full(2, 40000.0), "axes": [0]}, INF),
    Row("l2_norm", {"x": a([[[[300.0]]]])}, [[[[0.0]]]]),
    Row("layer_norm", {"x": a([300.0, -300.0]), "axes": [0]}, [0.0, -0.0]),
    Row("instance_norm", {"x": a([[[300.0, -300.0]]])}, [[[0.0, -0.0]]]),
    Row("softmax", {"x": a([0.0, 0.0]), "axis": 0}, [0.5, 0.5]),
    Row("sigmoid", {"x": a([-20.0, 0.0])}, [0.0, 0.5]),
    Row("silu", {"x": a([-20.0])}, [0.0]),
    Row("gelu", {"x": a([1.0]), "mode": "EXACT"}, [0.8413]),
    Row("gelu", {"x": a([100.0]), "mode": "TANH_APPROXIMATION"}, [100.0], note="benign-overflow"),
    Row("softsign", {"x": a([65504.0])}, [1.0]),
    Row("log", {"x": a([0.0]), "epsilon": 1e-12}, [-INF]),
    Row("rsqrt", {"x": a([0.0]), "epsilon": 1e-12}, [INF]),
    Row("inverse", {"x": a([0.0]), "epsilon": 1e-12}, [INF]),
    Row("batch_norm", {"x": a([[[2.0]]]), "mean": [1.0], "variance": [1.0], "epsilon": 0.0}, [[[1.0]]]),
    Row("local_response_norm", {"x": a([[[300.0]]]), "size": 1, "alpha": 1.0, "beta": 1.0, "k": 1.0}, [[[0.0]]]),
    Row("l2_pool", {"x": a([[[300.0, 1.0]]]), "kernel_sizes": [1], "pad_type": "valid"}, [[[INF, 1.0]]]),
    Row("cumsum", {"x": np.full(5000, 1.0)}, np.minimum(np.arange(5000) + 1.0, 2048.0), note="stagnates"),
    Row("scaled_dot_product_attention", {"query": np.full((1, 1, 4), 200.0), "key": np.full((1, 1, 4), 200.0), "value": a([[[3.0]]])}, [[[NAN]]]),
]  # fmt: skip


@pytest.mark.parametrize("row", NARROW_ROWS, ids=lambda row: row.label)
def test_narrow_rounds_each_step(row: Row) -> None:
    expected = (torch.tensor(np.asarray(row.expected, np.float32)),)
    (result,) = run_op(row.op, row.inputs, expected, "float16", precision=Precision.NARROW)
    np.testing.assert_allclose(result.numpy(), expected[0].numpy(), rtol=2e-3, atol=1e-3)


def test_every_narrow_form_has_a_row_and_the_signature_of_its_kernel() -> None:
    assert sorted(NARROW) == sorted({row.op for row in NARROW_ROWS})
    for op, form in {**NARROW, **ACCUMULATE16}.items():
        taken = {
            n: "Tensor" if a == "Filters" else a for n, a in KERNELS[op][0].parameters.items()
        }  # sums want them plain
        assert dict(form.parameters) == taken
        assert (
            inspect.signature(form.function).parameters.keys()
            == inspect.signature(KERNELS[op][0].function).parameters.keys()
        )


ONES = np.ones((1, 4096))
STAGNANT = [
    Row("reduce_sum", {"x": ONES[0], "axes": [0]}, 2048.0),
    Row("reduce_mean", {"x": ONES[0], "axes": [0]}, 0.5),
    Row("reduce_sum_square", {"x": ONES[0], "axes": [0]}, 2048.0),
    Row("reduce_l2_norm", {"x": ONES[0], "axes": [0]}, math.sqrt(2048)),
    Row("softmax", {"x": np.zeros(4096), "axis": 0}, np.full(4096, 1 / 2048)),
    Row("matmul", {"x": ONES, "y": ONES.T}, [[2048.0]]),
    Row("linear", {"x": ONES, "weight": ONES.tolist(), "bias": [1.0]}, [[2048.0]]),
    Row("conv", {"x": ONES[:, :, None], "weight": ONES[:, :, None].tolist(), "bias": [2.0]}, [[[2050.0]]]),
]


@pytest.mark.parametrize("row", STAGNANT, ids=lambda row: row.label)
def test_accumulate16_stops_counting_at_2048(row: Row) -> None:
    """The running sum of ones stays at 2048, where 1 is half of the distance to the next float16 value."""
    expected = (torch.tensor(np.asarray(row.expected, np.float32)),)
    (result,) = run_op(row.op, row.inputs, expected, "float16", precision=Precision.ACCUMULATE16)
    np.testing.assert_allclose(result.numpy(), expected[0].numpy(), rtol=1e-3)
    (wide,) = run_op(row.op, row.inputs, expected, "float16", precision=Precision.DECLARED)
    assert not np.allclose(wide.numpy(), result.numpy(), rtol=1e-2)


def test_accumulate16_sums_a_strided_grouped_convolution_as_conv_does() -> None:
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(2, 4, 9, 8, generator=generator).numpy(), torch.randn(6, 2, 3, 2, generator=generator).numpy()
    inputs = {
        "x": x,
        "weight": w,
        "strides": [2, 1],
        "pad_type": "custom",
        "pad": [1, 0, 2, 1],
        "dilations": [1, 2],
        "groups": 2,
    }
    shape = (torch.zeros(2, 6, 4, 9),)
    (exact,) = run_op("conv", inputs, shape, "float16", precision=Precision.DECLARED)
    (summed,) = run_op("conv", inputs, shape, "float16", precision=Precision.ACCUMULATE16)
    torch.testing.assert_close(summed, exact, rtol=1e-2, atol=1e-2)


def test_one_op_can_run_in_half() -> None:
    exact = gate.mil.load(mixed(precision=ct.precision.FLOAT32), precision="float32")
    target = next(op for op in exact.function.body.ops if op.type == "conv")
    one = exact.at(lambda op: Rounding(Precision.DECLARED, as_half=True) if op is target else FLOAT32)
    inputs = exact.features.read(mixed_inputs())
    wanted, found = exact.run(inputs, keep=[target.name]), one.run(inputs, keep=[target.name])
    assert not torch.equal(wanted[target.name], found[target.name])
    assert torch.equal(found[target.name], half(found[target.name]))


def test_an_unknown_precision_is_named() -> None:
    with pytest.raises(MilError, match="precision 'fp16': expected one of float32, declared, narrow, accumulate16"):
        gate.mil.load(mixed(), precision="fp16")
