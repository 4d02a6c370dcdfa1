# SPDX-License-Identifier: Apache-2.0
"""When does a label say yes to exactly this head?"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gate import approval, github

sys.path.insert(0, str(Path(__file__).parent / "action"))
from fake_github import TOKEN, FakeGitHub

HEAD, OTHER, LABEL = "c" * 40, "d" * 40, "limits-approved"
PULL = github.PullRequest(7, HEAD, "b" * 40, "team/app", "team/app", "work")
MORNING, NOON, EVENING = (f"2026-03-01T{hour}:00:00Z" for hour in ("08", "12", "18"))


@pytest.fixture
def fake() -> Iterator[FakeGitHub]:
    with FakeGitHub(permissions={"alice": "write", "triager": "read"}) as fake:
        yield fake


def said(fake: FakeGitHub, label: str | None = LABEL) -> str | None:
    return approval.approved_by(github.Client(TOKEN, fake.api_url), "team/app", PULL, label)


def test_a_label_after_the_last_push_approves_and_names_who(fake: FakeGitHub) -> None:
    fake.add_run(HEAD, MORNING)
    fake.label(LABEL, "alice", NOON)
    assert said(fake) == "label limits-approved by alice on 2026-03-01"


@pytest.mark.parametrize("actor", ["triager", "mallory"], ids=["may-not-write", "nobody-here"])
def test_who_may_not_write_may_not_approve(fake: FakeGitHub, actor: str) -> None:
    fake.add_run(HEAD, MORNING)
    fake.label(LABEL, actor, NOON)
    assert said(fake) is None


def test_a_label_before_the_last_push_approves_nothing(fake: FakeGitHub) -> None:
    fake.add_run(OTHER, MORNING)
    fake.label(LABEL, "alice", NOON)
    fake.add_run(HEAD, EVENING)
    assert said(fake) is None


def test_a_label_for_another_head_does_not_serve_an_old_one_that_comes_back(fake: FakeGitHub) -> None:
    fake.add_run(HEAD, MORNING)
    fake.add_run(OTHER, "2026-03-01T10:00:00Z")
    fake.label(LABEL, "alice", NOON)  # for OTHER
    fake.add_run(HEAD, EVENING)
    fake.add_run(HEAD, "2026-03-01T19:00:00Z")  # as when the author reopens the pull request
    assert said(fake) is None


def test_a_run_after_the_label_is_fine_when_it_is_of_the_same_head(fake: FakeGitHub) -> None:
    fake.add_run(HEAD, MORNING)
    fake.label(LABEL, "alice", NOON)
    fake.add_run(HEAD, EVENING)  # the run that the label itself starts
    assert said(fake) is not None


def test_a_label_that_was_taken_off_again_approves_nothing(fake: FakeGitHub) -> None:
    fake.add_run(HEAD, MORNING)
    fake.label(LABEL, "alice", NOON)
    fake.label(LABEL, "alice", EVENING, event="unlabeled")
    assert said(fake) is None


def test_another_label_approves_nothing(fake: FakeGitHub) -> None:
    fake.add_run(HEAD, MORNING)
    fake.label("mac", "alice", NOON)
    assert said(fake) is None
    assert said(fake, None) is None


def test_a_head_that_never_ran_is_not_approved(fake: FakeGitHub) -> None:
    fake.label(LABEL, "alice", NOON)
    assert said(fake) is None


def test_another_forks_branch_of_the_same_name_neither_helps_nor_harms(fake: FakeGitHub) -> None:
    fake.add_run(HEAD, MORNING)
    fake.label(LABEL, "alice", NOON)
    fake.add_run(OTHER, EVENING, owner="mallory")
    assert said(fake) is not None
    fake.runs.pop()
    assert said(fake) is None
