# SPDX-License-Identifier: Apache-2.0
"""Small packages to compress, and plain coremltools to compare with."""

from functools import cache
from pathlib import Path

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import torch
from torch import Tensor, nn

from gate.mil.program import load_program
from gate.mil.weights import Weight, weights
from gate.policy import Policy, Step, Target

TARGETS = {"iOS15": ct.target.iOS15, "iOS16": ct.target.iOS16, "iOS17": ct.target.iOS17, "iOS18": ct.target.iOS18}


class Net(nn.Module):
    """Every kind of channel axis: conv, grouped conv, transposed conv, linear, and matmul from both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 32, 3, padding=1)
        self.deep = nn.Conv2d(32, 64, 3, groups=32, padding=1)
        self.up = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.left = nn.Parameter(torch.randn(48, 32))
        self.right = nn.Parameter(torch.randn(64, 96))
        self.head = nn.Linear(96, 40)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(torch.relu(self.deep(torch.relu(self.stem(x)))))
        y = y.flatten(2)[:, :, :64]
        y = torch.matmul(torch.matmul(self.left, y), self.right)
        return self.head(y)


class Head(nn.Module):
    """One linear layer whose 120 channels no group of 16 divides: the case of coremltools pull request 2777."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 120)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


class Recurrent(nn.Module):
    """A recurrent layer, which becomes one op or a loop with a block of its own."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.layer = kind(16, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


def convert(model: nn.Module, shape: tuple[int, ...], target: str, path: Path, *, float16: bool = True) -> Path:
    """Trace and convert a model; the package holds random weights of a fixed seed."""
    traced = torch.jit.trace(model.eval(), torch.rand(shape))
    precision = ct.precision.FLOAT16 if float16 else ct.precision.FLOAT32
    inputs = [ct.TensorType(name="x", shape=shape, dtype=np.float32)]
    made = ct.convert(traced, inputs=inputs, minimum_deployment_target=TARGETS[target], compute_precision=precision)
    made.save(str(path))
    return path


@cache
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@cache
def head() -> Head:
    torch.manual_seed(0)
    return Head()


def by_reader(path: Path) -> dict[tuple[str, str], Weight]:
    """The weights of a package by each op and parameter that reads them."""
    return {reader[1:]: weight for weight in weights(load_program(path)) for reader in weight.consumers}


def plain_coremltools(package: Path, policy: Policy, out: Path) -> Path:
    """What a user's own script would write: one call of coremltools for each step."""
    model = ct.models.MLModel(str(package), skip_model_load=True)
    for index, step in enumerate(policy.steps):
        call, config = _config(step)
        model = call(model, cto.OptimizationConfig(global_config=config), joint_compression=index > 0)
    model.save(str(out))
    return out


def _config(step: Step):
    action = step.action
    match step.kind:
        case "palettize":
            names = ("mode", "granularity", "group_size", "cluster_dim", "weight_threshold")
            bits = None if action.mode == "unique" else action.bits
            config = cto.OpPalettizerConfig(nbits=bits, **{name: getattr(action, name) for name in names})
            return cto.palettize_weights, config
        case "quantize":
            names = ("mode", "dtype", "granularity", "block_size", "weight_threshold")
            return cto.linear_quantize_weights, cto.OpLinearQuantizerConfig(**{n: getattr(action, n) for n in names})
        case _:
            if action.n_m:
                return cto.prune_weights, cto.OpMagnitudePrunerConfig(n_m_ratio=action.n_m, weight_threshold=0)
            return cto.prune_weights, cto.OpMagnitudePrunerConfig(target_sparsity=action.sparsity, weight_threshold=0)


def policy(*steps: dict, target: Target = Target.IOS18, **fields) -> Policy:
    """A policy of these steps."""
    return Policy.model_validate(
        {
            "name": "mine",
            "summary": "",
            "requires": {"deployment_target": target},
            "precision": "float16",
            "steps": list(steps),
            **fields,
        }
    )
