# SPDX-License-Identifier: Apache-2.0
"""What must be there before any of the pull request's code runs, and does the change concern a model at all?

The one step with the network. It executes nothing of the pull request: it copies tracked files, refuses a checkout that still
holds a credential, installs hash-locked binary wheels (a source distribution would run its own build), and fetches files by
digest. Git LFS files that are needed come through `lfs`.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import requests

from gate.config import Config, Fetch, ImageFolder, ModelEntry
from gate.errors import NoAnswer, UsageError
from gate.files import write_bytes

FETCH_BYTES = 4_000_000_000
FETCH_TIMEOUT_SECONDS = (10, 60)
INSTALL_TIMEOUT_SECONDS = 1_800

_USER_IN_URL = re.compile(r"://[^/@\s]+@")
# One requirement on one line, continuations joined: name==version, perhaps extras and a marker, and its digests.
_LOCKED = re.compile(r"[A-Za-z0-9][\w.-]*(\[[\w,\s.-]+\])?==[\w.+!-]+\s*(;[^#@]*?)?(\s+--hash=sha256:[0-9a-f]{64})+")


# --- does it concern us? -------------------------------------------------------------------------------------------


def concerned(config: Config, file: Path, root: Path, changed: frozenset[str] | None) -> tuple[str, ...]:
    """Return the names of the model entries that a change concerns.

    `file` is where `config` was read; `changed` holds paths relative to the repository root; None means that nobody knows, and concerns all. An entry without
    `paths` is concerned by everything.
    """
    folder = PurePosixPath(config.folder.resolve().relative_to(root.resolve()).as_posix())
    if changed is None or any(_touches(changed, folder, name) for name in _files_of_all(config, file)):
        return tuple(entry.name for entry in config.models)
    return tuple(entry.name for entry in config.models if _concerns(entry, folder, changed))


def _concerns(entry: ModelEntry, folder: PurePosixPath, changed: frozenset[str]) -> bool:
    if not entry.paths:
        return bool(changed)
    return any(matches(glob, path) for glob in entry.paths for path in changed) or any(
        _touches(changed, folder, file) for file in _files_of(entry)
    )


def rests_on(config: Config, entry: ModelEntry, file: Path, root: Path, path: str) -> bool:
    """Does a change of one path, relative to the repository root, concern a model entry?"""
    folder = PurePosixPath(config.folder.resolve().relative_to(root.resolve()).as_posix())
    one = frozenset({path})
    return _concerns(entry, folder, one) or any(_touches(one, folder, name) for name in _files_of_all(config, file))


def tracked(checkout: Path) -> dict[str, str]:
    """Return what git keeps of each tracked file: mode and blob, by path."""
    listed = _git(checkout, "ls-files", "--stage", "-z").split("\0")
    pairs = (line.partition("\t") for line in listed if line)
    return {path: kept for kept, _, path in pairs}


def toplevel(folder: Path) -> Path:
    """Return the root of the repository that a folder lies in."""
    return Path(_git(folder, "rev-parse", "--show-toplevel").strip())


def differing(root: Path) -> tuple[str, ...]:
    """Name what lies in the working tree otherwise than git keeps it: changed, removed, or not tracked."""
    listed = _git(root, "status", "--porcelain", "--untracked-files=all", "-z").split("\0")
    return tuple(line[3:] for line in listed if line)


def untracked(config: Config, entry: ModelEntry, root: Path) -> tuple[str, ...]:
    """Name the files of an entry that git keeps nothing of, as where it ignores them."""
    folder, files = (
        PurePosixPath(config.folder.resolve().relative_to(root.resolve()).as_posix()),
        frozenset(tracked(root)),
    )
    named = (name for name in _files_of(entry) if (config.folder / name.split(":", maxsplit=1)[0]).exists())
    return tuple(name for name in named if not _touches(files, folder, name))


def matches(glob: str, path: str) -> bool:
    """Does a path fit a glob? `**` stands for any number of folders, `*` and `?` stay within one."""
    return re.fullmatch(_expression(glob.removeprefix("./")), path) is not None


def _expression(glob: str) -> str:
    pieces = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(pieces.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*\*|\*|\?)", glob))


def _files_of_all(config: Config, file: Path) -> Iterator[str]:
    """Name the files that every entry rests on."""
    yield file.name
    yield from config.setup.pythonpath
    yield from (fetched.to for fetched in config.setup.fetch)
    yield from (name for name in (config.setup.requirements, config.waivers) if name)


def _files_of(entry: ModelEntry) -> Iterator[str]:
    """Name the files and folders that an entry points to."""
    source, reference = entry.source, entry.reference
    yield source.location
    yield from (name for name in (source.example, entry.calibration) if name)
    if reference:
        yield from (name for name in (reference.package, reference.onnx, reference.outputs) if name)
    if isinstance(entry.dataset, ImageFolder):
        yield from (name for name in (entry.dataset.images, entry.dataset.labels) if name)
    elif entry.dataset:
        yield entry.dataset
    if entry.metric and entry.metric.name.endswith(".py"):
        yield entry.metric.name
    yield from (output.classes for output in entry.outputs if output.classes)
    yield from (policy for policy in entry.policies if policy.endswith((".yml", ".yaml")))


def _touches(changed: frozenset[str], folder: PurePosixPath, file: str) -> bool:
    """Is the file, anything beneath it when it is a folder, or a folder above it that became a link or was one among the changes?"""
    path = os.path.normpath(folder / file.split(":", maxsplit=1)[0])
    return (path == "." and bool(changed)) or any(_same_or_above(path, c) or _same_or_above(c, path) for c in changed)


def _same_or_above(upper: str, lower: str) -> bool:
    return lower == upper or lower.startswith(upper + "/")


# --- the export ----------------------------------------------------------------------------------------------------


def refuse_credentials(checkout: Path) -> None:
    """Raise UsageError when the checkout's git configuration holds a credential; its value is never printed."""
    found = [key for key, value in _git_settings(checkout) if _is_credential(key, value)]
    if found:
        raise UsageError(
            f"{checkout.name}/.git/config: holds a credential ({_USER_IN_URL.sub('://…@', found[0])}), expected none, since "
            "code of the pull request is going to run; set `persist-credentials: false` on the actions/checkout step"
        )


def _git_settings(checkout: Path) -> Iterator[tuple[str, str]]:
    # --includes: actions/checkout from v6 keeps the token in a file that .git/config includes.
    listed = _git(checkout, "config", "--local", "--includes", "--list", "-z")
    for setting in filter(None, listed.split("\0")):
        key, _, value = setting.partition("\n")
        yield key, value


def _is_credential(key: str, value: str) -> bool:
    if key.startswith("http.") and key.endswith(".extraheader"):
        return "authorization" in value.lower()
    if key.startswith("credential.") and key.endswith("helper"):
        return bool(value)
    return bool(_USER_IN_URL.search(key) or (_USER_IN_URL.search(value) and not value.startswith("ssh://")))


def export_checkout(checkout: Path, target: Path) -> tuple[str, ...]:
    """Copy the tracked files, without `.git`, and return the symbolic links that were left out.

    Untracked files stay behind: other actions leave credentials in the workspace. So does a link that points out of the
    checkout, since we would follow it with our own rights.
    """
    target.mkdir(parents=True, exist_ok=True)
    _git(checkout, "checkout-index", "--all", "--force", f"--prefix={target.resolve()}/")
    links = [path for path in target.rglob("*") if path.is_symlink()]
    outside = [link for link in links if _leads_out(link, target.resolve())]
    for link in outside:
        link.unlink()
    return tuple(link.relative_to(target).as_posix() for link in outside)


def _leads_out(link: Path, top: Path) -> bool:
    try:
        return not link.resolve().is_relative_to(top)
    except RuntimeError:  # links in a circle lead nowhere
        return True


def _git(checkout: Path, *arguments: str) -> str:
    # In a job container the workspace belongs to another user, and git then refuses to read it.
    command = ["git", "-c", f"safe.directory={checkout.resolve()}", "-C", str(checkout), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(
            f"{checkout}: git {arguments[0]} failed ({done.stderr.strip()[:300]}); "
            "expected a git checkout, as actions/checkout leaves it"
        )
    return done.stdout


# --- wheels and files ----------------------------------------------------------------------------------------------


def bring(config: Config, site: Path, session: requests.Session | None = None) -> None:
    """Do what `setup:` asks for: install its requirements into `site` and fetch its files."""
    if config.setup.requirements:
        install_wheels(inside(config.folder, config.setup.requirements), site)
    for file in config.setup.fetch:
        fetch(file, inside(config.folder, file.to), session or requests.Session())


def inside(folder: Path, name: str) -> Path:
    """Return a path below `folder`; raise UsageError when the name leads out of it."""
    path = folder / name
    if _leads_out(path, folder.resolve()):
        raise UsageError(f"{name}: leads out of {folder.name}/; expected a path inside it")
    return path.resolve()


def install_wheels(requirements: Path, site: Path) -> None:
    """Install hash-locked binary wheels into a folder, without running anything that they bring."""
    locked = site.with_suffix(".txt")
    write_bytes(locked, "\n".join(locked_requirements(requirements)).encode() + b"\n")
    flags = ["--require-hashes", "--only-binary", ":all:", "--no-deps", "--no-compile", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *flags, "--target", str(site), "-r", str(locked)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT_SECONDS, cwd=site.parent
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{requirements.name}: pip did not end within {INSTALL_TIMEOUT_SECONDS} s") from None
    if done.returncode:
        raise UsageError(f"{requirements.name}: pip refused it:\n{done.stderr.strip()[-2_000:]}")


def locked_requirements(requirements: Path) -> list[str]:
    """Read a requirements file; raise UsageError at any line but `name==version --hash=sha256:…`.

    Options are refused because a file's `--no-binary` or `--index-url` overrides what we say on the command line.
    """
    if not requirements.is_file():
        raise UsageError(f"setup.requirements: {requirements.name}: no such file")
    text = re.sub(r"\\\r?\n", " ", requirements.read_text(encoding="utf-8"))
    lines = [re.sub(r"(^|\s+)#.*$", "", line).strip() for line in text.splitlines()]
    for number, line in enumerate(lines, start=1):
        if line and not _LOCKED.fullmatch(line):
            raise UsageError(
                f"{requirements.name}: logical line {number}: found {line[:100]!r}, expected "
                "name==version --hash=sha256:… (make the file with `pip-compile --generate-hashes`)"
            )
    return list(filter(None, lines))


def fetch(file: Fetch, target: Path, session: requests.Session) -> None:
    """Fetch a file and keep it only when its digest is the expected one."""
    digest, part = hashlib.sha256(), target.with_name(target.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb") as stream:
            for chunk in _chunks(session, file.url):
                digest.update(chunk)
                stream.write(chunk)
        if digest.hexdigest() != file.sha256:
            raise UsageError(f"{file.url}: sha256 is {digest.hexdigest()}, expected {file.sha256}; nothing was kept")
        shutil.move(part, target)
    finally:
        part.unlink(missing_ok=True)


def _chunks(session: requests.Session, url: str) -> Iterator[bytes]:
    received = 0
    try:
        with session.get(url, stream=True, timeout=FETCH_TIMEOUT_SECONDS) as response:
            response.raise_for_status()
            if not response.url.startswith("https://"):
                raise UsageError(f"{url}: redirected to {response.url[:200]}, expected https")
            for chunk in response.iter_content(1 << 20):
                received += len(chunk)
                if received > FETCH_BYTES:
                    raise UsageError(f"{url}: larger than {FETCH_BYTES} bytes")
                yield chunk
    except requests.RequestException as problem:
        raise NoAnswer(f"{url}: could not be fetched ({problem})") from None
