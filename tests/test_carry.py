# SPDX-License-Identifier: Apache-2.0
"""What was there before: entries that are not judged again, and a baseline that other tools measured."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gate import carry, config, earlier, pipeline
from gate.baseline import Baseline
from gate.errors import UsageError
from gate.files import sha256_file
from gate.pipeline import Options
from gate.report import Candidate, CheckName, Model, Outcome, PackageFile, Report, Role, Run, make_report
from tests.project import TINY, Project

CONFIG = """
version: 1
models:
  - {name: a, source: {coreml: A.mlpackage}}
  - {name: b, source: {coreml: B.mlpackage}}
"""


def model(name: str, **more) -> Model:
    return Model(name=name, candidates=(Candidate(role=Role.SHIP, policy="as-is"),), **more)


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "gate.yml").write_text(CONFIG)
    return config.load(tmp_path / "gate.yml")


def baseline(folder: Path, *models: Model, started="2026-11-20T10:00:00+00:00") -> Baseline:
    run = Run(config_digest="0" * 64, commit="c" * 40, started=started)
    return Baseline(make_report(run, models), folder)


def test_the_last_result_is_marked_with_its_day_and_commit(settings, tmp_path):
    found = carry.carried(settings, ["b"], baseline(tmp_path, model("a"), model("b")))

    assert [(m.name, m.carried) for m in found] == [("b", f"2026-11-20 ({'c' * 12})")]


def test_what_was_carried_before_keeps_its_day(settings, tmp_path):
    (found,) = carry.carried(settings, ["b"], baseline(tmp_path, model("b", carried="2026-10-01 (dddddddddddd)")))

    assert found.carried == "2026-10-01 (dddddddddddd)"


def test_nothing_is_carried_from_nowhere(settings, tmp_path):
    assert carry.carried(settings, ["b"], None) == ()
    assert carry.carried(settings, ["b"], baseline(tmp_path, model("a"))) == ()
    with pytest.raises(UsageError, match="no such entry"):
        carry.carried(settings, ["c"], None)


def test_models_stand_in_the_order_of_the_configuration_with_their_digests(settings):
    found = carry.in_order(
        settings, [model("removed"), model("b", content_digest="2" * 64), model("a")], {"a": "1" * 64}
    )

    assert [(m.name, m.content_digest) for m in found] == [("a", "1" * 64), ("b", "2" * 64), ("removed", None)]


def shipped(folder: Path, sha256: str | None = None) -> Baseline:
    package = folder / "packages" / "a" / "as-is.mlpackage"
    package.mkdir(parents=True)
    (package / "model").write_bytes(b"x")
    file = PackageFile(path="model", sha256=sha256 or sha256_file(package / "model"), bytes=1)
    candidate = Candidate(role=Role.SHIP, policy="as-is", package="packages/a/as-is.mlpackage", files=(file,))
    return baseline(folder, Model(name="a", candidates=(candidate,)))


def test_an_earlier_package_is_what_its_report_says_or_is_not_used(tmp_path):
    assert earlier.package_of(shipped(tmp_path / "own"), "a") is not None
    assert earlier.package_of(shipped(tmp_path / "other", sha256="0" * 64), "a") is None
    assert earlier.package_of(shipped(tmp_path / "third"), "b") is None


MODEL = """
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Linear(4, 3).eval()

def example():
    torch.manual_seed(1)
    return (torch.randn(1, 4),)
"""
LABELLED = """
version: 1
app: {deployment_target: iOS17}
models:
  - name: tiny
    source: {factory: model.py:build, example: model.py:example}
    inputs: [{name: x}]
    dataset: eval.npz
    metric: accuracy
    budgets: {accuracy: {drop: 30 points, against: [base], stop: never}}
"""


@pytest.mark.slow
def test_after_an_update_of_the_tools_the_base_package_is_judged_again(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "gate.yml").write_text(LABELLED)
    items = rng.standard_normal((40, 1, 4)).astype(np.float32)
    np.savez(tmp_path / "eval.npz", x=items, label=rng.integers(0, 3, 40))
    pipeline.check(Options(config=tmp_path / "gate.yml", out=tmp_path / "base"))
    file = tmp_path / "base" / "report.json"
    record = json.loads(file.read_text())
    record["run"]["tools"]["torch"] = "0.1"
    file.write_text(json.dumps(record))
    (tmp_path / "model.py").write_text(MODEL.replace("manual_seed(0)", "manual_seed(5)"))

    def row(out: str) -> tuple[Outcome, int]:
        report: Report = pipeline.check(Options(config=tmp_path / "gate.yml", out=tmp_path / out, baseline=file))
        rows = [r for r in report.models[0].shipped.results if r.check is CheckName.ACCURACY and r.against == "base"]
        return rows[0].outcome, len(rows[0].measurements)

    outcome, measured = row("new")
    assert outcome is not Outcome.NOT_RUN
    assert measured

    (tmp_path / "base" / "packages" / "tiny").rename(tmp_path / "gone")
    assert row("without")[0] is Outcome.NOT_RUN


# --- on a developer's machine ------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A repository whose only model was judged once, with `--only-changed`."""
    project = Project(tmp_path_factory.mktemp("team"))
    project.write("net.py", TINY)
    project.write(".gitignore", "__pycache__\n")
    project.config("source: {factory: net.py:build, example: net.py:example}")
    git(project.folder, "init", "-q")
    git(project.folder, "add", "-A")
    git(project.folder, "commit", "-qm", "first")
    report = pipeline.check(Options(project.folder / "gate.yml", project.out, only_changed=True))
    assert report.models[0].content_digest
    return project


def again(project, monkeypatch) -> tuple[Report, list[str]]:
    """Check once more, and name the entries that are judged."""
    asked: list[str] = []

    def judge(plan, entry, around, progress):
        asked.append(entry.name)
        return model(entry.name), "none"

    monkeypatch.setattr(pipeline, "_judge_entry", judge)
    baseline = project.out / "report.json"
    options = Options(project.folder / "gate.yml", project.out / "again", baseline=baseline, only_changed=True)
    return pipeline.check(options), asked


def test_an_unchanged_entry_is_not_judged_again(judged, monkeypatch):
    report, asked = again(judged, monkeypatch)
    assert asked == []
    assert report.outcome is Outcome.PASS
    assert report.models[0].carried
    assert (judged.out / "again" / "packages" / "tiny" / "float16.mlpackage").is_dir()


@pytest.mark.parametrize("name", ["net.py", "helper.py"], ids=["changed", "not tracked"])
def test_what_git_does_not_keep_so_is_judged(name, judged, monkeypatch):
    file = judged.folder / name
    before = file.read_text() if file.exists() else None
    file.write_text((before or "") + "\n# another line\n")
    try:
        report, asked = again(judged, monkeypatch)
    finally:
        file.write_text(before) if before is not None else file.unlink()
    assert asked == ["tiny"]
    assert any(name in f.message for f in report.findings if f.rule == "config.only_changed")


def test_other_tools_are_no_reason_to_believe_the_last_result(judged, monkeypatch):
    monkeypatch.setattr("gate.unchanged.tool_versions", lambda: {"torch": "0.1"})
    assert again(judged, monkeypatch)[1] == ["tiny"]


def test_a_file_that_git_ignores_is_in_doubt(judged, monkeypatch):
    monkeypatch.setattr("gate.prepare.tracked", lambda root: {"gate.yml": "x"})
    monkeypatch.setattr("gate.contents.unchanged", lambda now, earlier: frozenset(now))
    report, asked = again(judged, monkeypatch)
    assert asked == ["tiny"]
    assert any("git keeps nothing of net.py" in f.message for f in report.findings)
