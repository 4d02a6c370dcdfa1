# SPDX-License-Identifier: Apache-2.0
"""How far is this pull request to be trusted: whose limits count, who approved, and does it edit what judges it?

Decided with the token, before any of its code runs. `base/` beside `source/` is the same copy of the checkout in which every file
that holds limits is the base branch's; `gate check` reads both (gate/limits.py).
"""

import contextlib
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gate import approval, config, github, lfs, limits, prepare
from gate.action.handover import LimitsOf
from gate.action.runner import command, say
from gate.errors import ConfigError, NoAnswer, UsageError
from gate.files import is_lfs_pointer, write_bytes
from gate.render.escape import code

SHOWN = 5
LINKS = 40  # as many as Linux follows

_LOCAL_USES = re.compile(r"""uses:\s*["']?\./([^\s"'#]+)""")


@dataclass(frozen=True)
class Standing:
    """Whose limits count. `approved_by` says who accepted that the pull request changes them."""

    limits: LimitsOf = LimitsOf.WORKING_TREE
    changed: tuple[str, ...] = ()  # files that hold limits, relative to the repository root
    holding: tuple[str, ...] = ()  # where limits lie, changed or not
    base_text: bytes | None = None  # gate.yml of the base branch
    approved_by: str = ""


def configuration(event: github.Event, root: Path, name: str) -> Path:
    """Return where gate.yml is; on a pull request no link may lead to it, since base's is asked for by this name."""
    file, named = prepare.inside(root, name), root.resolve() / os.path.normpath(name)
    if event.pull_request and file != named:
        found = file.relative_to(root.resolve()).as_posix()
        raise UsageError(
            f"{name}: a link leads from it to {found}; expected a file on a pull request, whose limits are the base branch's "
            "file of this name. Put the file there, or name it itself as input config"
        )
    return file


def standing(
    client: github.Client,
    server: lfs.Server,
    event: github.Event,
    root: Path,
    file: Path,
    changed: frozenset[str] | None,
) -> Standing:
    """Find out what base says, where the pull request touches a file that holds limits; nothing is asked where it does not."""
    pull = event.pull_request
    if pull is None:
        return Standing()
    name = file.relative_to(root.resolve()).as_posix()
    here = _Checkout(root.resolve(), server)
    own = [name, *here.holding(config.load(file))]
    if changed is not None and not _touched(changed, own):
        return Standing(LimitsOf.BASE)
    text = _at_base(client, event.repository, name, pull.base_sha)
    if text is None:
        return Standing(LimitsOf.OWN)
    base = _read(text, file)
    if base is None:
        return Standing(LimitsOf.OWN)
    there = _AtBase(here.root, server, client, event.repository, pull.base_sha, changed)
    holding = [*own, *there.holding(base)]
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
    with _reading_base(name):
        return github.file_at(client, repository, name, sha)


def _entry_at(client: github.Client, repository: str, name: str, sha: str) -> github.Entry | None:
    with _reading_base(name):
        return github.entry_at(client, repository, name, sha)


@contextlib.contextmanager
def _reading_base(name: str) -> Iterator[None]:
    try:
        yield
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


# --- where limits lie ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Checkout:
    """The pull request's files, in which the names of a configuration are looked up."""

    root: Path  # resolved
    server: lfs.Server

    def holding(self, read: config.Config) -> list[str]:
        """Name the files and folders that hold limits, relative to the root: as written, and behind each link on the way."""
        found: set[str] = set()
        for name in limits.governing_files(read):
            own = self._names(read.folder, name)
            beside = self._rested_on(read.folder / name, own) if own else ()
            named = (str(PurePosixPath(name).parent / other) for other in beside)
            found |= own.union(*(self._names(read.folder, other) for other in named))
        return sorted(found)

    def _names(self, folder: Path, name: str) -> set[str]:
        found: set[str] = set()
        if not limits.is_name(name):
            return found
        try:
            for path in _led_through(self.root, folder, name, set()):
                whole = Path(os.path.normpath(path))
                if whole.is_relative_to(self.root):
                    found.add(whole.relative_to(self.root).as_posix())
        except OSError as problem:
            say(command("warning", f"{name[:200]}: {problem.strerror}"))  # too long, so that nothing reads it
        return found

    def _rested_on(self, file: Path, own: set[str]) -> set[str]:
        inside = file.resolve().is_relative_to(self.root) and os.path.isfile(file)  # noqa: PTH113  # no error for a long name
        return _rested_on(self.server, file, file.suffix) if inside else set()


@dataclass(frozen=True)
class _AtBase(_Checkout):
    """The same with base's items, where the pull request changes them."""

    client: github.Client
    repository: str
    sha: str
    changed: frozenset[str] | None

    def _rested_on(self, file: Path, own: set[str]) -> set[str]:
        if file.suffix not in limits.ITEMS or (self.changed is not None and not _touched(self.changed, own)):
            return super()._rested_on(file, own)
        found = set()
        for name in sorted(own):
            entry = _entry_at(self.client, self.repository, name, self.sha)
            if entry and entry.kind == "file":
                with tempfile.TemporaryDirectory() as folder:
                    write_bytes(Path(folder, "items"), entry.content)
                    found |= _rested_on(self.server, Path(folder, "items"), file.suffix)
        return found


def _rested_on(server: lfs.Server, file: Path, suffix: str) -> set[str]:
    """Name what a file reads besides itself; items that Git LFS keeps are fetched for it, beside the checkout."""
    if suffix not in limits.ITEMS:
        return set(limits.rested_on(file, suffix))
    with tempfile.TemporaryDirectory() as folder:
        if is_lfs_pointer(file):
            file = Path(shutil.copy(file, Path(folder, "items")))
            server.fetch(lfs.pointers(file.parent, lambda path: True))
        return set(limits.rested_on(file, suffix))


def _led_through(root: Path, folder: Path, name: str, seen: set[Path]) -> Iterator[Path]:
    """Yield a path by each name that leads to it, then those of links in it, where it is a folder of the repository."""
    yield from _names_of(folder, name)
    whole = (folder / name).resolve()
    if whole in seen or not whole.is_dir() or not whole.is_relative_to(root):
        return
    seen.add(whole)
    for here, folders, files in os.walk(whole):
        for found in (*folders, *files):
            if Path(here, found).is_symlink():
                yield from _led_through(root, Path(here), found, seen)


def _names_of(folder: Path, name: str) -> Iterator[Path]:
    """Yield a path as it is written; then each link on the way, and the path that is left behind it."""
    yield folder / name
    here, rest, links = folder, list(Path(name).parts), 0
    while rest:
        part = rest.pop(0)
        here = here.parent if part == ".." else here / part
        if here.is_symlink():
            links += 1
            if links > LINKS:
                raise UsageError(f"{name}: found more than {LINKS} links on the way to it; expected a file")
            yield here
            here, rest = here.parent, [*here.readlink().parts, *rest]
            yield here.joinpath(*rest)


def _touching(holding: Iterable[str]) -> Callable[[str], bool]:
    """Return the test whether a changed path is one of these, lies below one, or is a folder above one.

    A folder that changes as a whole has become a link or a file, or was one. What macOS takes for the same name is the same.
    """
    names = {_same(name) for name in holding}
    above = {parent for name in names for parent in _parents(name)}
    twins = tuple(name for name in names if name.endswith(limits.TWIN))  # weights beside it begin with its name

    def touches(path: str) -> bool:
        path = _same(path)
        return path in names or path in above or path.startswith(twins) or not names.isdisjoint(_parents(path))

    return touches


def _same(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _parents(name: str) -> Iterator[str]:
    return map(str, PurePosixPath(name).parents)


def _touched(changed: Iterable[str], holding: Iterable[str]) -> list[str]:
    return sorted(filter(_touching(holding), changed))


def _every_file(root: Path, holding: Iterable[str]) -> list[str]:
    """When nobody knows what changed, each file that holds limits may have; a folder's cannot be listed at base, nor a link followed."""
    top = root.resolve()
    for name in holding:
        if (top / name).is_dir() or (top / name).resolve() != top / name:
            raise NoAnswer(
                f"{name}: GitHub does not say which files changed, so it is not known whether this folder or link did; "
                "split the pull request"
            )
    return sorted(set(holding))


# --- base's files --------------------------------------------------------------------------------------------------


def lay_out_base(
    client: github.Client,
    server: lfs.Server,
    event: github.Event,
    found: Standing,
    checkout: Path,
    target: Path,
    file: Path,
) -> None:
    """Make the copy in which the files that hold limits are base's."""
    assert event.pull_request is not None
    assert found.base_text is not None
    name = file.relative_to(checkout.resolve()).as_posix()
    prepare.export_checkout(checkout, target)
    for changed in (*found.changed, name):  # in order: a link goes before the files of the folder that it replaced
        _clear(target, changed)
    for changed in found.changed:
        base = _file_of(
            _entry_at(client, event.repository, changed, event.pull_request.base_sha), changed, found.changed
        )
        if base is not None:
            write_bytes(target / changed, base)
    write_bytes(target / name, found.base_text)
    server.fetch(lfs.pointers(target, _touching(found.holding)))


def _file_of(base: github.Entry | None, name: str, changed: Iterable[str]) -> bytes | None:
    """Return base's file; None where it has none, or a folder, whose files are changed as well and come by themselves."""
    if base is None or (base.kind == "dir" and any(other.startswith(f"{name}/") for other in changed)):
        return None
    if base.kind != "file":
        raise NoAnswer(
            f"{name}: this pull request changes it, and the base branch has a {base.kind} there, expected a file; the limits "
            "that lie behind it cannot be laid out, so nothing was judged. Change it on the base branch"
        )
    return base.content


def _clear(target: Path, name: str) -> None:
    """Take away what the pull request has at a path; neither link nor file of it stays on the way, either."""
    path = target / name
    for place in (*(target / parent for parent in reversed(PurePosixPath(name).parents[:-1])), path):
        if place.is_symlink() or place.is_file():
            place.unlink()
    if path.is_dir():
        shutil.rmtree(path)


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
    local = [os.path.normpath(found) for found in _LOCAL_USES.findall(text.decode(errors="replace"))]
    return tuple(_touched(changed, [workflow, *local]))


def told(edited: tuple[str, ...] | None) -> str:
    """Say it, with the names of files as code: whoever named them is not trusted."""
    how = (
        "which files it changes is not known" if edited is None else "it edits " + ", ".join(map(code, edited[:SHOWN]))
    )
    return f"Evaluation altered by this change, not trusted: {how}."
