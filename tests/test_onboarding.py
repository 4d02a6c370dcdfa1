# SPDX-License-Identifier: Apache-2.0
"""Does `gate doctor --github` see each thing that is missing, and is the set-up that we show complete?"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gate import github, onboarding
from gate.errors import UsageError

sys.path.insert(0, str(Path(__file__).parent / "action"))
from fake_github import TOKEN, FakeGitHub

PROJECT = Path(__file__).resolve().parents[1]
GATE_YML = b"version: 1\napproval: {label: limits-approved}\nmodels:\n  - {name: tagger, source: {factory: 'm.py:f'}}\n"
REQUIRED = {
    "type": "required_status_checks",
    "parameters": {
        "strict_required_status_checks_policy": True,
        "required_status_checks": [{"context": "coreml-gate"}],
    },
}


def example(name: str) -> str:
    text = (PROJECT / "examples" / "workflows" / name).read_text()
    return text.replace("OWNER/coreml-gate@" + "0" * 40, "acme/coreml-gate@" + "a1" * 20)


@pytest.fixture
def fake() -> Iterator[FakeGitHub]:
    """A repository in which everything is as the documents say."""
    contents = {".github/workflows/" + name: example(name).encode() for name in ("gate.yml", "gate-report.yml")}
    with FakeGitHub(contents=contents | {"gate.yml": GATE_YML}, labels=["limits-approved"], rules=[REQUIRED]) as fake:
        yield fake


def missing(fake: FakeGitHub) -> dict[str, str]:
    found = onboarding.examine(github.Client(TOKEN, fake.api_url), "team/app")
    return {c.name: f"{c.found}; {c.advice}" for c in found.capabilities if not c.ok}


def test_the_examples_that_we_show_are_complete(fake: FakeGitHub) -> None:
    assert missing(fake) == {}


WORKFLOW, REPORT = ".github/workflows/gate.yml", ".github/workflows/gate-report.yml"


@pytest.mark.parametrize(
    ("file", "old", "new", "name", "told"),
    [
        (
            WORKFLOW,
            r"persist-credentials: false",
            "fetch-depth: 1 #",
            "checks out without credentials",
            "refuses a checkout",
        ),
        (
            WORKFLOW,
            r"acme/coreml-gate@\w+",
            "OWNER/coreml-gate@" + "0" * 40,
            "uses the action by commit",
            "place of OWNER",
        ),
        (WORKFLOW, r"acme/coreml-gate@\w+", "acme/coreml-gate@v1", "uses the action by commit", "by commit"),
        (WORKFLOW, r"pull-requests: write", "issues: read", "permissions of", "missing pull-requests: write"),
        (
            WORKFLOW,
            r"  pull_request:\n",
            "  pull_request:\n    paths: ['ml/**']\n",
            "always starts",
            "pending for ever",
        ),
        (WORKFLOW, r", labeled", "", "starts on labels", "seen at once"),
        (WORKFLOW, r"  merge_group:\n", "", "merge queue", "merge_group"),
        (WORKFLOW, r"  merge_group:\n", "  merge_group:\n  pull_request_target:\n", "pull_request_target", "never run"),
        (REPORT, r"statuses: write", "checks: read", "permissions of", "missing statuses: write"),
    ],
)
def test_what_is_missing_in_a_workflow_is_told(
    fake: FakeGitHub, file: str, old: str, new: str, name: str, told: str
) -> None:
    text = fake.contents[file].decode()
    assert re.search(old, text)
    fake.contents[file] = re.sub(old, new, text, count=1).encode()
    (line,) = [(key, value) for key, value in missing(fake).items()]
    assert name in line[0]
    assert told in line[1]


def test_what_is_missing_in_the_repository_is_told(fake: FakeGitHub) -> None:
    fake.rules.clear()
    fake.labels.clear()
    del fake.contents[REPORT]
    fake.forbidden = "GET .*/actions/runs"
    assert missing(fake).keys() == {
        "main requires the status coreml-gate", "the label limits-approved", REPORT, "the token has actions: read",
    }  # fmt: skip


def test_without_a_label_in_gate_yml_only_the_merge_accepts(fake: FakeGitHub) -> None:
    fake.contents["gate.yml"] = GATE_YML.replace(b"approval: {label: limits-approved}\n", b"")
    assert "only the merge accepts" in missing(fake)["a label that approves a change of limits"]


def test_a_repository_that_cannot_be_seen_is_wrong_usage(fake: FakeGitHub) -> None:
    with pytest.raises(UsageError, match="GitHub answers 404"):
        onboarding.examine(github.Client(TOKEN, fake.api_url), "other/app")


def test_the_command_line_prints_it_and_fails_while_something_is_missing(fake: FakeGitHub) -> None:
    fake.rules.clear()
    done = subprocess.run(
        [sys.executable, "-m", "gate", "doctor", "--github", "team/app"],
        env=os.environ | {"GITHUB_API_URL": fake.api_url, "GITHUB_TOKEN": TOKEN}, cwd=PROJECT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "no   main requires the status coreml-gate: none; require the status" in done.stdout
