# SPDX-License-Identifier: Apache-2.0
"""What does the default branch's own workflow believe of a run, and what does it post?"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gate.action import __main__ as action
from gate.action.runner import Surroundings
from gate.report import Candidate, CheckName, Model, Outcome, Part, Result, Role, Run, make_report

sys.path.insert(0, str(Path(__file__).parent))
from fake_github import TOKEN, FakeGitHub

HEAD, WORKFLOW = "c" * 40, ".github/workflows/gate.yml"
BASE = b"version: 1\napproval: {label: yes-please}\nmodels:\n  - {name: tagger, source: {factory: 'm.py:f'}}\n"
SAYS = "altered by this change, not trusted"


def report(outcome: Outcome, **run: Any) -> bytes:
    result = Result(check=CheckName.SIZE, outcome=outcome, message="The package is " + outcome)
    model = Model(name="tagger", candidates=(Candidate(role=Role.SHIP, policy="float16", results=(result,)),))
    return make_report(Run(config_digest="0" * 64, **run), (model,)).model_dump_json().encode()


@pytest.fixture
def fake() -> Iterator[FakeGitHub]:
    with FakeGitHub(files={7: ["ml/model.py"]}, contents={WORKFLOW: b"jobs: {}", "gate.yml": BASE}) as fake:
        fake.add_pull(7, HEAD, owner="mallory")
        fake.add_artifact(5, "coreml-gate", {"report.json": report(Outcome.PASS)})
        yield fake


@pytest.fixture
def post(fake: FakeGitHub, tmp_path: Path) -> Any:
    """Run the posting step about run 5; return its outputs."""

    def run(*, owner: str = "mallory", inputs: dict[str, str] | None = None, **over: Any) -> dict[str, str]:
        told = {"id": 5, "event": "pull_request", "head_sha": HEAD, "head_branch": "work", "conclusion": "success"}
        told |= {"path": WORKFLOW, "head_repository": {"owner": {"login": owner}}, **over}
        (tmp_path / "event.json").write_text(json.dumps({"workflow_run": told}))
        output = tmp_path / "output"
        output.write_text("")
        around = {
            "GITHUB_EVENT_NAME": "workflow_run", "GITHUB_EVENT_PATH": str(tmp_path / "event.json"), "GITHUB_OUTPUT": str(output),
            "GITHUB_REPOSITORY": "team/app", "GITHUB_API_URL": fake.api_url, "GITHUB_SERVER_URL": "https://github.test",
            "GATE_TOKEN": TOKEN, "INPUT_MODE": "report", **(inputs or {}),
        }  # fmt: skip
        assert action.run_report(Surroundings(around)) == 0
        lines = output.read_text().split("\n")
        return {lines[i].partition("<<")[0]: lines[i + 1] for i in range(0, len(lines) - 2, 3)}

    return run


def status(fake: FakeGitHub) -> tuple[str, str]:
    (only,) = fake.statuses
    return only["sha"], only["state"]


def comment(fake: FakeGitHub) -> str:
    (only,) = fake.comments
    return str(only["body"])


@pytest.mark.parametrize(
    ("outcome", "conclusion", "state"),
    [
        (Outcome.PASS, "success", "success"),
        (Outcome.FAIL, "failure", "failure"),
        (Outcome.ERROR, "failure", "error"),
        (Outcome.INCONCLUSIVE, "success", "success"),
    ],
)
def test_the_status_on_the_head_says_what_the_report_says(
    fake: FakeGitHub, post: Any, outcome: Outcome, conclusion: str, state: str
) -> None:
    fake.add_artifact(5, "coreml-gate", {"report.json": report(outcome)})
    assert post(conclusion=conclusion)["verdict"] == outcome
    assert status(fake) == (HEAD, state)
    assert fake.statuses[0]["context"] == "coreml-gate"


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ([WORKFLOW], WORKFLOW),
        ([".github/actions/setup/action.yml"], ".github/actions/setup/action.yml"),
        ([".github/actions"], ".github/actions"),  # as a link
    ],
    ids=["the-workflow", "what-it-uses", "a-folder-above"],
)
def test_a_head_that_edits_its_evaluation_is_not_trusted(
    fake: FakeGitHub, post: Any, files: list[str], named: str
) -> None:
    fake.contents[WORKFLOW] = b"steps:\n  - uses: ./.github/actions/../actions/setup/\n"
    fake.files[7] = ["ml/model.py", *files]
    assert post()["verdict"] == "error"
    assert SAYS in comment(fake)
    assert named in comment(fake)
    assert status(fake) == (HEAD, "error")


def test_a_workflow_of_the_same_name_that_the_fork_brings_is_not_trusted(fake: FakeGitHub, post: Any) -> None:
    assert post(path=".github/workflows/evil.yml")["verdict"] == "error"
    assert status(fake) == (HEAD, "error")


def test_another_workflow_that_does_not_change_is_no_alteration(fake: FakeGitHub, post: Any) -> None:
    fake.files[7] = ["ml/model.py", ".github/workflows/docs.yml"]
    assert post()["verdict"] == "pass"


def test_an_edited_workflow_counts_once_a_maintainer_approves(fake: FakeGitHub, post: Any) -> None:
    fake.files[7] = [WORKFLOW]
    fake.permissions["alice"] = "admin"
    fake.add_run(HEAD, "2026-03-01T08:00:00Z", owner="mallory")
    fake.label("yes-please", "alice", "2026-03-01T12:00:00Z")
    assert post()["verdict"] == "pass"
    assert status(fake) == (HEAD, "success")


def test_an_approval_that_the_run_only_claims_is_not_believed(fake: FakeGitHub, post: Any) -> None:
    fake.add_artifact(5, "coreml-gate", {"report.json": report(Outcome.PASS, approved_by="label yes-please by alice")})
    assert post()["verdict"] == "error"
    assert "GitHub does not" in comment(fake)
    assert status(fake) == (HEAD, "error")


@pytest.mark.parametrize(
    ("run", "said"),
    [
        pytest.param(
            {"part": Part(index=1, units=(("tagger/float16",), ("b/float16",)))}, "one part of a run", id="part"
        ),
        pytest.param({"handover": "1" * 64}, "one part of a run", id="another machine's answers"),
        pytest.param({"commit": "d" * 40}, "about another commit", id="replayed"),
        pytest.param({"commit": "<img src=x> @team |"}, "about another commit", id="no commit at all"),
    ],
)
def test_a_pass_about_something_else_is_no_verdict(fake: FakeGitHub, post: Any, run: dict[str, Any], said: str) -> None:
    fake.add_artifact(5, "coreml-gate", {"report.json": report(Outcome.PASS, **run)})
    assert post()["verdict"] == Outcome.ERROR
    assert status(fake) == (HEAD, "error")
    assert said in comment(fake)
    assert "<img" not in comment(fake)
    assert "@team" not in comment(fake)


def test_a_pass_about_this_commit_is_believed(fake: FakeGitHub, post: Any) -> None:
    fake.add_artifact(5, "coreml-gate", {"report.json": report(Outcome.PASS, commit=HEAD)})
    assert post()["verdict"] == Outcome.PASS


def test_a_pass_from_a_run_that_did_not_end_well_is_not_believed(fake: FakeGitHub, post: Any) -> None:
    assert post(conclusion="failure")["verdict"] == "error"
    assert status(fake) == (HEAD, "error")


@pytest.mark.parametrize(
    ("conclusion", "verdict", "state"),
    [("success", "none", "success"), ("cancelled", "error", "error"), ("skipped", "error", "error")],
)
def test_a_run_without_a_report(fake: FakeGitHub, post: Any, conclusion: str, verdict: str, state: str) -> None:
    fake.artifacts.clear()
    assert post(conclusion=conclusion)["verdict"] == verdict
    assert status(fake) == (HEAD, state)


def test_two_pull_requests_from_one_branch_get_nothing(fake: FakeGitHub, post: Any) -> None:
    fake.add_pull(8, HEAD, owner="mallory")
    assert post()["verdict"] == "none"
    assert fake.comments == fake.statuses == []


def test_a_stale_run_posts_nothing(fake: FakeGitHub, post: Any) -> None:
    assert post(head_sha="e" * 40)["verdict"] == "none"
    assert fake.comments == fake.statuses == []


def test_a_merge_group_gets_a_status_and_no_comment(fake: FakeGitHub, post: Any) -> None:
    assert (
        post(event="merge_group", head_sha="f" * 40, head_branch="gh-readonly-queue/main/pr-7-b")["verdict"] == "pass"
    )
    assert status(fake) == ("f" * 40, "success")
    assert fake.comments == []


@pytest.mark.parametrize("event", ["push", "schedule", "workflow_dispatch"])
def test_other_runs_are_left_alone(fake: FakeGitHub, post: Any, event: str) -> None:
    post(event=event)
    assert fake.comments == fake.statuses == []


def test_a_run_of_dependabot_is_posted_like_a_forks(fake: FakeGitHub, post: Any) -> None:
    """Its branch lies in the repository, its token is read-only all the same."""
    fake.pulls.clear()
    fake.add_pull(9, HEAD, branch="dependabot/pip/torch")
    fake.files[9] = ["requirements.lock"]
    assert post(owner="team", head_branch="dependabot/pip/torch")["comment-written"] == "true"
    assert status(fake) == (HEAD, "success")


def test_a_token_without_statuses_still_comments(fake: FakeGitHub, post: Any, capsys: Any) -> None:
    fake.forbidden = "POST .*/statuses/"
    assert post()["comment-written"] == "true"
    assert fake.forbidden
    assert "needs `statuses: write`" in capsys.readouterr().out


def test_two_gates_have_two_statuses(fake: FakeGitHub, post: Any) -> None:
    post(inputs={"INPUT_COMMENT_ID": "macos"})
    assert fake.statuses[0]["context"] == "coreml-gate/macos"


def test_a_report_of_70_000_characters_is_posted_with_its_verdict_first(fake: FakeGitHub, post: Any) -> None:
    result = Result(check=CheckName.SIZE, outcome=Outcome.FAIL, message="The package is too large")
    models = tuple(
        Model(
            name=f"tagger-{n}",
            candidates=(Candidate(role=Role.SHIP, policy="float16", summary="x" * 300, results=(result,)),),
        )
        for n in range(200)
    )
    whole = make_report(Run(config_digest="0" * 64), models)
    assert len(whole.model_dump_json()) > 70_000
    fake.add_artifact(5, "coreml-gate", {"report.json": whole.model_dump_json().encode()})
    assert post(conclusion="failure")["verdict"] == "fail"
    assert len(comment(fake)) <= 65_000
    assert comment(fake).splitlines()[1].startswith("### ✗")
