# SPDX-License-Identifier: Apache-2.0
"""How do the files come that Git LFS left as pointers? Those that gate.yml needs, and no others.

By the Batch API (git-lfs/docs/api/batch.md), with the token of the prepare step, each checked by size and sha256 before it takes the
pointer's place. `actions/checkout` with `lfs: true` would fetch every file of the repository, or leave nothing to do here.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from gate.errors import NoAnswer, UsageError
from gate.files import is_lfs_pointer

MEDIA = "application/vnd.git-lfs+json"
BATCH = 100  # objects in one request
TOTAL_BYTES = 4_000_000_000
TIMEOUT_SECONDS = (10, 60)
_POINTER = re.compile(r"oid sha256:([0-9a-f]{64})\nsize (\d{1,15})\n?")


@dataclass(frozen=True)
class Pointer:
    """A file that is not there yet, as its pointer describes it."""

    path: Path
    oid: str
    size: int


@dataclass
class Server:
    """The LFS side of one repository on GitHub."""

    url: str  # https://github.com/acme/app
    token: str = ""
    session: requests.Session | None = None

    def fetch(self, pointers: Sequence[Pointer]) -> None:
        """Put the real files in place of their pointers."""
        if (total := sum(pointer.size for pointer in pointers)) > TOTAL_BYTES:
            raise UsageError(
                f"Git LFS: {total} bytes are needed, expected at most {TOTAL_BYTES}; narrow `paths:` in gate.yml"
            )
        for start in range(0, len(pointers), BATCH):
            part = pointers[start : start + BATCH]
            actions = self._actions(part)
            for pointer in part:
                self._download(pointer, actions)

    def _actions(self, pointers: Sequence[Pointer]) -> dict[str, dict[str, Any]]:
        """Ask where each object is."""
        objects = [{"oid": pointer.oid, "size": pointer.size} for pointer in pointers]
        body = {"operation": "download", "transfers": ["basic"], "objects": objects, "hash_algo": "sha256"}
        auth = ("x-access-token", self.token) if self.token else None
        try:
            answer = self._session.post(
                f"{self.url}.git/info/lfs/objects/batch",
                json=body, auth=auth, headers={"Accept": MEDIA, "Content-Type": MEDIA}, timeout=TIMEOUT_SECONDS,
            )  # fmt: skip
            answer.raise_for_status()
            return {item["oid"]: item["actions"]["download"] for item in answer.json()["objects"] if "actions" in item}
        except (requests.RequestException, ValueError, KeyError, TypeError) as problem:
            raise NoAnswer(f"Git LFS: the server did not say where the files are ({problem})") from None

    def _download(self, pointer: Pointer, actions: dict[str, dict[str, Any]]) -> None:
        action = actions.get(pointer.oid)
        if action is None:
            raise NoAnswer(f"{pointer.path.name}: Git LFS has no object {pointer.oid[:12]}; was it pushed?")
        digest, received, part = hashlib.sha256(), 0, pointer.path.with_name(pointer.path.name + ".part")
        try:
            with part.open("wb") as stream:
                for chunk in self._chunks(action):
                    received += len(chunk)
                    if received > pointer.size:
                        break
                    digest.update(chunk)
                    stream.write(chunk)
            if received != pointer.size or digest.hexdigest() != pointer.oid:
                raise UsageError(
                    f"{pointer.path.name}: what Git LFS sent is not what the pointer says; nothing was kept"
                )
            part.replace(pointer.path)
        except requests.RequestException as problem:
            raise NoAnswer(f"{pointer.path.name}: could not be fetched from Git LFS ({problem})") from None
        finally:
            part.unlink(missing_ok=True)

    def _chunks(self, action: dict[str, Any]) -> Iterator[bytes]:
        """The token stays here: the action brings what its server wants to see."""
        if str(action["href"]).partition(":")[0] != self.url.partition(":")[0]:
            raise NoAnswer(
                f"Git LFS: an address is {str(action['href'])[:40]!r}, expected {self.url.partition(':')[0]}"
            )
        headers = {str(key): str(value) for key, value in (action.get("header") or {}).items()}
        with self._session.get(str(action["href"]), headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
            response.raise_for_status()
            yield from response.iter_content(1 << 20)

    @property
    def _session(self) -> requests.Session:
        if self.session is None:
            self.session = requests.Session()
        return self.session


def pointers(root: Path, wanted: Callable[[str], bool]) -> list[Pointer]:
    """Find the pointers among the files that are wanted, named by their path below `root`."""
    found = []
    for path in sorted(root.rglob("*")):
        if not path.is_symlink() and is_lfs_pointer(path) and wanted(path.relative_to(root).as_posix()):
            read = _POINTER.search(path.read_text(encoding="utf-8", errors="replace"))
            if read:
                found.append(Pointer(path, read[1], int(read[2])))
    return found
