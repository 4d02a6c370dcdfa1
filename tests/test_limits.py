# SPDX-License-Identifier: Apache-2.0
"""Can a pull request pass by changing what it is judged by? Not without somebody's word, which the report names."""

from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

from gate import limits, pipeline
from gate.pipeline import Options
from gate.report import CheckName, Outcome, Report

MODEL = """
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4)).eval()

def example():
    return (torch.ones(1, 16),)
"""
ENTRY = "  - name: tagger\n    source: {factory: 'model.py:build', example: 'model.py:example'}\n"
STRICT, LOOSE = "    budgets: {size: 5 KB}\n", "    budgets: {size: 50 KB}\n"
HEADER = "version: 1\napproval: {label: limits-approved}\nlimits: {time: 120 s}\n"


@dataclass
class Branches:
    """The base branch's files and the pull request's."""

    base: Path
    head: Path

    def write(self, base: str | None, head: str | None, name: str = "gate.yml") -> None:
        for folder, text in ((self.base, base), (self.head, head)):
            if text is not None:
                (folder / name).write_text(dedent(text))

    def compare(self) -> limits.Limits:
        return limits.compare(self.base / "gate.yml", self.head / "gate.yml")

    def check(self, **options: object) -> Report:
        told = {"base_config": self.base / "gate.yml", **options}
        return pipeline.check(Options(self.head / "gate.yml", self.head / "out", **told))  # type: ignore[arg-type]


@pytest.fixture
def branches(tmp_path: Path) -> Branches:
    made = Branches(tmp_path / "base", tmp_path / "head")
    for folder in (made.base, made.head):
        folder.mkdir()
        (folder / "model.py").write_text(MODEL)
    return made


def rules(report: Report) -> list[str]:
    return [finding.rule for finding in report.findings]


# --- what is a change of limits ------------------------------------------------------------------------------------

FULL = HEADER + (
    "app: {minimum_device: iphone-12, budgets: {app_size: {total: 1 MB}}}\n"
    "waivers: waivers.yml\n"
    "models:\n"
    + ENTRY
    + "    dataset: eval.npz\n    metric: metric.py\n    reference: {outputs: out.npz}\n    splits: {seed: 1}\n"
    "    budgets: {size: 6 MB, float16: {error: 1 %}, accuracy: {drop: 1 point}}\n"
)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("size: 6 MB", "size: 8 MB", ["tagger.budgets.size: 6 MB, now 8 MB"]),
        ("float16: {error: 1 %}, ", "", ['tagger.budgets.float16: {"error": "1 %"}, now none']),
        ("drop: 1 point", "drop: 2 points", ['tagger.budgets.accuracy: {"drop": "1 point"}, now {"drop": "2 points"}']),
        ("seed: 1", "seed: 2", ['tagger.splits: {"seed": 1}, now {"seed": 2}']),
        ("iphone-12", "iphone-16", ["app.minimum_device: iphone-12, now iphone-16"]),
        (
            "total: 1 MB",
            "total: 2 MB",
            ['app.budgets: {"app_size": {"total": "1 MB"}}, now {"app_size": {"total": "2 MB"}}'],
        ),
        ("size: 6 MB", "size: 6000 KB", []),  # the same limit, written otherwise
        ("  - name", "  # a comment\n  - name", []),
        ("model.py:build", "other.py:build", []),  # what is judged, and not by what
        ("time: 120 s", "time: 60 s", []),
    ],
)
def test_what_counts_as_a_change_of_limits(branches: Branches, old: str, new: str, told: list[str]) -> None:
    assert old in FULL
    branches.write(FULL, FULL.replace(old, new))
    assert [change.text for change in branches.compare().changes] == told


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("eval.npz", "tagger.dataset"),
        ("metric.py", "tagger.metric"),
        ("out.npz", "tagger.reference.outputs"),
        ("waivers.yml", "app.waivers"),
    ],
)
def test_a_file_that_holds_limits_is_compared_by_its_content(branches: Branches, name: str, key: str) -> None:
    branches.write(FULL, FULL)
    assert branches.compare().changes == ()
    branches.write("before", "after", name)
    (change,) = branches.compare().changes
    assert f"{change.model}.{change.key}" == key
    assert change.before != change.after


@pytest.mark.parametrize(
    ("key", "holds", "name"),
    [
        ("dataset: items.jsonl", '{"x": "img/1.png"}', "img/1.png"),
        ("reference: {onnx: twin.onnx}", "", "twin.onnx.data"),
        ("dataset: {images: img}", "", "img/1.png"),
        ("dataset: {images: links}", "", "img/1.png"),
    ],
    ids=["items", "weights", "folder", "folder of links"],
)
def test_a_file_that_a_named_one_rests_on_is_compared_as_well(
    branches: Branches, key: str, holds: str, name: str
) -> None:
    for folder in (branches.base, branches.head):
        for made in ("img", "links"):
            (folder / made).mkdir()
        (folder / "links" / "cat").symlink_to("../img")
        (folder / "img" / "self").symlink_to("../img")
    text = HEADER + "models:\n" + ENTRY + f"    {key}\n"
    for file, content in (("gate.yml", text), ("items.jsonl", holds), ("twin.onnx", "x"), (name, "before")):
        branches.write(content, content, file)
    assert branches.compare().changes == ()
    branches.write(None, "after", name)
    (change,) = branches.compare().changes
    assert change.model == "tagger"


def test_a_link_in_a_folder_of_images_that_leads_elsewhere_is_a_change(branches: Branches) -> None:
    for folder, target in ((branches.base, "../hard"), (branches.head, "../easy")):
        for made in ("img", "hard", "easy"):
            (folder / made).mkdir()
        (folder / "img" / "cat").symlink_to(target)
    text = HEADER + "models:\n" + ENTRY + "    dataset: {images: img}\n"
    branches.write(text, text)
    (change,) = branches.compare().changes
    assert change.key == "dataset.images"


def test_under_bases_limits_the_files_are_bases_and_the_source_is_the_pull_requests(branches: Branches) -> None:
    branches.write(FULL, FULL.replace("metric.py", "mine.py").replace("model.py:build", "new.py:build"))
    config = branches.compare().config
    (entry,) = config.models
    assert entry.metric is not None
    assert entry.metric.name == str(branches.base / "metric.py")
    assert (entry.dataset, config.waivers) == (str(branches.base / "eval.npz"), str(branches.base / "waivers.yml"))
    assert (entry.source.factory, config.folder) == ("new.py:build", branches.head)


# --- which answer counts -------------------------------------------------------------------------------------------


def test_a_raised_limit_does_not_help_until_somebody_approves_it(branches: Branches) -> None:
    branches.write(HEADER + "models:\n" + ENTRY + STRICT, HEADER + "models:\n" + ENTRY + LOOSE)
    refused = branches.check(config_from="base")
    assert refused.outcome is Outcome.FAIL
    assert rules(refused)[:2] == ["limits.changed", "limits.both"]
    assert "tagger.budgets.size: 5 KB, now 50 KB" in refused.findings[0].message
    assert "tagger: fail under the base branch's limits, pass under its own" in refused.findings[1].message
    assert "set the label limits-approved after the last push" in refused.findings[1].advice
    package = refused.models[0].shipped.package
    assert package
    assert (branches.head / "out" / package).is_dir()

    approved = branches.check(approved_by="label limits-approved by alice")
    assert approved.outcome is Outcome.PASS
    assert approved.run.approved_by == "label limits-approved by alice"
    assert "approved: label limits-approved by alice" in approved.findings[0].message


@pytest.mark.slow
def test_a_lowered_limit_that_the_pull_request_breaks_itself_blocks(branches: Branches) -> None:
    branches.write(HEADER + "models:\n" + ENTRY + LOOSE, HEADER + "models:\n" + ENTRY + STRICT)
    report = branches.check()
    assert report.outcome is Outcome.FAIL
    assert "pass under the base branch's limits, fail under its own" in report.findings[1].message


def test_an_entry_that_is_taken_out_of_gate_yml_fails(branches: Branches) -> None:
    other = ENTRY.replace("tagger", "other")
    branches.write(HEADER + "models:\n" + ENTRY + other, HEADER + "models:\n" + other)
    report = branches.check()
    assert report.outcome is Outcome.FAIL
    assert [model.name for model in report.models] == ["other", "tagger"]
    assert branches.check(approved_by="label").outcome is Outcome.PASS


def test_an_entry_that_base_does_not_know_is_self_declared(branches: Branches) -> None:
    new = ENTRY.replace("tagger", "new")
    branches.write(HEADER + "models:\n" + ENTRY, HEADER + "models:\n" + ENTRY + new)
    report = branches.check()
    assert {model.name: model.self_declared for model in report.models} == {"tagger": False, "new": True}
    assert "limits.both" not in rules(report)


def test_the_first_gate_yml_of_all_is_self_declared(branches: Branches) -> None:
    branches.write(None, HEADER + "models:\n" + ENTRY)
    report = branches.check(base_config=None, self_declared=True)
    assert [model.self_declared for model in report.models] == [True]


@pytest.mark.slow
def test_a_waiver_counts_when_it_is_on_the_base_branch(branches: Branches) -> None:
    text = HEADER + "waivers: waivers.yml\nmodels:\n" + ENTRY + STRICT
    waiver = "waivers: [{check: size, model: tagger, limit: 50 KB, reason: larger head, owner: alice, expires: 2999-01-01}]\n"
    branches.write(text, text)
    branches.write("waivers: []\n", waiver, "waivers.yml")
    refused = branches.check()
    assert refused.outcome is Outcome.FAIL
    assert "app.waivers" in refused.findings[0].message

    branches.write(waiver, None, "waivers.yml")
    accepted = branches.check()
    assert accepted.outcome is Outcome.PASS
    (size,) = (r for r in accepted.models[0].shipped.results if r.check is CheckName.SIZE)
    assert size.waiver is not None
    assert (size.waiver.owner, size.waiver.reason) == ("alice", "larger head")
