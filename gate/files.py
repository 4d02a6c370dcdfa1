# SPDX-License-Identifier: Apache-2.0
"""Where are our own policies and templates, and how is a file written so that Ctrl-C or a full disk leaves nothing half-done?"""

import hashlib
import os
import tempfile
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


_IN_CHECKOUT = {"policies": "policies", "templates": "templates", "workflows": "examples/workflows"}


def shipped(folder: str) -> Path:
    """Return the folder `policies`, `templates` or `workflows`, in a wheel (inside the package) or in a checkout (beside it)."""
    inside = _PACKAGE / folder
    return inside if inside.is_dir() else _PACKAGE.parent / _IN_CHECKOUT[folder]


def write_text(path: Path, text: str) -> None:
    """Write `text` to a temporary name beside `path`, then rename it."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to a temporary name beside `path`, then rename it; an OSError names `path`."""
    try:
        _write_beside(path, data)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def _write_beside(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        Path(name).chmod(0o644)  # mkstemp makes it private to us; a report is for others to read
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sha256_file(path: Path) -> str:
    """Return the hex digest of the raw bytes of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_lfs_pointer(path: Path) -> bool:
    """Is this the three-line text that Git LFS leaves in place of a file that was not fetched?"""
    if not path.is_file() or path.stat().st_size > 1024:
        return False
    return path.read_bytes().startswith(b"version https://git-lfs.github.com/spec/")


def located(path: Path, problem: Exception) -> str:
    """Say where a problem is; one that begins with the path has said so."""
    return str(problem) if str(problem).startswith(str(path)) else f"{path}: {problem}"
