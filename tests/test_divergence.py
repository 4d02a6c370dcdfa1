# SPDX-License-Identifier: Apache-2.0
"""Where two routes part; and the inputs on which that is looked for: made up, left out, tried twice."""

from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
import torch
from torch import nn

from gate.bench import Drawn, answered, is_steady, probes
from gate.divergence import explain, leave
from gate.errors import SourceFault
from gate.policy import Precision
from gate.protocol import SourceLine, SourceMap
from gate.source import Converted
from gate.steps import watch
from tests.mil.models import convert

X = np.array([[1.0, -2.0, 3.0]], np.float32)


class Net(nn.Module):
    """A linear layer, something in the middle, and a sum."""

    def __init__(self, middle) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle = nn.Linear(3, 4), middle

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.middle(self.first(x))
        return torch.exp(y) + 1


def converted(folder, route: str, middle) -> Converted:
    inputs = [ct.TensorType("x", shape=(1, 3), dtype=np.float32)]
    model = convert(Net(middle), (torch.from_numpy(X),), inputs, precision=ct.precision.FLOAT32)
    model.save(str(folder / f"{route}.mlpackage"))
    spec = model.get_spec().mlProgram.functions["main"].block_specializations["CoreML7"]
    names = {op.outputs[0].name: op.type for op in spec.operations if op.type != "const"}
    lines = {
        name: SourceLine(op_type=kind, torch=f"their_{kind}", file="model.py", line=7) for name, kind in names.items()
    }
    return Converted(folder / f"{route}.mlpackage", SourceMap(ops=lines), Precision.FLOAT32, route)


def test_the_op_at_which_a_wrong_route_leaves_the_right_one_is_named(tmp_path):
    right, wrong = converted(tmp_path, "export", torch.sigmoid), converted(tmp_path, "trace", torch.tanh)

    (found,) = explain(wrong, right, [{"x": X}], tmp_path)

    assert found.op.startswith("tanh ")
    assert found.source == "model.py:7"
    assert "route trace: goes wrong at tanh" in found.message
    assert "their_tanh" in found.message
    assert "route export computes sigmoid" in found.message


def test_an_op_that_was_dropped_is_named_by_what_the_right_route_has(tmp_path):
    right, wrong = converted(tmp_path, "export", torch.floor), converted(tmp_path, "trace", nn.Identity())

    (found,) = explain(wrong, right, [{"x": X}], tmp_path)

    assert "computes floor" in found.message


def test_routes_that_agree_say_nothing(tmp_path):
    one, other = converted(tmp_path, "export", torch.tanh), converted(tmp_path, "trace", torch.tanh)

    assert not list(explain(one, other, [{"x": X}], tmp_path))


def test_an_op_that_was_dropped_at_the_very_end_is_named_too(tmp_path):
    class Ends(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.middle(self.first(x) * 3)

    package = tmp_path / "float32.mlpackage"
    inputs = [ct.TensorType("x", shape=(1, 3), dtype=np.float32)]
    convert(Ends(nn.Identity()), (torch.from_numpy(X),), inputs, precision=ct.precision.FLOAT32).save(str(package))
    source = watch(lambda: (Ends(torch.floor)(torch.from_numpy(X)),), Path(__file__).parent)

    found = leave(package, source, {"x": X}, {})

    assert found.op == "floor"
    assert "does not compute floor" in found.message
    assert "it ends with mul " in found.message
    assert found.source.startswith("test_divergence.py:")


def test_the_op_at_which_a_program_leaves_its_source_is_named(tmp_path):
    made = converted(tmp_path, "export", torch.tanh)
    source = watch(lambda: (Net(torch.sigmoid)(torch.from_numpy(X)),), Path(__file__).parent)

    found = leave(made.package, source, {"x": X}, {})

    assert found.op.startswith("tanh ")
    assert "the source computes sigmoid" in found.message
    assert leave(made.package, watch(lambda: (Net(torch.tanh)(torch.from_numpy(X)),), tmp_path), {"x": X}, {}) is None


DRAWN = Drawn(({"x": X}, {"x": X[:, ::-1]}), "the example inputs, 1 shuffles of them", ("shown", "shuffled"))


def test_a_shuffled_input_that_the_source_refuses_is_left_out_and_said():
    def ascending(samples):
        if any(sample["x"][0, 0] != 1 for sample in samples):
            raise SourceFault("expected a matrix that can be inverted")
        return [{"y": sample["x"]} for sample in samples]

    drawn, answers = answered(DRAWN, ascending)

    assert (drawn.kinds, len(answers)) == (("shown",), 1)
    assert "1 shuffled ones left out" in drawn.origin


def test_an_input_that_the_author_showed_must_be_answered():
    def never(samples):
        raise SourceFault("no")

    with pytest.raises(SourceFault):
        answered(DRAWN, never)


def test_a_source_that_draws_is_not_steady():
    rng = np.random.default_rng(0)
    first = [{"y": rng.normal(size=3)}]

    assert is_steady(DRAWN, first, lambda samples: first)
    assert not is_steady(DRAWN, first, lambda samples: [{"y": rng.normal(size=3)}])


def test_probes_take_other_signs_and_sizes_and_keep_integers_among_those_shown():
    ids = np.array([[5, 9, 7]], np.int32)

    found = probes({"x": X, "ids": ids})

    assert {float(np.sign(p["x"][0, 0])) for p in found} == {1.0, -1.0}
    assert max(float(np.abs(p["x"]).max()) for p in found) > 3
    assert all(set(p["ids"].reshape(-1)) <= {5, 9, 7} for p in found)
    assert all(p["ids"].dtype == np.int32 and p["x"].dtype == np.float32 for p in found)
