# SPDX-License-Identifier: Apache-2.0
"""How is a package written once, with some of its weights in compressed form?

The program is edited where it must be and nowhere else: a compressed constant becomes the `constexpr_*` op that yields the same
name, so nothing that reads it changes. All other weights are copied byte for byte, one at a time. The forms before iOS18 differ
from the later ones in the names of parameters, not in the bytes.
"""

import json
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gate.compress.encoded import Bytes, Encoded, Form, Tensor
from gate.mil.blob import BITS, HEADER_BYTES, METADATA, SENTINEL, STORED, VERSION, BlobFile
from gate.mil.messages import messages

WEIGHT_FILE = "@model_path/weights/weight.bin"
ALIGNMENT = 64
LEAST_IN_FILE = 10  # elements; coremltools writes smaller values inside the program
IN_FILE_BEFORE_IOS18 = ("float16", "float32", "uint8", "int8")
_CODES = {name: code for code, name in STORED.items()}
_FIELDS = {"float32": "floats", "int32": "ints"}  # the rest lie in `bytes`

Key = tuple[str, str]  # function, name of the constant


class BlobWriter:
    """Writes a `weight.bin`: the reverse of `gate.mil.blob.BlobFile`."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.count = 0
        self.at = HEADER_BYTES
        stream.write(bytes(HEADER_BYTES))

    def write(self, dtype: str, data: Bytes, elements: int) -> int:
        """Append one blob; return the offset that the program must name."""
        offset, start = self.at, self.at + HEADER_BYTES
        padding_bits = max(0, data.size * 8 - elements * BITS[dtype])
        record = METADATA.pack(SENTINEL, _CODES[dtype], data.size, start, padding_bits)
        self.stream.write(record.ljust(HEADER_BYTES, b"\0"))
        self.stream.write(data.data)
        end = start + data.size
        self.at = -(-end // ALIGNMENT) * ALIGNMENT
        self.stream.write(bytes(self.at - end))
        self.count += 1
        return offset

    def close(self) -> None:
        """Write the header, which holds the count."""
        self.stream.seek(0)
        self.stream.write(struct.pack("<II", self.count, VERSION))


def write_package(source: Path, compressed: Mapping[Key, Encoded], out: Path) -> None:
    """Write `source` to `out` with the named constants in compressed form; nothing half-written is ever at `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        draft = Path(folder) / out.name
        shutil.copytree(source, draft, symlinks=True, ignore=shutil.ignore_patterns("weights"))
        path = _model_file(draft)
        origin = source / path.parent.relative_to(draft)
        spec = messages("Model_pb2").Model.FromString(path.read_bytes())
        weight_path = path.parent / "weights" / "weight.bin"
        weight_path.parent.mkdir()
        with weight_path.open("wb") as stream:
            editor = _Editor(origin, BlobWriter(stream), compressed)
            for name, function in spec.mlProgram.functions.items():
                editor.edit(name, function)
            editor.writer.close()
        path.write_bytes(spec.SerializeToString())
        if out.exists():
            shutil.rmtree(out)
        draft.rename(out)


def _model_file(package: Path) -> Path:
    """Return the model message that the manifest names; `load_program` has made sure that it lies inside."""
    manifest = json.loads((package / "Manifest.json").read_text("utf-8"))
    return package / "Data" / str(manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"])


class _Editor:
    """Rewrites the constants of a program; knows which blobs have been written already."""

    def __init__(self, origin: Path, writer: BlobWriter, compressed: Mapping[Key, Encoded]) -> None:
        self.origin = origin
        self.writer = writer
        self.compressed = compressed
        self.files: dict[str, BlobFile] = {}
        self.copied: dict[tuple[str, int], int] = {}
        self.stored: dict[int, tuple[int, Bytes]] = {}  # by identity, which holds only while the bytes are kept

    def edit(self, name: str, function: Any) -> None:
        modern = int(function.opset.removeprefix("CoreML")) >= 8
        for block in function.block_specializations.values():
            self.block(name, block, modern)

    def block(self, function: str, block: Any, modern: bool) -> None:
        ops: list[Any] = []
        for op in block.operations:
            encoded = self.compressed.get((function, op.outputs[0].name)) if op.type == "const" else None
            if encoded is not None:
                ops += self.constexpr(op, encoded, modern)
                continue
            for value in _values(op):
                self.copy(value)
            for inner in op.blocks:
                self.block(function, inner, modern)
            ops.append(op)
        edited = [_copy(op) for op in ops]
        del block.operations[:]
        block.operations.extend(edited)

    def copy(self, value: Any) -> None:
        """Move a blob to the new file, once."""
        if value.WhichOneof("value") != "blobFileValue":
            return
        reference = value.blobFileValue
        key = (reference.fileName, reference.offset)
        if key not in self.copied:
            if key[0] not in self.files:
                self.files[key[0]] = BlobFile(self.origin / key[0].removeprefix("@model_path/"))
            blob = self.files[key[0]].read(key[1])
            elements = _count(value.type.tensorType)
            self.copied[key] = self.writer.write(blob.dtype, blob.data, elements)
        reference.fileName, reference.offset = WEIGHT_FILE, self.copied[key]

    def constexpr(self, const: Any, encoded: Encoded, modern: bool) -> list[Any]:
        """Return the ops that yield the constant's name."""
        dtype = const.outputs[0].type.tensorType.dataType
        name = const.outputs[0].name
        if not modern:
            op_type, arguments = _older(encoded)
            return [self.op(op_type, name, arguments, [(name, dtype, encoded.shape)], attributes=True)]
        return [
            self.op(op_type, outputs[0][0] if len(outputs) == 1 else f"{name}_nonzero", arguments, outputs)
            for op_type, arguments, outputs in _modern(encoded, name, dtype)
        ]

    def op(
        self,
        op_type: str,
        name: str,
        arguments: Mapping[str, "Tensor | str"],
        outputs: list[tuple[str, int, tuple[int, ...]]],
        attributes: bool = False,
    ) -> Any:
        op = messages("MIL_pb2").Operation(type=op_type)
        op.attributes["name"].CopyFrom(_string(name))
        for parameter, argument in arguments.items():
            if attributes:
                assert isinstance(argument, Tensor)
                op.attributes[parameter].CopyFrom(self.value(argument, IN_FILE_BEFORE_IOS18))
                continue
            binding = op.inputs[parameter].arguments.add()
            if isinstance(argument, str):
                binding.name = argument
            else:
                binding.value.CopyFrom(self.value(argument, tuple(_CODES)))
        for output, dtype, shape in outputs:
            _set_type(op.outputs.add(name=output).type, dtype, shape)
        return op

    def value(self, tensor: Tensor, in_file: tuple[str, ...]) -> Any:
        value = messages("MIL_pb2").Value()
        _set_type(value.type, messages("MIL_pb2").DataType.Value(tensor.dtype.upper()), tensor.shape)
        elements = int(np.prod(tensor.shape))
        if elements >= LEAST_IN_FILE and tensor.dtype in in_file:
            value.blobFileValue.fileName = WEIGHT_FILE
            value.blobFileValue.offset = self.write_once(tensor, elements)
        elif tensor.dtype in _FIELDS:
            getattr(value.immediateValue.tensor, _FIELDS[tensor.dtype]).values.extend(tensor.array.reshape(-1).tolist())
        else:
            value.immediateValue.tensor.bytes.values = tensor.data.tobytes()
        return value

    def write_once(self, tensor: Tensor, elements: int) -> int:
        """Write a part; the same part in a second function or op is the same blob."""
        key = id(tensor.data)
        if key not in self.stored:
            self.stored[key] = (self.writer.write(tensor.dtype, tensor.data, elements), tensor.data)
        return self.stored[key][0]


def _older(encoded: Encoded) -> tuple[str, dict[str, "Tensor | str"]]:
    """Return op and parameters before iOS18: packed bytes with a shape, and parameters of rank 0 or 1."""
    parts = encoded.parts
    shape = Tensor.of(np.array(encoded.shape, np.uint32))
    match encoded.form:
        case Form.LINEAR:
            scale = parts["scale"]
            offset = parts.get("offset") or Tensor.of(np.zeros(scale.shape, np.int8), parts["data"].dtype)
            axis = next((i for i, size in enumerate(scale.shape) if size > 1), 0)
            return "constexpr_affine_dequantize", {
                "quantized_data": parts["data"],
                "scale": _squeezed(scale),
                "zero_point": _squeezed(offset),
                "axis": _scalar(axis),
            }
        case Form.PALETTE:
            lut = parts["lut"]
            table = Tensor(lut.dtype, (int(np.prod(lut.shape)),), lut.data)
            return "constexpr_lut_to_dense", {"indices": _as_bytes(parts["indices"]), "lut": table, "shape": shape}
        case Form.SPARSE:
            mask = _as_bytes(parts["mask"])
            return "constexpr_sparse_to_dense", {"nonzero_data": parts["nonzero_data"], "mask": mask, "shape": shape}
        case _:
            raise ValueError(f"a {encoded.form} weight has no form before iOS18")


Output = tuple[str, int, tuple[int, ...]]


def _modern(encoded: Encoded, name: str, dtype: int) -> Iterator[tuple[str, dict[str, "Tensor | str"], list[Output]]]:
    """Yield (op, parameters, outputs) from iOS18 on; joint forms are two ops in a chain."""
    parts: dict[str, Tensor | str] = dict(encoded.parts)
    whole: list[Output] = [(name, dtype, encoded.shape)]
    if encoded.axis is not None:
        parts["vector_axis"] = _scalar(encoded.axis)
    if encoded.form in (Form.LINEAR, Form.PALETTE, Form.SPARSE):
        op_type = {
            Form.LINEAR: "constexpr_blockwise_shift_scale",
            Form.PALETTE: "constexpr_lut_to_dense",
            Form.SPARSE: "constexpr_sparse_to_dense",
        }[encoded.form]
        yield op_type, parts, whole
        return
    if encoded.form in (Form.SCALED_PALETTE, Form.SPARSE_PALETTE) and "scale" in parts:
        lut = parts.pop("lut")
        assert isinstance(lut, Tensor)
        numbers = {"data": lut} | {key: parts.pop(key) for key in ("scale", "offset") if key in parts}
        parts["lut"] = f"{name}_lut"
        yield "constexpr_blockwise_shift_scale", numbers, [(f"{name}_lut", dtype, lut.shape)]
    if encoded.form is Form.SCALED_PALETTE:
        yield "constexpr_lut_to_dense", parts, whole
        return
    mask, nonzero = encoded.parts["mask"], encoded.parts["nonzero_data"]
    outputs = [
        (f"{name}_mask", messages("MIL_pb2").DataType.Value("UINT1"), encoded.shape),
        (f"{name}_nonzero", dtype, nonzero.shape),
    ]
    others = {key: part for key, part in parts.items() if key not in ("mask", "nonzero_data")}
    if encoded.form is Form.SPARSE_LINEAR:
        first = {"data_mask": mask, "nonzero_data": nonzero, **others}
        yield "constexpr_sparse_blockwise_shift_scale", first, outputs
    else:
        first = {"indices_mask": mask, "indices_nonzero_data": nonzero, **others}
        yield "constexpr_lut_to_sparse", first, outputs
    yield "constexpr_sparse_to_dense", {"mask": outputs[0][0], "nonzero_data": outputs[1][0]}, whole


def _values(op: Any) -> Iterator[Any]:
    yield from op.attributes.values()
    for argument in op.inputs.values():
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "value":
                yield binding.value


def _copy(op: Any) -> Any:
    """Copy a message out of the list that is about to be emptied."""
    copy = type(op)()
    copy.CopyFrom(op)
    return copy


def _count(tensor: Any) -> int:
    return int(np.prod([dimension.constant.size for dimension in tensor.dimensions], dtype=np.int64))


def _set_type(kind: Any, dtype: int, shape: tuple[int, ...]) -> None:
    kind.tensorType.dataType = dtype
    kind.tensorType.rank = len(shape)
    for size in shape:
        kind.tensorType.dimensions.add().constant.size = size


def _string(text: str) -> Any:
    value = messages("MIL_pb2").Value()
    _set_type(value.type, messages("MIL_pb2").DataType.Value("STRING"), ())
    value.immediateValue.tensor.strings.values.append(text)
    return value


def _scalar(number: int) -> Tensor:
    return Tensor.of(np.array(number, np.int32))


def _squeezed(tensor: Tensor) -> Tensor:
    return Tensor(tensor.dtype, tuple(size for size in tensor.shape if size > 1), tensor.data)


def _as_bytes(tensor: Tensor) -> Tensor:
    """View packed elements as the bytes that hold them."""
    return Tensor("uint8", (tensor.data.size,), tensor.data)
