# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, and which exit code says so.

GateError                 70  our own fault unless a subclass says otherwise
├── UsageError             2  the command line, a path, a function that does not exist
│   ├── ConfigError        2  gate.yml or waivers.yml does not fit its schema
│   └── PolicyError        2  a policy does not fit its schema, or the deployment target cannot carry it
├── NoAnswer               3  infrastructure or toolchain: time-out, memory limit, kill
│   └── ToolchainError     3  coremltools, torch or numpy failed in a way that is not the model's fault
└── SourceFault            1  the team's own code fails the same way every time: it becomes `feasibility: fail`
        └── DamagedPackage     1  a finished package is not whole

Every message says where, what was found, what was expected and what to do.
"""

import errno
import os
import shutil
from enum import IntEnum

FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)


class Exit(IntEnum):
    """The exit codes of every command."""

    PASS = 0
    FAIL = 1
    USAGE = 2
    NO_ANSWER = 3
    CRASH = 70
    STOPPED = 130  # Ctrl-C, as shells count it


class GateError(Exception):
    """Base of all errors that we raise on purpose."""

    exit_code: Exit = Exit.CRASH
    remedy: str | None = None  # what to do, where one answer fits all errors of a kind


class UsageError(GateError):
    """What was asked for cannot be done as written."""

    exit_code = Exit.USAGE


class ConfigError(UsageError):
    """gate.yml or waivers.yml does not fit its schema."""


class PolicyError(UsageError):
    """A policy does not fit its schema, or the model's deployment target cannot carry it."""


class NoAnswer(GateError):
    """No answer could be had here; trying again elsewhere may give one."""

    exit_code = Exit.NO_ANSWER


class ToolchainError(NoAnswer):
    """A tool beneath us failed in a way that says nothing about the model."""


class SourceFault(GateError):
    """The team's own code fails, deterministically: an exception, `sys.exit`, a wrong return value."""

    exit_code = Exit.FAIL


class DamagedPackage(SourceFault):
    """A finished package is not whole."""

    remedy = (
        "save the package again, or bring all of it: the folder with Manifest.json, Data and every weight file, "
        "by git lfs pull where Git LFS keeps them"
    )


def is_full(error: OSError) -> bool:
    """Is a disk full, or a quota used up? `shutil.copytree` tells it in words only."""
    words = str(error) if isinstance(error, shutil.Error) else ""
    return error.errno in FULL or any(os.strerror(number) in words for number in FULL)


def refused(error: OSError) -> GateError | None:
    """Say that the disk is full, or a path closed to us; None for what may be our own fault."""
    where = error.filename2 or error.filename
    if is_full(error):
        return NoAnswer(
            f"{where or 'while writing'}: the disk is full ({error.strerror or os.strerror(errno.ENOSPC)}); "
            "free space there, or name another folder: --out, --cache, or TMPDIR for temporary files"
        )
    if where and error.errno in CLOSED:
        return UsageError(
            f"{where}: {error.strerror}; expected a path that this user may read, and write if it is a result; "
            "name another, or mend its permissions"
        )
    return None
