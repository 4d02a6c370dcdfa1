# SPDX-License-Identifier: Apache-2.0
"""What is on disk for one model entry under one policy?

A package is counted file by file. Its digest is of the program and the weights, since a saved package changes its UUIDs and
its byte order each time it is written.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gate import mil
from gate.errors import UsageError
from gate.files import is_lfs_pointer, sha256_file
from gate.policy import Policy
from gate.report import PackageFile, Role


@dataclass(frozen=True)
class Package:
    """A .mlpackage (a folder), or a single model file, on disk."""

    path: Path
    files: tuple[PackageFile, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.bytes for file in self.files)

    @cached_property
    def digest(self) -> str | None:
        """Digest of program and weights; None for what is no ML program."""
        return program_digest(self.path)


@dataclass(frozen=True)
class Candidate:
    """One model entry under one policy, ready to be judged."""

    role: Role
    policy: Policy
    package: Package


def read_package(path: Path) -> Package:
    """List the files of a package; a Git LFS pointer in place of one is named."""
    if not path.exists():
        raise UsageError(f"{path}: no such package")
    found = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    if not found:
        raise UsageError(f"{path}: an empty folder, expected a Core ML package")
    for file in found:
        if is_lfs_pointer(file):
            raise UsageError(
                f"{file}: a Git LFS pointer, not the file itself; check out with `lfs: true` or run `git lfs pull`"
            )
    root = path if path.is_dir() else path.parent
    return Package(
        path,
        tuple(
            PackageFile(path=file.relative_to(root).as_posix(), sha256=sha256_file(file), bytes=file.stat().st_size)
            for file in found
        ),
    )


def program_digest(path: Path) -> str | None:
    """Digest the interface, the ops in order, and each constant by its stored bytes."""
    from gate.mil.program import load_program

    try:
        program = load_program(path)
    except mil.Unsupported:
        return None
    state = hashlib.sha256()
    for part in _parts(program):
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()


def computes_float32(path: Path) -> bool:
    """Does a package compute in float32 throughout: has it no float16 result at all?"""
    from gate.mil.program import load_program

    ops = [op for function in load_program(path).functions.values() for op in function.body.walk()]
    return not any(getattr(value.type, "dtype", None) == "float16" for op in ops for value in op.outputs)


def _parts(program: Any) -> Iterator[bytes]:
    description = type(program.spec.description)()
    description.CopyFrom(program.spec.description)
    description.ClearField("metadata")  # names the tool version and the day of the conversion
    yield description.SerializeToString(deterministic=True)
    for name, function in sorted(program.functions.items()):
        yield f"{name} {function.opset}".encode()
        yield from _block_parts(function.body)


def _block_parts(block: Any) -> Iterator[bytes]:
    yield " ".join(f"{value.name}:{value.type}" for value in block.inputs).encode()
    for op in block.ops:
        yield f"{op.type} {' '.join(f'{v.name}:{v.type}' for v in op.outputs)}".encode()
        for name, arguments in sorted(op.inputs.items()):
            yield name.encode()
            for argument in arguments:
                yield from _argument_parts(argument)
        for inner in op.blocks:
            yield from _block_parts(inner)
    for output in block.outputs:
        yield from _argument_parts(output)


def _argument_parts(argument: Any) -> Iterator[bytes]:
    yield str(argument.type).encode()
    if not hasattr(argument, "immediate"):
        yield argument.name.encode()
    elif argument.file is not None:
        yield argument.stored.tobytes()
    elif isinstance(argument.immediate, list) or argument.immediate.dtype.hasobject:
        yield "\0".join(
            map(str, np.ravel(argument.immediate))
        ).encode()  # strings; the bytes of an array would be addresses
    else:
        yield argument.immediate.tobytes()
