# SPDX-License-Identifier: Apache-2.0
"""What does the package say? An ML program as immutable records.

The only reader of Core ML's protobuf messages. It believes nothing: every name must be computed before it is
read, every constant must have as many bytes as its type needs, every path must stay inside the package; what
does not hold is one `BadPackage`. Weights are mapped, and become arrays when somebody asks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from gate.mil.blob import BITS, Array, BlobFile, packed_bytes, unpack
from gate.mil.errors import BadPackage, MilError, Unsupported
from gate.mil.messages import messages

MAX_DEPTH = 32  # nested blocks; protobuf itself stops at 100 messages
MAX_RANK = 16  # Core ML stops at 5, sliding windows and blockwise scales use a few more inside
MAX_ELEMENTS = 2**34
MAX_SPEC_BYTES = 2**31
DAMAGE = (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError, MemoryError)  # not foreseen below
KEPT = 4  # programs: records of a few megabytes, and a mapping of the weights
OPSETS = ("CoreML5", "CoreML6", "CoreML7", "CoreML8", "CoreML9")  # iOS15 … iOS18, iOS26


@dataclass(frozen=True)
class TensorType:
    """`dtype` as MIL names it; `shape` holds None where the program leaves a size open, or is None with the rank."""

    dtype: str
    shape: tuple[int | None, ...] | None

    @property
    def sizes(self) -> list[int] | None:
        """Return the shape if the program leaves nothing of it open."""
        known = [n for n in self.shape or () if n is not None]
        return known if self.shape is not None and len(known) == len(self.shape) else None

    def __str__(self) -> str:
        sizes = "…" if self.shape is None else ", ".join("?" if n is None else str(n) for n in self.shape)
        return f"{self.dtype}({sizes})"


@dataclass(frozen=True)
class ListType:
    """A list of `length` tensors; None: grows."""

    element: Type
    length: int | None


@dataclass(frozen=True)
class StateType:
    """A tensor that outlives a prediction."""

    wrapped: TensorType


@dataclass(frozen=True)
class DictType:
    """What `classify` returns: class to probability."""

    key: Type
    value: Type


Type = TensorType | ListType | StateType | DictType


@dataclass(frozen=True, eq=False)
class Value:
    """A name that an op (or the caller) gives a value to. Two of one name are two: nested blocks may reuse names."""

    name: str
    type: Type


@dataclass(frozen=True, eq=False)
class Constant:
    """A value written in the program, or in a weight file that it points to."""

    name: str
    type: Type
    immediate: Any = field(repr=False)  # array, list of strings; None when the data are in a file
    file: BlobFile | None = None
    offset: int = 0

    @property
    def array(self) -> Array:
        """Return the raw elements, sub-byte ones one to a byte."""
        if self.file is None:
            return np.asarray(self.immediate)
        tensor = _tensor_type(self.type, self.name)
        return unpack(self.stored, tensor.dtype, _count(tensor, self.name)).reshape(_sizes(tensor, self.name))

    @property
    def stored(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the bytes as they lie in the file."""
        if self.file is None:
            return np.ascontiguousarray(self.array).view(np.uint8).reshape(-1)
        return self.file.read(self.offset).data

    @property
    def stored_bytes(self) -> int:
        """Return how many bytes it takes in the package."""
        if self.file is not None:
            return self.file.read(self.offset).data.size
        if isinstance(self.type, TensorType) and self.type.dtype in BITS:
            return packed_bytes(self.type.dtype, _count(self.type, self.name))
        return 0


Argument = Value | Constant


@dataclass(frozen=True, eq=False)
class Op:
    """One operation. An input has several arguments when MIL passes a tuple (`concat`'s `values`)."""

    type: str
    name: str
    inputs: Mapping[str, tuple[Argument, ...]]
    outputs: tuple[Value, ...]
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True, eq=False)
class Block:
    """Ops in the order they run; a nested one sees the names of those around it."""

    inputs: tuple[Value, ...]
    ops: tuple[Op, ...]
    outputs: tuple[Argument, ...]

    def walk(self) -> Iterator[Op]:
        """Yield every op, nested ones after the op that holds them."""
        for op in self.ops:
            yield op
            for block in op.blocks:
                yield from block.walk()


@dataclass(frozen=True, eq=False)
class Function:
    """An entry of the program."""

    name: str
    opset: str
    body: Block

    @property
    def inputs(self) -> tuple[Value, ...]:
        """Return inputs and states."""
        return self.body.inputs


@dataclass(frozen=True, eq=False)
class Program:
    """All of a package: functions, and the description that `predict` follows."""

    functions: Mapping[str, Function]
    default_function: str
    spec: Any = field(repr=False)  # the Model message, without the program
    path: Path | None = None

    def function(self, name: str | None = None) -> Function:
        """Return one function; the default without a name."""
        wanted = name or self.default_function
        if wanted not in self.functions:
            raise MilError(f"no function {wanted!r}; the program has {', '.join(sorted(self.functions))}")
        return self.functions[wanted]


def load_program(model: Any) -> Program:
    """Read a path to an .mlpackage or .mlmodel, or a `coremltools.models.MLModel`.

    The last few packages are kept, since each check reads the same ones, and read again when a file of theirs has changed.
    """
    try:
        return _load(model) if hasattr(model, "get_spec") else _kept(Path(model), _state(Path(model)))
    except DAMAGE as error:
        raise BadPackage(f"the package contradicts itself ({type(error).__name__}: {error})") from error


def read_message(model: Any) -> Any:
    """Read the message of a model of any format that is not compiled, unchecked."""
    try:
        return _read(model)[0]
    except DAMAGE as error:
        raise BadPackage(f"the package contradicts itself ({type(error).__name__}: {error})") from error


def load_stages(model: Any) -> tuple[Any | None, tuple[Program, ...]]:
    """Read a pipeline's description and programs; of any other model no description, and its one program."""
    try:
        spec, root, path = _read(model)
        kind = spec.WhichOneof("Type")
        if kind not in PIPELINES:
            return None, (_program(spec, root, path),)
        return spec.description, tuple(_program(stage, root, path) for stage in PIPELINES[kind](spec))
    except DAMAGE as error:
        raise BadPackage(f"the package contradicts itself ({type(error).__name__}: {error})") from error


PIPELINES: dict[str, Callable[[Any], Iterable[Any]]] = {
    "pipeline": lambda spec: spec.pipeline.models,
    "pipelineClassifier": lambda spec: spec.pipelineClassifier.pipeline.models,
    "pipelineRegressor": lambda spec: spec.pipelineRegressor.pipeline.models,
}


@lru_cache(maxsize=KEPT)
def _kept(path: Path, state: tuple[Any, ...]) -> Program:
    return _load(path)


def _state(path: Path) -> tuple[Any, ...]:
    """Return what changes when a file of a package does."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return tuple(
        (str(file.absolute()), found.st_ino, found.st_size, found.st_mtime_ns)
        for file in files
        if file.exists() and (found := file.stat())
    )


def _load(model: Any) -> Program:
    spec, root, path = _read(model)
    if spec.WhichOneof("Type") in PIPELINES:
        raise Unsupported("the model is a pipeline, not one program: load() runs it stage by stage")
    return _program(spec, root, path)


def _read(model: Any) -> tuple[Any, Path | None, Path | None]:
    """Return the message, the folder that its weight files are relative to, and the path if there is one."""
    if hasattr(model, "get_spec"):
        weights = getattr(model, "weights_dir", None)
        return model.get_spec(), Path(weights).parent if weights else None, None
    path = Path(model)
    spec_path = _spec_path(path)
    return _parse(spec_path), spec_path.parent, path


def _spec_path(path: Path) -> Path:
    if path.suffix == ".mlmodelc":
        raise Unsupported(
            f"{path.name} is compiled; only its size can be judged. Pass the .mlpackage that it was made from"
        )
    if path.is_file():
        return path
    if not path.is_dir():
        raise BadPackage(f"{path}: no such package")
    return _root_item(path)


def _root_item(package: Path) -> Path:
    manifest = package / "Manifest.json"
    try:
        entries = json.loads(manifest.read_text("utf-8"))
        item = entries["itemInfoEntries"][entries["rootModelIdentifier"]]["path"]
        root = (package / "Data").resolve()
        spec: Path = (root / str(item)).resolve()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadPackage(f"{manifest}: does not name a root model ({type(error).__name__}: {error})") from None
    if not spec.is_relative_to(root):
        raise BadPackage(f"{manifest}: the root model {item!r} lies outside the package")
    return spec


def _parse(path: Path) -> Any:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        if path.stat().st_size > MAX_SPEC_BYTES:
            raise BadPackage(f"{path.name}: {path.stat().st_size} bytes; a model message has at most {MAX_SPEC_BYTES}")
        content = path.read_bytes()
        if content.startswith(b"PK\x03\x04"):
            raise BadPackage(f"{path}: it is a zip archive: unpack it first")
        return messages("Model_pb2").Model.FromString(content)
    except OSError as error:
        raise BadPackage(f"{path}: can't be read ({error.strerror})") from None
    except (DecodeError, RecursionError):
        raise BadPackage(f"{path}: not a Core ML model message, or damaged") from None


def _program(spec: Any, root: Path | None, path: Path | None) -> Program:
    kind = spec.WhichOneof("Type")
    if kind is None:
        raise BadPackage("the model is a message without a model")
    if kind != "mlProgram":
        raise Unsupported(
            f"the model is a {kind}, and only ML programs are evaluated: its numbers, float16, accuracy and memory can't be judged; "
            "its size still is, and gate inspect still describes it. Convert with convert_to='mlprogram' for the rest"
        )
    reader = _Reader(root)
    functions = {name: reader.function(name, f) for name, f in sorted(spec.mlProgram.functions.items())}
    if not functions:
        raise BadPackage("the program has no function")
    default = default_function(spec)
    head = type(spec)(specificationVersion=spec.specificationVersion, description=spec.description)
    return Program(MappingProxyType(functions), default, head, path)


def default_function(spec: Any) -> str:
    """Name the function that runs where nobody chooses one."""
    functions = spec.mlProgram.functions
    return spec.description.defaultFunctionName or ("main" if "main" in functions else min(functions, default=""))


def described(spec: Any, function: str) -> Any:
    """Return the description of a function: a package of several describes each on its own."""
    return next((f for f in spec.description.functions if f.name == function), spec.description)


class _Reader:
    """Turns messages into records; knows the weight files of one package."""

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self.files: dict[str, BlobFile] = {}

    def function(self, name: str, spec: Any) -> Function:
        if spec.opset not in spec.block_specializations:
            raise BadPackage(f"function {name!r}: no body for its opset {spec.opset!r}")
        if spec.opset not in OPSETS:
            raise Unsupported(f"function {name!r}: opset {spec.opset!r} is not one of {', '.join(OPSETS)}")
        inputs = tuple(self.value(v) for v in spec.inputs)
        scope: dict[str, Argument] = {v.name: v for v in inputs}
        body = self.block(spec.block_specializations[spec.opset], scope, f"function {name!r}", 0)
        return Function(name, spec.opset, Block(inputs + body.inputs, body.ops, body.outputs))

    def block(self, spec: Any, outer: Mapping[str, Argument], where: str, depth: int) -> Block:
        if depth > MAX_DEPTH:
            raise BadPackage(f"{where}: more than {MAX_DEPTH} nested blocks")
        inputs = tuple(self.value(v) for v in spec.inputs)
        scope = {**outer, **{v.name: v for v in inputs}}
        ops: list[Op] = []
        for op_spec in spec.operations:
            if op_spec.type == "const":
                self.const(op_spec, scope)
            else:
                op = self.op(op_spec, scope, depth)
                ops.append(op)
                scope.update((v.name, v) for v in op.outputs)
        outputs = tuple(_look_up(scope, name, f"{where}: its output") for name in spec.outputs)
        return Block(inputs, tuple(ops), outputs)

    def const(self, spec: Any, scope: dict[str, Argument]) -> None:
        if len(spec.outputs) != 1 or "val" not in spec.attributes:
            raise BadPackage("a const op must have one output and a value")
        name = spec.outputs[0].name
        scope[name] = self.constant(spec.attributes["val"], name)

    def op(self, spec: Any, scope: Mapping[str, Argument], depth: int) -> Op:
        outputs = tuple(self.value(v) for v in spec.outputs)
        label = _label(spec, outputs)
        where = f"{spec.type} {label!r}"
        inputs = {
            k: tuple(self.argument(b, scope, f"{where}: {k}") for b in a.arguments) for k, a in spec.inputs.items()
        }
        for key, value in spec.attributes.items():
            if key != "name":
                inputs.setdefault(key, (self.constant(value, f"{label}.{key}"),))
        blocks = tuple(self.block(b, scope, where, depth + 1) for b in spec.blocks)
        return Op(spec.type, label, MappingProxyType(inputs), outputs, blocks)

    def argument(self, spec: Any, scope: Mapping[str, Argument], where: str) -> Argument:
        if spec.WhichOneof("binding") == "value":
            return self.constant(spec.value, where)
        return _look_up(scope, spec.name, where)

    def value(self, spec: Any) -> Value:
        return Value(spec.name, _type(spec.type, spec.name))

    def constant(self, spec: Any, name: str) -> Constant:
        kind = _type(spec.type, name)
        if spec.WhichOneof("value") == "blobFileValue":
            return self.stored(name, kind, spec.blobFileValue)
        if spec.immediateValue.WhichOneof("value") == "list":
            return Constant(name, kind, [self.constant(v, name).array.item() for v in spec.immediateValue.list.values])
        return Constant(name, kind, _immediate(spec.immediateValue.tensor, _tensor_type(kind, name), name))

    def stored(self, name: str, kind: Type, spec: Any) -> Constant:
        tensor = _tensor_type(kind, name)
        file = self.file(spec.fileName, name)
        blob = file.read(spec.offset)
        needed = packed_bytes(tensor.dtype, _count(tensor, name))
        if blob.dtype != tensor.dtype and not (tensor.dtype == "bool" and blob.dtype == "uint8"):
            raise BadPackage(f"{name!r}: declared {tensor}, but {file.path.name} stores {blob.dtype}")
        if blob.data.size < needed:
            raise BadPackage(f"{name!r}: {tensor} needs {needed} bytes, {file.path.name} has {blob.data.size}")
        return Constant(name, kind, None, file, spec.offset)

    def file(self, name: str, constant: str) -> BlobFile:
        if name not in self.files:
            self.files[name] = BlobFile(self.locate(name, constant))
        return self.files[name]

    def locate(self, name: str, constant: str) -> Path:
        if self.root is None:
            raise BadPackage(f"{constant!r}: its data are in {name!r}, but the model has no folder")
        path = (self.root / name.removeprefix("@model_path/")).resolve()
        if "\0" in name or not path.is_relative_to(self.root.resolve()):
            raise BadPackage(f"{constant!r}: its file {name!r} lies outside the package")
        return path


def _look_up(scope: Mapping[str, Argument], name: str, where: str) -> Argument:
    if name not in scope:
        raise BadPackage(f"{where}: reads {name!r}, which nothing before it computes")
    return scope[name]


def _label(spec: Any, outputs: tuple[Value, ...]) -> str:
    """Name an op by its first output: that is what the source map and the reports call it."""
    if outputs:
        return outputs[0].name
    strings = spec.attributes["name"].immediateValue.tensor.strings.values if "name" in spec.attributes else ()
    return str(strings[0]) if strings else spec.type


def _type(spec: Any, name: str) -> Type:
    kind = spec.WhichOneof("type")
    if kind == "tensorType":
        return _tensor(spec.tensorType, name)
    if kind == "listType":
        size = spec.listType.length
        length = size.constant.size if size.WhichOneof("dimension") == "constant" else None
        return ListType(_type(spec.listType.type, name), length)
    if kind == "stateType":
        return StateType(_tensor_type(_type(spec.stateType.wrappedType, name), name))
    if kind == "dictionaryType":
        return DictType(_type(spec.dictionaryType.keyType, name), _type(spec.dictionaryType.valueType, name))
    raise BadPackage(f"{name!r}: a value of type {kind or 'nothing'} is not known")


def _tensor(spec: Any, name: str) -> TensorType:
    try:
        dtype = messages("MIL_pb2").DataType.Name(spec.dataType).lower()
    except ValueError:
        raise BadPackage(f"{name!r}: unknown element type {spec.dataType}") from None
    if spec.rank < 0 or (not spec.dimensions and spec.rank):
        return TensorType(dtype, None)
    if len(spec.dimensions) > MAX_RANK:
        raise BadPackage(f"{name!r}: rank {len(spec.dimensions)} is above {MAX_RANK}")
    if any(d.WhichOneof("dimension") == "unknown" and d.unknown.variadic for d in spec.dimensions):
        return TensorType(dtype, None)
    return TensorType(dtype, tuple(_size(d) for d in spec.dimensions))


def _size(spec: Any) -> int | None:
    return int(spec.constant.size) if spec.WhichOneof("dimension") == "constant" else None


def _tensor_type(kind: Type, name: str) -> TensorType:
    if not isinstance(kind, TensorType):
        raise BadPackage(f"{name!r}: a tensor is expected here, found {type(kind).__name__}")
    return kind


def _sizes(tensor: TensorType, name: str) -> tuple[int, ...]:
    if tensor.shape is None or None in tensor.shape:
        raise BadPackage(f"{name!r}: a constant must have a known shape, found {tensor}")
    return tuple(n for n in tensor.shape if n is not None)


def _count(tensor: TensorType, name: str) -> int:
    count = math.prod(_sizes(tensor, name))
    if tensor.dtype not in BITS or count > MAX_ELEMENTS:
        raise BadPackage(f"{name!r}: a constant can't be {tensor}")
    return count


def _immediate(spec: Any, tensor: TensorType, name: str) -> Array:
    kind = spec.WhichOneof("value")
    sizes = _sizes(tensor, name)
    if kind is None:
        return np.zeros(sizes, _numpy(tensor.dtype)) if 0 in sizes else _misfit(name, tensor, 0)
    values = getattr(spec, kind).values
    if tensor.dtype == "string":
        strings = np.array(list(values), object)
        return strings.reshape(sizes) if strings.size == math.prod(sizes) else _misfit(name, tensor, strings.size)
    if kind == "bytes":
        return _from_bytes(values, tensor, name).reshape(sizes)
    array = np.array(values)
    if array.size != math.prod(sizes):
        _misfit(name, tensor, array.size)
    return array.astype(_numpy(tensor.dtype)).reshape(sizes)


def _from_bytes(values: bytes, tensor: TensorType, name: str) -> Array:
    count = _count(tensor, name)
    if len(values) < packed_bytes(tensor.dtype, count):
        _misfit(name, tensor, len(values))
    return unpack(np.frombuffer(values, np.uint8), tensor.dtype, count)


def _misfit(name: str, tensor: TensorType, found: int) -> Array:
    raise BadPackage(f"{name!r}: declared {tensor}, but holds {found} elements")


def _numpy(dtype: str) -> np.dtype[Any]:
    if dtype == "string":
        return np.dtype(object)
    return np.dtype({"bfloat16": "float32", "int4": "int8"}.get(dtype, "uint8" if dtype in SUB_BYTE else dtype))


SUB_BYTE = ("uint1", "uint2", "uint3", "uint4", "uint6")
