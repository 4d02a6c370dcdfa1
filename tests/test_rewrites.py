# SPDX-License-Identifier: Apache-2.0
"""A rewrite that a finding suggests computes the same, and every op of it converts."""

import coremltools as ct
import numpy as np
import pytest
import torch

from gate.convert import ADVICE
from gate.mil.evaluator import load
from tests.mil.models import convert

X, Y = torch.tensor([[1.5, -2.25, 0.75, 3.0]]), torch.tensor([[2.0, 1.0, -0.5, 4.0]])
POSITIVE = X.abs() + 1
GIVEN = {"weight": 0.25, "value": 0.5, "a": X, "b": POSITIVE, "order": (0, 2, 1)}
MATRICES = torch.arange(12.0).reshape(1, 4, 3) / 7, torch.ones(1, 2, 3) / 3


@pytest.mark.parametrize(
    ("missing", "rewrite", "original", "inputs"),
    [
        ("acosh", "torch.log(x + torch.sqrt(x * x - 1))", lambda x, y: torch.acosh(x), (POSITIVE, Y)),
        ("addcdiv", "x + value * a / b", lambda x, y: torch.addcdiv(x, X, POSITIVE, value=0.5), (X, Y)),
        ("addcmul", "x + value * a * b", lambda x, y: torch.addcmul(x, X, POSITIVE, value=0.5), (X, Y)),
        ("copysign", "torch.abs(x) * torch.sign(y)", torch.copysign, (X, Y)),
        ("dist", "torch.sqrt(((x - y) ** 2).sum())", torch.dist, (X, Y)),
        ("erfc", "1 - torch.erf(x)", lambda x, y: torch.erfc(x), (X, Y)),
        ("fmax", "torch.maximum(x, y)", torch.fmax, (X, Y)),
        ("fmod", "x - torch.sign(x / y) * torch.floor(torch.abs(x / y)) * y", torch.fmod, (X, Y)),
        ("hypot", "torch.sqrt(x * x + y * y)", torch.hypot, (X, Y)),
        ("lerp", "x + weight * (y - x)", lambda x, y: torch.lerp(x, y, 0.25), (X, Y)),
        ("movedim", "x.permute(order)", lambda x, y: torch.movedim(x, 1, 2), MATRICES),
        ("view_as", "x.view(y.shape)", lambda x, y: x.view_as(y), (X, Y.reshape(2, 2))),
        ("trunc", "torch.sign(x) * torch.floor(torch.abs(x))", lambda x, y: torch.trunc(x), (X, Y)),
        (
            "cdist",
            "torch.sqrt(torch.clamp((x * x).sum(-1)[..., None] + (y * y).sum(-1)[..., None, :] - 2 * x @ y.transpose(-1, -2), min=0))",
            torch.cdist,
            MATRICES,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_a_rewrite_converts_and_computes_the_same(missing, rewrite, original, inputs):
    assert rewrite in ADVICE[missing]
    module = torch.nn.Module()
    module.forward = eval(f"lambda x, y: {rewrite} + 0 * y.sum()", {"torch": torch, **GIVEN})
    types = [ct.TensorType(name, shape=t.shape, dtype=np.float32) for name, t in zip("xy", inputs, strict=True)]
    model = convert(module, inputs, types)

    (found,) = load(model, precision="float32").predict({"x": inputs[0].numpy(), "y": inputs[1].numpy()}).values()

    assert np.allclose(found, original(*inputs).numpy(), rtol=1e-2, atol=5e-3)


IMAGE = torch.arange(48.0).reshape(1, 3, 4, 4) / 48
F = torch.nn.functional


@pytest.mark.parametrize(
    ("missing", "says", "instead"),
    [
        ("tensor_split", "x.split(sizes, dim)", lambda x: torch.cat(x.split([1, 2, 1], -1)[1:], -1)),
        ("unfold", "torch.nn.functional.unfold", lambda x: F.unfold(x, 2, stride=2)),
        ("_upsample_bicubic2d_aa", "bilinear without antialias", lambda x: F.interpolate(x, (2, 2), mode="bilinear")),
        ("upsample_bicubic2d", "bilinear", lambda x: F.interpolate(x, (8, 8), mode="bilinear")),
        ("grid_sampler_2d", "the trace route", lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1))),
        ("alias", "the trace route", lambda x: x.detach() * 2),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_what_is_to_be_used_instead_converts(missing, says, instead):
    assert says in ADVICE[missing]
    module = torch.nn.Module()
    module.forward = instead
    model = convert(module, (IMAGE,), [ct.TensorType("x", shape=IMAGE.shape, dtype=np.float32)])

    (found,) = load(model, precision="float32").predict({"x": IMAGE.numpy()}).values()

    assert np.allclose(found, instead(IMAGE).numpy(), atol=5e-3)
