# SPDX-License-Identifier: Apache-2.0
"""Programs in which a weight is more than one op's: shared, nested in a loop, one of several to one input, float32."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gate.checks.integrity import judge, measure
from gate.compress import compress
from gate.errors import PolicyError
from gate.policy import Target
from gate.report import Outcome
from tests.compress.packages import Recurrent, by_reader, convert, plain_coremltools, policy

PALETTE = policy({"palettize": {"bits": 4}})


class Tied(nn.Module):
    """One weight that two linear layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(32, 32))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.weight.T) @ self.weight.T


class Joined(nn.Module):
    """Two constants that one concatenation reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(1, 16, 32))
        self.second = nn.Parameter(torch.randn(1, 8, 32))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.first, x, self.second], dim=1)


def tied(folder: Path) -> Path:
    torch.manual_seed(0)
    return convert(Tied(), (4, 32), "iOS18", folder / "tied.mlpackage")


MODELS = {
    "tied": (Tied, (4, 32)),
    "joined": (Joined, (1, 4, 32)),
    "gru": (lambda: Recurrent(nn.GRU), (3, 1, 16)),
    "lstm": (lambda: Recurrent(nn.LSTM), (3, 1, 16)),
    "rnn": (lambda: Recurrent(nn.RNN), (3, 1, 16)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_numbers_are_coremltools_own_and_hold(name, workers, tmp_path):
    build, shape = MODELS[name]
    torch.manual_seed(0)
    package = convert(build(), shape, "iOS18", tmp_path / "in.mlpackage")
    made = compress(package, PALETTE, tmp_path / "out.mlpackage", target=Target.IOS18, workers=workers)
    theirs = by_reader(plain_coremltools(package, PALETTE, tmp_path / "theirs.mlpackage"))
    ours = by_reader(made.path)
    assert any(weight.forms for weight in ours.values())
    for reader, weight in ours.items():
        np.testing.assert_array_equal(weight.decode(), theirs[reader].decode(), err_msg=str(reader))
    assert judge(measure(package, made.path, made)).outcome is Outcome.PASS


def test_float32_weights_are_compressed_as_well(workers, tmp_path):
    torch.manual_seed(0)
    package = convert(nn.Linear(64, 48), (1, 64), "iOS18", tmp_path / "in.mlpackage", float16=False)
    made = compress(package, PALETTE, tmp_path / "out.mlpackage", target=Target.IOS18, workers=workers)
    (weight,) = (weight for weight in by_reader(made.path).values() if weight.forms)
    assert (weight.dtype, weight.bits) == ("float32", 4)
    assert judge(measure(package, made.path, made)).outcome is Outcome.PASS


def test_a_shared_weight_is_compressed_once_for_both(workers, tmp_path):
    made = compress(tied(tmp_path), PALETTE, tmp_path / "out.mlpackage", target=Target.IOS18, workers=workers)
    (promise,) = (promise for promise in made.promises if len(promise.shape) > 1)
    assert len(promise.consumers) == 2
    assert made.computed == 1


def test_a_shared_weight_is_left_alone_when_one_of_its_ops_is(workers, tmp_path):
    package = tied(tmp_path)
    made = compress(package, PALETTE, tmp_path / "a.mlpackage", target=Target.IOS18, workers=workers)
    (promise,) = (promise for promise in made.promises if len(promise.shape) > 1)
    skip = policy({"palettize": {"bits": 4}}, overrides=[{"names": [promise.consumers[1].op_name], "skip": True}])
    made = compress(package, skip, tmp_path / "out.mlpackage", target=Target.IOS18, workers=workers)
    assert not any(promise.applied for promise in made.promises)


def test_different_settings_for_a_shared_weight_are_refused(workers, tmp_path):
    package = tied(tmp_path)
    made = compress(package, PALETTE, tmp_path / "a.mlpackage", target=Target.IOS18, workers=workers)
    (promise,) = (promise for promise in made.promises if len(promise.shape) > 1)
    one, two = (consumer.op_name for consumer in promise.consumers)
    recipe = policy({"palettize": {"bits": 4}}, overrides=[{"names": [two], "bits": 8}])
    with pytest.raises(PolicyError, match=rf"weight .* is shared by {one}, {two}, and the overrides ask for different"):
        compress(package, recipe, tmp_path / "out.mlpackage", target=Target.IOS18, workers=workers)


def test_a_package_that_is_compressed_already_stays_as_it_is(workers, tmp_path):
    torch.manual_seed(0)
    package = convert(nn.Linear(64, 48), (1, 64), "iOS18", tmp_path / "in.mlpackage")
    first = compress(package, PALETTE, tmp_path / "first.mlpackage", target=Target.IOS18, workers=workers)
    recipe = policy({"quantize": {"dtype": "int8"}})
    second = compress(first.path, recipe, tmp_path / "second.mlpackage", target=Target.IOS18, workers=workers)
    assert not any(promise.applied for promise in second.promises)
    result = judge(measure(first.path, second.path, second))
    assert result.outcome is Outcome.PASS
    assert any("they arrived compressed" in finding.message for finding in result.findings)
