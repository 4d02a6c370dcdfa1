# SPDX-License-Identifier: Apache-2.0
"""No weight moves farther than under coremltools, for every shipped policy, on trained and on random networks."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from gate.compress import compress
from gate.policy import Target, load, shipped_policies
from tests.compress.packages import by_reader, convert, net, plain_coremltools
from tests.detector import detector
from tests.resnet import resnet50, small_resnet

ROOT = Path(__file__).resolve().parents[2]
POLICIES = [name for name in shipped_policies() if (one := load(name, ROOT)).weight_steps and not one.activations]


def digits() -> torch.nn.Module:
    """The trained example."""
    spec = importlib.util.spec_from_file_location("digits_model", ROOT / "examples" / "digits" / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build()


NETWORKS = {
    "digits": (digits, (1, 1, 8, 8)),
    "axes": (net, (1, 4, 8, 8)),
    "small ResNet": (small_resnet, (1, 3, 64, 64)),
    "ResNet-18 detector": (detector, (1, 3, 64, 64)),
    "ResNet-50": (resnet50, (1, 3, 64, 64)),
}


@pytest.fixture(scope="module", params=NETWORKS)
def package(request, tmp_path_factory) -> Path:
    make, shape = NETWORKS[request.param]
    return convert(make(), shape, "iOS18", tmp_path_factory.mktemp("network") / "in.mlpackage")


def moved(before: np.ndarray, after: np.ndarray) -> float:
    """Sum of squares, in double precision."""
    return float(np.square(before.astype(np.float64) - after).sum())


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_no_weight_moves_farther_than_under_coremltools(name, package, workers, tmp_path):
    recipe = load(name, ROOT)
    made = compress(package, recipe, tmp_path / "ours.mlpackage", target=Target.IOS18, workers=workers)
    theirs = by_reader(plain_coremltools(package, recipe, tmp_path / "theirs.mlpackage"))
    before, ours = by_reader(package), by_reader(made.path)
    assert any(weight.forms for weight in ours.values())
    for reader, weight in before.items():
        exact = weight.decode()
        assert moved(exact, ours[reader].decode()) <= moved(exact, theirs[reader].decode()), reader
        assert ours[reader].package_bytes <= theirs[reader].package_bytes, reader
