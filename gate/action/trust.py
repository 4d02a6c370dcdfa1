# SPDX-License-Identifier: Apache-2.0
"""How far is this pull request to be trusted: whose limits count, who approved, and does it edit what judges it?

Decided with the token, before any of its code runs. `base/` beside `source/` is the same copy of the checkout in which every file
that holds limits is the base branch's; `gate check` reads both (gate/limits.py).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gate import approval, config, github, lfs, limits, prepare
from gate.action.handover import LimitsOf
from gate.action.runner import command, say
from gate.errors import ConfigError, NoAnswer
from gate.files import write_bytes
from gate.render.escape import code

SHOWN = 5

_LOCAL_USES = re.compile(r"""uses:\s*["']?\./([^\s"'#]+)""")


@dataclass(frozen=True)
class Standing:
    """Whose limits count. `approved_by` says who accepted that the pull request changes them."""

    limits: LimitsOf = LimitsOf.WORKING_TREE
    changed: tuple[str, ...] = ()  # files that hold limits, relative to the repository root
    holding: tuple[str, ...] = ()  # where limits lie, changed or not
    base_text: bytes | None = None  # gate.yml of the base branch
    approved_by: str = ""


def standing(
    client: github.Client, event: github.Event, root: Path, file: Path, changed: frozenset[str] | None
) -> Standing:
    """Find out what base says, where the pull request touches a file that holds limits; nothing is asked where it does not."""
    pull = event.pull_request
    if pull is None:
        return Standing()
    name = file.resolve().relative_to(root.resolve()).as_posix()
    head = config.load(file)
    if changed is not None and not _touched(changed, [name, *_holding(head, root)]):
        return Standing(LimitsOf.BASE)
    text = _at_base(client, event.repository, name, pull.base_sha)
    if text is None:
        return Standing(LimitsOf.OWN)
    base = _read(text, file)
    if base is None:
        return Standing(LimitsOf.OWN)
    holding = [name, *_holding(head, root), *_holding(base, root)]
    touched = _every_file(root, holding) if changed is None else _touched(changed, holding)
    accepted = approved(client, event.repository, pull, base.approval.label)
    return Standing(LimitsOf.BOTH, tuple(touched), tuple(holding), text, accepted or "")


def approved(client: github.Client, repository: str, pull: github.PullRequest, label: str | None) -> str | None:
    """Ask who approved; a token that may not ask has no approval, and says what it lacks."""
    try:
        return approval.approved_by(client, repository, pull, label)
    except github.GitHubError as error:
        if error.status not in (403, 404):
            raise
        told = f"Whether the label {label} approves is not known ({error}); the token needs `actions: read`"
        say(command("notice", told, title="Core ML gate"))
        return None


def _at_base(client: github.Client, repository: str, name: str, sha: str) -> bytes | None:
    try:
        return github.file_at(client, repository, name, sha)
    except github.GitHubError as error:
        raise NoAnswer(
            f"{name}: the base branch's version could not be read ({error}); limits come from there, so nothing was judged. "
            "The token needs `contents: read`"
        ) from None


def _read(text: bytes, file: Path) -> config.Config | None:
    """Base's configuration; one that this version cannot read holds nothing back, or it could never be mended."""
    try:
        return config.loads(text, file)
    except ConfigError as error:
        told = f"{file.name} of the base branch cannot be read, so the pull request's own limits count: {error}"
        say(command("warning", told, title="Core ML gate"))
        return None


def _holding(read: config.Config, root: Path) -> list[str]:
    """Where the files lie that hold limits, relative to the repository root; where they are links, what they point to as well."""
    top, found = root.resolve(), []
    for name in limits.governing_files(read):
        path = read.folder / name
        found += [str(p.relative_to(top)) for p in {_lexical(path), path.resolve()} if p.is_relative_to(top)]
    return found


def _lexical(path: Path) -> Path:
    return path.parent.resolve() / path.name


def _touched(changed: Iterable[str], holding: Iterable[str]) -> list[str]:
    names = set(holding)
    return sorted(c for c in changed if any(c == name or c.startswith(f"{name}/") for name in names))


def _every_file(root: Path, holding: Iterable[str]) -> list[str]:
    """When nobody knows what changed, each file that holds limits may have; a folder's cannot be listed at base."""
    for name in holding:
        if (root / name).is_dir():
            raise NoAnswer(
                f"{name}: GitHub does not say which files changed, so it is not known whether this folder did; "
                "split the pull request"
            )
    return sorted(set(holding))


def lay_out_base(
    client: github.Client,
    server: lfs.Server,
    event: github.Event,
    found: Standing,
    checkout: Path,
    target: Path,
    name: str,
) -> None:
    """Make the copy in which the files that hold limits are base's."""
    assert event.pull_request is not None
    assert found.base_text is not None
    prepare.export_checkout(checkout, target)
    for changed in found.changed:
        path = prepare.inside(target, changed)
        content = _at_base(client, event.repository, changed, event.pull_request.base_sha)
        path.unlink(missing_ok=True)
        if content is not None:
            write_bytes(path, content)
    write_bytes(prepare.inside(target, name), found.base_text)
    server.fetch(lfs.pointers(target, lambda path: bool(_touched([path], found.holding))))


# --- what judges it ------------------------------------------------------------------------------------------------


def altered(
    client: github.Client, repository: str, pull: github.PullRequest, workflow: str, changed: frozenset[str] | None
) -> tuple[str, ...] | None:
    """Return the files of the evaluation that a pull request edits: its workflow, and what that uses from the repository.

    None when it cannot be known, or when the base branch has no such workflow: then it is the pull request's own.
    """
    text = github.file_at(client, repository, workflow, pull.base_sha) if workflow else None
    if changed is None or text is None:
        return None
    local = [found.rstrip("/") for found in _LOCAL_USES.findall(text.decode(errors="replace"))]
    return tuple(_touched(changed, [workflow, *filter(None, local)]))


def told(edited: tuple[str, ...] | None) -> str:
    """Say it, with the names of files as code: whoever named them is not trusted."""
    how = (
        "which files it changes is not known" if edited is None else "it edits " + ", ".join(map(code, edited[:SHOWN]))
    )
    return f"Evaluation altered by this change, not trusted: {how}."
