# SPDX-License-Identifier: Apache-2.0
"""What does the worker give up before it runs a line of the team's code?

It runs in the child, already in its own namespaces where `sandbox` could have them: the file system becomes read-only except
for its private folder, `.git`, the runner's folders and sockets are covered, resources are limited, and then the right to undo
any of it is dropped. Off Linux only the resource limits apply.
"""

import contextlib
import ctypes
import json
import os
import resource
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

MS_BIND, MS_PRIVATE, MS_REC = 0x1000, 0x40000, 0x4000
MOUNT_ATTR_RDONLY = 1
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
SYS_MOUNT_SETATTR = 442  # the same number on every architecture (Linux 5.12)
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 24, 38
LAST_CAPABILITY = 63
LINUX_CAPABILITY_VERSION_3 = 0x20080522
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Cell:
    """The walls: where may be written, what is covered, how much may be used."""

    private: Path
    hidden: tuple[Path, ...]
    memory_bytes: int
    file_bytes: int
    own_mounts: bool

    def to_json(self) -> str:
        """For the command line of the child."""
        return json.dumps(
            [str(self.private), [*map(str, self.hidden)], self.memory_bytes, self.file_bytes, self.own_mounts]
        )

    @classmethod
    def from_json(cls, text: str) -> "Cell":
        """Undo `to_json`."""
        private, hidden, memory_bytes, file_bytes, own_mounts = json.loads(text)
        return cls(Path(private), tuple(map(Path, hidden)), memory_bytes, file_bytes, own_mounts)


def enter(cell: Cell) -> None:
    """Close the door. After this the process can neither write outside its private folder nor widen its limits."""
    if cell.own_mounts:
        _seal_files(cell)
    _limit_resources(cell)
    if sys.platform == "linux":
        _drop_privileges()


def end_with(lifeline: int) -> None:
    """End this process when the other end of the pipe `lifeline` closes: our parent has gone, however it went."""

    def watch() -> None:
        os.read(lifeline, 1)
        os._exit(0)

    threading.Thread(target=watch, daemon=True, name="lifeline").start()


def forbid_peeking() -> None:
    """Keep children of the same user from reading our environment and memory through /proc."""
    if sys.platform == "linux":
        _libc().prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def _limit_resources(cell: Cell) -> None:
    """Private memory, not address space: torch maps tens of gigabytes that it never touches, so RLIMIT_AS would stop the import."""
    _limit(resource.RLIMIT_DATA, cell.memory_bytes)
    _limit(resource.RLIMIT_FSIZE, cell.file_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    if cell.own_mounts:  # outside its own user namespace, NPROC would count all other processes of the user
        _limit(resource.RLIMIT_NPROC, 1024)


def _limit(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses some of them
        resource.setrlimit(what, (most, most))


def _seal_files(cell: Cell) -> None:
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount(str(cell.private), str(cell.private), None, MS_BIND | MS_REC)
    _set_read_only("/", recursive=True, on=True)
    _set_read_only(str(cell.private), recursive=False, on=False)
    if SHARED_MEMORY.is_dir():
        _mount("tmpfs", str(SHARED_MEMORY), "tmpfs", 0, "size=512m,mode=1777")
    for path in cell.hidden:
        _cover(path)


def _cover(path: Path) -> None:
    if path.is_symlink() or not path.exists():
        return
    if path.is_dir():
        _mount("tmpfs", str(path), "tmpfs", 1, "size=4k,mode=755")  # 1: MS_RDONLY
    else:
        _mount("/dev/null", str(path), None, MS_BIND)


def _drop_privileges() -> None:
    """Give up every capability for good; the namespace's root could otherwise unmount what covers `.git`."""
    libc = _libc()
    for capability in range(LAST_CAPABILITY + 1):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails beyond the kernel's last one, and where there are none
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _checked(libc.capset(ctypes.byref(header), ctypes.byref(nothing)), "capset")
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def _set_read_only(path: str, *, recursive: bool, on: bool) -> None:
    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY if on else 0, 0 if on else MOUNT_ATTR_RDONLY, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    result = _libc().syscall(
        SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, ctypes.byref(attributes), ctypes.sizeof(attributes)
    )
    _checked(result, f"read-only {path}")


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    result = _libc().mount(
        source.encode(),
        target.encode(),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        options.encode() if options else None,
    )
    _checked(result, f"mount {target}")


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"sandbox: {what}: {os.strerror(ctypes.get_errno())}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
