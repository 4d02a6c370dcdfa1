# SPDX-License-Identifier: Apache-2.0
"""`gate diff`: twenty and more edits of one network, each told as what it is."""

import json
from collections import Counter
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from gate.cli import app
from gate.diff import Difference, Encoding, Kind, compare
from gate.mil.program import Argument, Block, Op, Program, Value
from tests.mil.models import convert
from tests.records import const, function, op, program, state, value, weight
from tests.resnet import small_resnet


class Net:
    """x → stem → two branches → difference → mean → head → probs; each edit is one keyword."""

    def __init__(self, **edits: Any) -> None:
        self.edits = edits
        self.ops: list[Op] = []
        self.dtype = edits.get("dtype", "float16")
        self.program = self.build()

    def add(self, kind: str, name: str, shape: tuple[int, ...], **inputs: Any) -> Value:
        name = name if name == self.edits.get("output", "probs") else self.edits.get("prefix", "") + name
        result = value(name, *shape, dtype=self.dtype)
        self.ops.append(op(kind, result, **inputs))
        return result

    def weight(self, name: str, *shape: int) -> Argument:
        seeds = {"stem": 1, "left": 2, "right": 3, "head": 4, "extra": 5} | self.edits.get("retrain", {})
        made = weight(*shape, seed=seeds[name])
        if name != self.edits.get("quantize"):
            return made if self.dtype == "float16" else const(made.array.astype(np.float32), "w")
        scale = float(np.abs(made.array).max()) / 127
        return self.add(
            "constexpr_affine_dequantize",
            f"{name}_q",
            shape,
            quantized_data=np.round(made.array / scale).astype(np.int8),
            scale=np.float16(scale),
            zero_point=np.int8(0),
            axis=0,
        )

    def conv(self, name: str, x: Value, channels: int, size: int, **more: Any) -> Value:
        kernel = self.weight(name, channels, x.type.shape[1], 3, 3)
        return self.add("conv", name, (1, channels, size, size), x=x, weight=kernel, pad_type="same", **more)

    def build(self) -> Program:
        e = self.edits
        channels, size = e.get("channels", 8), e.get("size", 8)
        x = value(e.get("input", "x"), 1, 4, size, size, dtype=self.dtype)
        size //= e.get("stride", 1)
        y = self.conv("stem", x, channels, size, strides=[e.get("stride", 1)] * 2)
        y = self.add(e.get("activation", "relu"), "act", (1, channels, size, size), x=y)
        if e.get("deeper"):
            y = self.add("relu", "extra_act", y.type.shape, x=self.conv("extra", y, channels, size))
        branches = [self.left, self.right] if not e.get("reorder") else [self.right, self.left]
        made = {branch.__name__: branch(y, channels, size) for branch in branches}
        pair = (made["right"], made["left"]) if e.get("swap") else (made["left"], made["right"])
        y = self.add("sub", "both", y.type.shape, x=pair[0], y=pair[1])
        y = self.add("reduce_mean", "mean", (1, channels), x=y, axes=[2, 3])
        bias = {} if e.get("no_bias") else {"bias": const(np.ones(5, np.float16), "b")}
        y = self.add("linear", "head", (1, 5), x=y, weight=self.weight("head", 5, channels), **bias)
        y = self.add("mul", "scaled", (1, 5), x=y, y=np.float16(e.get("factor", 0.5)))
        probs = self.add("softmax", e.get("output", "probs"), (1, 5), x=y, axis=e.get("axis", -1))
        outputs = (probs, made["left"]) if e.get("more_outputs") else (probs,)
        return program(function((x,), *self.ops, outputs=outputs))

    def left(self, x: Value, channels: int, size: int) -> Value:
        if self.edits.get("no_left"):
            return x
        y = self.conv("left", x, channels, size, dilations=[self.edits.get("dilation", 1)] * 2)
        return y if self.edits.get("no_left_act") else self.add("tanh", "left_act", y.type.shape, x=y)

    def right(self, x: Value, channels: int, size: int) -> Value:
        return self.add("sigmoid", "right_act", x.type.shape, x=self.conv("right", x, channels, size))


OPS = 11
CHANGED, ADDED, REMOVED = Kind.PARAMETER, Kind.ADDED, Kind.REMOVED


@pytest.mark.parametrize(
    ("edits", "kinds", "weights", "interface"),
    [
        pytest.param({}, {}, {}, 0, id="nothing"),
        pytest.param({"prefix": "v2_"}, {}, {}, 0, id="rename every op"),
        pytest.param({"reorder": True}, {}, {}, 0, id="write the branches in another order"),
        pytest.param({"reorder": True, "prefix": "v2_"}, {}, {}, 0, id="rename and reorder"),
        pytest.param({"stride": 2}, {CHANGED: ["stem"]}, {}, 0, id="change a stride"),
        pytest.param({"stride": 2, "prefix": "v2_"}, {CHANGED: ["v2_stem"]}, {}, 0, id="change a stride and rename"),
        pytest.param({"dilation": 2}, {CHANGED: ["left"]}, {}, 0, id="change a dilation"),
        pytest.param({"axis": 0}, {CHANGED: ["probs"]}, {}, 0, id="change an axis"),
        pytest.param({"factor": 0.25}, {CHANGED: ["scaled"]}, {}, 0, id="change a scalar"),
        pytest.param({"no_left_act": True}, {REMOVED: ["left_act"]}, {}, 0, id="drop an activation"),
        pytest.param({"no_left": True}, {REMOVED: ["left", "left_act"]}, {}, 0, id="drop a layer"),
        pytest.param({"no_left": True, "prefix": "v2_"}, {REMOVED: ["left", "left_act"]}, {}, 0, id="drop a layer and rename"),
        pytest.param({"deeper": True}, {ADDED: ["extra", "extra_act"]}, {}, 0, id="add a layer"),
        pytest.param({"activation": "silu"}, {ADDED: ["act"], REMOVED: ["act"]}, {}, 0, id="another activation"),
        pytest.param({"retrain": {"left": 9}}, {}, {Encoding.VALUES: ["left.weight"]}, 0, id="retrain one layer"),
        pytest.param(
            {"retrain": {"left": 9, "head": 8}, "prefix": "v2_"},
            {},
            {Encoding.VALUES: ["v2_left.weight", "v2_head.weight"]},
            0,
            id="retrain two layers and rename",
        ),
        pytest.param(
            {"retrain": {"stem": 9}, "stride": 2},
            {CHANGED: ["stem"]},
            {Encoding.VALUES: ["stem.weight"]},
            0,
            id="retrain a layer and change its stride",
        ),
        pytest.param({"quantize": "head"}, {}, {Encoding.REENCODED: ["head.weight"]}, 0, id="quantize one layer"),
        pytest.param(
            {"channels": 16},
            {},
            {Encoding.RESHAPED: ["stem.weight", "left.weight", "right.weight", "head.weight"]},
            0,
            id="widen the network",
        ),
        pytest.param({"swap": True}, {Kind.INPUT: ["both", "both"]}, {}, 0, id="swap the operands of an op"),
        pytest.param({"no_bias": True}, {CHANGED: ["head"]}, {}, 0, id="drop a bias"),
        pytest.param({"input": "image"}, {}, {}, 1, id="rename an input"),
        pytest.param({"output": "scores"}, {}, {}, 1, id="rename an output"),
        pytest.param({"size": 16}, {}, {}, 1, id="a larger input"),
        pytest.param({"more_outputs": True}, {}, {}, 1, id="another output"),
    ],
)  # fmt: skip
def test_an_edit_is_told_as_what_it_is(edits, kinds, weights, interface):
    found = compare(Net().program, Net(**edits).program)

    told: dict[Kind, list[str]] = {}
    for change in found.ops:
        if change.kind is not Kind.SHAPE:
            told.setdefault(change.kind, []).append(change.after or change.before)
    assert {kind: sorted(names) for kind, names in told.items()} == {kind: sorted(n) for kind, n in kinds.items()}
    stored: dict[Encoding, list[str]] = {}
    for weight_change in found.weights:
        stored.setdefault(weight_change.kind, []).append(weight_change.after)
    assert {k: sorted(v) for k, v in stored.items()} == {k: sorted(v) for k, v in weights.items()}
    assert len(found.interface) == interface
    assert (found.renamed > 0) == ("prefix" in edits or "output" in edits)
    assert found.reordered == ("reorder" in edits)


def test_another_type_is_told_for_each_op_and_weight():
    found = compare(Net().program, Net(dtype="float32").program)

    kinds = Counter(change.kind for change in found.ops)
    assert kinds == {Kind.TYPE: OPS}
    assert {w.kind for w in found.weights} == {Encoding.REENCODED}
    assert all(w.max_change == 0 for w in found.weights)
    assert len(found.interface) == 2


def test_the_largest_change_of_a_weight_is_that_of_its_decoded_values():
    found = compare(Net().program, Net(retrain={"head": 8}).program)

    (change,) = found.weights
    before, after = (weight(5, 8, seed=seed).array.astype(np.float32) for seed in (4, 8))
    assert change.max_change == pytest.approx(np.abs(before - after).max())
    assert change.relative_change == pytest.approx(np.abs(before - after).max() / np.abs(before).max())
    assert found.summary == "same topology, 1 weight changed"


def test_a_stride_changes_one_op_and_the_rest_follows():
    found = compare(Net().program, Net(stride=2).program)

    assert found.summary == "1 op changed"
    (change,) = [c for c in found.ops if c.kind is not Kind.SHAPE]
    assert change.what == "strides [1, 1] → [2, 2]"
    assert "in consequence" in found.text()


def test_ops_inside_a_loop_and_ops_without_outputs_are_compared_too():
    def looping(factor: float) -> Program:
        x, inner, test, y = value("x", 3), value("i", 3), value("t", 1, dtype="bool"), value("y", 3)
        back = value("back", 3)
        body = Block((inner,), (op("mul", back, x=inner, y=np.float16(factor)),), (back,))
        check = Block((value("j", 3),), (op("fill", test, shape=[1], value=True),), (test,))
        kept = op("write_state", (), input=state("s", 3), data=x)
        return program(function((x,), kept, op("while_loop", y, blocks=(check, body), loop_vars=(x,)), outputs=(y,)))

    assert compare(looping(2), looping(2)).matched == 4
    (change,) = compare(looping(2), looping(3)).ops
    assert (change.op, change.what) == ("mul", "y 2.0 → 3.0")


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A converted network, and the same with 4-bit palettes."""
    folder = tmp_path_factory.mktemp("packages")
    plain = convert(small_resnet(), (torch.rand(1, 3, 32, 32),), [ct.TensorType("x", shape=(1, 3, 32, 32))])
    settings = cto.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=0)
    palette = cto.palettize_weights(plain, cto.OptimizationConfig(settings))
    paths = [str(folder / f"{name}.mlpackage") for name in ("plain", "palette")]
    for model, path in zip((plain, palette), paths, strict=True):
        model.save(path)
    return paths


def test_a_compressed_package_has_the_same_topology_and_its_weights_re_encoded(packages):
    printed = CliRunner().invoke(app, ["diff", *packages, "--json"]).stdout
    found = Difference.model_validate(json.loads(printed))

    layers = sum(1 for m in small_resnet().modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear))
    assert found.summary == f"same topology, {layers} weights re-encoded"
    assert all("4 bits" in w.what and w.bytes_after < w.bytes_before for w in found.weights)
    assert not found.interface


def test_a_package_is_no_different_from_itself(packages):
    printed = CliRunner().invoke(app, ["diff", packages[0], packages[0]]).stdout

    assert printed.strip() == "same topology, no weight changed"
