# SPDX-License-Identifier: Apache-2.0
"""Rows of the ops that read or write at computed places, sample images, quantize, or run over a sequence.

Numbers to check by hand; the formulas of the sampling modes stand in coremltools' documentation of `resize_bilinear`.
"""

from __future__ import annotations

import numpy as np

from tests.mil.op_cases import INF, NAN, Row, a, count

IOS15, IOS17 = "CoreML5", "CoreML7"

# --- gather and scatter

GRID = a([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
TENS = a([10.0, 20.0, 30.0])
OUTSIDE = a([3, -1, 0])


def scattered(mode: str, expected: list[float]) -> Row:
    inputs = {"data": TENS, "indices": a([0, 0, 2]), "updates": a([2.0, 5.0, 3.0]), "axis": 0, "mode": mode}
    return Row("scatter", inputs, expected, note=mode)


GATHER_SCATTER = [
    Row("gather", {"x": TENS, "indices": a([-1, 0])}, [30.0, 10.0], opset=IOS15, note="negative"),
    Row("gather", {"x": TENS, "indices": a([7, -5])}, [30.0, 10.0], opset=IOS17, note="outside"),
    Row("gather", {"x": GRID, "indices": a([[2], [0]]), "axis": 1, "batch_dims": 1}, [[3.0], [4.0]], note="batch"),
    Row(
        "gather_along_axis",
        {"x": GRID, "indices": a([[2, 0, 0], [0, 0, 1]]), "axis": 1},
        [[3.0, 1.0, 1.0], [4.0, 4.0, 5.0]],
    ),
    Row("gather_along_axis", {"x": TENS, "indices": a([-1, 1])}, [30.0, 20.0], opset=IOS15, note="negative"),
    Row("gather_along_axis", {"x": TENS, "indices": a([-1, 1])}, [10.0, 20.0], opset=IOS17, note="outside"),
    Row("gather_nd", {"x": GRID, "indices": a([[1, 2], [0, -2]])}, [6.0, 2.0], opset=IOS15),
    Row("gather_nd", {"x": GRID, "indices": a([[1], [0]])}, [[4.0, 5.0, 6.0], [1.0, 2.0, 3.0]], note="rows"),
    Row("gather_nd", {"x": GRID, "indices": a([[2], [0]]), "batch_dims": 1}, [3.0, 4.0], note="batch"),
    scattered("update", [5.0, 20.0, 3.0]),
    scattered("add", [17.0, 20.0, 33.0]),
    scattered("sub", [3.0, 20.0, 27.0]),
    scattered("mul", [100.0, 20.0, 90.0]),
    scattered("div", [1.0, 20.0, 10.0]),
    scattered("max", [10.0, 20.0, 30.0]),
    scattered("min", [2.0, 20.0, 3.0]),
    Row("scatter", {"data": TENS, "indices": a([-1, 0]), "updates": a([1.0, 2.0])}, [12.0, 20.0, 31.0], opset=IOS15),
    Row("scatter", {"data": TENS, "indices": OUTSIDE, "updates": a([1.0, 2.0, 5.0])}, [15.0, 20.0, 30.0], opset=IOS17),
    Row(
        "scatter",
        {"data": GRID, "indices": a([2, 0]), "updates": a([[10.0, 20.0], [30.0, 40.0]]), "axis": 1},
        [[21.0, 2.0, 13.0], [44.0, 5.0, 36.0]],
        note="columns",
    ),
    Row(
        "scatter_along_axis",
        {"data": GRID, "indices": a([[1, 0, 1]]), "updates": a([[10.0, 20.0, 30.0]]), "mode": "update"},
        [[1.0, 20.0, 3.0], [10.0, 5.0, 30.0]],
    ),
    Row("scatter_along_axis", {"data": TENS, "indices": a([-3]), "updates": a([1.0])}, [11.0, 20.0, 30.0], opset=IOS15),
    Row("scatter_along_axis", {"data": TENS, "indices": OUTSIDE, "updates": a([1.0, 2.0, 5.0])}, [15.0, 20.0, 30.0]),
    Row(
        "scatter_nd",
        {"data": GRID, "indices": a([[1, 0], [0, -1]]), "updates": a([5.0, 10.0])},
        [[1.0, 2.0, 13.0], [9.0, 5.0, 6.0]],
        opset=IOS15,
    ),
    Row(
        "scatter_nd",
        {"data": GRID, "indices": a([[1, 0], [0, -1]]), "updates": a([5.0, 10.0])},
        [[1.0, 2.0, 3.0], [9.0, 5.0, 6.0]],
        note="outside",
    ),
    Row("scatter_nd", {"data": a([9, 9]), "indices": a([[1], [1]]), "updates": a([2, 2]), "mode": "div"}, a([9, 2])),
]

# --- images

PAIR = a([[[0.0, 1.0]]])
SQUARE = (count(4, 4) + 1).reshape(1, 1, 4, 4)
PIXELS = a([[[[11.0, 22.0], [33.0, 44.0]]]])
TEN = np.ones((1, 1, 4, 4), np.float32) * 10
MINUS_ONE_TO_ONE = "normalized_minus_one_to_one"


def stretched(mode: str, expected: list[float]) -> Row:
    sizes = {"target_size_height": 1, "target_size_width": len(expected)}
    return Row("resize_bilinear", {"x": PAIR, **sizes, "sampling_mode": mode}, [[expected]], note=mode)


def boxed(corners: list[float], expected: list[float], note: str, **options: object) -> Row:
    height, width = (1, 1) if len(expected) == 1 else (2, 2)
    inputs = {"x": SQUARE, "roi": a(corners).reshape(1, 1, -1, 1, 1), "target_height": height, "target_width": width}
    modes = {"sampling_mode": "ALIGN_CORNERS", **options}
    return Row(
        "crop_resize", {**inputs, **modes}, np.reshape(expected, (1, 1, 1, height, width)), opset="CoreML6", note=note
    )


def sampled(
    at: list[list[float]],
    expected: list[float],
    sampling: str,
    padding: str,
    mode: str,
    align: bool,
    value: float = 6.0,
) -> Row:
    inputs = {
        "x": PIXELS,
        "coordinates": a(at).reshape(1, 1, -1, 2),
        "sampling_mode": sampling,
        "padding_mode": padding,
    }
    modes = {"padding_value": value, "coordinates_mode": mode, "align_corners": align}
    return Row("resample", {**inputs, **modes}, [[[expected]]], note=f"{sampling}-{padding}")


def turned(matrix: list[float], expected: object, note: str) -> Row:
    sizes = {"x": PIXELS, "transform_matrix": np.array([matrix], np.float32), "output_height": 2, "output_width": 2}
    modes = {"sampling_mode": "bilinear", "padding_mode": "constant", "padding_value": 0.0}
    where = {"coordinates_mode": "normalized_minus_one_to_one", "align_corners": True}
    return Row("affine", {**sizes, **modes, **where}, [[expected]], note=note)


IMAGES = [
    Row(
        "upsample_nearest_neighbor",
        {"x": PAIR, "scale_factor_height": 2, "scale_factor_width": 2},
        [[[0, 0, 1, 1.0]] * 2],
    ),
    Row(
        "upsample_nearest_neighbor",
        {"x": a([[[1.5, -2.5], [NAN, INF]]]), "scale_factor_height": 1.0, "scale_factor_width": 3.0},
        [[[1.5] * 3 + [-2.5] * 3, [NAN] * 3 + [INF] * 3]],
        note="nan",
    ),
    Row(
        "upsample_nearest_neighbor",
        {"x": a([[[1.5, -2.5, 3.5]]]), "scale_factor_height": 1.0, "scale_factor_width": 0.67},
        [[[1.5, -2.5]]],
        note="fraction",
    ),
    Row("resize_nearest_neighbor", {"x": PAIR, "target_size_height": 1, "target_size_width": 3}, [[[0.0, 0.0, 1.0]]]),
    stretched("STRICT_ALIGN_CORNERS", [0, 0.25, 0.5, 0.75, 1]),
    stretched("DEFAULT", [0, 0.4, 0.8, 1, 1]),
    stretched("OFFSET_CORNERS", [0.1, 0.3, 0.5, 0.7, 0.9]),
    stretched("UNALIGN_CORNERS", [0, 0.1, 0.5, 0.9, 1]),
    stretched("ALIGN_CORNERS", [0.5]),
    Row("upsample_bilinear", {"x": PAIR, "scale_factor_width": 3}, [[[0, 0.2, 0.4, 0.6, 0.8, 1]]]),
    Row(
        "upsample_bilinear",
        {"x": PAIR, "scale_factor_width": 2.5, "align_corners": False},
        [[[0, 0.1, 0.5, 0.9, 1]]],
        note="centers",
    ),
    Row(
        "upsample_bilinear",
        {"x": PAIR, "scale_factor_width": 2.5, "align_corners": False, "half_pixel_centers": False},
        [[[0, 0.4, 0.8, 1, 1]]],
        note="corners",
    ),
    Row("resize", {"x": PAIR, "shape": [0, 5], "resized_dims": 2}, [[[0, 0.4, 0.8, 1, 1]]]),
    Row("resize", {"x": PAIR[0, 0], "shape": a([5]), "resized_dims": 1}, [0, 0.4, 0.8, 1, 1], note="one-axis"),
    Row(
        "resize",
        {"x": PAIR, "shape": [3], "resized_dims": 1, "interpolation_mode": "NEAREST_NEIGHBOR"},
        [[[0.0, 1.0, 1.0]]],
        note="nearest",
    ),
    Row("crop", {"x": SQUARE, "crop_height": [0, 1], "crop_width": [1, 1]}, [[[[2.0, 3.0], [6.0, 7.0], [10.0, 11.0]]]]),
    boxed([1, 1, 2, 2], [6, 7, 10, 11], "four"),
    boxed([1, 1, 2, 2], [8.5], "center"),
    boxed([2, 2, 1, 1], [11, 10, 7, 6], "inverted"),
    boxed([0, 0, 0, 1 / 3, 1 / 3], [1, 2, 5, 6], "normalized", normalized_coordinates=True),
    boxed([1, 0, 2, 1], [2, 3, 6, 7], "width-first", box_coordinate_mode="CORNERS_WIDTH_FIRST"),
    boxed([0.5, 0.5, 1, 1], [1, 2, 5, 6], "center-size", box_coordinate_mode="CENTER_SIZE_HEIGHT_FIRST"),
    boxed([2, 2, 4, 4], [6, 7, 10, 11], "scaled", spatial_scale=0.5),
    boxed([3, 3, 4, 4], [16, -1, -1, -1], "padded", pad_value=-1.0),
    Row(
        "crop_resize",
        {
            "x": np.concatenate([SQUARE, TEN]),
            "boxes": a([[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]),
            "box_indices": a([1, 0]),
            "sampling_mode": "ALIGN_CORNERS",
        },
        [[[[10.0]]], [[[8.5]]]],
        opset=IOS17,
    ),
    turned([1, 0, 0, 0, 1, 0], [[11.0, 22.0], [33.0, 44.0]], "identity"),
    turned([-1, 0, 0, 0, 1, 0], [[22.0, 11.0], [44.0, 33.0]], "mirror"),
    turned([1, 0, 2, 0, 1, 0], [[22.0, 0.0], [44.0, 0.0]], "shift"),
    sampled([[0.5, 0.5], [1.5, 0]], [27.5, 14.0], "bilinear", "constant", "unnormalized", True),
    sampled(
        [[-1, -1], [0, 0], [-3, 1]], [11.0, 27.5, 6.0], "bilinear", "constant", "normalized_minus_one_to_one", True
    ),
    sampled([[-1, -1], [0, 0], [-2, 1]], [11.0, 27.5, 16.5], "bilinear", "constant", MINUS_ONE_TO_ONE, True, 0.0),
    sampled([[-1, -1], [0, 0], [-9, 1]], [11.0, 27.5, 33.0], "bilinear", "border", MINUS_ONE_TO_ONE, False, 0.0),
    sampled([[3, -1], [0, 0], [-3, 1]], [11.0, 27.5, 44.0], "bilinear", "reflection", MINUS_ONE_TO_ONE, True, 0.0),
    sampled([[1.5, 0.5]], [44.0], "bilinear", "symmetric", MINUS_ONE_TO_ONE, False, 0.0),
    sampled([[-9, 0.2], [0.6, 7]], [11.0, 44.0], "nearest", "border", "unnormalized", True),
    sampled(
        [[0.5, 0.5], [2, 0], [1.5, 1]], [27.5, 11.0, 38.5], "bilinear", "reflection", "normalized_zero_to_one", True
    ),
    sampled([[0.25, 0.25], [1.25, 0.25]], [11.0, 22.0], "nearest", "symmetric", "normalized_zero_to_one", False),
]

# --- eight bits, boxes, sequences

BOXES = a([[[0.0, 0.0, 2.0, 2.0], [0.5, 0.0, 2.0, 2.0], [5.0, 5.0, 1.0, 1.0]]])
SCORES = a([[[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]])
LIMITS = {"iou_threshold": 0.5, "max_boxes": 3}
STEPS = a([1.0, 2.0]).reshape(2, 1, 1)
ZERO = a([[0.0]])
LINEAR = {"recurrent_activation": "linear", "activation": "linear"}
RNN = {
    "x": STEPS,
    "initial_h": ZERO,
    "weight_ih": [[2.0]],
    "weight_hh": [[10.0]],
    "bias": [1.0],
    "activation": "linear",
}
GRU = {
    "x": a([[[2.0]]]),
    "initial_h": a([[3.0]]),
    "weight_ih": [[0.0], [1.0], [0.0]],
    "weight_hh": [[0.0], [2.0], [0.0]],
    "bias": [0.5, 1.0, 0.25],
    **LINEAR,
}
LSTM = {
    "x": a([[[1.0]]]),
    "initial_h": ZERO,
    "initial_c": a([[4.0]]),
    "weight_ih": [[0.0]] * 4,
    "weight_hh": [[0.0]] * 4,
    "bias": [1.0, 0.5, 2.0, 3.0],
    "cell_activation": "linear",
    **LINEAR,
}


def last(*values: float) -> tuple[list[object], ...]:
    """Write the sequence of one step, then the last states."""
    return ([[[values[0]]]], *([[v]] for v in values))


OTHERS = [
    Row(
        "quantize",
        {"input": a([-1.0, 0.25, 0.75, 300.0]), "scale": 0.5, "zero_point": 10, "output_dtype": "uint8"},
        a([8, 10, 12, 255]),
        note="half-to-even",
    ),
    Row(
        "quantize",
        {"input": a([[2.0, -900.0], [2.0, 1.0]]), "scale": [1.0, 2.0], "output_dtype": "int8", "axis": 0},
        a([[2, -128], [1, 0]]),
    ),
    Row("dequantize", {"input": a([8, 255]), "scale": 0.5, "zero_point": 10}, [-1.0, 122.5]),
    Row("dequantize", {"input": a([[1, 2], [3, 4]]), "scale": [1.0, 10.0], "axis": 1}, [[1.0, 20.0], [3.0, 40.0]]),
    Row(
        "non_maximum_suppression",
        {"boxes": BOXES, "scores": SCORES, "score_threshold": 0.0, **LIMITS},
        (
            [[[0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]],
            [[[0.9, 0.1], [0.3, 0.7], [0.0, 0.0]]],
            a([[0, 2, -1]]),
            np.array([2]),
        ),
        opset=IOS15,
    ),
    Row(
        "non_maximum_suppression",
        {
            "boxes": BOXES.transpose(0, 2, 1),
            "scores": SCORES.transpose(0, 2, 1),
            **LIMITS,
            "per_class_suppression": True,
        },
        (
            BOXES.transpose(0, 2, 1),
            SCORES.transpose(0, 2, 1),
            a([[0, 1, 2]]),
        ),
        note="per-class",
    ),
    Row("rnn", {**RNN, "output_sequence": True}, ([[[3.0]], [[35.0]]], [[35.0]])),
    Row(
        "rnn", {**RNN, "direction": "reverse", "output_sequence": True}, ([[[5.0]], [[53.0]]], [[53.0]]), note="reverse"
    ),
    Row("gru", GRU, last(5.25)),
    Row("gru", {**GRU, "reset_after": True}, last(4.875), note="reset-after"),
    Row("gru", {**GRU, "input_bias": [0.0, 1.0, 0.0]}, last(6.0), note="input-bias"),
    Row("lstm", LSTM, (*last(10.0), [[5.0]])),
    Row("lstm", {**LSTM, "bias": a([1.0, 0.5, 2.0, 3.0])}, (*last(10.0), [[5.0]]), note="computed-weights"),
    Row("lstm", {**LSTM, "clip": 4.0}, (*last(8.0), [[4.0]]), note="clip"),
    Row("lstm", {**LSTM, "peephole": [1.0, 0.0, 1.0]}, (*last(323.0), [[17.0]]), note="peephole"),
    Row("lstm", {**LSTM, "activation": "hard_sigmoid"}, (*last(2.0), [[5.0]]), note="hard-sigmoid"),
]

PLACES = [*GATHER_SCATTER, *IMAGES, *OTHERS]
