# SPDX-License-Identifier: Apache-2.0
"""Which weights does a package hold, how are they stored, and what do they decode to?

A weight is what a computing op reads: a constant tensor, or the end of a chain of `constexpr_*` ops. Its `key` names
the place where it is first read, `linear_0.weight`: coremltools renames the weight itself at each compression step
(`…_palettized`, `…_pcs`), but not the op, so the same weight of two candidates has one key. Scalars, strings and what
only steers an op (strides, axes) are parameters, not weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gate.mil.blob import BITS, Array
from gate.mil.program import Argument, Constant, Function, Op, Program, TensorType, Value

if TYPE_CHECKING:
    from gate.mil.constants import Constants


@dataclass(frozen=True)
class Stored:
    """One constant as the package stores it; two weights may share one (same file and offset)."""

    parameter: str  # of the op that reads it: `weight`, `indices`, `lut`, `scale` …
    dtype: str
    shape: tuple[int, ...]
    package_bytes: int
    file: str | None  # None: written in the model message itself
    offset: int
    constant: Constant = field(repr=False, compare=False)

    @property
    def array(self) -> Array:
        """Return the raw elements, sub-byte ones one to a byte."""
        return self.constant.array


@dataclass(frozen=True, eq=False)
class Weight:
    """A tensor that ops read, and the constants it is made of."""

    key: str  # where it is first read: op name and parameter, stable under compression
    name: str  # what the reader calls it
    function: str
    dtype: str
    shape: tuple[int, ...]
    consumers: tuple[tuple[str, str, str], ...]  # (op type, op name, parameter)
    forms: tuple[str, ...]  # the constexpr_* ops from the stored data to the reader; empty when stored plainly
    stored: tuple[Stored, ...]
    _source: Argument = field(repr=False)
    _constants: Constants = field(repr=False)
    _chain: tuple[Op, ...] = field(repr=False)
    _opset: str = field(repr=False)

    def decode(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """Return the values that the reader sees, rounded to the declared type, as float32."""
        for op in self._chain:
            self._constants.fold(op, self._opset)
        constant = self._constants.resolve(self._source)
        assert isinstance(constant, Constant)
        declared = np.float16 if self.dtype == "float16" else np.float32
        with np.errstate(over="ignore"):
            return constant.array.astype(declared).astype(np.float32)

    @property
    def elements(self) -> int:
        """Return how many values the reader sees."""
        return int(np.prod(self.shape))

    @property
    def package_bytes(self) -> int:
        """Return the bytes of all that is stored for it."""
        return sum(s.package_bytes for s in self.stored)

    @property
    def bits(self) -> int:
        """Return the bits that each stored element has; of a palette, those of an index."""
        indices, lut = self.part("indices", "indices_nonzero_data"), self.part("lut")
        if indices is not None and lut is not None and len(lut.shape) == 1:
            return max((lut.shape[0] - 1).bit_length(), 1)  # before iOS18 the indices are packed bytes
        data = indices or self.part("quantized_data", "data", "nonzero_data", "source_val")
        return BITS[(data or self.stored[0]).dtype]

    @property
    def palette(self) -> Array | None:
        """Return the decoded table: (entries,), or (*blocks, entries, vector) from iOS18 on."""
        for op in self._chain:
            if "lut" in op.inputs:
                self.decode()
                table = self._constants.resolve(op.inputs["lut"][0])
                return table.array if isinstance(table, Constant) else None
        return None

    @property
    def indices(self) -> Array | None:
        """Return the stored indices into the palette (packed bits before iOS18)."""
        return self._array("indices", "indices_nonzero_data")

    @property
    def quantized(self) -> Array | None:
        """Return the stored integers of a linear quantization (those kept, when sparse; the table's, of a palette)."""
        return self._array("quantized_data", "data", "nonzero_data") if self.scale is not None else None

    @property
    def scale(self) -> Array | None:
        """Return the scales: (), (channels,) or one for each block."""
        return self._array("scale")

    @property
    def offset(self) -> Array | None:
        """Return the zero points, shaped like the scales."""
        return self._array("zero_point", "offset")

    @property
    def axis(self) -> int | None:
        """Return the channel axis of scale and zero point, when there is one."""
        axis = self._array("axis")
        return None if axis is None else int(axis.reshape(-1)[0])

    @property
    def sparsity(self) -> float | None:
        """Return the share of elements that a mask leaves out; None without a mask."""
        if not any("sparse" in form for form in self.forms):
            return None
        data = self.part("indices_nonzero_data", "nonzero_data")
        return None if data is None else 1 - int(np.prod(data.shape)) / max(self.elements, 1)

    def part(self, *parameters: str) -> Stored | None:
        """Return the first stored constant that serves one of these parameters."""
        return next((s for p in parameters for s in self.stored if s.parameter == p), None)

    def _array(self, *parameters: str) -> Array | None:
        part = self.part(*parameters)
        return None if part is None else part.array


def weights(program: Program) -> tuple[Weight, ...]:
    """List the weights of all functions, in the order in which they are first read."""
    from gate.mil.constants import Constants  # decoders are kernels, and load torch

    constants = Constants()
    return tuple(w for _, f in sorted(program.functions.items()) for w in _weights(f, constants))


def _weights(function: Function, constants: Constants) -> Iterator[Weight]:
    made: dict[Argument, Op] = {
        v: op for op in function.body.walk() if op.type.startswith("constexpr_") for v in op.outputs
    }
    readers: dict[Argument, list[tuple[str, str, str]]] = {}
    for op in function.body.walk():
        for parameter, arguments in op.inputs.items():
            for i, argument in enumerate(arguments):
                if _computes(op, parameter, function.opset) and (isinstance(argument, Constant) or argument in made):
                    place = parameter if len(arguments) == 1 else f"{parameter}[{i}]"
                    readers.setdefault(argument, []).append((op.type, op.name, place))
    for source, consumers in readers.items():
        kind = source.type
        if isinstance(kind, TensorType) and kind.shape and kind.dtype != "string":
            chain = tuple(_chain(source, made))
            _, first, parameter = consumers[0]
            yield Weight(
                key=f"{first}.{parameter}",
                name=source.name,
                function=function.name,
                dtype=kind.dtype,
                shape=tuple(n or 0 for n in kind.shape),
                consumers=tuple(consumers),
                forms=tuple(op.type for op in chain),
                stored=tuple(_stored(source, chain, parameter)),
                _source=source,
                _constants=constants,
                _chain=chain,
                _opset=function.opset,
            )


def _computes(op: Op, parameter: str, opset: str) -> bool:
    """Say whether an op computes with this input; strides and axes only steer it."""
    from gate.mil import ops as ops  # registers the decoders
    from gate.mil.ops.registry import find

    kernel = find(op.type, opset)
    form = kernel.parameters.get(parameter) if kernel else None
    return not op.type.startswith("constexpr_") and form in (None, "Tensor", "Filters", "Gates", "Tensors")


def _chain(source: Argument, made: Mapping[Argument, Op]) -> list[Op]:
    """Return the ops that decode a value, in the order they run."""
    waiting, found = [source], set()
    while waiting:
        op = made.get(waiting.pop())
        if op is not None and op not in found:
            found.add(op)
            waiting += [v for arguments in op.inputs.values() for v in arguments if isinstance(v, Value)]
    return [op for op in dict.fromkeys(made.values()) if op in found]


def _stored(source: Argument, chain: tuple[Op, ...], parameter: str) -> Iterator[Stored]:
    if isinstance(source, Constant):
        yield _record(source, parameter)
    for op in chain:
        for name, arguments in op.inputs.items():
            for argument in arguments:
                if isinstance(argument, Constant):
                    yield _record(argument, name)


def _record(constant: Constant, parameter: str) -> Stored:
    kind = constant.type
    if not isinstance(kind, TensorType) or kind.dtype == "string":
        return Stored(parameter, "string", (), 0, None, 0, constant)
    file = constant.file.path.name if constant.file else None
    return Stored(
        parameter,
        kind.dtype,
        tuple(n or 0 for n in kind.shape or ()),
        constant.stored_bytes,
        file,
        constant.offset,
        constant,
    )
