# SPDX-License-Identifier: Apache-2.0
"""Exchanged weights give what a package with these weights gives, and only what depends on them runs again."""

import coremltools as ct
import numpy as np
import pytest
import torch
from torch import nn

from gate import mil
from gate.mil import batch
from gate.mil.variants import Variants


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.third(torch.relu(self.second(torch.relu(self.first(x)))))


def package(model, path, **options):
    traced = torch.jit.trace(model.eval(), torch.rand(1, 8))
    inputs = [ct.TensorType(name="x", shape=(1, 8), dtype=np.float32)]
    made = ct.convert(traced, inputs=inputs, minimum_deployment_target=ct.target.iOS17, **options)
    made.save(str(path))
    return path


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    torch.manual_seed(0)
    model = Net()
    folder = tmp_path_factory.mktemp("variants")
    before = package(model, folder / "before.mlpackage")
    with torch.no_grad():
        model.second.weight.mul_(0.5)
    return before, package(model, folder / "after.mlpackage"), model.second.weight.detach().half().numpy()


def samples(count=3):
    random = np.random.default_rng(0)
    return [{"x": random.normal(size=(1, 8)).astype(np.float32)} for _ in range(count)]


def stacked(answers):
    return np.stack([np.asarray(value) for answer in answers for value in answer.values()])


def test_an_exchanged_weight_answers_as_the_package_that_holds_it(net):
    before, after, weight = net
    variants = Variants(mil.load(before), samples())
    found = variants.answer({"second_weight_to_fp16": weight})
    assert np.allclose(stacked(found), stacked(mil.load(after).predict_batch(samples())), atol=1e-3)
    assert not np.allclose(stacked(found), stacked(variants.answers), atol=1e-2)


def test_a_variant_leaves_the_next_one_alone(net):
    before, _, weight = net
    variants = Variants(mil.load(before), samples())
    variants.answer({"second_weight_to_fp16": weight})
    assert (stacked(variants.answer({})) == stacked(variants.answers)).all()


def test_what_comes_before_the_weight_is_not_computed_again(net, monkeypatch):
    before, _, weight = net
    variants = Variants(mil.load(before), samples())
    ran = []
    run = batch.Stack.step
    monkeypatch.setattr(batch.Stack, "step", lambda self, step: ran.append(step.op.name) or run(self, step))
    variants.answer({"second_weight_to_fp16": weight})
    assert "linear_0_cast_fp16" not in ran
    assert ran[0] == "linear_1_cast_fp16"
    assert len(ran) == 3, "the second layer, its relu, and the third layer"


def test_a_weight_inside_a_loop_is_exchanged_too(tmp_path):
    torch.manual_seed(0)
    model = nn.LSTM(8, 8, batch_first=True)

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = model

        def forward(self, x):
            return self.layer(x[:, None])[0]

    path = package(Last(), tmp_path / "lstm.mlpackage")
    evaluator = mil.load(path)
    from gate.mil.weights import weights

    matrices = [weight for weight in weights(evaluator.program) if weight.elements == 32 * 8]
    variants = Variants(evaluator, samples())
    zero = {weight.name: np.zeros(weight.shape, np.float16) for weight in matrices}
    assert not np.allclose(stacked(variants.answer(zero)), stacked(variants.answers))
