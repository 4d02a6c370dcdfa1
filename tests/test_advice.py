# SPDX-License-Identifier: Apache-2.0
"""Replacements with savings that can be counted by hand; fused layers by their names; the proxies of time."""

import coremltools as ct
import numpy as np
import pytest
import torch
from torch import nn

from gate import fusions
from gate.advice import advise, expected_speed
from gate.macs import moved_bytes
from gate.mil.program import load_program
from tests.mil.models import convert
from tests.records import function, op, sizes, value, weight

X, Y = value("x", 1, 32, 10, 10), value("y", 1, 64, 10, 10)
FLAT, OUT = value("flat", 1, 6272), value("out", 1, 100)


def advised(operation) -> dict[str, tuple[int, int]]:
    main = function((X, FLAT), operation, outputs=(Y,))
    return {a.kind: (a.saves_macs, a.saves_parameters) for a in advise((operation,), sizes(main))}


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        # 3·3·32·64 at 100 places; per channel 9·32, across 32·64
        pytest.param(
            op("conv", Y, x=X, weight=weight(64, 32, 3, 3)),
            {"depthwise": (100 * (18_432 - 288 - 2_048), 18_432 - 288 - 2_048)},
            id="3x3",
        ),
        pytest.param(op("conv", Y, x=X, weight=weight(64, 32, 1, 1)), {"grouped": (153_600, 1_536)}, id="1x1"),
        pytest.param(op("conv", X, x=X, weight=weight(32, 1, 3, 3), groups=32), {}, id="depthwise already"),
        pytest.param(op("conv", Y, x=X, weight=weight(64, 3, 3, 3)), {}, id="three channels, as an image has"),
        # rank 25 of 100: 25·(100 + 6272) instead of 627,200; and a 49th after pooling
        pytest.param(
            op("linear", OUT, x=FLAT, weight=weight(100, 6272)),
            {"low-rank": (467_900, 467_900), "smaller head": (614_400, 614_400)},
            id="a head on a flattened map",
        ),
    ],
)
def test_the_saving_is_what_a_hand_counts(operation, expected):
    assert advised(operation) == expected


def test_a_layer_with_little_of_the_work_is_left_alone():
    large = op("conv", Y, x=X, weight=weight(64, 32, 9, 9))
    small = op("conv", value("z", 1, 64, 2, 2), x=X, weight=weight(64, 32, 1, 1))
    main = function((X,), large, small, outputs=(Y,))

    assert [a.op for a in advise((large, small), sizes(main))] == ["conv y"]


class Folding(nn.Module):
    """A norm and a bias that coremltools folds; a bare convolution and a linear layer that it leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.second, self.third = nn.Conv2d(8, 4, 3), nn.Linear(4, 4, bias=False)
        self.bias, self.last = nn.Parameter(torch.ones(4)), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(torch.relu(self.norm(self.first(x)))).mean((2, 3))
        return torch.softmax(self.last(nn.functional.gelu(self.third(y) + self.bias)), -1)


def test_folded_layers_are_told_and_untouched_ones_are_not():
    model = convert(Folding(), (torch.rand(1, 3, 12, 12),), [ct.TensorType("x", shape=(1, 3, 12, 12))])
    main = load_program(model).function()

    assert [one.type for one in fusions.folded(main)] == ["conv", "linear"]
    assert [one.type for one in fusions.composites(main)] == ["gelu"]


def test_moved_bytes_are_what_is_read_and_written():
    linear = op("linear", value("y", 1, 4), x=value("x", 1, 8), weight=weight(4, 8))
    renamed = op("reshape", value("r", 8), x=value("x", 1, 8), shape=np.array([8], np.int32))

    assert moved_bytes(linear, sizes(function((X,), linear, outputs=(X,)))) == 2 * (4 + 8 + 32)
    assert moved_bytes(renamed, sizes(function((X,), renamed, outputs=(X,)))) == 0


def test_expected_speed_depends_on_the_system_and_has_a_source():
    (old,) = expected_speed({"constexpr_lut_to_dense": 3}, 16)
    (new,) = expected_speed({"constexpr_lut_to_dense": 3}, 17)

    assert "on iOS16 no faster" in old
    assert "no faster" not in new
    assert "with 4 bits, the width that was measured" in new
    assert "estimated" in new
    assert "https://" in new
    assert not list(expected_speed({}, 17))
