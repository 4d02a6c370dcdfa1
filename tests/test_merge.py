# SPDX-License-Identifier: Apache-2.0
"""Reports of several machines become one: what one run would have said, or why not."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gate import config, pipeline
from gate.cli import app
from gate.errors import NoAnswer, UsageError
from gate.merge import merge
from gate.pipeline import Options
from gate.report import (
    Candidate,
    CheckName,
    Finding,
    Model,
    Outcome,
    PackageFile,
    Part,
    Report,
    Result,
    Role,
    Run,
    Severity,
    make_report,
)
from tests.compress.packages import convert, net

CONFIG = """
version: 1
app: {budgets: {app_size: {total: 2 KB}}}
models:
  - {name: a, source: {coreml: A.mlpackage}, explore: [int8]}
  - {name: b, source: {coreml: B.mlpackage}}
"""
PARTS = (("a/as-is", "b/as-is"), ("a/int8",))
BYTES = b"x" * 1_000
FILE = PackageFile(path="model", sha256=hashlib.sha256(BYTES).hexdigest(), bytes=len(BYTES))


def candidate(policy, role=Role.SHIP, outcome=Outcome.PASS, **more):
    answer = Result(check=CheckName.INTEGRITY, outcome=outcome, message="as promised")
    given = {"files": (FILE,), "package_digest": "1" * 64, "results": (answer,)} | more
    return Candidate(role=role, policy=policy, **given)


def shards(folder: Path, explored=Outcome.PASS, shipped=Outcome.PASS, text=CONFIG, **run) -> list[Path]:
    """Write gate.yml and the two shards of one run; return their folders."""
    folder.mkdir(exist_ok=True)
    (folder / "gate.yml").write_text(text)
    note = Finding(rule="config.unused", severity=Severity.INFO, message="of the run")
    digest = config.load(folder / "gate.yml").digest
    circumstances = {"commit": "c" * 40, "config": str(folder / "gate.yml"), "config_digest": digest}
    circumstances |= {"tools": {"coreml-gate": "1"}, "sandbox": "process"} | run
    stub = Candidate(role=Role.SHIP, policy="as-is")
    models = (
        (
            Model(name="a", candidates=(candidate("as-is", outcome=shipped, package="packages/a/as-is.mlpackage"),)),
            Model(name="b", candidates=(candidate("as-is"),)),
        ),
        (Model(name="a", candidates=(stub, candidate("int8", Role.EXPLORE, explored))),),
    )
    for index, row in enumerate(models, start=1):
        report = make_report(Run(part=Part(index=index, units=PARTS), **circumstances), row, findings=(note,))
        write(folder / f"s{index}", report)
    package = folder / "s1" / "packages" / "a" / "as-is.mlpackage"
    package.mkdir(parents=True)
    (package / "model").write_bytes(BYTES)
    return [folder / "s1", folder / "s2"]


def write(folder: Path, report: Report) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text(report.model_dump_json())


def edit(folder: Path, change) -> None:
    record = json.loads((folder / "report.json").read_text())
    change(record)
    (folder / "report.json").write_text(json.dumps(record))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_shards_become_one_report_whatever_their_order(tmp_path, order):
    places = shards(tmp_path)

    report = merge([places[i] for i in order], tmp_path / "out")

    assert report.outcome is Outcome.PASS
    assert [(m.name, [c.policy for c in m.candidates]) for m in report.models] == [
        ("a", ["as-is", "int8"]),
        ("b", ["as-is"]),
    ]
    assert [r.check for r in report.app.results] == [CheckName.APP_SIZE]
    assert report.app.results[0].measurements[0].value == 2_000
    assert report.run.part is None
    assert len(report.findings) == 1, "what every shard says of the run is said once"
    assert (tmp_path / "out" / "packages" / "a" / "as-is.mlpackage" / "model").read_bytes() == BYTES
    assert Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes()) == report


@pytest.mark.parametrize(
    ("facts", "outcome"),
    [
        pytest.param({"explored": Outcome.FAIL}, Outcome.PASS, id="an explored one never decides"),
        pytest.param({"shipped": Outcome.FAIL}, Outcome.FAIL, id="a shipped one does"),
        pytest.param({"text": CONFIG.replace("2 KB", "1999 B")}, Outcome.FAIL, id="and so does the app, a byte over"),
    ],
)
def test_the_shipped_candidates_and_the_app_decide(tmp_path, facts, outcome):
    assert merge(shards(tmp_path, **facts), tmp_path / "out").outcome is outcome


@pytest.mark.parametrize(("left", "lost"), [(0, "shard 2/2"), (1, "shard 1/2")])
def test_a_missing_shard_is_no_answer_and_never_a_pass(tmp_path, left, lost):
    places = shards(tmp_path)

    for given in ([places[left]], [places[left], tmp_path / "never-uploaded"]):
        report = merge(given, tmp_path / "out")
        assert report.outcome is Outcome.ERROR
        (told,) = [r for r in report.app.results if r.check is CheckName.FEASIBILITY]
        assert lost in told.message
        assert [c.policy for c in report.models[0].candidates] == ["as-is", "int8"], "what is missing has a row"
        assert lost in (tmp_path / "out" / "comment.md").read_text()


def test_a_shard_that_is_all_that_is_planned_for_knows_the_others(tmp_path):
    places = shards(tmp_path)
    rows = [
        {"shard": f"{i}/2", "name": "x", "units": " ".join(units), "seconds": 1.0} for i, units in enumerate(PARTS, 1)
    ]
    (tmp_path / "plan.json").write_text(json.dumps({"include": rows}))

    assert merge(places, tmp_path / "out", plan=tmp_path / "plan.json").outcome is Outcome.PASS
    rows[0]["units"], rows[1]["units"] = "a/as-is", "b/as-is a/int8"
    (tmp_path / "plan.json").write_text(json.dumps({"include": rows}))
    with pytest.raises(UsageError, match="of another plan"):
        merge(places, tmp_path / "out", plan=tmp_path / "plan.json")


def test_nothing_at_all_is_no_answer_and_a_mistyped_folder_wrong_usage(tmp_path):
    (tmp_path / "s1").mkdir()
    with pytest.raises(NoAnswer, match="nothing can be merged"):
        merge([tmp_path / "s1"], tmp_path / "out")
    with pytest.raises(UsageError, match="nope: no such file or folder; expected reports"):
        merge([tmp_path / "s1", tmp_path / "nope"], tmp_path / "out")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        pytest.param("commit", "d" * 40, "commit is", id="another commit"),
        pytest.param("base_commit", "d" * 40, "base_commit is", id="another base"),
        pytest.param("config_digest", "0" * 64, "config_digest is", id="another configuration"),
        pytest.param("tools", {"coreml-gate": "2"}, "coreml-gate is 2", id="another version of the gate"),
        pytest.param("tools", {"coreml-gate": "1", "torch": "2.7"}, "torch is 2.7", id="another version of torch"),
        pytest.param("part", None, "is a whole run", id="a whole run"),
        pytest.param("part", {"index": 1, "units": PARTS}, "given twice", id="the same shard twice"),
        pytest.param("part", {"index": 2, "units": [["a/int8"], ["x/y"]]}, "another plan", id="another plan"),
    ],
)
def test_parts_of_something_else_are_refused(tmp_path, key, value, told):
    places = shards(tmp_path)
    edit(places[1], lambda record: record["run"].update({key: value}))

    with pytest.raises(UsageError, match=told):
        merge(places, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_shard_given_twice_is_refused(tmp_path):
    places = shards(tmp_path)
    with pytest.raises(UsageError, match="shard 1/2 is given twice"):
        merge([places[0], places[0], places[1]], tmp_path / "out")


def test_shards_that_read_other_weights_are_refused(tmp_path):
    places = shards(tmp_path)
    edit(places[0], lambda record: record["models"][0].update(source_digest="1" * 64))
    edit(places[1], lambda record: record["models"][0].update(source_digest="2" * 64))

    with pytest.raises(UsageError, match="different sources or weights"):
        merge(places, tmp_path / "out")


def test_a_package_that_differs_from_its_report_is_refused(tmp_path):
    places = shards(tmp_path)
    (places[0] / "packages/a/as-is.mlpackage/model").write_bytes(b"y" * 1_000)

    with pytest.raises(UsageError, match="the digest differs"):
        merge(places, tmp_path / "out")


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped"])
def test_no_file_outside_a_shard_is_copied(tmp_path, name):
    places = shards(tmp_path)
    edit(places[0], lambda record: record["models"][0].update(log=name))

    with pytest.raises(UsageError, match="leads out of"):
        merge(places, tmp_path / "deep" / "out")


def test_a_folder_of_downloaded_artifacts_is_read_and_the_exit_code_follows(tmp_path):
    shards(tmp_path)
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    for name in ("s1", "s2"):
        (tmp_path / name).rename(artifacts / name)
    command = ["merge", str(artifacts), "--out", str(tmp_path / "out")]

    assert CliRunner().invoke(app, command).exit_code == 0
    shutil.rmtree(artifacts / "s2")
    assert CliRunner().invoke(app, command).exit_code == 3


def test_a_configuration_of_another_day_is_refused(tmp_path):
    places = shards(tmp_path)
    (tmp_path / "gate.yml").write_text(CONFIG.replace("2 KB", "9 MB"))

    with pytest.raises(UsageError, match="its digest differs"):
        merge(places, tmp_path / "out")
    (tmp_path / "gate.yml").unlink()
    with pytest.raises(UsageError, match="name the gate.yml"):
        merge(places, tmp_path / "out")


MODEL = """
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()).eval()

def example():
    torch.manual_seed(1)
    return (torch.randn(1, 4),)
"""
TINY = """
version: 1
app: {deployment_target: iOS17}
models:
  - name: tiny
    source: {factory: model.py:build, example: model.py:example}
    explore: [int8]
    budgets: {size: 100 KB}
"""


def test_two_shards_say_what_one_run_says_to_the_letter(tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "gate.yml").write_text(TINY)

    def check(out: str, part: str | None = None) -> Report:
        return pipeline.check(Options(config=tmp_path / "gate.yml", out=tmp_path / out, shard=part))

    whole = check("whole")
    parts = [check("first", "1/2"), check("second", "2/2")]
    joined = merge([tmp_path / "second", tmp_path / "first"], tmp_path / "joined")

    assert all(len([c for c in p.models[0].candidates if c.results]) == 1 for p in parts), "each judged one policy"
    assert joined.outcome is whole.outcome
    assert (tmp_path / "joined" / "comment.md").read_text() == (tmp_path / "whole" / "comment.md").read_text()
    assert sorted(p.relative_to(tmp_path / "joined") for p in (tmp_path / "joined" / "packages").rglob("*")) == sorted(
        p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole" / "packages").rglob("*")
    )


TWO = """
version: 1
app: {{deployment_target: iOS18, budgets: {{app_size: {{total: {0}}}}}}}
approval: {{label: limits-approved}}
models:
  - {{name: tiny, source: {{coreml: net.mlpackage}}, explore: [int8], budgets: {{size: {1}}}}}
  - {{name: other, source: {{coreml: net.mlpackage}}, budgets: {{size: 100 KB}}}}
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return convert(net(), (1, 4, 8, 8), "iOS18", tmp_path_factory.mktemp("merge") / "net.mlpackage")


@pytest.fixture
def branches(tmp_path, package):
    """The base branch's gate.yml and the pull request's, with given limits of the app and of one model entry."""

    def write(**limits: tuple[str, str]) -> tuple[Path, Path]:
        for name, given in limits.items():
            (tmp_path / name).mkdir()
            shutil.copytree(package, tmp_path / name / "net.mlpackage")
            (tmp_path / name / "gate.yml").write_text(TWO.format(*given))
        return tmp_path / "base" / "gate.yml", tmp_path / "head" / "gate.yml"

    return write


@pytest.mark.parametrize(
    ("base", "head", "approved", "outcome"),
    [
        pytest.param(("1 MB", "1 KB"), ("1 MB", "100 KB"), None, Outcome.FAIL, id="a model's is raised"),
        pytest.param(
            ("1 MB", "100 KB"), ("1 MB", "1 KB"), None, Outcome.FAIL, id="a model's is lowered", marks=pytest.mark.slow
        ),
        pytest.param(
            ("1 KB", "100 KB"), ("1 MB", "90 KB"), None, Outcome.FAIL, id="the app's is raised", marks=pytest.mark.slow
        ),
        pytest.param(("1 KB", "100 KB"), ("1 MB", "90 KB"), "label", Outcome.PASS, id="and approved"),
        pytest.param(("1 MB", "100 KB"), ("2 MB", "90 KB"), None, Outcome.PASS, id="all fits", marks=pytest.mark.slow),
    ],
)
def test_parts_of_a_change_of_limits_say_what_one_run_says(tmp_path, branches, base, head, approved, outcome):
    theirs, ours = branches(base=base, head=head)

    def check(out: str, part: str | None = None) -> Report:
        told = {"base_config": theirs, "config_from": "base and head", "approved_by": approved}
        return pipeline.check(Options(config=ours, out=tmp_path / out, shard=part, **told))

    whole = check("whole")
    parts = [check(f"part-{i}", f"{i}/3") for i in (3, 1, 2)]
    joined = merge([tmp_path / f"part-{i}" for i in (3, 1, 2)], tmp_path / "joined", base_config=theirs)

    assert {len([c for m in p.models for c in m.candidates if c.results]) for p in parts} == {1}
    assert joined.outcome is outcome
    assert whole.outcome is outcome
    assert joined.findings == whole.findings
    assert joined.app == whole.app
    assert [[c.results for c in m.candidates] for m in joined.models] == [
        [c.results for c in m.candidates] for m in whole.models
    ]
    assert (tmp_path / "joined" / "comment.md").read_text() == (tmp_path / "whole" / "comment.md").read_text()


def test_parts_of_a_change_of_limits_are_not_merged_under_its_own(tmp_path, branches, monkeypatch):
    theirs, ours = branches(base=("1 KB", "100 KB"), head=("1 MB", "100 KB"))
    pipeline.check(Options(config=ours, out=tmp_path / "part", base_config=theirs))
    command = ["merge", str(tmp_path / "part"), "--out", str(tmp_path / "out")]

    refused = CliRunner().invoke(app, command).exception
    assert isinstance(refused, UsageError)
    assert "GATE_BASE_CONFIG" in str(refused)
    monkeypatch.setenv("GATE_BASE_CONFIG", str(theirs))
    assert CliRunner().invoke(app, command).exit_code == 1
