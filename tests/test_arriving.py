# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that `coremltools.optimize.torch` finalised keep their compression through every route, measured."""

from pathlib import Path

import pytest
import torch

from gate.errors import SourceFault
from gate.mil.program import load_program
from gate.mil.weights import weights
from gate.source import ROUTES
from tests import compressed_checkpoints
from tests.compressed_checkpoints import CHECKPOINTS
from tests.project import Project
from tests.test_convert import open_worker

EXPECTED = {  # bits of each stored value, and the zeros that it must have
    "palettized": (4, 0),
    "palettized_in_training": (2, 0),
    "pruned": (16, 0.74),
    "quantized": (8, 0),
    "quantized_in_training": (8, 0),
    "without_buffers": (4, 0),
}
EXPORTS = [route for route in ROUTES if route.startswith("export")]
QUICK = {("palettized",)} | {("palettized", route) for route in ROUTES} | {(kind, "trace") for kind in CHECKPOINTS}
CODE = Path(compressed_checkpoints.__file__).read_text()


def row(*values: str):
    """A case; the rarer ones are slow."""
    return pytest.param(*values, marks=() if values in QUICK else pytest.mark.slow)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def arrived(worker, route: str):
    """Convert to float16; return the weights of two axes that a package holds."""
    from gate import worker as worker_module

    answer = worker_module.convert(worker, route, "float16", "iOS18", ())
    found = weights(load_program(Path(worker.startup.answers) / answer["package"]))
    return [weight for weight in found if len(weight.shape) > 1]


def check(found, kind: str) -> None:
    bits, zeros = EXPECTED[kind]
    compressed = [weight for weight in found if weight.forms]
    assert len(compressed) >= 2, kind
    for weight in compressed:
        assert weight.bits == bits, weight.key
        assert float((weight.decode() == 0).mean()) >= zeros, weight.key


@pytest.mark.parametrize(("kind", "route"), [row(kind, route) for kind in CHECKPOINTS for route in ROUTES])
def test_a_factory_keeps_its_compression(project, kind, route):
    entry = f"source: {{factory: model.py:build, args: {{kind: {kind}}}, example: model.py:example}}"
    worker = open_worker(project, CODE, entry)
    if kind == "quantized_in_training" and route in EXPORTS:
        with pytest.raises(SourceFault, match="quantized"):  # torch cannot export its own quantized modules
            arrived(worker, route)
        return
    check(arrived(worker, route), kind)


@pytest.mark.parametrize("kind", [row(kind) for kind in CHECKPOINTS])
def test_a_torchscript_file_keeps_its_compression(project, kind):
    torch.jit.trace(CHECKPOINTS[kind](), compressed_checkpoints.image()).save(str(project.folder / "m.pt"))
    entry = "source: {torchscript: m.pt, example: model.py:example}"
    check(arrived(open_worker(project, CODE, entry), "trace"), kind)


@pytest.mark.parametrize(
    ("kind", "route"),
    [row(kind, route) for kind in CHECKPOINTS if kind != "quantized_in_training" for route in ("export", "trace")],
)
def test_an_exported_program_keeps_its_compression(project, kind, route):
    exported = torch.export.export(CHECKPOINTS[kind](), (compressed_checkpoints.image(),))
    torch.export.save(exported, project.folder / "m.pt2")
    entry = "source: {exported_program: m.pt2}"
    check(arrived(open_worker(project, CODE, entry), route), kind)
