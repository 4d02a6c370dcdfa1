# SPDX-License-Identifier: Apache-2.0
"""What crosses between us and the worker, and in which form?

A request or an answer is one JSON file with one `.npz` beside it for its arrays; packages lie beside them as folders. The
pipes carry one line each way, to wake the other side. Nothing is ever unpickled. What the worker hands over is copied out of
its reach first and believed only as data: sizes are capped, links and special files refused.
"""

import errno
import io
import json
import os
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError

from gate.document import Record
from gate.errors import SourceFault, is_full
from gate.report import Finding

MAX_JSON_BYTES = 64 * 10**6
MAX_ARRAY_BYTES = 4 * 10**9
MAX_PACKAGE_BYTES = 16 * 10**9
MAX_PACKAGE_FILES = 1_000
MAX_PACKAGE_DEPTH = 16
ARRAY_KINDS = "biufU"  # booleans, integers, floats, text; objects would need pickle


class Verb(StrEnum):
    """What the worker can be asked."""

    DESCRIBE = "describe"
    EXAMPLE = "example"
    REFERENCE = "reference"
    FINGERPRINT = "fingerprint"
    STEPS = "steps"
    CONVERT = "convert"
    ITEMS = "items"
    METRIC = "metric"
    AGGREGATE = "aggregate"
    ONNX = "onnx"


class FaultKind(StrEnum):
    """Whose fault a failure is; each has its own error class."""

    SOURCE = "source"
    USAGE = "usage"
    TOOLCHAIN = "toolchain"
    NO_ANSWER = "no_answer"
    OURS = "ours"


class Failure(Record):
    """Why there is no result."""

    kind: FaultKind = Field(description="whose fault it is")
    message: str = Field(max_length=20_000, description="where, what was found, what to do")
    findings: tuple[Finding, ...] = Field(default=(), max_length=1_000, description="the causes one by one")


class Port(Record):
    """One input or output as the model's code has it."""

    name: str = Field(min_length=1, max_length=400, description="name in the package")
    shape: tuple[int, ...] = Field(max_length=16, description="sizes of the example")
    dtype: str = Field(max_length=40, description="element type that the package will have")


class Description(Record):
    """What a source is, before any conversion."""

    inputs: tuple[Port, ...] = Field(max_length=1_000, description="inputs in order")
    outputs: tuple[Port, ...] = Field(max_length=1_000, description="outputs in order")
    parameters: int = Field(ge=0, description="number of parameters and buffers, tied ones once")
    parameter_bytes: int = Field(ge=0, description="their size as the source stores them")
    nodes: int = Field(ge=0, description="operations of the torch graph; 0 where it could not be counted")
    compressed: int = Field(default=0, ge=0, description="weights that arrive compressed, as their buffers say")
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the code file, arguments and weights")


class SourceLine(Record):
    """Where one MIL operation comes from."""

    op_type: str = Field(max_length=200, description="MIL op type")
    layer: str | None = Field(default=None, max_length=1_000, description="path of the torch layer")
    folded: str | None = Field(default=None, max_length=1_000, description="path of a layer that was folded into it")
    file: str | None = Field(default=None, max_length=1_000, description="the team's file, relative to gate.yml")
    line: int | None = Field(default=None, ge=0, description="line in it")
    code: str | None = Field(default=None, max_length=1_000, description="the line itself")
    torch: str | None = Field(default=None, max_length=200, description="torch operation")

    @property
    def place(self) -> str | None:
        """`model.py:41`, as a finding shows it."""
        return f"{self.file}:{self.line}" if self.file else None


def operation_names(layer: str, op_type: str) -> list[str]:
    """What a pattern of `keep_float32` may call an operation: its layer, each layer around it, and its kind in its layer."""
    parts = layer.split(".") if layer else []
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)] + [f"{layer}/{op_type}"]


class SourceMap(Record):
    """Every operation of a package by the name of its first output."""

    ops: dict[str, SourceLine] = Field(max_length=1_000_000, description="MIL output name to where it comes from")


class ConversionAnswer(Record):
    """A package that the worker has saved."""

    package: str = Field(pattern=r"^package-\d+\.mlpackage$", description="folder in the hand-over")
    source_map: SourceMap = Field(description="where each operation comes from")
    findings: tuple[Finding, ...] = Field(default=(), max_length=1_000, description="what the conversion warned of")


class MetricAnswer(Record):
    """What the team's metric says."""

    per_item: tuple[float | tuple[float, ...], ...] = Field(description="one value per item, or several of them")
    aggregates: bool = Field(default=False, description="the file also has aggregate(items), which makes the figure")
    higher_is_better: bool | None = Field(default=None, description="direction that the metric file declares")
    unit: str | None = Field(default=None, max_length=40, description="unit that the metric file declares")


class Request(Record):
    """One question to the worker."""

    number: int = Field(ge=1, description="running number; names the files")
    verb: Verb = Field(description="the question")
    arguments: dict[str, Any] = Field(default_factory=dict, description="encoded arguments")


class Answer(Record):
    """One answer of the worker: a result or a failure."""

    number: int = Field(ge=1, description="number of the request")
    result: Any = Field(default=None, description="encoded result")
    failure: Failure | None = Field(default=None, description="why there is no result")


class Startup(Record):
    """What a worker is told when it starts."""

    source: dict[str, Any] = Field(description="`source:` of the model entry")
    inputs: tuple[dict[str, Any], ...] = Field(default=(), description="`inputs:` of the model entry")
    outputs: tuple[dict[str, Any], ...] = Field(default=(), description="`outputs:` of the model entry")
    states: tuple[dict[str, Any], ...] = Field(default=(), description="`states:` of the model entry")
    dataset: str | None = Field(default=None, description="path.py:function of the data set")
    metric: str | None = Field(default=None, description="path.py of the metric")
    folder: str = Field(description="folder of gate.yml: paths are relative to it, and it is the working directory")
    pythonpath: tuple[str, ...] = Field(default=(), description="further folders to import from")
    requests: str = Field(description="folder of the requests, which the worker only reads")
    answers: str = Field(description="folder of the answers and packages")


# ---------------------------------------------------------------------------------------------- values and arrays


def encode(value: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """Turn nested values into JSON, moving arrays into `arrays`; equal-shaped lists of arrays travel as one."""
    if isinstance(value, np.ndarray):
        return {"$array": _store(value, arrays)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {_plain_key(key): encode(item, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return _encode_list(value, arrays)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} cannot be handed over; expected arrays, numbers, text, lists or dicts")


def _encode_list(values: Sequence[Any], arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    layouts = {(v.shape, v.dtype.str) if isinstance(v, np.ndarray) else None for v in values}
    if len(values) > 1 and len(layouts) == 1 and None not in layouts:
        return {"$stack": _store(np.stack(values), arrays)}
    return [encode(value, arrays) for value in values]


def _store(array: np.ndarray[Any, Any], arrays: dict[str, np.ndarray[Any, Any]]) -> str:
    if array.dtype.kind not in ARRAY_KINDS:
        raise TypeError(f"an array of {array.dtype} cannot be handed over; expected numbers, booleans or text")
    key = f"a{len(arrays)}"
    arrays[key] = array
    return key


def _plain_key(key: Any) -> str:
    if not isinstance(key, str) or key.startswith("$"):
        raise TypeError(f"key {key!r} cannot be handed over; expected text that does not start with $")
    return key


def decode(value: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    """Undo `encode`."""
    if isinstance(value, dict):
        if set(value) == {"$array"}:
            return arrays[value["$array"]]
        if set(value) == {"$stack"}:
            return list(arrays[value["$stack"]])
        return {key: decode(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [decode(item, arrays) for item in value]
    return value


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Turn a list of equally keyed rows into lists by key, which travel as one array each where the shapes agree."""
    return {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}


def rows(table: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Undo `columns`; a table whose columns differ in length is refused."""
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


# ------------------------------------------------------------------------------------------------------- messages


def write_message(path: Path, message: Request | Answer, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write a message, its arrays first, so that whoever sees the JSON finds both."""
    if arrays:
        np.savez(path.with_suffix(".npz"), **arrays)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(message.model_dump(mode="python"), default=str))
    partial.replace(path)


def read_request(path: Path) -> tuple[Request, dict[str, np.ndarray[Any, Any]]]:
    """Read a request, on the worker's side."""
    return Request.model_validate_json(path.read_bytes()), read_arrays(path.with_suffix(".npz"))


def read_answer(path: Path, number: int) -> tuple[Answer, dict[str, np.ndarray[Any, Any]]]:
    """Read an answer, on our side; anything but a well-formed one is the source's fault."""
    try:
        answer = Answer.model_validate(json.loads(_read_capped(path, MAX_JSON_BYTES)))
        if answer.number != number:
            raise ValueError(f"answers request {answer.number}, expected {number}")
        return answer, read_arrays(path.with_suffix(".npz"))
    except (OSError, ValueError, KeyError, RecursionError, MemoryError, zipfile.BadZipFile, ValidationError) as problem:
        raise SourceFault(f"the worker's answer is not well-formed ({_first_line(problem)})") from None


def _first_line(problem: BaseException) -> str:
    return (str(problem) or type(problem).__name__).splitlines()[0][:300]


def read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read an .npz that somebody else wrote: no pickles, no link, and no more bytes than may be, packed and unpacked."""
    if not path.is_symlink() and not path.exists():
        return {}
    with open_regular(path, MAX_ARRAY_BYTES) as stream, zipfile.ZipFile(stream) as archive:
        if sum(member.file_size for member in archive.infolist()) > MAX_ARRAY_BYTES:
            raise ValueError(f"{path.name} unpacks to more than {MAX_ARRAY_BYTES} bytes")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}


def _read_capped(path: Path, most: int) -> bytes:
    with open_regular(path, most) as stream:
        return stream.read(most)


def open_regular(path: Path, most: int) -> io.BufferedReader:
    """Open a regular file of at most `most` bytes; a link, pipe or device is refused, and so is a larger file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    stream = os.fdopen(descriptor, "rb")
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > most:
        stream.close()
        raise ValueError(f"{path.name}: expected a regular file of at most {most} bytes, found {status.st_size}")
    return stream


# ------------------------------------------------------------------------------------------------------- packages


def receive_package(handed: Path, target: Path) -> None:
    """Copy a package out of the worker's reach; refuse links, special files, too many files and too many bytes.

    Folders are walked by descriptor: the worker is alive, and could put a link where a folder was a moment ago.
    """
    allowance = _Allowance(MAX_PACKAGE_FILES, MAX_PACKAGE_BYTES)
    try:
        descriptor = os.open(handed, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        raise SourceFault("no package was handed over") from None
    try:
        _receive_folder(descriptor, Path(), target, allowance)
    except OSError as problem:
        if is_full(problem):
            raise  # of ours, not theirs
        raise SourceFault(f"the package cannot be taken over: {problem}") from None
    finally:
        os.close(descriptor)


@dataclass
class _Allowance:
    """How much of a package may still come."""

    files: int
    bytes: int

    def take(self, *, files: int = 0, count: int = 0) -> None:
        self.files -= files
        self.bytes -= count
        if self.files < 0:
            raise SourceFault(f"the package holds more than {MAX_PACKAGE_FILES} files")
        if self.bytes < 0:
            raise SourceFault(f"the package is larger than {MAX_PACKAGE_BYTES} bytes")


def _receive_folder(folder: int, relative: Path, target: Path, allowance: _Allowance) -> None:
    if len(relative.parts) > MAX_PACKAGE_DEPTH:
        raise SourceFault(f"the package is nested deeper than {MAX_PACKAGE_DEPTH} folders at {relative}")
    (target / relative).mkdir(parents=True)
    for name in sorted(os.listdir(folder)):
        allowance.take(files=1)
        _receive_entry(folder, relative / name, target, allowance)


def _receive_entry(folder: int, relative: Path, target: Path, allowance: _Allowance) -> None:
    try:
        entry = os.open(relative.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as problem:
        what = "a link" if problem.errno == errno.ELOOP else "an unreadable file"
        raise SourceFault(f"the package holds {what}, {relative}; only files and folders are accepted") from None
    try:
        mode = os.fstat(entry).st_mode
        if stat.S_ISDIR(mode):
            _receive_folder(entry, relative, target, allowance)
        elif stat.S_ISREG(mode):
            _copy(entry, target / relative, allowance)
        else:
            raise SourceFault(f"the package holds a special file, {relative}; only files and folders are accepted")
    finally:
        os.close(entry)


def _copy(source: int, target: Path, allowance: _Allowance) -> None:
    with target.open("wb") as out:
        while chunk := os.read(source, 1 << 20):
            allowance.take(count=len(chunk))
            out.write(chunk)
