# SPDX-License-Identifier: Apache-2.0
"""How is a zip file that somebody else made unpacked without harm?

Sizes in its directory are the sender's word, so bytes are counted as they come out. A name that leads out of the folder, a link, a
second file of one name, and too much of anything are refused before the folder is used.
"""

import io
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from gate.errors import UsageError

MAX_FILES = 20_000
MAX_BYTES = 4_000_000_000
CHUNK = 1 << 20


def unpack(archive: bytes, folder: Path, where: str, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Unpack the wanted files into a new folder; UsageError, and no folder, when the archive is not harmless."""
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            _refuse(members, where)
            left = MAX_BYTES
            for member in members:
                if wanted(member.filename):
                    left -= _copy(opened, member, folder / member.filename, left, where)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as problem:
        shutil.rmtree(folder, ignore_errors=True)
        raise UsageError(f"{where}: not a readable zip file ({problem})") from None
    except UsageError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _refuse(members: list[zipfile.ZipInfo], where: str) -> None:
    names = [member.filename for member in members]
    if len(names) > MAX_FILES or len(set(names)) != len(names):
        raise UsageError(f"{where}: {len(names)} files, expected at most {MAX_FILES}, each name once")
    for member in members:
        path, mode = PurePosixPath(member.filename), member.external_attr >> 16
        odd = path.is_absolute() or ".." in path.parts or "\\" in member.filename or "\0" in member.filename
        if odd or (mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode)):
            raise UsageError(
                f"{where}: {member.filename[:200]!r} is a link or leads out of the folder; nothing was kept"
            )


def _copy(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int, where: str) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with opened.open(member) as source, target.open("xb") as out:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > left:
                raise UsageError(f"{where}: unpacks to more than {MAX_BYTES} bytes; nothing was kept")
            out.write(chunk)
    return written
