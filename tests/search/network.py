# SPDX-License-Identifier: Apache-2.0
"""A project with a network whose layers bear compression very unequally, and the items that show it."""

from pathlib import Path

import numpy as np
import torch

MODEL = """
import torch
from torch import nn

LAYERS, WIDTH, BROKEN = 6, 32, 2


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, 10 if i == LAYERS - 1 else WIDTH) for i in range(LAYERS))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x)) * 0.5 + x * KEEP
        return self.layers[-1](x)


KEEP = torch.ones(WIDTH)
KEEP[0] = 0.0  # the first feature is always zero, so that what a layer makes of it does not matter


def build():
    torch.manual_seed(0)
    model = Deep().eval()
    with torch.no_grad():
        for index, layer in enumerate(model.layers):
            if index < LAYERS - 1:
                layer.weight[0].zero_()
                layer.bias[0] = -1.0
            if index == BROKEN:
                layer.weight[:, 0] = 400.0  # takes the whole range of eight bits
    return model


def example():
    return {"x": torch.linspace(-1, 1, WIDTH).reshape(1, WIDTH)}
"""
CONFIG = """
version: 1
app: {deployment_target: iOS17}
models:
  - name: deep
    source: {factory: model.py:build, example: model.py:example}
    reference: source
    dataset: eval.npz
    metric: accuracy
    budgets: {accuracy: {drop: 3 points}}
"""


def write_project(folder: Path, *, items: int = 400, config: str = CONFIG) -> Path:
    """Write model, items (labelled by the network itself) and gate.yml; return the path of that."""
    (folder / "model.py").write_text(MODEL)
    (folder / "gate.yml").write_text(config)
    scope: dict = {}
    exec(MODEL, scope)  # the text above
    x = np.random.default_rng(1).normal(size=(items, 1, 32)).astype(np.float32)
    x[:, :, 0] = 0.0
    with torch.no_grad():
        label = scope["build"]()(torch.from_numpy(x[:, 0])).argmax(1).numpy()
    np.savez(folder / "eval.npz", x=x, label=label, id=np.array([f"item-{i}" for i in range(items)]))
    return folder / "gate.yml"
