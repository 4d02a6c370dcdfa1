# SPDX-License-Identifier: Apache-2.0
"""`gate inspect`: MACs that can be counted by hand, weight forms, eligibility, and what cannot be said."""

import functools
import json
from pathlib import Path

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from gate.cli import app
from gate.inspect import Inspection, inspect
from gate.macs import MACS, NO_PRODUCTS, count
from gate.mil.ops.registry import KERNELS
from gate.mil.program import Block
from tests.mil.models import convert
from tests.records import function, op, sizes, value, weight
from tests.resnet import small_resnet

X = value("x", 1, 8, 10, 10)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        pytest.param(op("conv", value("y", 1, 16, 8, 8), x=X, weight=weight(16, 8, 3, 3)), 1024 * 72, id="conv"),
        pytest.param(
            op("conv", value("y", 1, 8, 8, 8), x=X, weight=weight(8, 1, 3, 3), groups=8), 512 * 9, id="depthwise"
        ),
        pytest.param(
            op("conv_transpose", value("y", 1, 4, 20, 20), x=X, weight=weight(8, 4, 2, 2)), 800 * 16, id="transposed"
        ),
        pytest.param(op("linear", value("y", 5, 3), x=value("x", 5, 7), weight=weight(3, 7)), 105, id="linear"),
        pytest.param(op("matmul", value("y", 2, 4, 6), x=value("x", 2, 4, 5), y=value("z", 2, 5, 6)), 240, id="matmul"),
        pytest.param(
            op("matmul", value("y", 4, 6), x=value("x", 5, 4), y=value("z", 5, 6), transpose_x=True), 120, id="matmul, transposed"
        ),
        pytest.param(
            op("einsum", value("y", 2, 3, 5, 5), values=(value("a", 2, 3, 4, 5), value("b", 2, 3, 4, 5)), equation="nchw,nchu->ncwu"),
            2 * 3 * 4 * 5 * 5,
            id="einsum",
        ),
        pytest.param(
            op(
                "scaled_dot_product_attention",
                value("y", 1, 2, 6, 4),
                query=value("q", 1, 2, 6, 4),
                key=value("k", 1, 2, 9, 4),
                value=value("v", 1, 2, 9, 4),
            ),
            2 * 6 * 9 * (4 + 4),
            id="attention",
        ),
        pytest.param(
            op("lstm", value("y", 7, 2, 10), x=value("x", 7, 2, 3), weight_ih=weight(20, 3), weight_hh=weight(20, 5),
               weight_ih_back=weight(20, 3), weight_hh_back=weight(20, 5)),
            7 * 2 * 2 * (60 + 100),
            id="lstm, both directions",
        ),
        pytest.param(op("gru", value("y", 7, 2, 5), x=value("x", 7, 2, 3), weight_ih=weight(15, 3), weight_hh=weight(15, 5)), 14 * 120, id="gru"),
        pytest.param(op("batch_norm", X, x=X, mean=weight(8), variance=weight(8)), 800, id="batch_norm"),
        pytest.param(op("layer_norm", X, x=X, axes=[1, 2, 3]), 1600, id="layer_norm"),
        pytest.param(op("reduce_l2_norm", value("y", 1), x=X), 800, id="squares, summed"),
        pytest.param(op("resize_bilinear", value("y", 1, 8, 20, 20), x=X), 12_800, id="bilinear"),
        pytest.param(op("resample", X, x=X, sampling_mode="nearest"), 0, id="nearest"),
        pytest.param(op("relu", X, x=X), 0, id="elementwise"),
        pytest.param(op("avg_pool", X, x=X, kernel_sizes=[2, 2]), 0, id="sums without products"),
        pytest.param(op("custom_layer", X, x=X), None, id="unknown"),
    ],
)  # fmt: skip
def test_the_macs_of_one_op(operation, expected):
    assert count(operation, sizes(function((X,), operation, outputs=(X,)))) == expected


def test_every_kernel_has_a_rule_or_counts_zero_by_definition():
    kernels = {kind for kind in KERNELS if not kind.startswith("constexpr_")}
    assert kernels == set(MACS) | NO_PRODUCTS
    assert not set(MACS) & NO_PRODUCTS


@functools.cache
def resnet() -> ct.models.MLModel:
    return convert(small_resnet(), (torch.rand(1, 3, 64, 64),), [ct.TensorType("x", shape=(1, 3, 64, 64))])


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> dict[str, Path]:
    """A small network, and the same with 4-bit palettes."""
    folder = tmp_path_factory.mktemp("packages")
    settings = cto.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=200)
    made = {"plain": resnet(), "palette": cto.palettize_weights(resnet(), cto.OptimizationConfig(settings))}
    for name, model in made.items():
        model.save(str(folder / f"{name}.mlpackage"))
    return {name: folder / f"{name}.mlpackage" for name in made}


def macs_by_torch() -> int:
    """Count what torch's own modules multiply, by hooks."""
    total = 0

    def hook(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    model = small_resnet()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(hook)
    model(torch.rand(1, 3, 64, 64))
    return total


def test_a_network_has_the_macs_that_torch_multiplies(packages):
    facts = inspect(packages["plain"])
    (main,) = facts.functions

    assert main.macs == macs_by_torch()
    assert main.arithmetic == main.ops["conv"] + main.ops["linear"]
    assert not main.unknown
    assert "relu" in main.zero_by_definition
    assert facts.package_bytes == sum(f.stat().st_size for f in packages["plain"].rglob("*") if f.is_file())
    assert facts.system == "iOS17"


def test_weights_are_told_with_form_and_bits(packages):
    plain, palette = (inspect(packages[name]) for name in ("plain", "palette"))

    assert {(w.form, w.bits) for w in plain.weights} == {("plain", 16)}
    coded = [w for w in palette.weights if w.form == "constexpr_lut_to_dense"]
    assert coded
    assert all(w.bits == 4 and w.package_bytes < np.prod(w.shape) for w in coded)
    assert palette.parameters == plain.parameters
    assert palette.memory.weights[0] < palette.memory.weights[1] == plain.memory.weights[1]


def test_an_op_that_a_rule_speaks_against_is_not_eligible():
    module = nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2), nn.ReLU())
    model = convert(module, (torch.rand(1, 3, 16, 16),), [ct.TensorType("x", shape=(1, 3, 16, 16))])
    facts = _inspect(model)
    by_type = {layer.op: layer.eligible for layer in facts.functions[0].layers}

    assert "Neural Engine" not in by_type["conv"]
    assert "Neural Engine" in by_type["relu"]
    assert "placement.dilated" in {f.rule for f in facts.functions[0].findings}


def test_flexible_inputs_are_counted_at_the_default_and_held_at_the_largest():
    shape = ct.Shape((1, 4, ct.RangeDim(8, 32, default=8)))
    model = convert(nn.Conv1d(4, 6, 3, padding=1), (torch.rand(1, 4, 8),), [ct.TensorType("x", shape=shape)])
    facts = _inspect(model)

    assert facts.functions[0].macs == 6 * 8 * 12
    # input and output are float32 and float16: 4·32 values in, 6·32 out, and the cast between them
    assert facts.memory.activations[1] >= 32 * (4 * 2 + 6 * 2)


def test_a_nested_block_counts_once_and_says_so():
    x, inside, test = value("x", 2, 3), value("i", 2, 3), value("t", dtype="bool")
    body = Block((inside,), (op("linear", value("o", 2, 3), x=inside, weight=weight(3, 3)),), (inside,))
    loop = op("while_loop", value("y", 2, 3), blocks=(Block((), (), (test,)), body), loop_vars=(x,))
    main = function((x,), loop, outputs=loop.outputs)

    assert [count(one, sizes(main)) for one in main.body.walk()] == [0, 18]


def test_a_compiled_model_says_its_size_and_what_cannot_be_said(tmp_path):
    compiled = tmp_path / "Tagger.mlmodelc"
    compiled.mkdir()
    (compiled / "coremldata.bin").write_bytes(b"x" * 123)

    facts = inspect(compiled)

    assert facts.package_bytes == 123
    assert facts.memory is None
    assert "only its size" in facts.text()


def test_an_old_neural_network_says_its_size_and_what_cannot_be_said(tmp_path):
    spec = ct.proto.Model_pb2.Model(specificationVersion=4)
    spec.description.input.add(name="x").type.multiArrayType.shape.append(3)
    spec.neuralNetwork.layers.add(name="relu").activation.ReLU.SetInParent()
    path = tmp_path / "old.mlmodel"
    path.write_bytes(spec.SerializeToString())

    facts = inspect(path)

    assert facts.package_bytes == path.stat().st_size
    assert facts.described[:2] == ("neuralNetwork, specification version 4", "inputs x (multiArrayType)")
    assert facts.described[-1] == "layers activation 1"
    assert "neuralNetwork" in facts.not_said[0]
    assert not facts.functions


def test_the_command_prints_the_record_or_a_table(packages):
    as_json = CliRunner().invoke(app, ["inspect", str(packages["plain"]), "--json"])
    as_text = CliRunner().invoke(app, ["inspect", str(packages["plain"])])

    assert Inspection.model_validate(json.loads(as_json.stdout)) == inspect(packages["plain"])
    assert "eligible" in as_text.stdout
    assert "by definition" in as_text.stdout
    heaviest = max(inspect(packages["plain"]).functions[0].layers, key=lambda layer: layer.weight_bytes)
    assert f"most bytes in {heaviest.op} {heaviest.name} (" in as_text.stdout


def _inspect(model: ct.models.MLModel) -> Inspection:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/m.mlpackage")
        return inspect(Path(folder) / "m.mlpackage")


@pytest.mark.parametrize("command", [["inspect"], ["diff", "there.mlpackage"]], ids=lambda command: command[0])
def test_what_is_no_package_is_wrong_usage_and_no_traceback(tmp_path, command):
    from gate.errors import UsageError

    broken = tmp_path / "broken.mlpackage"
    broken.mkdir()
    (broken / "Manifest.json").write_text("{}")

    found = CliRunner().invoke(app, [*command, str(broken)])

    assert isinstance(found.exception, UsageError)
