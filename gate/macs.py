# SPDX-License-Identifier: Apache-2.0
"""How many multiply-accumulates does an op take?

A MAC is one product added to a sum. Every op type has a rule in `MACS` or stands in `NO_PRODUCTS`, which count 0 by definition: they
move, compare, look up or add, or compute element by element without a sum. A type that is in neither is told as unknown, never as 0.
"""

import math
from collections.abc import Callable

from gate.mil.features import Shape
from gate.mil.program import Argument, Constant, Op
from gate.shapes import Sizes

Rule = Callable[[Op, Sizes], int]


def count(op: Op, sizes: Sizes) -> int | None:
    """Return the MACs of one op, without those of its blocks; None when no rule knows the type."""
    if op.type in MACS:
        return MACS[op.type](op, sizes)
    return 0 if op.type in NO_PRODUCTS or op.type.startswith("constexpr_") else None


def moved_bytes(op: Op, sizes: Sizes) -> int:
    """Return the bytes that an op reads and writes, weights expanded; what only renames a buffer moves none."""
    if op.type in RENAMING:
        return 0
    read = {a: None for given in op.inputs.values() for a in given}
    return sum(map(sizes.bytes, (*read, *op.outputs)))


RENAMING = frozenset({"expand_dims", "flatten2d", "identity", "reshape", "reshape_like", "squeeze"})


def argument(op: Op, name: str) -> Argument | None:
    """Return the one argument of a parameter, if it is given."""
    given = op.inputs.get(name, ())
    return given[0] if len(given) == 1 else None


def constant(op: Op, name: str, default: object = None) -> object:
    """Return the value of a parameter that is a plain constant: a scalar, a string or a list."""
    found = argument(op, name)
    return found.array.tolist() if isinstance(found, Constant) else default


def _shape(op: Op, name: str, sizes: Sizes) -> Shape:
    found = argument(op, name)
    return () if found is None else sizes.shape(found)


def _elements(op: Op, name: str, sizes: Sizes) -> int:
    return math.prod(_shape(op, name, sizes))


def _out(op: Op, sizes: Sizes) -> int:
    return sizes.elements(op.outputs[0])


def _conv(op: Op, sizes: Sizes) -> int:
    """Each output value sums over the kernel: weight is (out, in / groups, *kernel)."""
    return _out(op, sizes) * math.prod(_shape(op, "weight", sizes)[1:])


def _conv_transpose(op: Op, sizes: Sizes) -> int:
    """Each input value is spread over the kernel: weight is (in, out / groups, *kernel)."""
    return _elements(op, "x", sizes) * math.prod(_shape(op, "weight", sizes)[1:])


def _linear(op: Op, sizes: Sizes) -> int:
    return _out(op, sizes) * _shape(op, "weight", sizes)[-1]


def _matmul(op: Op, sizes: Sizes) -> int:
    x = _shape(op, "x", sizes)
    depth = x[-2] if len(x) > 1 and constant(op, "transpose_x", False) else x[-1]
    return _out(op, sizes) * depth


def _einsum(op: Op, sizes: Sizes) -> int:
    """One product for each combination of the indices of all operands."""
    equation = str(constant(op, "equation", "")).replace(" ", "").replace("...", "")
    extents: dict[str, int] = {}
    for letters, operand in zip(equation.split("->")[0].split(","), op.inputs["values"], strict=True):
        shape = sizes.shape(operand)
        for axis in range(1, len(shape) + 1):
            letter = letters[-axis] if axis <= len(letters) else f"…{axis}"
            extents[letter] = max(shape[-axis], extents.get(letter, 1))
    return math.prod(extents.values())


def _attention(op: Op, sizes: Sizes) -> int:
    """Scores and their product with the values; (…, length, depth)."""
    query, key, value = (_shape(op, name, sizes) for name in ("query", "key", "value"))
    pairs = math.prod(query[:-1]) * key[-2]
    return pairs * (query[-1] + value[-1])


def _recurrent(op: Op, sizes: Sizes) -> int:
    """At each step of each sample, every element of each matrix is used once; x is (steps, batch, features)."""
    steps, batch = _shape(op, "x", sizes)[:2]
    weights = sum(_elements(op, name, sizes) for name in op.inputs if name.startswith("weight"))
    return steps * batch * weights


def _per_output(products: int) -> Rule:
    return lambda op, sizes: products * _out(op, sizes)


def _per_input(op: Op, sizes: Sizes) -> int:
    return _elements(op, "x", sizes)


def _pool(op: Op, sizes: Sizes) -> int:
    kernel = constant(op, "kernel_sizes", [])
    assert isinstance(kernel, list)
    return _out(op, sizes) * math.prod(kernel)


def _neighbours(op: Op, sizes: Sizes) -> int:
    return _out(op, sizes) * int(str(constant(op, "size", 1)))


def _interpolation(op: Op, sizes: Sizes) -> int:
    """Bilinear: four neighbours for each output value; nearest only moves values."""
    modes = (constant(op, "interpolation_mode", ""), constant(op, "sampling_mode", ""))
    return 0 if any("NEAREST" in str(mode).upper() for mode in modes) else 4 * _out(op, sizes)


def _types(names: str) -> frozenset[str]:
    return frozenset(names.split())


MACS: dict[str, Rule] = {
    "conv": _conv,
    "conv_quantized": _conv,
    "conv_transpose": _conv_transpose,
    "linear": _linear,
    "matmul": _matmul,
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(("lstm", "gru", "rnn"), _recurrent),
    "batch_norm": _per_output(1),  # scale and shift, with the statistics folded in
    **dict.fromkeys(("layer_norm", "instance_norm"), _per_output(2)),  # squares of the variance; scale and shift
    **dict.fromkeys(("l2_norm", "reduce_l2_norm", "reduce_sum_square"), _per_input),  # squares, summed
    "local_response_norm": _neighbours,
    "l2_pool": _pool,
    **dict.fromkeys(
        ("affine", "crop_resize", "resample", "resize", "resize_bilinear", "upsample_bilinear"), _interpolation
    ),
}

ELEMENTWISE = _types(
    "abs acos add asin atan atanh cast ceil clamped_relu clip cos cosh dequantize elu equal erf exp exp2 floor floor_div "
    "gelu greater greater_equal inverse leaky_relu less less_equal linear_activation log logical_and logical_not logical_or "
    "logical_xor maximum minimum mod mul not_equal pow prelu quantize real_div relu relu6 round rsqrt scaled_tanh select "
    "sigmoid sigmoid_hard sign silu sin sinh softplus softplus_parametric softsign sqrt square sub tan tanh "
    "thresholded_relu threshold"
)
MOVES = _types(
    "band_part batch_to_space concat crop depth_to_space expand_dims fill fill_like flatten2d gather gather_along_axis gather_nd "
    "identity list_gather list_length list_read list_scatter list_write make_list one_hot pad pixel_shuffle pixel_unshuffle "
    "range_1d read_state reshape reshape_like resize_nearest_neighbor reverse reverse_sequence scatter scatter_along_axis "
    "scatter_nd shape slice_by_index slice_by_size slice_update sliding_windows space_to_batch space_to_depth split squeeze stack "
    "tile transpose upsample_nearest_neighbor write_state coreml_update_state"
)
SUMS_AND_CHOICES = _types(
    "argsort avg_pool classify cond cumsum max_pool non_maximum_suppression non_zero random_bernoulli random_categorical "
    "random_normal random_uniform reduce_argmax reduce_argmin reduce_l1_norm reduce_log_sum reduce_log_sum_exp reduce_max "
    "reduce_mean reduce_min reduce_prod reduce_sum softmax topk while_loop"
)
NO_PRODUCTS = ELEMENTWISE | MOVES | SUMS_AND_CHOICES
