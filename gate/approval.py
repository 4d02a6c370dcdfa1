# SPDX-License-Identifier: Apache-2.0
"""Has somebody who may write said yes to exactly this head of a pull request?

A label counts when the last thing that happened to it is that a person with write permission set it, and when the head that is
judged now was the newest one then. When a head arrived is read off the workflow runs, whose times are GitHub's; the dates
in commits are the author's. No run of the head before the label, or any other head since: no approval, set the label again.
"""

from typing import Any

from gate.github import Client, GitHubError, PullRequest

MAY_WRITE = frozenset(("admin", "write"))  # GitHub folds `maintain` into write here, and `triage` into read


def approved_by(client: Client, repository: str, pull: PullRequest, label: str | None) -> str | None:
    """Return who approved and when, for a reader, or None."""
    labelled = _last_setting(client, repository, pull.number, label) if label else None
    if labelled is None:
        return None
    login, at = (labelled.get("actor") or {}).get("login", ""), labelled["created_at"]
    if not login or not _may_write(client, repository, login) or not _was_newest(client, repository, pull, at):
        return None
    return f"label {label} by {login} on {at[:10]}"


def _last_setting(client: Client, repository: str, number: int, label: str) -> Any | None:
    """The event that set the label, unless it was taken off since."""
    events = client.list(f"/repos/{repository}/issues/{number}/events")
    ours = [
        e for e in events if e.get("event") in ("labeled", "unlabeled") and (e.get("label") or {}).get("name") == label
    ]
    return ours[-1] if ours and ours[-1]["event"] == "labeled" else None


def _may_write(client: Client, repository: str, login: str) -> bool:
    try:
        answer = client.get(f"/repos/{repository}/collaborators/{login}/permission")
    except GitHubError as error:
        if error.status in (403, 404):  # nobody of this repository, or an app
            return False
        raise
    return answer["permission"] in MAY_WRITE


def _was_newest(client: Client, repository: str, pull: PullRequest, at: str) -> bool:
    """Was the head that is judged now the newest when the label was set, and is there none other since?"""
    runs = client.list(
        f"/repos/{repository}/actions/runs", key="workflow_runs", branch=pull.head_branch, event="pull_request"
    )
    for run in runs:  # newest first
        if (run.get("head_repository") or {}).get("full_name") != pull.head_repository:
            continue  # another fork's branch of the same name
        if run["head_sha"] != pull.head_sha:
            return False
        if run["created_at"] <= at:
            return True
    return False
