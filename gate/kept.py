# SPDX-License-Identifier: Apache-2.0
"""Was this very program converted before, and is what was kept what was made then?

A compressed weight is verified against the weight that it came from. A conversion cannot be: its weights are folded and its
operations rearranged, and answers that agree say nothing of inputs that were not tried. So an entry counts only under a seal, a
MAC with a key (`GATE_CACHE_KEY`) that neither the model's code has nor whoever can write to the folder; without a key nothing is
kept. The sealed record holds the key of the entry, so that an entry is not another's, and the digest of every file.

The name of an entry is a digest of all that decides the result. The worker says what it captured (graph, weights, source lines);
everything else, above all the code, is digested here, so that code which lies about its graph can only lie to itself. Runs that
others build on (pushes, tags, the merge queue) never read what is kept: docs/adr/0007.
"""

import contextlib
import hashlib
import hmac
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from gate.config import ModelEntry
from gate.document import Record
from gate.errors import SourceFault, UsageError
from gate.files import sha256_file
from gate.protocol import ConversionAnswer, open_regular, receive_package
from gate.report import PackageFile
from gate.tools import tool_versions

FORMAT = 1  # raised when an entry of an older gate must not be used
FOLDER, RECORD, SEAL, PACKAGE = "conversions", "record.json", "seal", "model.mlpackage"
LEAST_KEY = 16  # characters
MOST_FILES = 20_000  # of code; beyond that nothing is kept
MOST_ENTRIES = 16  # of a model entry; the oldest go
RECORD_BYTES = 32_000_000
DECIDING = {"source", "inputs", "outputs", "states", "keep_float32", "convert"}  # fields of a model entry
SKIPPED = {"__pycache__", "node_modules", "venv", "gate-out"}
READERS = (None, "pull_request")  # events whose runs use what is kept; None is a person's own machine
GUEST = "pull_request"  # adds nothing: others would restore it


class Refused(Exception):
    """There is an entry, and it is not what was made."""


class Sealed(Record):
    """What an entry is: under which name, with which files, and what else the conversion said."""

    name: str = Field(description="name of the entry")
    files: tuple[PackageFile, ...] = Field(description="every file of the package")
    answer: ConversionAnswer = Field(description="source map and findings")


@dataclass(frozen=True)
class Shelf:
    """The kept conversions of one model entry."""

    folder: Path
    secret: bytes
    facts: str  # digest of all that decides a conversion, but for what the worker captures
    reads: bool
    writes: bool

    def name(self, captured: str, asked: Mapping[str, Any]) -> str:
        """Name the entry of one conversion."""
        return _digest([self.facts, captured, asked])

    def take(self, name: str, package: Path) -> ConversionAnswer | None:
        """Copy a kept package to `package` and return what was said of it; None where nothing is kept. Raise Refused."""
        entry = self.folder / name
        if not self.reads or not entry.is_dir():
            return None
        try:
            raw, seal = (_read(entry / file, most) for file, most in ((RECORD, RECORD_BYTES), (SEAL, 64)))
            if not hmac.compare_digest(self._seal(raw), seal):
                raise Refused("its seal is not of this key")
            sealed = Sealed.model_validate_json(raw)
            if sealed.name != name:
                raise Refused("it is of another conversion")
            receive_package(entry / PACKAGE, package)
        except (OSError, ValueError, ValidationError, SourceFault) as error:
            shutil.rmtree(package, ignore_errors=True)
            raise Refused(f"it cannot be read ({type(error).__name__})") from None
        if _files(package) != sealed.files:
            shutil.rmtree(package)
            raise Refused("a file of it is not the one that was sealed")
        return sealed.answer

    def put(self, name: str, package: Path, answer: ConversionAnswer) -> None:
        """Keep a conversion that was just made; a folder that cannot be written to keeps nothing."""
        if not self.writes:
            return
        sealed = Sealed(name=name, files=_files(package), answer=answer)
        raw = sealed.model_dump_json().encode()
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".") as draft:
                entry = Path(draft) / name
                shutil.copytree(package, entry / PACKAGE)
                (entry / RECORD).write_bytes(raw)
                (entry / SEAL).write_bytes(self._seal(raw))
                shutil.rmtree(self.folder / name, ignore_errors=True)
                entry.replace(self.folder / name)
            self._forget_the_oldest()

    def _seal(self, raw: bytes) -> bytes:
        return hmac.new(self.secret, raw, hashlib.sha256).hexdigest().encode()

    def _forget_the_oldest(self) -> None:
        entries = sorted(self.folder.glob("[0-9a-f]*"), key=lambda entry: entry.lstat().st_mtime, reverse=True)
        for entry in entries[MOST_ENTRIES:]:
            shutil.rmtree(entry, ignore_errors=True)


def shelf(
    cache: Path | None,
    secret: str | None,
    entry: ModelEntry,
    folder: Path,
    event: str | None,
    pythonpath: Sequence[Path] = (),
) -> Shelf | None:
    """Return where conversions of a model entry are kept; None without a folder, without a key, or with too much code to digest."""
    if secret and len(secret) < LEAST_KEY:
        raise UsageError(f"GATE_CACHE_KEY: found {len(secret)} characters, expected at least {LEAST_KEY}, random ones")
    if cache is None or not secret:
        return None
    code = _code(folder, entry, pythonpath)
    if code is None:
        return None
    described = entry.model_dump(mode="json", include=DECIDING)
    installed = sorted(f"{found.name} {found.version}" for found in metadata.distributions())
    facts = _digest([FORMAT, tool_versions(), installed, described, code])
    return Shelf(cache / FOLDER / entry.name, secret.encode(), facts, event in READERS, event != GUEST)


def _code(folder: Path, entry: ModelEntry, pythonpath: Sequence[Path]) -> list[str] | None:
    """Digest every Python file that may have a say, and the file of the source itself; None where there are too many."""
    named = folder / entry.source.location.split(":")[0]
    files = [(named, "source")] if named.is_file() else []
    for root in (folder, *pythonpath):
        for file in _python(root):
            files.append((file, file.relative_to(root).as_posix()))
            if len(files) > MOST_FILES:
                return None
    return sorted(f"{name} {sha256_file(file)}" for file, name in files)


def _python(folder: Path) -> Iterator[Path]:
    """Python files and compiled modules below a folder; what is hidden, made or installed is left out."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            if not path.name.startswith(".") and path.name not in SKIPPED:
                yield from _python(path)
        elif path.suffix in (".py", ".so", ".pth") and path.is_file():
            yield path


def _files(package: Path) -> tuple[PackageFile, ...]:
    found = sorted(path for path in package.rglob("*") if path.is_file())
    return tuple(
        PackageFile(path=path.relative_to(package).as_posix(), sha256=sha256_file(path), bytes=path.stat().st_size)
        for path in found
    )


def _read(path: Path, most: int) -> bytes:
    with open_regular(path, most) as stream:
        return stream.read(most + 1)


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
