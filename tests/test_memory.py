# SPDX-License-Identifier: Apache-2.0
"""Memory: a case counted by hand, the bounds of weights, and the estimate against tensors alive in the evaluator."""

import weakref

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gate import shapes
from gate.memory import Range, estimate
from gate.mil import MilError
from gate.mil.blob import packed_bytes
from gate.mil.evaluator import Evaluator
from gate.mil.program import Block, load_program
from gate.mil.weights import weights
from tests.mil.models import convert
from tests.records import function, op, program, state, value, weight
from tests.resnet import small_resnet

# x ── conv ── a ── relu ── b ──┐
#  └── cast ── c ────────────── add ── y        every value (1, 4, 5, 5) float16: 200 bytes, x float32: 400
X = value("x", 1, 4, 5, 5, dtype="float32")
A, B, C, Y = (value(name, 1, 4, 5, 5) for name in "abcy")


def diamond():
    conv = op("conv", A, x=C, weight=weight(4, 4, 1, 1))
    return function(
        (X,), op("cast", C, x=X, dtype="fp16"), conv, op("relu", B, x=A), op("add", Y, x=B, y=C), outputs=(Y,)
    )


def test_a_case_counted_by_hand():
    found = estimate(program(diamond()), 17)

    # each its own: x 400; cast +c, conv +a, relu +b (a, b, c live), add: x, b, c, y
    assert [r.high for r in found.alive] == [600, 800, 1000, 1000]
    # shared: relu overwrites a, add overwrites b: x, c and one more
    assert [r.low for r in found.alive] == [600, 800, 800, 800]
    assert found.activations == Range(800, 1000)
    assert found.interface == 600
    assert found.weights == Range(32, 32)
    assert found.total == Range(832, 1032)
    assert found.peak_op == "relu b"


def test_the_callers_input_is_not_overwritten():
    x, y = value("x", 10), value("y", 10)

    found = estimate(program(function((x,), op("relu", y, x=x), outputs=(y,))), 17)

    assert found.activations == Range(40, 40)


def test_a_state_is_held_all_the_time_and_read_in_place_or_copied():
    held, x = state("kv", 50), value("x", 50)
    read, new, out = value("r", 50), value("n", 50), value("o", 50)
    ops = (
        op("read_state", read, input=held),
        op("add", new, x=read, y=x),
        op("coreml_update_state", out, state=held, value=new),
    )

    found = estimate(program(function((x, held), *ops, outputs=(out,), opset="CoreML8")), 18)

    assert found.states == 100
    assert found.activations == Range(300, 400)


def test_a_loop_holds_what_its_body_reads_and_the_worst_of_its_body():
    x, outside, inner, big = value("x", 10), value("outside", 10), value("i", 10), value("big", 100)
    test, y = value("t", 1, dtype="bool"), value("y", 10)
    back = value("back", 10)
    body = Block((inner,), (op("tile", big, x=inner, reps=[10]), op("add", back, x=inner, y=outside)), (back,))
    check = Block((value("j", 10),), (op("fill", test, shape=[1], value=True),), (test,))
    loop = op("while_loop", y, blocks=(check, body), loop_vars=(x,))

    found = estimate(program(function((x,), op("exp", outside, x=x), loop, outputs=(y,))), 17)

    # around: x, outside, y; inside: i and big
    assert found.activations.high == 60 + 220
    assert found.activations.low == 60 + 200


def palettized(bits: int = 4):
    model = convert(
        nn.Linear(64, 64), (torch.rand(1, 64),), [ct.TensorType("x", shape=(1, 64))], target=ct.target.iOS16
    )
    settings = cto.OpPalettizerConfig(mode="uniform", nbits=bits, weight_threshold=0)
    return load_program(cto.palettize_weights(model, cto.OptimizationConfig(settings)))


def test_compressed_weights_are_expanded_at_load_on_ios16_and_perhaps_later_from_ios17():
    found = palettized()
    stored = sum(w.package_bytes for w in weights(found))

    assert estimate(found, 16).weights == Range(2 * (64 * 64 + 64), 2 * (64 * 64 + 64))
    assert estimate(found, 17).weights == Range(stored, 2 * (64 * 64 + 64))
    assert stored < 64 * 64


def test_flexible_inputs_count_at_the_largest_shape():
    def activations(dim) -> Range:
        shape = ct.Shape((1, 3, dim))
        found = convert(nn.Conv1d(3, 8, 3, padding=1), (torch.rand(1, 3, 16),), [ct.TensorType("x", shape=shape)])
        return estimate(load_program(found), 17).activations

    assert activations(ct.RangeDim(16, 64, default=16)) == activations(64)


def test_without_an_upper_bound_the_default_is_taken_and_named():
    shape = ct.Shape((1, 3, ct.RangeDim(16, 64, default=16)))
    found = load_program(convert(nn.Conv1d(3, 8, 3), (torch.rand(1, 3, 16),), [ct.TensorType("x", shape=shape)]))
    found.spec.description.input[0].type.multiArrayType.shapeRange.sizeRanges[2].upperBound = -1

    assert "no upper bound" in estimate(found, 17).notes[0]
    assert estimate(found, 17).inputs == {"x": (1, 3, 16)}


def test_a_shape_that_takes_too_long_to_size_is_no_answer_and_names_it(monkeypatch):
    monkeypatch.setattr(shapes, "LONGEST", -1.0)
    dim = ct.RangeDim(16, 64, default=16)
    found = convert(nn.Conv1d(3, 8, 3), (torch.rand(1, 3, 16),), [ct.TensorType("x", shape=ct.Shape((1, 3, dim)))])

    with pytest.raises(MilError, match=r"x \[1, 3, 64\] took over"):
        estimate(load_program(found), 17)


class Attention(nn.Module):
    """One transformer block by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.norm, self.up, self.down = nn.LayerNorm(32), nn.Linear(32, 128), nn.Linear(128, 32)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(1, 20, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        y = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, -1) @ v
        x = self.norm(x + self.out(y.transpose(1, 2).reshape(1, 20, 32)))
        return x + self.down(F.gelu(self.up(x)))


class Unet(nn.Module):
    """Down and up, with a skip that stays alive."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Conv2d(8, 16, 3, 2, 1),
            nn.ConvTranspose2d(16, 8, 2, 2),
        )
        self.d = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.a(x))
        return self.d(torch.cat([self.c(torch.relu(self.b(a))), a], 1))


class Tagger(nn.Module):
    """An embedding and a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.lstm, self.head = nn.Embedding(40, 16), nn.LSTM(16, 24, batch_first=True), nn.Linear(24, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.lstm(self.words(ids))[0])


MODELS = {
    "resnet": (small_resnet, (1, 3, 64, 64)),
    "attention": (Attention, (1, 20, 32)),
    "unet": (Unet, (1, 3, 32, 32)),
    "mlp": (lambda: nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4)), (8, 16)),
    "tagger": (Tagger, (1, 12)),
}  # fmt: skip


class Alive:
    """An observer that counts the tensors alive in the evaluator, in their declared types, by watching them die."""

    def __init__(self, held: int) -> None:
        self.now = self.peak = held
        self.seen: set[int] = set()

    def __call__(self, op, inputs, results) -> None:
        for value_, result in zip(op.outputs, results, strict=True):
            if isinstance(result, Tensor) and id(result) not in self.seen:
                self.seen.add(id(result))
                count = packed_bytes(value_.type.dtype, result.numel())
                self.now += count
                weakref.finalize(result, self.dies, id(result), count)
        self.peak = max(self.peak, self.now)

    def dies(self, key: int, count: int) -> None:
        self.seen.discard(key)
        self.now -= count


@pytest.mark.parametrize("name", MODELS)
def test_the_estimate_is_within_15_per_cent_of_the_tensors_alive_in_the_evaluator(name):
    make, shape = MODELS[name]
    torch.manual_seed(0)
    whole = name == "tagger"
    example = torch.randint(0, 40, shape, dtype=torch.int32) if whole else torch.rand(shape)
    dtype = np.int32 if whole else np.float32
    model = load_program(convert(make(), (example,), [ct.TensorType("x", shape=shape, dtype=dtype)]))
    evaluator = Evaluator(model)
    alive = Alive(held=example.numel() * 4)  # the caller holds the input

    evaluator.predict({evaluator.inputs[0].name: example.numpy()}, observe=alive)
    found = estimate(model, 17).activations

    assert found.low <= found.high
    assert abs(found.high - alive.peak) <= 0.15 * alive.peak, (found, alive.peak)
