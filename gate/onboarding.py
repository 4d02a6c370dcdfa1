# SPDX-License-Identifier: Apache-2.0
"""What is missing in a repository's set-up on GitHub?

Asks GitHub and reads the two workflow files of the default branch; changes nothing. Each line says what was found, and what to do.
What a token may not see is told as such: rules of a branch are public to readers, classic branch protection is not.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import Field

from gate import config, github
from gate.doctor import Capability
from gate.document import Record, load_yaml
from gate.errors import ConfigError, UsageError

WORKFLOW, REPORT_WORKFLOW = ".github/workflows/gate.yml", ".github/workflows/gate-report.yml"
STATUS = "coreml-gate"
_PINNED = re.compile(r"[\w.-]+/coreml-gate@([0-9a-f]{40})$")


class Setup(Record):
    """What was found in a repository."""

    repository: str = Field(description="owner/name")
    capabilities: tuple[Capability, ...] = Field(description="the findings")

    @property
    def is_complete(self) -> bool:
        """Is nothing missing?"""
        return all(c.ok for c in self.capabilities)

    def text(self) -> str:
        """Show it for a person."""
        lines = [f"{self.repository} on GitHub"]
        for c in self.capabilities:
            advice = f"; {c.advice}" if c.advice and not c.ok else ""
            lines.append(f"{'yes' if c.ok else 'no ':3}  {c.name}: {c.found}{advice}")
        return "\n".join(lines)


def examine(client: github.Client, repository: str) -> Setup:
    """Look at everything that the gate needs there."""
    there = _Repository(client, repository)
    return Setup(repository=repository, capabilities=tuple(there.findings()))


@dataclass
class _Repository:
    """A repository as the token sees it."""

    client: github.Client
    name: str

    @cached_property
    def branch(self) -> str:
        """The default branch; a repository that cannot be seen at all is wrong usage."""
        try:
            return str(self.client.get(f"/repos/{self.name}")["default_branch"])
        except github.GitHubError as error:
            if error.status not in (401, 403, 404):
                raise
            raise UsageError(
                f"{self.name}: GitHub answers {error.status}; expected a repository that the token in GITHUB_TOKEN may read"
            ) from None

    def findings(self) -> Iterator[Capability]:
        """Yield every line."""
        branch = self.branch
        yield from self._token()
        yield from self._workflow(self._file(WORKFLOW), WORKFLOW)
        yield from self._report_workflow(self._file(REPORT_WORKFLOW))
        yield self._required(branch)
        yield from self._configuration()

    def _file(self, path: str) -> bytes | None:
        return github.file_at(self.client, self.name, path, self.branch)

    def _may(self, path: str) -> bool:
        try:
            self.client.get(f"/repos/{self.name}/{path}", per_page=1)
        except github.GitHubError as error:
            if error.status in (403, 404):
                return False
            raise
        return True

    def _token(self) -> Iterator[Capability]:
        for what, path in (("pull-requests: read", "pulls"), ("actions: read", "actions/runs")):
            yield _line(
                f"the token has {what}",
                self._may(path),
                "granted",
                "refused",
                f"add `{what}` to the permissions of the token",
            )

    def _workflow(self, text: bytes | None, path: str) -> Iterator[Capability]:
        document = _document(text)
        if document is None:
            yield _absent(path, "copy examples/workflows/gate.yml, or run `gate init`")
            return
        yield Capability(name=path, ok=True, found="there")
        yield from _triggers(document)
        yield from _steps(document, path)
        yield _permissions(document, path, {"actions": "read", "contents": "read", "pull-requests": "write"})

    def _report_workflow(self, text: bytes | None) -> Iterator[Capability]:
        document = _document(text)
        if document is None:
            yield _absent(
                REPORT_WORKFLOW,
                "copy examples/workflows/gate-report.yml: forks get no comment and nobody a status without it",
            )
            return
        yield Capability(name=REPORT_WORKFLOW, ok=True, found="there")
        yield from _steps(document, REPORT_WORKFLOW)
        needed = {"actions": "read", "contents": "read", "pull-requests": "write", "statuses": "write"}
        yield _permissions(document, REPORT_WORKFLOW, needed)

    def _required(self, branch: str) -> Capability:
        rules = self.client.list(f"/repos/{self.name}/rules/branches/{branch}")
        contexts = {
            check["context"]
            for rule in rules
            if rule.get("type") == "required_status_checks"
            for check in rule["parameters"]["required_status_checks"]
        }
        advice = (
            f"require the status `{STATUS}` in a ruleset for {branch}: a fork can fake the name of a job, and not a status "
            "(classic branch protection cannot be seen with this token)"
        )
        return _line(
            f"{branch} requires the status {STATUS}", STATUS in contexts, "required", _listed(contexts), advice
        )

    def _configuration(self) -> Iterator[Capability]:
        text = self._file("gate.yml")
        if text is None:
            yield _absent(
                "gate.yml", "write one with `gate init`; a gate elsewhere is named by the action's input `config`"
            )
            return
        try:
            label = config.label_of(text)
        except ConfigError as error:
            yield Capability(name="gate.yml", ok=False, found=str(error), advice="mend it on the default branch first")
            return
        yield Capability(name="gate.yml", ok=True, found="there")
        yield self._label(label)

    def _label(self, label: str | None) -> Capability:
        if label is None:
            advice = "name a label under `approval:` in gate.yml; until then only the merge accepts a change of limits"
            return Capability(name="a label that approves a change of limits", ok=False, found="none", advice=advice)
        there = self._may(f"labels/{label}")
        return _line(f"the label {label}", there, "there", "not in this repository", "create it on GitHub")


# --- reading a workflow ------------------------------------------------------------------------------------------------


def _document(text: bytes | None) -> dict[Any, Any] | None:
    if text is None:
        return None
    read = load_yaml(text, "workflow", ConfigError)
    return read if isinstance(read, dict) else {}


def _jobs(document: dict[Any, Any]) -> list[dict[str, Any]]:
    jobs = document.get("jobs")
    return [job for job in jobs.values() if isinstance(job, dict)] if isinstance(jobs, dict) else []


def _triggers(document: dict[Any, Any]) -> Iterator[Capability]:
    """Which events start it? YAML 1.1 reads the key `on` as True."""
    asked = document.get("on", document.get(True))
    events = asked if isinstance(asked, dict) else dict.fromkeys([asked] if isinstance(asked, str) else asked or ())
    pull = events.get("pull_request") or {}
    starts = "pull_request" in events and not {"paths", "paths-ignore"} & set(pull)
    advice = "start on every pull_request without `paths`: GitHub leaves a required check pending for ever otherwise"
    yield _line("it always starts on a pull request", starts, "it does", "it does not, or filters by paths", advice)
    types = pull.get("types") or ()
    labelled = {"labeled", "synchronize", "opened", "reopened"} <= set(types)
    advice = "types: [opened, synchronize, reopened, labeled], so that an approving label is seen at once"
    yield _line("it starts on labels", labelled, "it does", _listed(types), advice)
    unsafe = "pull_request_target" in events
    advice = "never run the gate on it: it would run code of forks with a token that may write"
    yield _line("it does not run on pull_request_target", not unsafe, "it does not", "it does", advice)
    queue = "merge_group" in events
    yield _line("it starts in the merge queue", queue, "it does", "it does not", "add `merge_group:` under `on:`")


def _steps(document: dict[Any, Any], path: str) -> Iterator[Capability]:
    steps = [step for job in _jobs(document) for step in job.get("steps") or () if isinstance(step, dict)]
    uses = [str(step.get("uses", "")) for step in steps]
    pinned = [found[1] for found in map(_PINNED.search, uses) if found and set(found[1]) != {"0"}]
    ours = [name for name in uses if "coreml-gate@" in name]
    advice = "put a release of the action, by commit, in place of OWNER/coreml-gate@000…"
    yield _line(f"{path} uses the action by commit", bool(pinned), _listed(ours), _listed(ours), advice)
    for step in steps:
        if str(step.get("uses", "")).startswith("actions/checkout@"):
            kept = (step.get("with") or {}).get("persist-credentials", True)
            advice = "set `persist-credentials: false`: the gate refuses a checkout that holds a token"
            yield _line(
                f"{path} checks out without credentials", kept in (False, "false"), "it does", "it does not", advice
            )


def _permissions(document: dict[Any, Any], path: str, needed: dict[str, str]) -> Capability:
    given: dict[str, Any] = {}
    for part in (document, *_jobs(document)):
        told = part.get("permissions")
        given |= told if isinstance(told, dict) else dict.fromkeys(needed, "write") if told == "write-all" else {}
    missing = [f"{name}: {level}" for name, level in needed.items() if given.get(name) not in (level, "write")]
    advice = f"add `{', '.join(missing)}` to the job's permissions"
    return _line(f"permissions of {path}", not missing, "enough", f"missing {', '.join(missing)}", advice)


# --- lines -------------------------------------------------------------------------------------------------------------


def _line(name: str, ok: bool, yes: str, no: str, advice: str) -> Capability:
    return Capability(name=name, ok=ok, found=yes if ok else no, advice="" if ok else advice)


def _absent(name: str, advice: str) -> Capability:
    return Capability(name=name, ok=False, found="not on the default branch", advice=advice)


def _listed(names: Any) -> str:
    return ", ".join(sorted(map(str, names))) or "none"
