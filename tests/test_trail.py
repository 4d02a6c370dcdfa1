# SPDX-License-Identifier: Apache-2.0
"""Where one program leaves the way of another: from literals, and from a torch module that is watched."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gate import trail
from gate.steps import watch
from gate.trail import POINTS, Step, Trail, see

X = np.array([[1.0, 2.0], [3.0, 4.0]])


def made(*steps: tuple[str, np.ndarray, tuple[int, ...]]) -> Trail:
    """A chain of ops; each makes one value, and the last of them is the output."""
    listed = tuple(Step(what, f"model.py:{n}", reads, (n,)) for n, (what, _, reads) in enumerate(steps))
    return Trail(listed, {n: see(value) for n, (_, value, _) in enumerate(steps)}, (len(steps) - 1,))


def test_the_op_is_the_one_whose_inputs_are_still_right():
    right = made(("add", X + 1, ()), ("exp", np.exp(X), (0,)), ("mul", np.exp(X) * 2, (1,)))
    wrong = made(("add", X + 1, ()), ("tanh", np.tanh(X), (0,)), ("mul", np.tanh(X) * 2, (1,)))

    assert wrong.departure(right) == 1
    assert right.departure(wrong) == 1


def test_a_detour_that_comes_back_is_no_departure():
    direct = made(("softplus", np.log1p(np.exp(X)), ()), ("neg", -np.log1p(np.exp(X)), (0,)))
    detour = made(("exp", np.exp(X), ()), ("log", np.log1p(np.exp(X)), (0,)), ("neg", -np.log1p(np.exp(X)), (1,)))

    assert detour.departure(direct) is None


def test_another_layout_is_the_same_value_and_a_wrong_order_is_found_all_the_same():
    there, turned = made(("exp", X, ())), made(("exp", X.T.copy(), ()))
    assert see(X).is_like(see(X.T.copy()), placed=False)
    assert turned.departure(there) == 0, "the output itself is in the wrong order"


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        (X, X + 3e-4, True),  # noise of less than 1e-4 of the largest
        (X, X + 5e-4, False),
        (np.array([60_000, 1]), np.array([60_001, 1]), False),  # integers have no noise
        (np.array([np.nan, np.inf]), np.array([np.nan, np.inf]), True),
        (np.arange(3 * POINTS), np.arange(3 * POINTS + 1), False),
    ],
)
def test_values_are_known_again(ours, theirs, same):
    assert see(ours).is_like(see(theirs), placed=True) is same


def test_a_trail_crosses_as_data():
    one = made(("add", np.arange(2.0 * POINTS), ()), ("gt", np.array([True, False]), (0,)))
    again = trail.decode(trail.encode(one))

    assert again.steps == one.steps
    assert again.outputs == one.outputs
    assert all(again.values[n].is_like(value, placed=True) for n, value in one.values.items())


@pytest.mark.parametrize(
    "raw", [None, {}, {"steps": [], "values": [[0, 9, False]], "numbers": np.zeros(3), "outputs": []}, {"steps": 5}]
)
def test_what_is_no_trail_is_refused(raw):
    with pytest.raises((KeyError, TypeError, ValueError)):
        trail.decode(raw)


class Net(nn.Module):
    """An op in place, a view, and a name that the team's file gives."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x * 2
        y += 1
        return (torch.diagonal(y).exp(),)


def test_a_module_is_watched_op_by_op():
    found = watch(lambda: Net()(torch.from_numpy(X)), Path(__file__).parent)

    assert [step.what for step in found.steps] == ["mul", "add_", "diagonal", "exp"]
    assert found.steps[2].reads == found.steps[1].makes, "what was changed in place is another value"
    assert found.values[found.outputs[0]].placed.tolist() == np.exp([3.0, 9.0]).tolist()
    assert found.steps[0].place.startswith("test_trail.py:")
