# SPDX-License-Identifier: Apache-2.0
"""Earlier reports, fetched from a GitHub that validates every call: the right run or none, and nothing harmful from it."""

import io
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gate import archive, github, history
from gate.errors import UsageError
from gate.report import Candidate, Model, Role, Run, make_report

sys.path.insert(0, str(Path(__file__).parent / "action"))
from fake_github import FakeGitHub, component

HEAD, MERGE, PARENT, GRAND = "a" * 40, "b" * 40, "c" * 40, "d" * 40
TIP = "e" * 40  # the base branch has moved on since
WORKFLOW = ".github/workflows/gate.yml"


def report(commit: str) -> bytes:
    model = Model(name="tagger", candidates=(Candidate(role=Role.SHIP, policy="float16"),))
    return make_report(Run(config_digest="0" * 64, commit=commit), (model,)).model_dump_json().encode()


@pytest.fixture
def server() -> Iterator[FakeGitHub]:
    ancestors = {HEAD: [MERGE, PARENT, GRAND], TIP: [MERGE, PARENT, GRAND]}
    ancestors |= {MERGE: [PARENT, GRAND], PARENT: [GRAND], GRAND: []}
    with FakeGitHub(history=ancestors) as fake:
        yield fake


def pushed(server: FakeGitHub, number: int, sha: str, members: dict[str, bytes] | None = None, **over: Any) -> None:
    """A finished push run with a baseline artifact."""
    repository = component("minimal-repository", full_name=over.pop("repository", server.repository))
    facts = {"id": number, "event": "push", "path": WORKFLOW, "head_sha": sha, "head_branch": "main"} | over
    server.runs.append(component("workflow-run", **facts) | {"head_repository": repository})
    server.add_artifact(number, history.ARTIFACT, members or {"report.json": report(sha)})


def event(server: FakeGitHub) -> github.Event:
    pull = github.PullRequest(7, HEAD, TIP, server.repository, server.repository)
    return github.Event("pull_request", server.repository, pull)


def seeker(server: FakeGitHub, **over: Any) -> history.Seeker:
    return history.Seeker(github.Client("token", server.api_url), server.repository, WORKFLOW, **over)


def test_the_merge_bases_own_push_run_comes_first(server, tmp_path):
    pushed(server, 1, PARENT)
    pushed(server, 2, MERGE)
    pushed(server, 3, TIP)

    found = seeker(server).base(event(server), tmp_path / "base")

    assert found is not None
    assert found.report.run.commit == MERGE
    assert found.origin == f"push run 2 of {MERGE[:12]}, the merge base"


def test_else_the_nearest_ancestors(server, tmp_path):
    pushed(server, 1, GRAND)
    pushed(server, 2, PARENT)
    pushed(server, 3, TIP)  # newer than the merge base: comparing with it would blame this change for others'

    found = seeker(server).base(event(server), tmp_path / "base")

    assert found is not None
    assert found.report.run.commit == PARENT
    assert "1 commits before" in found.origin


@pytest.mark.parametrize(
    "over",
    [
        pytest.param({"event": "pull_request"}, id="a pull request's run"),
        pytest.param({"path": ".github/workflows/other.yml"}, id="another workflow's"),
        pytest.param({"repository": "mallory/app"}, id="a fork's"),
    ],
)
def test_a_run_that_is_no_push_run_of_ours_is_no_baseline(server, tmp_path, over):
    pushed(server, 1, MERGE, **over)

    assert seeker(server).base(event(server), tmp_path / "base") is None
    assert not (tmp_path / "base").exists()


def test_a_report_about_another_commit_is_refused(server, tmp_path):
    pushed(server, 1, MERGE, {"report.json": report(GRAND)})

    found, said = history.sought("baseline", lambda: seeker(server).base(event(server), tmp_path / "base"))

    assert found is None
    assert "about commit" in said
    assert not (tmp_path / "base").exists()


def test_no_baseline_is_said_and_is_no_failure(server, tmp_path):
    found, said = history.sought("baseline", lambda: seeker(server).base(event(server), tmp_path / "base"))

    assert found is None
    assert "not judged" in said


def test_packages_do_not_reach_a_machine_that_runs_a_forks_code(server, tmp_path):
    members = {"report.json": report(MERGE), "packages/tagger/float16.mlpackage/model": b"weights", "per_item/x": b""}
    pushed(server, 1, MERGE, members)

    seeker(server, packages=False).base(event(server), tmp_path / "fork")
    seeker(server).base(event(server), tmp_path / "own")

    assert {p.name for p in (tmp_path / "fork").iterdir()} == {"report.json", "per_item"}
    assert (tmp_path / "own" / "packages").is_dir()


def test_a_committed_report_is_the_merge_bases_copy(server, tmp_path):
    server.contents["gate/baseline.json"] = report(MERGE)

    found = seeker(server).base(event(server), tmp_path / "base", "gate/baseline.json")

    assert found is not None
    assert found.origin == f"gate/baseline.json at {MERGE[:12]}"


def test_the_last_release_brings_its_report(server, tmp_path):
    assert seeker(server).release(tmp_path / "none") is None
    asset = component("release-asset", id=9, name=history.ASSET, state="uploaded")
    server.release = component("release", tag_name="v2", draft=False, prerelease=False, assets=[asset])
    server.add_artifact(9, "release", {"report.json": report(GRAND)})

    found = seeker(server).release(tmp_path / "release")

    assert found is not None
    assert found.origin == "release v2"
    assert found.report.run.commit == GRAND


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members:
            opened.writestr(name, data)
    return buffer.getvalue()


def linked() -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("report.json")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(zipped(("../../etc/cron", b"x")), "leads out", id="a name that climbs"),
        pytest.param(zipped(("/etc/cron", b"x")), "leads out", id="an absolute name"),
        pytest.param(zipped((linked(), b"/etc/passwd")), "a link", id="a link"),
        pytest.param(zipped(("a\\..\\b", b"x")), "leads out", id="a name of Windows"),
        pytest.param(b"PK\x03\x04 no zip", "not a readable zip", id="no zip"),
        pytest.param(zipped(*((f"{n}", b"") for n in range(30))), "30 files", id="too many files"),
        pytest.param(zipped(("bomb", b"\0" * 2_000_000)), "more than 1000000 bytes", id="a bomb"),
    ],
)
def test_an_archive_that_is_not_harmless_leaves_nothing(tmp_path, monkeypatch, data, told):
    monkeypatch.setattr(archive, "MAX_FILES", 20)
    monkeypatch.setattr(archive, "MAX_BYTES", 1_000_000)

    with pytest.raises(UsageError, match=told):
        archive.unpack(data, tmp_path / "out", "artifact")
    assert list(tmp_path.iterdir()) == []
