# SPDX-License-Identifier: Apache-2.0
"""Does `predict` keep the contract of `MLModel.predict`?"""

from __future__ import annotations

import functools
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from torch import nn

import gate.mil
from gate.mil import BadInput, MilError, OpFailed, Unsupported, UnsupportedOp
from gate.mil.ops.registry import KERNELS
from gate.mil.program import load_program
from tests.mil.models import convert, mixed, mixed_inputs
from tests.mil.programs import run_op


class Affine(nn.Module):
    """y = 2x + 1, whatever the shape."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x + 1


def affine(shape: Any, **options: Any) -> Any:
    return convert(Affine(), (torch.zeros(1, 3, 4, 4),), [ct.TensorType("x", shape=shape, dtype=np.float32)], **options)


@functools.lru_cache
def fixed() -> Any:
    return affine((1, 3, 4, 4), outputs=[ct.TensorType("y", dtype=np.float32)])


X = np.arange(48, dtype=np.float32).reshape(1, 3, 4, 4)


def test_results_have_the_described_names_dtypes_and_shapes() -> None:
    (result,) = [gate.mil.load(fixed()).predict({"x": X})]
    assert list(result) == ["y"]
    assert result["y"].dtype == np.float32
    np.testing.assert_array_equal(result["y"], 2 * X + 1)


def test_float16_outputs_are_float16_arrays() -> None:
    (value,) = gate.mil.load(affine((1, 3, 4, 4))).predict({"x": X}).values()
    assert value.dtype == np.float16


def test_a_saved_package_gives_what_the_model_in_memory_gives(tmp_path: Any) -> None:
    mixed().save(str(tmp_path / "m.mlpackage"))
    a, b = gate.mil.load(mixed()), gate.mil.load(tmp_path / "m.mlpackage")
    for x, y in zip(a.predict(mixed_inputs()).values(), b.predict(mixed_inputs()).values(), strict=True):
        np.testing.assert_array_equal(x, y)


WRONG = [
    ("missing", {}, "'x' is missing"),
    ("extra", {"x": X, "z": X}, "no input is called 'z'"),
    ("misshaped", {"x": X[:, :2]}, r"'x': shape \(1, 2, 4, 4\) found, \(1, 3, 4, 4\) expected"),
    ("mistyped", {"x": np.array(["a"])}, "'x': <U1 found, float32 expected"),
    ("ragged", {"x": [[1, 2], [3]]}, "'x': can't be read as an array"),
    ("not-a-dict", 3, "dict"),
]


@pytest.mark.parametrize(("inputs", "message"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_a_wrong_input_is_named(inputs: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        gate.mil.load(fixed()).predict(inputs)


@pytest.mark.parametrize("ids", [2**40, np.inf, np.nan])
def test_integers_that_do_not_fit_are_refused(ids: Any) -> None:
    with pytest.raises(BadInput, match=r"'i'.*do not fit int32"):
        gate.mil.load(mixed()).predict({**mixed_inputs(), "i": np.array([[ids]])})


def test_floats_lose_their_fraction_and_other_widths_pass_for_integers() -> None:
    evaluator = gate.mil.load(mixed())
    wanted = evaluator.predict(mixed_inputs())
    for ids in (np.array([[7.0]]), np.array([[7.9]]), np.array([[7]], np.int64), torch.tensor([[7]])):
        np.testing.assert_equal(evaluator.predict({**mixed_inputs(), "i": ids}), wanted)


def test_a_range_of_shapes_is_checked() -> None:
    evaluator = gate.mil.load(affine((1, 3, ct.RangeDim(2, 6, 4), 4)))
    for height in (2, 6):
        (y,) = evaluator.predict({"x": np.ones((1, 3, height, 4))}).values()
        assert y.shape == (1, 3, height, 4)
    with pytest.raises(BadInput, match=r"'x': Size \(7\) of dimension \(2\) is not in allowed range \(2..6\)"):
        evaluator.predict({"x": np.ones((1, 3, 7, 4))})


def test_enumerated_shapes_are_checked() -> None:
    evaluator = gate.mil.load(affine(ct.EnumeratedShapes([(1, 3, 4, 4), (1, 3, 8, 8)])))
    (y,) = evaluator.predict({"x": np.ones((1, 3, 8, 8))}).values()
    assert y.shape == (1, 3, 8, 8)
    with pytest.raises(
        BadInput, match=r"\(1 x 3 x 4 x 8\) was not in enumerated set .*: \(1, 3, 4, 4\) or \(1, 3, 8, 8\)"
    ):
        evaluator.predict({"x": np.ones((1, 3, 4, 8))})


def test_an_optional_input_has_its_default() -> None:
    model = affine((1, 3, 4, 4))
    spec = model.get_spec()
    spec.description.input[0].type.isOptional = True
    spec.description.input[0].type.multiArrayType.floatDefaultValue = 3.0
    evaluator = gate.mil.load(ct.models.MLModel(spec, weights_dir=model.weights_dir))
    (y,) = evaluator.predict({}).values()
    np.testing.assert_array_equal(y, np.full((1, 3, 4, 4), 7.0))


class Image(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 1.0


def image(layout: Any, channels: int = 3) -> Any:
    inputs = [ct.ImageType("picture", shape=(1, channels, 2, 4), scale=0.5, bias=[1.0] * channels, color_layout=layout)]
    return convert(Image(), (torch.zeros(1, channels, 2, 4),), inputs, outputs=[ct.TensorType("y", dtype=np.float32)])


def picture(mode: str = "RGB") -> Any:
    from PIL import Image as pil

    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    return pil.fromarray(pixels if mode == "RGB" else pixels[:, :, 0])


@pytest.mark.parametrize(("layout", "order"), [(ct.colorlayout.RGB, [0, 1, 2]), (ct.colorlayout.BGR, [2, 1, 0])])
def test_an_image_is_scaled_and_its_channels_are_ordered(layout: Any, order: list[int]) -> None:
    evaluator = gate.mil.load(image(layout))
    wanted = np.asarray(picture()).astype(np.float32).transpose(2, 0, 1)[None][:, order] * 0.5 + 1
    np.testing.assert_array_equal(evaluator.predict({"picture": picture()})["y"], wanted)
    np.testing.assert_array_equal(evaluator.predict({"picture": np.asarray(picture())})["y"], wanted)


def test_a_grey_image_and_its_mode() -> None:
    evaluator = gate.mil.load(image(ct.colorlayout.GRAYSCALE, 1))
    y = evaluator.predict({"picture": picture("L")})["y"]
    np.testing.assert_array_equal(y[0, 0], np.asarray(picture("L")) * 0.5 + 1)
    with pytest.raises(BadInput, match="mode RGB found, L expected"):
        evaluator.predict({"picture": picture()})


def test_an_image_of_the_wrong_size_is_named() -> None:
    with pytest.raises(BadInput, match=r"'picture'.*\(1, 3, 4, 2\) found, \(1, 3, 2, 4\) expected"):
        gate.mil.load(image(ct.colorlayout.RGB)).predict({"picture": picture().transpose(2).rotate(0).resize((2, 4))})


def test_an_image_output_is_clamped_and_rounded() -> None:
    outputs = [ct.ImageType("y", color_layout=ct.colorlayout.RGB)]
    inputs = [ct.TensorType("x", shape=(1, 3, 4, 4), dtype=np.float32)]
    model = convert(Affine(), (torch.zeros(1, 3, 4, 4),), inputs, outputs=outputs)
    y = gate.mil.load(model).predict({"x": np.full((1, 3, 4, 4), 200.0)})["y"]
    assert (y.mode, y.size, y.getpixel((0, 0))) == ("RGB", (4, 4), (255, 255, 255))


def test_a_classifier_returns_label_and_probabilities() -> None:
    config = ct.ClassifierConfig(["cat", "dog"])
    model = convert(
        nn.Softmax(-1),
        (torch.zeros(1, 2),),
        [ct.TensorType("x", shape=(1, 2), dtype=np.float32)],
        classifier_config=config,
    )
    result = gate.mil.load(model).predict({"x": np.array([[0.0, np.log(3.0)]])})
    assert result["classLabel"] == "dog"
    (probabilities,) = [v for k, v in result.items() if k != "classLabel"]
    assert probabilities == {"cat": pytest.approx(0.25, abs=1e-3), "dog": pytest.approx(0.75, abs=1e-3)}


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(1, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(x)  # type: ignore[operator]
        return self.total * 1.0


@functools.lru_cache
def counter() -> Any:
    states = [ct.StateType(wrapped_type=ct.TensorType(shape=(1, 2), dtype=np.float16), name="total")]
    inputs = [ct.TensorType("x", shape=(1, 2), dtype=np.float16)]
    return convert(Counter(), (torch.zeros(1, 2),), inputs, target=ct.target.iOS18, states=states)


def test_a_state_lives_from_one_prediction_to_the_next() -> None:
    evaluator = gate.mil.load(counter())
    state = evaluator.make_state()
    for n in (1, 2, 3):
        (y,) = evaluator.predict({"x": [[1.0, 10.0]]}, state).values()
        np.testing.assert_array_equal(y, [[n, 10.0 * n]])
    np.testing.assert_array_equal(state.read_state("total"), [[3.0, 30.0]])
    (fresh,) = evaluator.predict({"x": [[1.0, 1.0]]}, evaluator.make_state()).values()
    np.testing.assert_array_equal(fresh, [[1.0, 1.0]])


def test_a_missing_state_is_named() -> None:
    with pytest.raises(BadInput, match="'total' is missing: pass state=make_state"):
        gate.mil.load(counter()).predict({"x": [[1.0, 1.0]]})


def test_a_list_of_samples_gives_a_list_of_results() -> None:
    evaluator = gate.mil.load(mixed())
    generator = np.random.default_rng(1)
    samples = [{"x": generator.standard_normal((1, 4, 4, 4)), "i": np.array([[n]])} for n in range(7)]
    together, alone = evaluator.predict(samples), [evaluator.predict(s) for s in samples]
    for a, b in zip(together, alone, strict=True):
        (x,), (y,) = a.values(), b.values()
        assert x.shape == y.shape
        np.testing.assert_allclose(x.astype(np.float32), y.astype(np.float32), rtol=2**-10, atol=1e-3)


def test_a_byte_budget_bounds_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    from gate.mil import batch

    sizes: list[int] = []
    run = batch.Stack.run
    monkeypatch.setattr(batch.Stack, "run", lambda self, samples: sizes.append(len(samples)) or run(self, samples))
    evaluator = gate.mil.load(fixed())
    results = list(evaluator.predict_batch([{"x": X}] * 10, byte_budget=3 * batch.MARGIN * 2 * X.nbytes))
    assert len(results) == 10
    assert sizes == [1, 3, 3, 3]


def program(function: Any) -> Any:
    """Convert a program written with coremltools' builder."""
    return ct.convert(
        function,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32,
    )


def test_an_op_without_batching_runs_sample_by_sample() -> None:
    @mb.program(input_specs=[mb.TensorSpec((4,))], opset_version=ct.target.iOS17)
    def ragged(x: Any) -> Any:
        return mb.non_zero(x=x)

    evaluator = gate.mil.load(program(ragged))
    samples = [{"x": np.array(x, np.float32)} for x in ([0, 1, 0, 1], [0, 0, 0, 1], [1, 1, 1, 1])]
    assert [len(next(iter(r.values()))) for r in evaluator.predict(samples)] == [2, 1, 4]


def test_a_kernel_that_is_missing_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(KERNELS, "linear")
    monkeypatch.delitem(KERNELS, "relu")
    with pytest.raises(UnsupportedOp, match="no kernel for linear, relu; nothing was run") as caught:
        gate.mil.load(mixed())
    assert caught.value.types == ("linear", "relu")


def test_a_failing_op_is_named_with_its_shapes() -> None:
    with pytest.raises(OpFailed, match=r"matmul 'matmul'\(x=float32\(2, 3\), y=float32\(2, 3\)\): "):
        run_op("matmul", {"x": np.ones((2, 3)), "y": np.ones((2, 3))}, (torch.zeros(2, 2),))


def test_a_result_of_another_shape_than_declared_is_an_error() -> None:
    with pytest.raises(OpFailed, match=r"add 'add': the result has shape \(2, 2\), the program declares float32\(2\)"):
        run_op("add", {"x": np.ones((2, 1)), "y": np.ones(2)}, (torch.zeros(2),))


def test_the_old_format_is_refused_with_what_still_works(tmp_path: Any) -> None:
    spec = ct.proto.Model_pb2.Model(specificationVersion=4)
    spec.neuralNetwork.SetInParent()
    (tmp_path / "old.mlmodel").write_bytes(spec.SerializeToString())
    with pytest.raises(Unsupported, match=r"neuralNetwork.*can't be judged.*size still is, and gate inspect"):
        gate.mil.load(tmp_path / "old.mlmodel")


def test_an_observer_sees_each_op_with_inputs_and_result() -> None:
    seen: list[tuple[str, Any]] = []
    gate.mil.load(mixed()).predict(
        mixed_inputs(), observe=lambda op, inputs, results: seen.append((op.type, inputs, results))
    )
    types = [s[0] for s in seen]
    assert types.count("linear") == 2
    conv = next(s for s in seen if s[0] == "conv")
    assert conv[1]["x"].shape == (1, 4, 4, 4)
    assert conv[1]["strides"] == [1, 1]
    assert conv[2][0].shape == (1, 16, 4, 4)


def test_values_can_be_kept_and_given() -> None:
    evaluator = gate.mil.load(mixed())
    inputs = evaluator.features.read(mixed_inputs())
    name = next(op.name for op in evaluator.function.body.ops if op.type == "relu")
    full = evaluator.run(inputs, keep=[name])
    (output,) = (v.name for v in evaluator.function.body.outputs)
    ran: list[str] = []
    again = evaluator.run(inputs, given={name: full[name]}, observe=lambda op, i, r: ran.append(op.type))
    assert "conv" not in ran
    assert torch.equal(again[output], full[output])
    other = evaluator.run(inputs, given={name: full[name] * 2})
    assert not torch.equal(other[output], full[output])
    with pytest.raises(MilError, match="no op of function 'main' computes nonsense"):
        evaluator.run(inputs, keep=["nonsense"])


def test_values_are_freed_after_their_last_use() -> None:
    evaluator = gate.mil.load(mixed())
    steps = evaluator.plan.body.steps
    freed = {slot for step in steps for slot in step.frees}
    computed = {slot for step in steps for slot in step.outputs}
    assert computed - freed == set(evaluator.plan.body.outputs)


def test_functions_are_chosen_by_name() -> None:
    assert load_program(fixed()).default_function == "main"
    with pytest.raises(MilError, match="no function 'other'; the program has main"):
        gate.mil.load(fixed(), function="other")


def test_a_pipeline_runs_its_stages_in_order(tmp_path: Any) -> None:
    """Each stage computes 2x + 1 (see `affine`), and the second reads the first one's output."""
    first, second = affine((1, 3, 4, 4)), affine((1, 3, 4, 4))
    output = first.get_spec().description.output[0].name
    renamed = second.get_spec()
    ct.utils.rename_feature(renamed, output, "z")
    ct.utils.rename_feature(renamed, "x", output)
    pipeline = ct.utils.make_pipeline(first, ct.models.MLModel(renamed, weights_dir=second.weights_dir))
    pipeline.save(str(tmp_path / "p.mlpackage"))
    x = np.ones((1, 3, 4, 4), np.float32)
    once = gate.mil.load(first).predict({"x": x})[output]
    for evaluator in (gate.mil.load(pipeline), gate.mil.load(tmp_path / "p.mlpackage")):
        assert [f.name for f in evaluator.inputs] == ["x"]
        (wanted,) = gate.mil.load(first).predict({"x": once}).values()
        np.testing.assert_array_equal(evaluator.predict({"x": x})["z"], wanted)
        with pytest.raises(BadInput, match="no input is called 'q'; the pipeline takes x"):
            evaluator.predict({"q": x})
