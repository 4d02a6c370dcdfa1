# SPDX-License-Identifier: Apache-2.0
"""Does each compressed form decode to what coremltools decodes it to, and is it described rightly?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

import gate.mil
from gate.mil.constants import Constants
from gate.mil.evaluator import Evaluator
from gate.mil.program import load_program
from gate.mil.weights import Weight, weights
from tests.mil.models import mixed, mixed_inputs

Recipe = Callable[[Any], Any]


def palettize(**fields: Any) -> Recipe:
    config = cto.OptimizationConfig(cto.OpPalettizerConfig(weight_threshold=0, **fields))
    return lambda model: cto.palettize_weights(model, config)


def quantize(**fields: Any) -> Recipe:
    config = cto.OptimizationConfig(cto.OpLinearQuantizerConfig(weight_threshold=0, **fields))
    return lambda model: cto.linear_quantize_weights(model, config)


def prune() -> Recipe:
    config = cto.OptimizationConfig(cto.OpMagnitudePrunerConfig(weight_threshold=0, target_sparsity=0.6))
    return lambda model: cto.prune_weights(model, config)


def joint(first: Recipe, step: Any, config: Any) -> Recipe:
    optimization = cto.OptimizationConfig(config(weight_threshold=0))
    return lambda model: step(first(model), optimization, joint_compression=True)


def four_bits(**fields: Any) -> Any:
    return cto.OpPalettizerConfig(nbits=4, mode="kmeans", **fields)


def int8(**fields: Any) -> Any:
    return cto.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", granularity="per_tensor", **fields)


GROUPED = {"nbits": 4, "mode": "kmeans", "granularity": "per_grouped_channel", "group_size": 4}
iOS16, iOS18 = ct.target.iOS16, ct.target.iOS18
FORMS = [
    ("palette-1", iOS16, palettize(nbits=1, mode="kmeans"), 1, ("lut_to_dense",)),
    ("palette-4", iOS16, palettize(nbits=4, mode="kmeans"), 4, ("lut_to_dense",)),
    ("palette-6", iOS16, palettize(nbits=6, mode="uniform"), 6, ("lut_to_dense",)),
    ("palette-3-ios18", iOS18, palettize(nbits=3, mode="kmeans"), 3, ("lut_to_dense",)),
    # 50 rows of the embedding do not divide into groups of 4: coremltools skips it
    ("palette-grouped", iOS18, palettize(**GROUPED), 4, ("lut_to_dense",), 3),
    ("palette-scaled", iOS18, palettize(**GROUPED, enable_per_channel_scale=True), 4, ("blockwise_shift_scale", "lut_to_dense"), 3),
    ("palette-vector", iOS18, palettize(nbits=2, mode="kmeans", cluster_dim=2), 2, ("lut_to_dense",)),
    ("int8", iOS16, quantize(mode="linear_symmetric"), 8, ("affine_dequantize",)),
    ("int8-affine", iOS16, quantize(mode="linear"), 8, ("affine_dequantize",)),
    ("int4-blocks", iOS18, quantize(mode="linear", dtype="int4", granularity="per_block", block_size=4), 4, ("blockwise_shift_scale",)),
    ("uint4", iOS18, quantize(mode="linear", dtype="uint4", granularity="per_channel"), 4, ("blockwise_shift_scale",)),
    ("sparse", iOS16, prune(), 16, ("sparse_to_dense",)),
    ("sparse-ios18", iOS18, prune(), 16, ("sparse_to_dense",)),
    ("sparse-palette", iOS18, joint(prune(), cto.palettize_weights, four_bits), 4, ("lut_to_sparse", "sparse_to_dense")),
    ("sparse-int8", iOS18, joint(prune(), cto.linear_quantize_weights, int8), 8, ("sparse_blockwise_shift_scale", "sparse_to_dense")),
    ("palette-int8", iOS18, joint(palettize(nbits=4, mode="kmeans"), cto.linear_quantize_weights, int8), 4, ("blockwise_shift_scale", "lut_to_dense")),
]  # fmt: skip


def compressed(model: Any) -> dict[str, Weight]:
    return {w.key: w for w in weights(load_program(model)) if w.forms}


@pytest.mark.parametrize("form", FORMS, ids=[form[0] for form in FORMS])
def test_a_form_decodes_bit_for_bit_as_coremltools_does(form: Any) -> None:
    _, target, recipe, bits, forms, *rest = form
    model = recipe(mixed(target))
    plain = cto.decompress_weights(model)
    ours, theirs = compressed(model), {w.key: w for w in weights(load_program(plain))}
    assert len(ours) == (rest[0] if rest else 4)
    for key, weight in ours.items():
        np.testing.assert_array_equal(weight.decode(), theirs[key].decode())
        assert weight.bits == bits
        assert weight.forms == tuple(f"constexpr_{form}" for form in forms)
        if form[0] != "palette-scaled":  # whose many tables outweigh layers this small
            assert weight.package_bytes < theirs[key].package_bytes
    (name, result), *_ = gate.mil.load(model).predict(mixed_inputs()).items()
    np.testing.assert_array_equal(result, gate.mil.load(plain).predict(mixed_inputs())[name])


def test_a_palette_holds_every_decoded_value() -> None:
    for weight in compressed(palettize(nbits=4, mode="kmeans")(mixed(iOS16))).values():
        assert weight.palette is not None
        assert weight.palette.size == 16
        assert set(np.unique(weight.decode())) <= set(weight.palette.astype(np.float32))


def test_linear_quantization_is_scale_times_the_shifted_integers() -> None:
    model = quantize(mode="linear")(mixed(iOS16))
    weight = next(w for w in compressed(model).values() if w.consumers[0][0] == "linear")
    assert weight.quantized is not None
    assert weight.scale is not None
    assert weight.offset is not None
    by_hand = weight.scale.astype(np.float32)[:, None] * (weight.quantized.astype(np.float32) - weight.offset[:, None])
    np.testing.assert_array_equal(weight.decode(), by_hand.astype(np.float16).astype(np.float32))
    assert weight.axis == 0


def test_a_mask_tells_the_sparsity() -> None:
    for weight in compressed(prune()(mixed(iOS18))).values():
        assert weight.sparsity == pytest.approx(0.6, abs=0.01)
        assert np.mean(weight.decode() == 0) == pytest.approx(weight.sparsity, abs=1e-3)


def test_parameters_are_not_weights_and_keys_survive_compression() -> None:
    plain = weights(load_program(mixed(iOS16)))
    assert {c[2] for w in plain for c in w.consumers} <= {"weight", "bias", "x"}
    assert {w.key for w in plain} == {
        w.key for w in weights(load_program(palettize(nbits=4, mode="kmeans")(mixed(iOS16))))
    }


def test_equal_content_is_decoded_once() -> None:
    model = palettize(nbits=4, mode="kmeans")(mixed(iOS16))
    tensors = [_weights(gate.mil.load(model)), _weights(gate.mil.load(model))]
    assert tensors[0]
    assert [t.data_ptr() for t in tensors[0]] == [t.data_ptr() for t in tensors[1]]


def _weights(evaluator: Evaluator) -> list[Any]:
    constants = [c for step in evaluator.plan.body.steps for c in step.constants.values()]
    return [c for c in constants if hasattr(c, "data_ptr") and c.numel() > 2048]


def test_constants_of_one_program_are_shared_between_precisions() -> None:
    declared = gate.mil.load(palettize(nbits=4, mode="kmeans")(mixed(iOS16)))
    exact = declared.at("float32")
    assert isinstance(exact.constants, Constants)
    assert exact.constants is declared.constants


def test_a_cast_constant_is_the_same_numbers_in_the_wider_type() -> None:
    stored = np.array([[1.5, -2.25, 65504.0]], dtype=np.float16)

    @mb.program(input_specs=[mb.TensorSpec((1, 3))], opset_version=iOS16)
    def program(x: Any) -> Any:
        return mb.linear(x=x, weight=mb.constexpr_cast(source_val=stored, output_dtype="fp32"))

    model = ct.convert(
        program, convert_to="mlprogram", compute_precision=ct.precision.FLOAT32, minimum_deployment_target=iOS16
    )

    (weight,) = [w for w in weights(load_program(model)) if w.shape == (1, 3)]
    assert weight.forms == ("constexpr_cast",)
    np.testing.assert_array_equal(weight.decode(), stored.astype(np.float32))
