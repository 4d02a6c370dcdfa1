# SPDX-License-Identifier: Apache-2.0
"""Which earlier report is a change compared with, and how does it get here?

`base`: the artifact that the push run of the merge base left in this repository, or that of its nearest ancestor; a committed file of
the base branch where the team keeps one. `release`: a file of the last release. Event, workflow, repository and commit of a run are
checked: anybody can name a branch, and a pull request's run can upload an artifact of any name. Where there is none, growth and
yardsticks are not judged, which is neutral.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gate.archive import unpack
from gate.baseline import read_report
from gate.errors import NoAnswer, UsageError
from gate.github import Client, Event, GitHubError, file_at
from gate.report import Report

ARTIFACT = "coreml-gate-baseline"
ASSET = f"{ARTIFACT}.zip"
REPORT = "report.json"
ARCHIVE_BYTES = 500_000_000
MAX_ANCESTORS = 10  # push runs that are looked at, the newest first
PACKAGES = "packages/"


@dataclass(frozen=True)
class Earlier:
    """An earlier report and where it comes from."""

    report: Report
    file: Path
    origin: str


@dataclass(frozen=True)
class Seeker:
    """Looks for earlier reports in one repository; what it may take along is decided once."""

    client: Client
    repository: str
    workflow: str  # path of this workflow's file; runs of others are no baseline
    packages: bool = True  # False on a machine that runs a fork's code: they may be nobody's but the team's

    def base(self, event: Event, folder: Path, committed: str = "") -> Earlier | None:
        """Fetch the report of the commit that a change builds upon into a folder; None where there is none."""
        start = self._merge_base(event)
        if start is None:
            return None
        if committed:
            return self._committed(committed, start, folder)
        for run, distance in self._runs(start):
            archive = self._artifact(run)
            if archive is not None:
                return self._unpacked(archive, folder, run["head_sha"], _origin(run, distance))
        return None

    def release(self, folder: Path) -> Earlier | None:
        """Fetch the report of the last release into a folder; None where it has none."""
        try:
            latest = self.client.get(f"/repos/{self.repository}/releases/latest")
        except GitHubError as error:
            if error.status == 404:
                return None
            raise
        assets = [item["id"] for item in latest["assets"] if item["name"] == ASSET and item["state"] == "uploaded"]
        if latest["draft"] or latest["prerelease"] or not assets:
            return None
        path = f"/repos/{self.repository}/releases/assets/{assets[0]}"
        archive = self.client.download(path, ARCHIVE_BYTES, accept="application/octet-stream")
        return self._unpacked(archive, folder, None, f"release {latest['tag_name']}")

    def _merge_base(self, event: Event) -> str | None:
        pull = event.pull_request
        if pull is None:
            return event.before
        compared = self.client.get(f"/repos/{self.repository}/compare/{pull.base_sha}...{pull.head_sha}")
        return str(compared["merge_base_commit"]["sha"])

    def _committed(self, name: str, sha: str, folder: Path) -> Earlier | None:
        """The copy at the merge base: a pull request that edits the file does not choose what it is compared with."""
        data = file_at(self.client, self.repository, name, sha)
        if data is None:
            return None
        folder.mkdir(parents=True)
        (folder / REPORT).write_bytes(data)
        return Earlier(read_report(folder / REPORT), folder / REPORT, f"{name} at {sha[:12]}")

    def _runs(self, sha: str) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield push runs with how many commits before `sha` they are: its own first, then the nearest ancestors'."""
        own = [run for run in self._pushes(head_sha=sha) if run["head_sha"] == sha]
        yield from ((run, 0) for run in own)
        others = {run["head_sha"]: run for run in self._pushes() if run["head_sha"] != sha}
        ancestors = []
        for head in list(others)[:MAX_ANCESTORS]:
            compared = self.client.get(f"/repos/{self.repository}/compare/{head}...{sha}")
            if compared["status"] == "ahead" and compared["behind_by"] == 0:
                ancestors.append((others[head], int(compared["ahead_by"])))
        yield from sorted(ancestors, key=lambda found: found[1])

    def _pushes(self, **filters: str) -> list[dict[str, Any]]:
        """Finished push runs of this workflow in this repository, of one page."""
        path = f"/repos/{self.repository}/actions/runs"
        page = self.client.get(path, event="push", status="completed", per_page=50, **filters)["workflow_runs"]
        return [run for run in page if self._is_ours(run)]

    def _is_ours(self, run: dict[str, Any]) -> bool:
        path, _, _ = str(run["path"]).partition("@")
        head = (run.get("head_repository") or {}).get("full_name")
        return bool(run["event"] == "push" and path == self.workflow and head == self.repository)

    def _artifact(self, run: dict[str, Any]) -> bytes | None:
        path = f"/repos/{self.repository}/actions/runs/{run['id']}/artifacts"
        found = [item for item in self.client.list(path, key="artifacts", name=ARTIFACT) if item["name"] == ARTIFACT]
        usable = [item["id"] for item in found if not item["expired"]]
        if not usable:
            return None
        return self.client.download(f"/repos/{self.repository}/actions/artifacts/{max(usable)}/zip", ARCHIVE_BYTES)

    def _unpacked(self, archive: bytes, folder: Path, commit: str | None, origin: str) -> Earlier:
        unpack(archive, folder, origin, lambda name: self.packages or not name.startswith(PACKAGES))
        try:
            report = read_report(folder / REPORT)
            if commit is not None and report.run.commit != commit:
                raise UsageError(f"{origin}: its report is about commit {report.run.commit}, expected {commit}")
        except UsageError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return Earlier(report, folder / REPORT, origin)


def _origin(run: dict[str, Any], distance: int) -> str:
    how = "the merge base" if not distance else f"{distance} commits before the merge base"
    return f"push run {run['id']} of {run['head_sha'][:12]}, {how}"


def sought(what: str, seek: Any) -> tuple[Earlier | None, str]:
    """Return what a search found, and what to say about it: a baseline that cannot be had is no failure."""
    try:
        found: Earlier | None = seek()
    except (GitHubError, UsageError, NoAnswer) as problem:
        return None, f"No {what}: {problem}. Growth and {what} yardsticks are not judged."
    if found is None:
        return None, f"No {what}: there is no report to compare with yet. Growth and {what} yardsticks are not judged."
    return found, f"Compared with the {what}: {found.origin}."
