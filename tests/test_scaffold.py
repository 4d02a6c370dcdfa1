# SPDX-License-Identifier: Apache-2.0
"""`gate init`: what is found by reading, what is measured, and that the result is a gate.yml that loads."""

import re

import numpy as np
import pytest

from gate import config, scaffold
from gate.errors import UsageError
from gate.scaffold import Found

FACTORY = """
import torch
from torch import nn

class Tagger(nn.Module):
    def forward(self, x):
        return x

def build():
    net = Tagger()
    return net.eval()

def other(required):
    return Tagger()

def helper():
    return 3

def example():
    return (torch.zeros(1, 3),)
"""
CONVERTER = """
import coremltools as ct

def export():
    return ct.convert(None)
"""


def repository(tmp_path):
    (tmp_path / "ml" / "tagger").mkdir(parents=True)
    (tmp_path / "ml" / "tagger" / "model.py").write_text(FACTORY)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "export.py").write_text(CONVERTER)
    (tmp_path / "tools" / "broken.py").write_text("def (")
    weights = tmp_path / "App" / "Faces.mlpackage" / "Data"
    weights.mkdir(parents=True)
    (weights / "weight.bin").write_bytes(b"\0" * 1_000_000)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "x.py").write_text(CONVERTER)
    return tmp_path


def test_packages_converters_and_factories_are_found_without_importing_anything(tmp_path):
    found = {f.name: f.source for f in scaffold.scan(repository(tmp_path))}

    assert found == {
        "faces": {"coreml": "App/Faces.mlpackage"},
        "tagger": {"factory": "ml/tagger/model.py:build", "example": "ml/tagger/model.py:example"},
        "export": {"converter": "tools/export.py:export"},
    }


def test_what_is_written_loads_and_limits_are_the_measured_size_plus_10_percent(tmp_path):
    found = [Found("faces", {"coreml": "App/Faces.mlpackage"}, "App", package_bytes=1_000_000)]
    path = tmp_path / "gate.yml"
    path.write_text(scaffold.render(found, None))

    loaded = config.load(path)

    assert loaded.models[0].budgets.size.limit == 1_100_000
    assert loaded.app.budgets.app_size.total == 1_100_000
    assert loaded.models[0].paths == ("App/**",)


def test_the_smallest_margin_that_the_data_can_prove_is_told(tmp_path):
    data = tmp_path / "eval.npz"
    np.savez(data, image=np.zeros((360, 1)), label=np.zeros(360))

    text = scaffold.render([Found("m", {"coreml": "m.mlpackage"}, ".")], next(scaffold._datasets(tmp_path)))

    assert "eval.npz   # 360 labelled items" in text
    assert "drop: 0.8 points" in text
    assert "a loss of 0.8 points or more" in text


@pytest.mark.parametrize(("name", "suggested"), [("eval", "eval"), ("valid", "valid"), (None, "calibration")])
def test_items_that_the_model_has_seen_are_suggested_last(tmp_path, name, suggested):
    (tmp_path / "M.mlpackage").mkdir()
    (tmp_path / "M.mlpackage" / "weight.bin").write_bytes(b"\0" * 1_000)
    for one in {"calibration", name} - {None}:
        np.savez(tmp_path / f"{one}.npz", image=np.zeros((360, 1)), label=np.zeros(360))

    scaffold.write(tmp_path, force=False)

    assert f"# dataset: {suggested}.npz " in (tmp_path / "gate.yml").read_text()


@pytest.mark.parametrize("package_bytes", [None, 1_000_000])
@pytest.mark.parametrize("source", [{"coreml": "m.mlpackage"}, {"converter": "export.py:export"}])
def test_what_is_suggested_in_comments_can_be_uncommented(tmp_path, source, package_bytes):
    found = [Found("m", source, ".", package_bytes=package_bytes)]
    path = tmp_path / "gate.yml"
    path.write_text(re.sub(r"^( +)# ", r"\1", scaffold.render(found, ("data/all #1.npz", 360)), flags=re.MULTILINE))

    model = config.load(path).models[0]

    assert str(model.budgets.accuracy.drop) == "0.8 points"
    assert model.dataset == "data/all #1.npz"
    assert model.metric.name == "accuracy"
    assert (model.budgets.size.limit is None) == (package_bytes is None)


ODD_NAMES = [
    "My App, v2",
    "x}, ship: int8, paths: [a]",
    "Net #1",
    "a: b",
    'it\'s "so"',
    "null",
    "Größe 😀",
    "tab\there",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_stays_a_name_whatever_yaml_thinks_of_it(tmp_path, name):
    package = tmp_path / name / f"{name}.mlpackage"
    package.mkdir(parents=True)
    (package / "weight.bin").write_bytes(b"\0" * 2_000_000)

    scaffold.write(tmp_path, force=False)

    model = config.load(tmp_path / "gate.yml").models[0]
    assert model.source.model_dump(exclude_unset=True) == {"coreml": f"{name}/{name}.mlpackage"}
    assert model.paths == (f"{name}/**",)
    assert model.ship is None
    assert model.budgets.size.limit == 2_200_000


def test_a_name_of_digits_is_text_and_a_long_one_is_cut(tmp_path):
    for stem in ("123", "n" * 200):
        (tmp_path / f"{stem}.mlpackage").mkdir()
        (tmp_path / f"{stem}.mlpackage" / "weight.bin").write_bytes(b"\0" * 1000)

    scaffold.write(tmp_path, force=False)

    assert [m.name for m in config.load(tmp_path / "gate.yml").models] == ["123", "n" * 70]


def test_a_note_of_several_lines_stays_a_comment():
    found = [Found("m", {"coreml": "m.mlpackage"}, ".", note="did not convert: a\n    ship: int8\x07")]

    assert "    # did not convert: a ship: int8?\n" in scaffold.render(found, None)


@pytest.mark.parametrize(("count", "limit"), [(5_998_000, "6.6 MB"), (61_100, "67.3 KB"), (51_100_000, "56.3 MB")])
def test_a_limit_is_rounded_up(count, limit):
    assert scaffold._limit(count) == limit


def test_files_that_are_there_are_not_overwritten(tmp_path):
    (tmp_path / "gate.yml").write_text("mine")

    with pytest.raises(UsageError, match=r"gate.yml already there; use --force"):
        scaffold.write(tmp_path, force=False)
    assert (tmp_path / "gate.yml").read_text() == "mine"


def test_a_repository_without_a_model_is_told(tmp_path):
    with pytest.raises(UsageError, match="found no .mlpackage"):
        scaffold.write(tmp_path, force=False)


def test_a_finished_package_becomes_a_configuration_and_two_workflows(tmp_path):
    package = tmp_path / "App" / "Faces.mlpackage"
    package.mkdir(parents=True)
    (package / "weight.bin").write_bytes(b"\0" * 2_000_000)

    written = scaffold.write(tmp_path, force=False)

    assert set(written.written) == {
        "gate.yml", ".github/workflows/coreml-gate.yml", ".github/workflows/coreml-gate-report.yml",
    }  # fmt: skip
    assert config.load(tmp_path / "gate.yml").models[0].budgets.size.limit == 2_200_000
    assert "persist-credentials: false" in (tmp_path / ".github/workflows/coreml-gate.yml").read_text()
