# SPDX-License-Identifier: Apache-2.0
"""How does a stored weight become the tensor that kernels read, and only once?

`Constants` decodes the `constexpr_*` chains of one program; what it makes is kept for as long as anybody uses it,
by content: two candidates of one model that store the same bytes share the tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from gate.mil import numerics
from gate.mil.blob import Array
from gate.mil.errors import BadPackage, OpFailed, UnsupportedOp
from gate.mil.numerics import Rounding
from gate.mil.ops.registry import Kernel, find
from gate.mil.program import Argument, Constant, ListType, Op, TensorType, Type, Value

STRING = TensorType("string", ())
SHARED_BYTES = 4096  # smaller ones are not worth a digest
_arrays: WeakValueDictionary[bytes, Array] = WeakValueDictionary()
_tensors: WeakValueDictionary[bytes, Tensor] = WeakValueDictionary()


def channels_last(filters: Tensor) -> Tensor:
    """Lay out the filters of a 2-D convolution as torch convolves them faster; others stay."""
    return filters.contiguous(memory_format=torch.channels_last) if filters.dim() == 4 else filters


def torch_gates(weight: Tensor) -> Tensor:
    """Reorder input, forget, output, cell to torch's input, forget, cell, output."""
    i, f, o, z = weight.chunk(4)
    return torch.cat([i, f, z, o])


LAYOUTS: Mapping[str, Callable[[Tensor], Tensor]] = {"Filters": channels_last, "Gates": torch_gates}


class Form(NamedTuple):
    """How a constant is laid out for a program: the same one may be needed in several."""

    halved: bool
    as_half: bool  # rounded as coremltools stores it, rather than as an op's result
    layout: str  # the annotation in LAYOUTS that asks for one, or nothing


class Constants:
    """The constants of one program, decoded when first asked for."""

    def __init__(self) -> None:
        self.decoded: dict[Value, Constant] = {}
        self._digests: dict[Constant, bytes] = {}
        self._exact: set[Constant] = set()  # decoded to values that need no rounding
        self._tensors: dict[tuple[Constant, Form], Tensor] = {}

    def resolve(self, argument: Argument) -> Argument:
        """Return the constant that a value has been decoded to, else the argument itself."""
        return self.decoded.get(argument, argument) if isinstance(argument, Value) else argument

    def fold(self, op: Op, opset: str) -> None:
        """Decode a `constexpr_*` op; its outputs resolve to constants from now on."""
        if all(value in self.decoded for value in op.outputs):
            return
        kernel = find(op.type, opset)
        if kernel is None:
            raise UnsupportedOp((op.type,), repr(op.name))
        inputs = {name: self._input(op, name, arguments) for name, arguments in op.inputs.items()}
        digest = self._digest_of(op, inputs)
        keys = [digest + bytes([i]) for i in range(len(op.outputs))]
        found = [_arrays.get(key) for key in keys]
        results = _decode(op, kernel, inputs) if any(a is None for a in found) else found
        for key, value, array in zip(keys, op.outputs, results, strict=True):
            assert array is not None
            check_shape(op, value.type, array.shape)
            constant = self.decoded[value] = Constant(value.name, value.type, array)
            self._digests[constant] = key
            if kernel.exact and not any(c.array.dtype == np.float32 for c in inputs.values()):
                self._exact.add(constant)
            _arrays[key] = array

    def _input(self, op: Op, name: str, arguments: tuple[Argument, ...]) -> Constant:
        constant = self.resolve(only(op, name, arguments))
        if not isinstance(constant, Constant):
            raise BadPackage(f"{op.type} {op.name!r}: {name} is {constant.name!r}, which is not a constant")
        return constant

    def _digest_of(self, op: Op, inputs: dict[str, Constant]) -> bytes:
        digest = sha256(op.type.encode())
        for name in sorted(inputs):
            digest.update(name.encode() + self.digest(inputs[name]))
        return digest.digest()

    def digest(self, constant: Constant) -> bytes:
        """Return what identifies a constant's content: type and stored bytes."""
        if constant not in self._digests:
            digest = sha256(str(constant.type).encode())
            text = isinstance(constant.type, ListType) or constant.type == STRING
            digest.update(repr(constant.immediate).encode() if text else constant.stored.data)
            self._digests[constant] = digest.digest()
        return self._digests[constant]

    def tensor(self, constant: Constant, dtype: str, rounding: Rounding, layout: str = "") -> Tensor:
        """Return a constant as a settled tensor, in one of LAYOUTS if that is asked for."""
        halved = rounding.halves(dtype) and not self._is_exact(constant)
        form = Form(halved, halved and rounding.as_half, layout)
        if (constant, form) not in self._tensors:
            self._tensors[constant, form] = self._shared(constant, form, dtype, rounding)
        return self._tensors[constant, form]

    def _shared(self, constant: Constant, form: Form, dtype: str, rounding: Rounding) -> Tensor:
        if constant.array.nbytes < SHARED_BYTES:
            return self._settled(constant, form, dtype, rounding)
        digest = self.digest(constant) + repr(form).encode()
        tensor = _tensors.get(digest)
        if tensor is None:
            tensor = _tensors[digest] = self._settled(constant, form, dtype, rounding)
        return tensor

    def _is_exact(self, constant: Constant) -> bool:
        """Say whether the values are float16 already, since they were stored so."""
        return constant.array.dtype == np.float16 or constant in self._exact

    def _settled(self, constant: Constant, form: Form, dtype: str, rounding: Rounding) -> Tensor:
        tensor = numerics.tensor(constant.array)
        if form.as_half:
            tensor = numerics.half_constant(tensor)
        elif not self._is_exact(constant):
            tensor = numerics.settle(dtype, rounding)(tensor)
        return LAYOUTS[form.layout](tensor) if form.layout else tensor


class Exchanged(Constants):
    """The constants of a program, some of them with other values; all others are shared with `base`."""

    def __init__(self, base: Constants, values: Mapping[str, Array]) -> None:
        super().__init__()
        self._base = base
        self._values = values
        self.decoded = base.decoded

    def fold(self, op: Op, opset: str) -> None:
        """Decode by the base, which has most likely done so."""
        self._base.fold(op, opset)

    def digest(self, constant: Constant) -> bytes:
        """Identify a constant's stored content."""
        return self._base.digest(constant)

    def tensor(self, constant: Constant, dtype: str, rounding: Rounding, layout: str = "") -> Tensor:
        """Return a constant as a settled tensor, from its new values where it has any."""
        if constant.name in self._values:
            tensor = numerics.settle(dtype, rounding)(numerics.tensor(self._values[constant.name]))
            return LAYOUTS[layout](tensor) if layout else tensor
        return self._base.tensor(constant, dtype, rounding, layout)


def _decode(op: Op, kernel: Kernel, inputs: dict[str, Constant]) -> tuple[Array, ...]:
    arguments = {name: PLAIN[annotation(kernel, op, name)](constant.array) for name, constant in inputs.items()}
    try:
        result = kernel.function(**arguments)
    except (ValueError, TypeError, IndexError, KeyError, MemoryError) as error:
        raise BadPackage(f"{op.type} {op.name!r}: can't be decoded ({error})") from error
    results = result if isinstance(result, tuple) else (result,)
    if len(results) != len(op.outputs):
        raise BadPackage(f"{op.type} {op.name!r}: declares {len(op.outputs)} outputs, has {len(results)}")
    return results


def only(op: Op, name: str, arguments: tuple[Argument, ...]) -> Argument:
    """Return the one argument of a parameter that takes one."""
    if len(arguments) != 1:
        raise BadPackage(f"{op.type} {op.name!r}: {name} has {len(arguments)} values, expected one")
    return arguments[0]


def annotation(kernel: Kernel, op: Op, name: str) -> str:
    """Return the form in which a kernel takes one of its parameters."""
    if name not in kernel.parameters:
        raise BadPackage(f"{op.type} {op.name!r}: no parameter {name!r}; it has {', '.join(kernel.parameters)}")
    return kernel.parameters[name]


def check_shape(op: Op, kind: Type, found: tuple[int, ...]) -> None:
    """Compare with the declared shape: broadcasting hides mistakes."""
    if not isinstance(kind, TensorType) or kind.shape is None:
        return
    if len(found) != len(kind.shape) or any(d is not None and d != f for d, f in zip(kind.shape, found, strict=True)):
        raise OpFailed(f"{op.type} {op.name!r}: the result has shape {tuple(found)}, the program declares {kind}")


def _list(array: Any) -> list[Any]:
    return list(np.asarray(array).reshape(-1).tolist())


def _item(array: Any) -> Any:
    return np.asarray(array).item()


PLAIN: dict[str, Any] = {
    **dict.fromkeys(("int", "float", "bool", "str"), _item),
    **dict.fromkeys(("Ints", "Floats", "Bools", "Strings", "Any"), _list),
    "Array": lambda array: array,
}
