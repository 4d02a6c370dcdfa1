# SPDX-License-Identifier: Apache-2.0
"""One row, at least, for each MIL op: inputs and the result, by hand or from numpy.

`Row("op", {inputs}, expected)`: arrays (`a(...)`) are computed values, Python numbers and lists are constants, a tuple is
MIL's tuple. `dtype="float16"` declares floats as float16, so that the row shows what overflows or is rounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

INF, NAN = math.inf, math.nan


@dataclass(frozen=True)
class Row:
    op: str
    inputs: dict[str, Any]
    expected: Any = field(repr=False)
    dtype: str = "float32"
    opset: str = "CoreML8"
    note: str = ""

    @property
    def label(self) -> str:
        return "-".join(filter(None, (self.op, self.note, self.dtype if self.dtype != "float32" else "")))


def a(*values: Any) -> np.ndarray[Any, Any]:
    """Write a computed array."""
    return np.array(values if len(values) > 1 else values[0])


def count(*shape: int) -> np.ndarray[Any, Any]:
    """Write 0, 1, 2, … in a shape."""
    return np.arange(math.prod(shape), dtype=np.float32).reshape(shape)


X = a([-2.0, -0.5, 0.0, 1.5])
POSITIVE = a([0.25, 1.0, 4.0])
UNIT = a([-0.5, 0.0, 0.75])


def unary(op: str, x: Any, expected: Any, dtype: str = "float32", **inputs: Any) -> Row:
    return Row(op, {"x": x, **inputs}, expected, dtype)


def binary(op: str, x: Any, y: Any, expected: Any, dtype: str = "float32", note: str = "") -> Row:
    return Row(op, {"x": x, "y": y}, expected, dtype, note=note)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


ACTIVATION = [
    unary("relu", X, [0, 0, 0, 1.5]),
    unary("relu6", a([-1.0, 3.0, 8.0]), [0.0, 3.0, 6.0]),
    unary("leaky_relu", X, [-0.2, -0.05, 0, 1.5], alpha=0.1),
    unary("clamped_relu", X, [-0.2, -0.05, 0, 1.0], alpha=0.1, beta=1.0),
    unary("elu", X, np.where(X > 0, X, 2 * (np.exp(X) - 1)), alpha=2.0),
    unary("gelu", X, [-0.0455003, -0.1542688, 0, 1.3997892], mode="EXACT"),
    unary("gelu", X, X * _sigmoid(1.702 * X), mode="SIGMOID_APPROXIMATION"),
    unary("gelu", X, [-0.0454023, -0.1542860, 0, 1.3995716], mode="TANH_APPROXIMATION"),
    unary("linear_activation", X, 3 * X + 1, alpha=3.0, beta=1.0),
    Row("prelu", {"x": -np.ones((1, 2, 3)), "alpha": [0.5, 2.0]}, [[[-0.5] * 3, [-2.0] * 3]]),
    unary("scaled_tanh", X, 2 * np.tanh(0.5 * X), alpha=2.0, beta=0.5),
    unary("sigmoid", X, _sigmoid(X)),
    unary("sigmoid_hard", a([-5.0, 0.0, 1.0, 5.0]), [0.0, 0.5, 0.7, 1.0], alpha=0.2, beta=0.5),
    unary("silu", X, X * _sigmoid(X)),
    unary("softplus", X, np.log1p(np.exp(X))),
    unary("softplus", a([1000.0, -1000.0]), [1000.0, 0.0]),
    Row(
        "softplus_parametric",
        {"x": np.zeros((1, 2, 2)), "alpha": [1.0, 2.0], "beta": [1.0, 3.0]},
        [[[math.log(2)] * 2, [2 * math.log(2)] * 2]],
    ),
    unary("softmax", a([[0.0, math.log(3)], [5.0, 5.0]]), [[0.25, 0.75], [0.5, 0.5]], axis=-1),
    unary("softmax", a([60000.0, -60000.0]), [1.0, 0.0], "float16", axis=0),
    unary("softsign", a([-3.0, 1.0]), [-0.75, 0.5]),
    unary("thresholded_relu", X, [0, 0, 0, 1.5], alpha=1.0),
]

UNARY = [
    unary("abs", X, [2, 0.5, 0, 1.5]),
    unary("acos", UNIT, np.arccos(UNIT)),
    unary("asin", UNIT, np.arcsin(UNIT)),
    unary("atan", X, np.arctan(X)),
    unary("atanh", UNIT, np.arctanh(UNIT)),
    unary("ceil", a([-1.5, 0.2, 2.0]), [-1.0, 1.0, 2.0]),
    unary("clip", X, [-1.0, -0.5, 0, 1.0], alpha=-1.0, beta=1.0),
    unary("clip", a([-7, 3, 9]), a([0, 3, 6]), alpha=0.0, beta=6.0),
    unary("cos", X, np.cos(X)),
    unary("cosh", X, np.cosh(X)),
    unary("erf", a([0.0, 1.0]), [0.0, 0.8427008]),
    unary("exp", a([0.0, 1.0]), [1.0, math.e]),
    unary("exp", a([11.0, 12.0]), [59872.0, INF], "float16"),
    unary("exp2", a([-1.0, 3.0]), [0.5, 8.0]),
    unary("floor", a([-1.5, 0.2]), [-2.0, 0.0]),
    unary("inverse", a([1.0, 3.0]), [0.5, 0.25], epsilon=1.0),
    unary("inverse", a([2.0]), [1 / (2.0 + 1e-4)]),
    unary("log", a([1.0, math.e]), [0.0, 1.0]),
    unary("log", a([0.0]), [math.log(1e-3)], epsilon=1e-3),
    unary("logical_not", a([True, False]), a([False, True])),
    unary("round", a([0.5, 1.5, -2.5, 2.6]), [0.0, 2.0, -2.0, 3.0]),
    unary("rsqrt", POSITIVE, [2.0, 1.0, 0.5]),
    unary("rsqrt", a([0.0]), [2.0], epsilon=0.25),
    unary("sign", X, [-1.0, -1.0, 0.0, 1.0]),
    unary("sin", X, np.sin(X)),
    unary("sinh", X, np.sinh(X)),
    unary("sqrt", POSITIVE, [0.5, 1.0, 2.0]),
    unary("square", X, [4.0, 0.25, 0.0, 2.25]),
    unary("square", a([255.0, 256.0]), [65024.0, INF], "float16"),
    unary("tan", X, np.tan(X)),
    unary("tanh", X, np.tanh(X)),
    unary("threshold", X, [0.5, 0.5, 0.5, 1.5], alpha=0.5),
    Row("cast", {"x": a([-1.7, 1.7]), "dtype": "int32"}, a([-1, 1])),
    Row("cast", {"x": a([0, 3]), "dtype": "bool"}, a([False, True]), note="bool"),
    Row("cast", {"x": a([65519, 65520]), "dtype": "fp16"}, [65504.0, INF], "float16"),
]

BINARY = [
    binary("add", a([1.0, 2.0]), a([[10.0], [20.0]]), [[11.0, 12.0], [21.0, 22.0]]),
    binary("add", a([60000.0, 1.0]), a([60000.0, 1e-4]), [INF, 1.0], "float16"),
    binary("add", a([2147483647]), a([1]), a([-2147483648]), note="wraps"),
    binary("sub", a([1.0]), a([3.0]), [-2.0]),
    binary("mul", a([256.0]), a([256.0]), [INF], "float16"),
    binary("mul", a([3]), a([-4]), a([-12])),
    binary("real_div", a([1.0, -1.0]), a([4.0, 0.0]), [0.25, -INF]),
    binary("real_div", a([7, -7]), a([2, 2]), a([3, -3]), note="integers"),
    binary("floor_div", a([7.0, -7.0]), a([2.0, 2.0]), [3.0, -4.0]),
    binary("floor_div", a([7, -7]), a([2, 2]), a([3, -4]), note="integers"),
    binary("mod", a([7.0, -7.0]), a([3.0, 3.0]), [1.0, 2.0]),
    binary("mod", a([7, -7]), a([3, 3]), a([1, 2]), note="integers"),
    binary("pow", a([2.0, 9.0]), a([3.0, 0.5]), [8.0, 3.0]),
    binary("maximum", a([1.0, 5.0]), a([3.0]), [3.0, 5.0]),
    binary("minimum", a([1.0, 5.0]), a([3.0]), [1.0, 3.0]),
    binary("equal", a([1.0, 2.0]), a([1.0, 3.0]), a([True, False])),
    binary("not_equal", a([1, 2]), a([1, 3]), a([False, True])),
    binary("greater", a([1, 2, 3]), a([2]), a([False, False, True])),
    binary("greater_equal", a([1, 2, 3]), a([2]), a([False, True, True])),
    binary("less", a([1, 2, 3]), a([2]), a([True, False, False])),
    binary("less_equal", a([1, 2, 3]), a([2]), a([True, True, False])),
    binary("logical_and", a([True, True]), a([True, False]), a([True, False])),
    binary("logical_or", a([False, True]), a([False, False]), a([False, True])),
    binary("logical_xor", a([True, True]), a([True, False]), a([False, True])),
]

ONES = np.ones((1, 1, 3, 3))
CONV = [
    Row(
        "conv",
        {"x": count(1, 1, 3, 3), "weight": np.ones((1, 1, 2, 2)), "bias": a([1.0])},
        [[[[9.0, 13.0], [21.0, 25.0]]]],
    ),
    Row(
        "conv",
        {"x": ONES, "weight": np.ones((1, 1, 3, 3)), "pad_type": "same"},
        [[[[4.0, 6, 4], [6, 9, 6], [4, 6, 4]]]],
    ),
    Row(
        "conv",
        {"x": ONES, "weight": np.ones((1, 1, 2, 2)), "pad_type": "same"},
        [[[[4.0, 4, 2], [4, 4, 2], [2, 2, 1]]]],
        note="even-kernel",
    ),
    Row(
        "conv",
        {"x": ONES, "weight": np.ones((1, 1, 2, 2)), "pad_type": "same_lower"},
        [[[[1.0, 2, 2], [2, 4, 4], [2, 4, 4]]]],
    ),
    Row(
        "conv",
        {"x": np.ones((1, 1, 4)), "weight": np.ones((1, 1, 2)), "pad_type": "custom", "pad": [1, 0], "strides": [2]},
        [[[1.0, 2.0]]],
    ),
    Row(
        "conv",
        {"x": np.ones((1, 2, 5)), "weight": np.ones((2, 1, 2)), "dilations": [3], "groups": 2},
        [[[2.0, 2.0]] * 2],
    ),
    Row("conv", {"x": np.full((1, 4, 1), 200.0), "weight": np.full((1, 4, 1), 100.0)}, [[[INF]]], "float16"),
    Row("conv", {"x": np.ones((1, 1, 2, 2, 2)), "weight": np.ones((1, 1, 2, 2, 2))}, [[[[[8.0]]]]]),
    Row(
        "conv_transpose",
        {"x": np.ones((1, 1, 2)), "weight": count(1, 1, 2) + 1, "strides": [2], "bias": a([0.5])},
        [[[1.5, 2.5, 1.5, 2.5]]],
    ),
    Row(
        "conv_transpose",
        {"x": np.ones((1, 1, 2)), "weight": np.ones((1, 1, 3)), "pad_type": "custom", "pad": [1, 1]},
        [[[2.0, 2.0]]],
    ),
    Row(
        "conv_transpose",
        {"x": np.ones((1, 1, 2)), "weight": np.ones((1, 1, 3)), "strides": [2], "pad_type": "same"},
        [[[1.0, 1.0, 2.0, 1.0]]],
    ),
    Row(
        "conv_transpose",
        {
            "x": np.ones((1, 1, 2)),
            "weight": np.ones((1, 1, 2)),
            "strides": [2],
            "output_shape": [1, 1, 5],
            "bias": a([3.0]),
        },
        [[[4.0] * 4 + [3.0]]],
        note="output_shape",
    ),
    Row(
        "conv_quantized",
        {
            "x": np.ones((1, 1, 2)),
            "weight": [[[2, 4]]],
            "quantization_type": "linear",
            "quant_scale": [0.5],
            "quant_bias": [1.0],
        },
        [[[5.0]]],
        opset="CoreML5",
    ),
]

WINDOW = {"kernel_sizes": [2], "strides": [2]}
POOL = [
    Row("avg_pool", {"x": count(1, 1, 4), **WINDOW, "pad_type": "valid"}, [[[0.5, 2.5]]]),
    Row(
        "avg_pool",
        {"x": np.ones((1, 1, 2)), "kernel_sizes": [3], "strides": [1], "pad_type": "custom", "pad": [1, 1]},
        [[[2 / 3, 2 / 3]]],
    ),
    Row(
        "avg_pool",
        {
            "x": np.ones((1, 1, 2)),
            "kernel_sizes": [3],
            "strides": [1],
            "pad_type": "custom",
            "pad": [1, 1],
            "exclude_padding_from_average": True,
        },
        [[[1.0, 1.0]]],
        note="exclude",
    ),
    Row(
        "avg_pool",
        {"x": np.ones((1, 1, 3)), **WINDOW, "pad_type": "valid", "ceil_mode": True},
        [[[1.0, 1.0]]],
        note="ceil",
    ),
    Row("max_pool", {"x": -count(1, 1, 4), **WINDOW, "pad_type": "valid"}, [[[0.0, -2.0]]]),
    Row("max_pool", {"x": -1 - count(1, 1, 3), **WINDOW, "pad_type": "custom", "pad": [1, 0]}, [[[-1.0, -2.0]]]),
    Row(
        "max_pool", {"x": count(1, 1, 3), **WINDOW, "pad_type": "valid", "ceil_mode": True}, [[[1.0, 2.0]]], note="ceil"
    ),
    Row("l2_pool", {"x": a([[[3.0, 4.0]]]), "kernel_sizes": [2], "pad_type": "valid"}, [[[5.0]]]),
]

LINEAR = [
    Row("linear", {"x": a([[1.0, 2.0]]), "weight": [[3.0, 4.0], [5.0, 6.0]], "bias": [0.5, 0.0]}, [[11.5, 17.0]]),
    Row("linear", {"x": a([[300.0, 300.0]]), "weight": [[300.0, -300.0]]}, [[0.0]], "float16", note="wide-sum"),
    Row("linear", {"x": a([[2, 3]]), "weight": [[4, 5]]}, a([[23]]), note="integers"),
    Row("linear", {"x": a([[0.5, 3.0]]), "weight": [[4, 5]], "bias": [1]}, [[18.0]], note="mixed"),
    Row("matmul", {"x": a([[1.0, 2.0]]), "y": a([[3.0], [4.0]])}, [[11.0]]),
    Row("matmul", {"x": a([[1, 2]]), "y": a([[0.5], [4.0]])}, [[8.5]], note="mixed"),
    Row("matmul", {"x": a([[1.0], [2.0]]), "y": a([[3.0, 4.0]]), "transpose_x": True, "transpose_y": True}, [[11.0]]),
    Row("matmul", {"x": a([[256.0]]), "y": a([[256.0]])}, [[INF]], "float16"),
    Row("einsum", {"values": (count(2, 3), count(3, 2)), "equation": "ij,jk->ik"}, [[10.0, 13.0], [28.0, 40.0]]),
]

PLANE = a([[[[0.0, 2.0], [4.0, 6.0]]]])
NORMALIZATION = [
    Row(
        "batch_norm",
        {"x": np.full((1, 1, 2), 5.0), "mean": [1.0], "variance": [4.0], "gamma": [3.0], "beta": [1.0], "epsilon": 0.0},
        [[[7.0, 7.0]]],
    ),
    Row(
        "instance_norm", {"x": PLANE, "gamma": [2.0], "beta": [1.0], "epsilon": 0.0}, 2 * (PLANE - 3) / math.sqrt(5) + 1
    ),
    Row(
        "layer_norm",
        {"x": a([[1.0, 3.0]]), "axes": [-1], "gamma": [2.0, 2.0], "beta": [0.0, 1.0], "epsilon": 0.0},
        [[-2.0, 3.0]],
    ),
    Row("layer_norm", {"x": count(2, 2), "axes": [0], "epsilon": 0.0}, [[-1.0, -1.0], [1.0, 1.0]], note="first-axis"),
    Row("layer_norm", {"x": a([[300.0, -300.0]]), "axes": [1]}, [[1.0, -1.0]], "float16", note="wide-inside"),
    Row("l2_norm", {"x": a([[[[3.0]], [[4.0]]]]), "epsilon": 0.0}, [[[[0.6]], [[0.8]]]]),
    Row(
        "local_response_norm",
        {"x": a([[[3.0], [1.0]]]), "size": 1, "alpha": 1.0, "beta": 1.0, "k": 1.0},
        [[[0.3], [0.5]]],
    ),
]

M = a([[1.0, 2.0], [3.0, 4.0]])
REDUCTION = [
    Row("reduce_argmax", {"x": a([[1.0, 5.0, 2.0]]), "axis": 1, "keep_dims": True}, a([[1]])),
    Row("reduce_argmin", {"x": a([[1.0, 5.0, 2.0]]), "axis": 1, "keep_dims": False}, a([0])),
    Row("reduce_l1_norm", {"x": -M, "axes": [1]}, [3.0, 7.0]),
    Row("reduce_l2_norm", {"x": a([[3.0, 4.0]]), "axes": [1], "keep_dims": True}, [[5.0]]),
    Row("reduce_l2_norm", {"x": a([[300.0, 400.0]]), "axes": [1]}, [500.0], "float16", note="wide-inside"),
    Row("reduce_log_sum", {"x": M, "axes": [1]}, np.log([3.0, 7.0])),
    Row("reduce_log_sum_exp", {"x": a([0.0, 0.0]), "axes": [0]}, math.log(2)),
    Row("reduce_max", {"x": M, "axes": [0]}, [3.0, 4.0]),
    Row("reduce_min", {"x": M}, 1.0),
    Row("reduce_mean", {"x": M, "axes": [0, 1], "keep_dims": True}, [[2.5]]),
    Row("reduce_mean", {"x": np.full(4, 60000.0), "axes": [0]}, 60000.0, "float16", note="wide-inside"),
    Row("reduce_mean", {"x": a([-1, -2]), "axes": [0]}, np.array(-1), note="integers"),
    Row("reduce_prod", {"x": M, "axes": [0, 1]}, 24.0),
    Row("reduce_sum", {"x": M, "axes": [-1]}, [3.0, 7.0]),
    Row("reduce_sum", {"x": np.full(2, 40000.0), "axes": [0]}, INF, "float16"),
    Row("reduce_sum", {"x": a([1, 2])}, np.array(3), note="integers"),
    Row("reduce_sum_square", {"x": M, "axes": [1]}, [5.0, 25.0]),
]

TENSOR = [
    Row("band_part", {"x": np.ones((3, 3)), "lower": 0, "upper": -1}, np.triu(np.ones((3, 3)))),
    Row("band_part", {"x": np.ones((3, 3)), "lower": 1, "upper": 0}, [[1.0, 0, 0], [1, 1, 0], [0, 1, 1]]),
    Row("band_part", {"x": a([[1, 2], [3, 4]])}, a([[1, 2], [3, 4]]), note="all"),
    Row("band_part", {"x": a([[NAN, NAN], [1.0, INF]]), "lower": 0, "upper": 0}, [[NAN, 0.0], [0.0, INF]], note="nan"),
    Row("cumsum", {"x": a([1.0, 2.0, 3.0]), "axis": 0}, [1.0, 3.0, 6.0]),
    Row("cumsum", {"x": a([1.0, 2.0, 3.0]), "axis": 0, "exclusive": True}, [0.0, 1.0, 3.0], note="exclusive"),
    Row("cumsum", {"x": a([1.0, 2.0, 3.0]), "axis": 0, "reverse": True}, [6.0, 5.0, 3.0], note="reverse"),
    Row(
        "cumsum", {"x": a([1.0, 2.0, 3.0]), "axis": 0, "reverse": True, "exclusive": True}, [5.0, 3.0, 0.0], note="both"
    ),
    Row("fill", {"shape": [2, 1], "value": 3.0}, [[3.0], [3.0]]),
    Row("fill", {"shape": a([2, 1]), "value": 3.0}, [[3.0], [3.0]], note="computed-shape"),
    Row("fill_like", {"ref_tensor": count(2), "value": 7}, a([7, 7])),
    Row("non_zero", {"x": a([[0.0, 1.0], [2.0, 0.0]])}, a([[0, 1], [1, 0]])),
    Row("one_hot", {"indices": a([1, 0, 5]), "one_hot_vector_size": 3}, a([[0, 1, 0], [1, 0, 0], [0, 0, 0]])),
    Row(
        "one_hot",
        {"indices": a([1, 0]), "one_hot_vector_size": 2, "axis": 0, "on_value": 5.0, "off_value": -1.0},
        [[-1.0, 5.0], [5.0, -1.0]],
    ),
    Row("pad", {"x": a([[1.0, 2.0]]), "pad": [0, 0, 1, 2], "constant_val": 9.0}, [[9.0, 1.0, 2.0, 9.0, 9.0]]),
    Row("pad", {"x": count(3), "pad": [2, 1], "mode": "reflect"}, [2.0, 1.0, 0.0, 1.0, 2.0, 1.0]),
    Row("pad", {"x": count(3), "pad": [2, 1], "mode": "replicate"}, [0.0, 0.0, 0.0, 1.0, 2.0, 2.0]),
    Row(
        "pad",
        {"x": count(2, 2), "pad": [0, 1, 1, 0], "mode": "reflect"},
        [[1.0, 0, 1], [3, 2, 3], [1, 0, 1]],
        note="two",
    ),
    Row(
        "pad",
        {"x": a([[1], [2]]), "pad": [1, 0, 0, 1], "mode": "replicate"},
        a([[1, 1], [1, 1], [2, 2]]),
        note="integers",
    ),
    Row(
        "pad", {"x": count(2), "pad": [3, 2], "mode": "reflect"}, [1.0, 0, 1, 0, 1, 0, 1], note="further-than-the-axis"
    ),
    Row("pad", {"x": count(2), "pad": [2, 3], "mode": "symmetric"}, [1.0, 0, 0, 1, 1, 0, 0]),
    Row("range_1d", {"start": 1.0, "end": 2.0, "step": 0.4}, [1.0, 1.4, 1.8]),
    Row("range_1d", {"start": 5, "end": np.array(0), "step": -2}, a([5, 3, 1]), note="down"),
    Row("tile", {"x": a([[1.0, 2.0]]), "reps": [2, 2]}, [[1.0, 2.0, 1.0, 2.0]] * 2),
    Row("argsort", {"x": a([2.0, 3.0, 1.0, 3.0])}, a([1, 3, 0, 2])),
    Row("argsort", {"x": a([2.0, 3.0, 1.0]), "ascending": True}, a([2, 0, 1])),
    Row("topk", {"x": a([2.0, 3.0, 1.0]), "k": 2, "axis": 0}, (a([3.0, 2.0]), a([1, 0]))),
    Row(
        "topk",
        {"x": a([2.0, 3.0, 1.0]), "k": 1, "axis": 0, "ascending": True, "return_indices": False},
        [1.0],
        note="values-only",
    ),
    Row("topk", {"x": a([2.0, 3.0, 2.0, 3.0]), "k": 3, "axis": 0}, (a([3.0, 3.0, 2.0]), a([1, 3, 0])), note="ties"),
    Row("topk", {"x": a([INF, NAN, 1.0]), "k": 2, "axis": 0}, (a([NAN, INF]), a([1, 0])), note="nan"),
    Row(
        "topk",
        {"x": np.tile(a([1.0, 5.0, 3.0, 5.0]), 2000), "k": 2, "axis": 0},
        (a([5.0, 5.0]), a([1, 3])),
        note="many",
    ),
    Row("flatten2d", {"x": count(2, 3, 2), "axis": 2}, count(6, 2)),
    Row("flatten2d", {"x": count(4, 3), "axis": -1}, count(4, 3)),
    Row("shape", {"x": count(2, 3)}, a([2, 3])),
    Row("concat", {"values": (a([[1.0]]), a([[2.0]])), "axis": 1}, [[1.0, 2.0]]),
    Row(
        "concat",
        {"values": (M, 10 * M), "axis": 0, "interleave": True},
        [[1.0, 2.0], [10.0, 20.0], [3.0, 4.0], [30.0, 40.0]],
    ),
    Row("split", {"x": count(4), "axis": 0, "num_splits": 2}, (a([0.0, 1.0]), a([2.0, 3.0]))),
    Row(
        "split",
        {"x": count(4), "axis": 0, "split_sizes": [1, 3]},
        (a([0.0]).reshape(1), a([1.0, 2.0, 3.0])),
        note="sizes",
    ),
    Row("stack", {"values": (a([1.0, 2.0]), a([3.0, 4.0])), "axis": 1}, [[1.0, 3.0], [2.0, 4.0]]),
    Row("identity", {"x": X}, X),
]

BLOCKS = count(1, 4, 1, 1)
TRANSFORMATION = [
    Row(
        "depth_to_space",
        {"x": count(1, 8, 1, 1), "block_size": 2},
        [[[[0.0, 2.0], [4.0, 6.0]], [[1.0, 3.0], [5.0, 7.0]]]],
    ),
    Row(
        "space_to_depth",
        {"x": a([[[[0.0, 2.0], [4.0, 6.0]], [[1.0, 3.0], [5.0, 7.0]]]]), "block_size": 2},
        count(1, 8, 1, 1),
    ),
    Row("pixel_shuffle", {"x": count(1, 8, 1, 1), "upscale_factor": 2}, count(1, 2, 2, 2)),
    Row("pixel_unshuffle", {"x": count(1, 2, 2, 2), "downscale_factor": 2}, count(1, 8, 1, 1)),
    Row("expand_dims", {"x": a([1.0, 2.0]), "axes": [0, -1]}, [[[1.0], [2.0]]]),
    Row("squeeze", {"x": count(1, 2, 1), "axes": [0, 1]}, count(2, 1)),
    Row("squeeze", {"x": count(1, 2, 1)}, count(2), note="all"),
    Row("reshape", {"x": count(2, 6), "shape": [3, -1]}, count(3, 4)),
    Row("reshape", {"x": count(2, 6), "shape": [0, 6]}, count(2, 6), note="zero"),
    Row("reshape", {"x": count(2, 6), "shape": a([4, -1])}, count(4, 3), note="computed"),
    Row(
        "reshape_like",
        {
            "x": count(6),
            "ref_tensors": (count(2, 9), count(8, 3)),
            "begins": (0, 1),
            "ends": (1, 0),
            "end_masks": (False, True),
        },
        count(2, 3),
    ),
    Row("reverse", {"x": count(2, 2), "axes": [1]}, [[1.0, 0.0], [3.0, 2.0]]),
    Row("reverse", {"x": count(3)}, [2.0, 1.0, 0.0]),
    Row(
        "reverse_sequence",
        {"x": count(2, 3), "lengths": a([2, 3]), "seq_axis": 1, "batch_axis": 0},
        [[1.0, 0.0, 2.0], [5.0, 4.0, 3.0]],
    ),
    Row("slice_by_index", {"x": count(4), "begin": [-3], "end": [4], "stride": [2]}, [1.0, 3.0]),
    Row(
        "slice_by_index",
        {"x": count(4), "begin": [3], "end": [0], "stride": [-1], "end_mask": [True]},
        [3.0, 2.0, 1.0, 0.0],
        note="backwards",
    ),
    Row(
        "slice_by_index",
        {"x": count(2, 3), "begin": [1, 0], "end": [0, 2], "squeeze_mask": [True, False]},
        [3.0, 4.0],
        note="squeeze",
    ),
    Row(
        "slice_by_index",
        {"x": count(4), "begin": a([1]).reshape(1), "end": [0], "end_mask": [True]},
        [1.0, 2.0, 3.0],
        note="computed",
    ),
    Row("slice_by_size", {"x": count(5), "begin": [1], "size": [2]}, [1.0, 2.0]),
    Row("slice_by_size", {"x": count(5), "begin": [-2], "size": [-1]}, [3.0, 4.0]),
    Row(
        "slice_update",
        {"x": count(4), "update": a([9.0, 8.0]), "begin": [0], "end": [4], "stride": [2]},
        [9.0, 1.0, 8.0, 3.0],
    ),
    Row("transpose", {"x": count(2, 3), "perm": [1, 0]}, count(2, 3).T),
    Row("sliding_windows", {"x": count(4), "axis": 0, "size": 2, "stride": 1}, [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]),
    Row(
        "space_to_batch",
        {"x": count(1, 1, 2, 2), "block_shape": [2, 2], "paddings": [[0, 0], [0, 0]]},
        count(4, 1, 1, 1),
    ),
    Row(
        "batch_to_space", {"x": count(4, 1, 1, 1), "block_shape": [2, 2], "crops": [[0, 0], [0, 1]]}, [[[[0.0], [2.0]]]]
    ),
]

GATHER = [
    Row("gather", {"x": count(3, 2), "indices": a([2, -3]), "axis": 0}, [[4.0, 5.0], [0.0, 1.0]]),
    Row("gather", {"x": count(2, 2), "indices": np.array(1), "axis": 1}, [1.0, 3.0], note="scalar"),
    Row(
        "gather", {"x": count(2, 3), "indices": a([[2], [0]]), "axis": 1, "batch_dims": 1}, [[2.0], [3.0]], note="batch"
    ),
    Row(
        "scaled_dot_product_attention",
        {"query": np.zeros((1, 1, 4)), "key": np.ones((1, 2, 4)), "value": a([[[2.0], [4.0]]])},
        [[[3.0]]],
    ),
    Row(
        "scaled_dot_product_attention",
        {
            "query": np.zeros((1, 1, 4)),
            "key": np.ones((1, 2, 4)),
            "value": a([[[2.0], [4.0]]]),
            "attn_mask": a([[False, True]]),
        },
        [[[4.0]]],
        note="mask",
    ),
]

ROWS = [
    *ACTIVATION, *UNARY, *BINARY, *CONV, *POOL, *LINEAR, *NORMALIZATION, *REDUCTION, *TENSOR, *TRANSFORMATION, *GATHER,
]  # fmt: skip
