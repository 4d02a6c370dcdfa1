# SPDX-License-Identifier: Apache-2.0
"""A Linux run hands packages over, a Mac answers about them, and both stand in one report.

No Mac here: Apple's runtime is a double that our evaluator answers (`tests/apple_double.py`). What Apple's runtime would say is not tested.
"""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import coremltools as ct
import numpy as np
import pytest

from gate import handover, pipeline, protocol
from gate.answer import answer
from gate.engine import coreml
from gate.engine.coreml import CoreMLEngine
from gate.errors import UsageError
from gate.handover import Handed
from gate.merge import merge
from gate.pipeline import Options
from gate.report import CheckName, Outcome
from tests import apple_double

MODEL = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()

def example():
    torch.manual_seed(1)
    return (torch.randn(1, 1, 8, 8),)
"""
CONFIG = """
version: 1
app: {deployment_target: iOS17}
models:
  - name: tiny
    source: {factory: model.py:build, example: model.py:example}
    inputs: [{name: x}]
    outputs: [{name: y}]
    explore: [int8]
    dataset: eval.npz
    metric: accuracy
    budgets: {size: 100 KB, accuracy: {drop: 20 points, stop: never}}
"""


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> CoreMLEngine:
    monkeypatch.setenv(
        "APPLE_DOUBLE", json.dumps({"seconds": {"": 0.001}})
    )  # every prediction of the stopwatch's child
    apple_double.install(monkeypatch.setattr)
    monkeypatch.setattr(coreml, "ROUNDS", 20)
    return CoreMLEngine(compute_units="CPU_ONLY", stopwatch=apple_double.STOPWATCH)


@pytest.fixture(scope="module")
def linux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Linux run with its hand-over: `out/` and `handed/`."""
    folder = tmp_path_factory.mktemp("linux")
    (folder / "model.py").write_text(MODEL)
    (folder / "gate.yml").write_text(CONFIG)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((64, 1, 8, 8)).astype(np.float32)
    np.savez(folder / "eval.npz", x=images, label=rng.integers(0, 10, 64))
    options = Options(config=folder / "gate.yml", out=folder / "out", hand_over=folder / "handed")
    assert pipeline.check(options).outcome is Outcome.PASS
    return folder


def engines(report, check):
    return {r.environment.engine for r in report.models[0].shipped.results if r.check is check}


def test_rows_of_both_engines_stand_in_one_report_merged_from_two_runs(linux, mac, tmp_path):
    told = answer(linux / "handed", tmp_path / "mac", engine=mac)

    assert {r.environment.engine for c in told.models[0].candidates for r in c.results} == {"coreml"}
    report = merge([tmp_path / "mac", linux / "out"], tmp_path / "both", config=linux / "gate.yml")

    assert report.outcome is Outcome.PASS
    assert engines(report, CheckName.FIDELITY) == {"mil", "coreml"}
    assert engines(report, CheckName.ACCURACY) == {"mil", "coreml"}
    assert engines(report, CheckName.FLOAT16) == {"mil", "coreml"}
    assert engines(report, CheckName.SIZE) == {"static", "coreml"}
    assert engines(report, CheckName.LATENCY) == {"coreml"}
    explored = report.models[0].candidates[1]
    assert {r.environment.engine for r in explored.results if r.check is CheckName.ACCURACY} == {"mil", "coreml"}
    assert "Apple's runtime" in (tmp_path / "both" / "comment.md").read_text()


def test_the_mac_uses_every_item_and_the_references_own_answers(linux, mac, tmp_path):
    told = answer(linux / "handed", tmp_path / "mac", engine=mac)

    (row,) = [r for r in told.models[0].shipped.results if r.check is CheckName.ACCURACY and r.against == "source"]
    assert row.measurements[0].n == 64


@pytest.mark.slow
def test_a_mac_that_fails_fails_the_whole(linux, mac, tmp_path, monkeypatch):
    class Wrong(apple_double.MLModel):
        def predict(self, data: dict, state: object = None) -> dict:
            return {name: value + 1 for name, value in super().predict(data, state).items()}

    monkeypatch.setattr(ct.models, "MLModel", Wrong)
    answer(linux / "handed", tmp_path / "mac", engine=mac)

    report = merge([linux / "out", tmp_path / "mac"], tmp_path / "both", config=linux / "gate.yml")

    assert report.outcome is Outcome.FAIL
    failed = [r for r in report.models[0].shipped.results if r.outcome is Outcome.FAIL]
    assert {r.environment.engine for r in failed} == {"coreml"}


def test_a_mac_that_was_asked_for_and_left_nothing_is_no_answer(linux, tmp_path):
    report = merge([linux / "out", tmp_path / "mac"], tmp_path / "both", config=linux / "gate.yml")

    assert report.outcome is Outcome.ERROR
    assert "mac left no report" in report.app.results[-1].message


@pytest.mark.slow
def test_profiling_first_leaves_the_runs_to_the_mac_and_is_no_pass_without_it(linux, mac, tmp_path):
    first = Options(config=linux / "gate.yml", out=tmp_path / "out", hand_over=tmp_path / "handed", profile_first=True)
    assert pipeline.check(first).outcome is Outcome.ERROR

    answer(tmp_path / "handed", tmp_path / "mac", engine=mac)
    report = merge([tmp_path / "out", tmp_path / "mac"], tmp_path / "both", config=linux / "gate.yml")

    assert report.outcome is Outcome.PASS
    assert engines(report, CheckName.ACCURACY) == {"coreml"}


def test_no_torch_is_loaded_to_answer(linux, tmp_path):
    code = f"""
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Without())
import coremltools as ct
class Zeros:
    def __init__(self, path, compute_units=None): self.path = path
    def predict(self, inputs):
        import numpy as np
        return {{"y": np.zeros((1, 10), np.float32)}}
ct.models.MLModel = Zeros
from gate.engine import apple
apple.compile_package = lambda package, folder: package
apple.model_identifier = apple.system = lambda: "double"
from pathlib import Path
from gate.answer import answer
from gate.engine import coreml
from gate.engine.coreml import CoreMLEngine
report = answer(Path({str(linux / "handed")!r}), Path({str(tmp_path / "out")!r}), engine=CoreMLEngine(stopwatch=("false",)))
print(sorted({{(str(r.check), str(r.outcome)) for r in report.models[0].shipped.results}}), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout.strip().endswith("False")
    assert "('fidelity', 'fail')" in done.stdout, "the double answers zeros"
    assert done.stdout.count("error") == 1, "the stopwatch of this double ends at once, and only latency says so"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        pytest.param(lambda f: (f / "models/tiny/items.npz").write_bytes(b"other"), "not the file", id="changed"),
        pytest.param(lambda f: (f / "models/tiny/samples.npz").unlink(), "missing", id="missing"),
        pytest.param(lambda f: (f / "handover.json").unlink(), "no handover.json", id="no record"),
        pytest.param(lambda f: (f / "handover.json").write_text("{}"), "handover.json", id="no such record"),
        pytest.param(lambda f: link(f / "models/tiny/items.npz"), "missing, or not", id="a link"),
        pytest.param(lambda f: point(f, "../../secret"), "named, but not listed", id="a package elsewhere"),
    ],
)
def test_what_is_not_as_it_was_handed_over_is_refused(linux, tmp_path, spoil, told):
    handed = tmp_path / "handed"
    shutil.copytree(linux / "handed", handed)
    spoil(handed)

    with pytest.raises(UsageError, match=told):
        handover.read(handed)


def link(path: Path) -> None:
    kept = path.with_suffix(".kept")
    path.rename(kept)
    path.symlink_to(kept)


def point(folder: Path, name: str) -> None:
    record = json.loads((folder / "handover.json").read_text())
    record["models"][0]["float32"] = name
    (folder / "handover.json").write_text(json.dumps(record))


@pytest.mark.slow
def test_answers_about_another_package_are_refused(linux, mac, tmp_path):
    answer(linux / "handed", tmp_path / "mac", engine=mac)
    file = tmp_path / "mac" / "report.json"
    record = json.loads(file.read_text())
    record["models"][0]["candidates"][0]["package_digest"] = "0" * 64
    file.write_text(json.dumps(record))

    with pytest.raises(UsageError, match="about another package"):
        merge([linux / "out", tmp_path / "mac"], tmp_path / "both", config=linux / "gate.yml")


@pytest.mark.slow
def test_the_same_environment_twice_is_refused(linux, mac, tmp_path):
    answer(linux / "handed", tmp_path / "mac", engine=mac)
    shutil.copytree(tmp_path / "mac", tmp_path / "again")

    with pytest.raises(UsageError, match="answered twice by one environment"):
        merge([linux / "out", tmp_path / "mac", tmp_path / "again"], tmp_path / "both", config=linux / "gate.yml")


def test_a_folder_with_other_files_is_not_written_over(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years of work")

    with pytest.raises(UsageError, match="empty folder"):
        handover.start(tmp_path)


def claim(shape: str, content: bytes) -> bytes:
    """An array whose header says what it likes."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


@pytest.mark.parametrize(
    ("shape", "content"),
    [
        pytest.param("(1000000000000000,)", b"", id="petabytes by its header"),
        pytest.param("(250000,)", bytes(1_000_000), id="a bomb"),
        pytest.param("(4,)", b"1", id="cut short"),
    ],
)
def test_arrays_of_a_hand_over_that_are_not_what_they_say_are_wrong_usage(tmp_path, monkeypatch, shape, content):
    monkeypatch.setattr(protocol, "MAX_ARRAY_BYTES", 500_000)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", claim(shape, content))
    with pytest.raises(UsageError, match="x.npz: expected an .npz of plain arrays"):
        Handed(tmp_path, None, "", None)._arrays("x.npz")
