# SPDX-License-Identifier: Apache-2.0
"""What does `gate check` see of the base branch, and who can make a pull request's own limits count?"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fake_github import TOKEN, FakeGitHub
from runner import Ended, Runner, commit, copy_action, make_checkout, needs_namespaces

# Stands for `gate check`: tells what it was told, and what lies in the copies.
CHECK = """
import json, os, pathlib, sys
arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
base = os.environ["GATE_BASE_CONFIG"]
told = {name: value for name, value in os.environ.items() if name.startswith("GATE_")}
for key, folder in (("base", pathlib.Path(base).parent if base else None), ("source", pathlib.Path.cwd())):
    told[key] = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()} if folder else {}
pathlib.Path(arguments["--out"], "told.json").write_text(json.dumps(told))
"""
ENTRY = "models:\n  - {name: tagger, paths: ['ml/**'], source: {factory: 'ml/model.py:build'}, dataset: eval.npz, metric: ml/metric.py%s}\n"
STRICT = "version: 1\napproval: {label: yes-please}\n" + ENTRY % ", budgets: {size: 1 MB}"
LOOSE = STRICT.replace("1 MB", "9 MB")
FILES = {"gate.yml": LOOSE, "ml/model.py": "new", "ml/metric.py": "new metric", "eval.npz": "new data"}
BASE = {"gate.yml": STRICT, "ml/model.py": "old", "ml/metric.py": "old metric", "eval.npz": "old data"}

pytestmark = needs_namespaces


@pytest.fixture
def fake() -> Iterator[FakeGitHub]:
    with FakeGitHub(contents={name: text.encode() for name, text in BASE.items()}) as fake:
        yield fake


def prepared(
    folder: Path, fake: FakeGitHub, changed: list[str], *, files: Mapping[str, str] = FILES, **around: str
) -> tuple[Runner, Ended]:
    workspace = make_checkout(folder / "workspace", files)
    head = commit_of(workspace)
    fake.pulls.clear()
    event = {"pull_request": fake.add_pull(7, head, owner="mallory")}
    fake.files[7] = changed
    environment = {"GITHUB_API_URL": fake.api_url, **around}
    runner = Runner(
        copy_action(folder / "action", check=CHECK), workspace, folder / "temp", event, "pull_request", environment
    )
    return runner, runner.step("step.sh", "prepare", GATE_TOKEN=TOKEN)


def commit_of(workspace: Path) -> str:
    (workspace / "count.txt").write_text("1")
    return commit(workspace, "second")


def told(folder: Path, fake: FakeGitHub, changed: list[str], **around: Any) -> dict[str, Any]:
    """Run prepare and evaluate, and return what `gate check` was told."""
    runner, first = prepared(folder, fake, changed, **around)
    assert first.outputs["evaluate"] == "true", first.log + Path(first.outputs["work"], "evaluated.json").read_text()
    runner.step("evaluate.sh", GATE_WORK=first.outputs["work"])
    return dict(json.loads(Path(first.outputs["work"], "out", "told.json").read_text()))


def test_a_change_of_code_alone_asks_base_for_nothing(tmp_path: Path, fake: FakeGitHub) -> None:
    seen = told(tmp_path, fake, ["ml/model.py"])
    assert (seen["GATE_LIMITS"], seen["GATE_CONFIG_FROM"], seen["GATE_BASE_CONFIG"]) == ("base", "base", "")
    assert fake.requests("contents") == 0


def test_files_that_hold_limits_are_bases_in_the_copy_and_the_code_is_the_pull_requests(
    tmp_path: Path, fake: FakeGitHub
) -> None:
    seen = told(tmp_path, fake, ["gate.yml", "ml/model.py", "ml/metric.py", "eval.npz"])
    assert (seen["GATE_LIMITS"], seen["GATE_APPROVED_BY"]) == ("both", "")
    assert seen["base"] == {**BASE, "ml/model.py": "new", "count.txt": "1"}
    assert seen["source"] == {**FILES, "count.txt": "1"}


def test_a_metric_that_only_base_names_is_bases_too(tmp_path: Path, fake: FakeGitHub) -> None:
    """The pull request points gate.yml at a file of its own, and edits the old one as well."""
    files = {**FILES, "gate.yml": LOOSE.replace("ml/metric.py", "ml/mine.py"), "ml/mine.py": "mine"}
    seen = told(tmp_path, fake, ["gate.yml", "ml/metric.py", "ml/mine.py"], files=files)
    assert (seen["base"]["gate.yml"], seen["base"]["ml/metric.py"]) == (STRICT, "old metric")


def test_when_nobody_knows_what_changed_every_file_that_holds_limits_is_fetched(
    tmp_path: Path, fake: FakeGitHub
) -> None:
    seen = told(tmp_path, fake, [f"{n}.txt" for n in range(3_000)])
    assert seen["GATE_LIMITS"] == "both"
    assert (seen["base"]["eval.npz"], seen["base"]["ml/model.py"]) == ("old data", "new")


def test_a_label_after_the_last_push_makes_its_own_limits_count(tmp_path: Path, fake: FakeGitHub) -> None:
    fake.permissions["alice"] = "write"
    fake.label("yes-please", "alice", "2999-01-01T00:00:00Z")
    runner, _ = prepared(tmp_path, fake, ["gate.yml"])
    fake.add_run(str(dict(runner.event)["pull_request"]["head"]["sha"]), "2026-01-01T00:00:00Z", owner="mallory")  # type: ignore[index]
    first = runner.step("step.sh", "prepare", GATE_TOKEN=TOKEN)
    plan = json.loads(Path(first.outputs["work"], "plan.json").read_text())
    assert plan["approved_by"] == "label yes-please by alice on 2999-01-01"


def test_a_label_that_the_pull_request_names_itself_approves_nothing(tmp_path: Path, fake: FakeGitHub) -> None:
    fake.permissions["alice"] = "write"
    fake.label("mine", "alice", "2999-01-01T00:00:00Z")
    seen = told(tmp_path, fake, ["gate.yml"], files={**FILES, "gate.yml": LOOSE.replace("yes-please", "mine")})
    assert seen["GATE_APPROVED_BY"] == ""


def test_a_token_that_may_not_look_up_approvals_has_none_and_says_so(tmp_path: Path, fake: FakeGitHub) -> None:
    fake.forbidden = "GET .*/events"
    _, first = prepared(tmp_path, fake, ["gate.yml"])
    assert "the token needs `actions: read`" in first.log
    assert first.outputs["evaluate"] == "true"


def test_without_a_gate_yml_on_base_the_first_run_is_self_declared(tmp_path: Path, fake: FakeGitHub) -> None:
    fake.contents.clear()
    seen = told(tmp_path, fake, ["gate.yml"])
    assert (seen["GATE_LIMITS"], seen["GATE_CONFIG_FROM"]) == ("own", "head")


def test_a_base_that_cannot_be_read_is_no_reason_to_take_the_pull_requests_word(
    tmp_path: Path, fake: FakeGitHub
) -> None:
    fake.forbidden = "GET .*/contents"
    _, first = prepared(tmp_path, fake, ["gate.yml"])
    assert first.outputs["evaluate"] == "false"
    assert "limits come from there" in Path(first.outputs["work"], "evaluated.json").read_text()


def test_a_configuration_behind_a_link_is_told_and_nothing_is_judged(tmp_path: Path, fake: FakeGitHub) -> None:
    runner, _ = prepared(tmp_path, fake, ["gate.yml"], files={**FILES, "lax.yml": LOOSE})
    (runner.workspace / "gate.yml").unlink()
    (runner.workspace / "gate.yml").symlink_to("lax.yml")
    commit_of(runner.workspace)
    first = runner.step("step.sh", "prepare", GATE_TOKEN=TOKEN)
    evaluated = json.loads(Path(first.outputs["work"], "evaluated.json").read_text())
    assert (first.outputs["evaluate"], evaluated["exit_code"]) == ("false", 2)
    assert "a link leads from it to lax.yml" in evaluated["message"]


def test_a_run_that_edits_its_own_workflow_says_so(tmp_path: Path, fake: FakeGitHub) -> None:
    workflow = ".github/workflows/gate.yml"
    fake.contents[workflow] = b"jobs: {}"
    runner, first = prepared(
        tmp_path, fake, ["ml/model.py", workflow], GITHUB_WORKFLOW_REF=f"team/app/{workflow}@refs/pull/7/merge"
    )
    work = first.outputs["work"]
    Path(work, "evaluated.json").write_text('{"exit_code": 3}')
    runner.step("step.sh", "report", GATE_WORK=work, GATE_TOKEN=TOKEN)
    assert "Evaluation altered by this change, not trusted" in runner.summary
    assert workflow in runner.summary


def test_no_model_is_concerned_is_said_before_anything_is_asked_of_base(tmp_path: Path, fake: FakeGitHub) -> None:
    _, first = prepared(tmp_path, fake, ["README.md"])
    assert first.outputs["evaluate"] == "false"
    assert fake.requests("contents|events|runs") == 0
