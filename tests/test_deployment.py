# SPDX-License-Identifier: Apache-2.0
"""Which iOS does a package need, and what is said where the deployment target is older?"""

from pathlib import Path

import coremltools as ct
import pytest
import torch
import yaml
from torch import nn

from gate import config, pipeline, scaffold
from gate.deployment import package_needs, program_needs
from gate.mil.program import load_program
from gate.pipeline import Options
from gate.report import CheckName, Outcome, Result

TARGETS = {15: ct.target.iOS15, 17: ct.target.iOS17, 18: ct.target.iOS18, 26: ct.target.iOS26}


def package(folder: Path, ios: int) -> Path:
    traced = torch.jit.trace(nn.Linear(4, 4).eval(), torch.zeros(1, 4))
    inputs = [ct.TensorType(name="x", shape=(1, 4))]
    path = folder / "P.mlpackage"
    ct.convert(traced, inputs=inputs, minimum_deployment_target=TARGETS[ios]).save(str(path))
    return path


def feasibility(folder: Path, name: str, app: str, model: str = "") -> Result:
    entry = f"models: [{{name: m, source: {{coreml: {name}}}{model}}}]\n"
    (folder / "gate.yml").write_text(f"version: 1\napp: {{{app}}}\n{entry}")
    report = pipeline.check(Options(config=folder / "gate.yml", out=folder / "out"))
    return next(r for r in report.models[0].shipped.results if r.check is CheckName.FEASIBILITY)


@pytest.mark.parametrize("ios", TARGETS)
def test_a_program_needs_the_target_that_it_was_converted_for(tmp_path: Path, ios: int) -> None:
    assert package_needs(package(tmp_path, ios)) == ios


def test_the_specification_version_counts_where_it_is_later_than_the_opset(tmp_path: Path) -> None:
    program = load_program(package(tmp_path, 17))
    program.spec.specificationVersion = 9

    assert program_needs(program) == 18


@pytest.mark.parametrize(
    ("app", "model", "outcome", "key"),
    [
        pytest.param("deployment_target: iOS17", "", Outcome.FAIL, "app.deployment_target", id="older"),
        pytest.param("deployment_target: iOS18", "", Outcome.PASS, "", id="the same"),
        pytest.param("deployment_target: iOS26", "", Outcome.PASS, "", id="later"),
        pytest.param(
            "deployment_target: iOS18",
            ", deployment_target: iOS16",
            Outcome.FAIL,
            "models.m.deployment_target",
            id="the model's own",
        ),
    ],
)
def test_a_package_that_the_deployment_target_cannot_load_fails(
    tmp_path: Path, app: str, model: str, outcome: Outcome, key: str
) -> None:
    package(tmp_path, 18)

    judged = feasibility(tmp_path, "P.mlpackage", app, model)

    assert judged.outcome is outcome
    if key:
        assert "needs iOS18" in judged.message
        assert judged.remedy is not None
        assert f"raise {key} to iOS18" in judged.remedy


@pytest.mark.parametrize(("version", "outcome"), [(8, Outcome.NOT_RUN), (9, Outcome.FAIL)])
def test_a_model_whose_program_is_not_read_is_held_to_the_target_as_well(
    tmp_path: Path, version: int, outcome: Outcome
) -> None:
    spec = ct.proto.Model_pb2.Model(specificationVersion=version)
    spec.neuralNetwork.layers.add(name="relu").activation.ReLU.SetInParent()
    (tmp_path / "Old.mlmodel").write_bytes(spec.SerializeToString())

    assert feasibility(tmp_path, "Old.mlmodel", "deployment_target: iOS17").outcome is outcome


def test_a_first_gate_yml_has_the_target_that_its_packages_need(tmp_path: Path) -> None:
    package(tmp_path, 18)

    scaffold.write(tmp_path, force=False)

    assert config.load(tmp_path / "gate.yml").app.deployment_target == "iOS18"


def test_a_first_gate_yml_has_the_target_that_its_converter_asks_for(tmp_path: Path) -> None:
    (tmp_path / "export.py").write_text(
        "import coremltools as ct, torch\n"
        "def make():\n"
        "    traced = torch.jit.trace(torch.nn.Linear(4, 4).eval(), torch.zeros(1, 4))\n"
        "    inputs = [ct.TensorType(name='x', shape=(1, 4))]\n"
        "    return ct.convert(traced, inputs=inputs, minimum_deployment_target=ct.target.iOS18)\n"
    )

    scaffold.write(tmp_path, force=False)

    assert yaml.safe_load((tmp_path / "gate.yml").read_text())["app"]["deployment_target"] == "iOS18"
