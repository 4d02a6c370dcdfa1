# SPDX-License-Identifier: Apache-2.0
"""How does a stored weight become the tensor that kernels read, and only once?

`Constants` decodes the `constexpr_*` chains of one program when a tensor of their result is asked for. What it makes is kept
for as long as anybody uses it, by content: two candidates of one model that store the same bytes share the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
from torch import Tensor

from gate.mil import numerics
from gate.mil.blob import Array
from gate.mil.errors import BadPackage, OpFailed, UnsupportedOp
from gate.mil.numerics import Rounding
from gate.mil.ops.registry import Kernel, Layout, find
from gate.mil.program import Argument, Constant, ListType, Op, TensorType, Type, Value

STRING = TensorType("string", ())
WIDE = ("float32", "bfloat16")  # types with values that float16 has not
LONGEST_CHAIN = 16  # coremltools writes three
SHARED_BYTES = 4096  # smaller ones are not worth a digest
PLAINLY = Layout("", lambda tensor: tensor)
_arrays: WeakValueDictionary[bytes, Array] = WeakValueDictionary()
_tensors: WeakValueDictionary[bytes, Tensor] = WeakValueDictionary()


class Form(NamedTuple):
    """How a constant is laid out for a program: the same one may be needed in several."""

    halved: bool
    as_half: bool  # rounded as coremltools stores it, rather than as an op's result
    layout: str  # the name of its Layout, if it has one


@dataclass(frozen=True, eq=False)
class Decoding:
    """A `constexpr_*` op over constants; its results are made when one is asked for."""

    op: Op
    kernel: Kernel
    inputs: Mapping[str, Constant]
    digest: bytes
    links: int  # ops of the longest chain that ends here

    def key(self, index: int) -> bytes:
        """Identify the content of one result."""
        return self.digest + bytes([index])

    def array(self, index: int) -> Array:
        """Return one result; BadPackage or OpFailed when there is none as declared."""
        found = _arrays.get(self.key(index))
        return self._results({})[index] if found is None else found

    def _results(self, made: dict[Decoding, tuple[Array, ...]]) -> tuple[Array, ...]:
        """Decode, each op of the chain once: `made` holds their results meanwhile."""
        if self not in made:
            inputs = {
                name: one.source._results(made)[one.index] if isinstance(one, Decoded) else one.array
                for name, one in self.inputs.items()
            }
            made[self] = _decode(self.op, self.kernel, inputs)
            for index, (value, array) in enumerate(zip(self.op.outputs, made[self], strict=True)):
                check_shape(self.op, value.type, array.shape)
                _arrays[self.key(index)] = array
        return made[self]

    @property
    def is_exact(self) -> bool:
        """Are its results float16 values already? It only moves such values, or casts to them."""
        if self.op.type == "constexpr_cast":
            return all(isinstance(v.type, TensorType) and v.type.dtype == "float16" for v in self.op.outputs)
        return self.kernel.exact and not any(
            isinstance(one, Decoded) or (isinstance(one.type, TensorType) and one.type.dtype in WIDE)
            for one in self.inputs.values()
        )


@dataclass(frozen=True, eq=False)
class Decoded(Constant):
    """A result of a `constexpr_*` op: a constant whose elements are made when they are asked for."""

    source: Decoding = field(kw_only=True, repr=False)
    index: int = field(kw_only=True, default=0)

    @property
    def array(self) -> Array:
        """Return the elements."""
        return self.source.array(self.index)


class Constants:
    """The constants of one program, decoded when first asked for."""

    def __init__(self) -> None:
        self.decoded: dict[Value, Constant] = {}
        self._digests: dict[Constant, bytes] = {}
        self._asked: set[Decoding] = set()
        self._tensors: dict[tuple[Constant, Form], Tensor] = {}

    def resolve(self, argument: Argument) -> Argument:
        """Return the constant that a value has been decoded to, else the argument itself."""
        return self.decoded.get(argument, argument) if isinstance(argument, Value) else argument

    def fold(self, op: Op, opset: str) -> None:
        """Take a `constexpr_*` op in; its outputs resolve to constants from now on."""
        if all(value in self.decoded for value in op.outputs):
            return
        kernel = find(op.type, opset)
        if kernel is None:
            raise UnsupportedOp((op.type,), repr(op.name))
        inputs = {name: self._input(op, name, arguments) for name, arguments in op.inputs.items()}
        links = 1 + max((one.source.links for one in inputs.values() if isinstance(one, Decoded)), default=0)
        if links > LONGEST_CHAIN:
            raise BadPackage(f"{op.type} {op.name!r}: a chain of more than {LONGEST_CHAIN} constexpr ops")
        source = Decoding(op, kernel, inputs, self._digest_of(op, inputs), links)
        for index, value in enumerate(op.outputs):
            constant = self.decoded[value] = Decoded(value.name, value.type, None, source=source, index=index)
            self._digests[constant] = source.key(index)

    def _input(self, op: Op, name: str, arguments: tuple[Argument, ...]) -> Constant:
        constant = self.resolve(only(op, name, arguments))
        if not isinstance(constant, Constant):
            raise BadPackage(f"{op.type} {op.name!r}: {name} is {constant.name!r}, which is not a constant")
        return constant

    def _digest_of(self, op: Op, inputs: dict[str, Constant]) -> bytes:
        digest = sha256(op.type.encode())
        digest.update(repr([str(value.type) for value in op.outputs]).encode())  # what is declared is checked, too
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

    def tensor(self, constant: Constant, dtype: str, rounding: Rounding, layout: Layout = PLAINLY) -> Tensor:
        """Return a constant as a settled tensor, in the layout asked for."""
        halved = rounding.halves(dtype) and not self._is_exact(constant)
        form = Form(halved, halved and rounding.as_half, layout.name)
        if (constant, form) not in self._tensors:
            self._tensors[constant, form] = self._shared(constant, form, dtype, rounding, layout)
            if isinstance(constant, Decoded):
                self._ask(constant.source)
        return self._tensors[constant, form]

    def _ask(self, source: Decoding) -> None:
        self._asked.add(source)
        for one in source.inputs.values():
            if isinstance(one, Decoded) and one.source not in self._asked:
                self._ask(one.source)

    def check_unread(self) -> None:
        """Decode what no tensor was made of, so that damage there is told as well."""
        for constant in self.decoded.values():
            if isinstance(constant, Decoded) and constant.source not in self._asked:
                constant.source.array(0)
                self._ask(constant.source)

    def _shared(self, constant: Constant, form: Form, dtype: str, rounding: Rounding, layout: Layout) -> Tensor:
        if not isinstance(constant, Decoded) and constant.array.nbytes < SHARED_BYTES:
            return self._settled(constant, form, dtype, rounding, layout)
        digest = self.digest(constant) + repr(form).encode()
        tensor = _tensors.get(digest)
        if tensor is None:
            tensor = _tensors[digest] = self._settled(constant, form, dtype, rounding, layout)
        return tensor

    def _is_exact(self, constant: Constant) -> bool:
        """Say whether the values are float16 already, since they were stored so."""
        return constant.source.is_exact if isinstance(constant, Decoded) else constant.array.dtype == np.float16

    def _settled(self, constant: Constant, form: Form, dtype: str, rounding: Rounding, layout: Layout) -> Tensor:
        tensor = numerics.tensor(constant.array)
        if form.as_half:
            tensor = numerics.half_constant(tensor)
        elif not self._is_exact(constant):
            tensor = numerics.settle(dtype, rounding)(tensor)
        return layout.apply(tensor)


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

    def check_unread(self) -> None:
        """Leave it to the base, whose tensors are asked for."""
        self._base.check_unread()

    def digest(self, constant: Constant) -> bytes:
        """Identify a constant's stored content."""
        return self._base.digest(constant)

    def tensor(self, constant: Constant, dtype: str, rounding: Rounding, layout: Layout = PLAINLY) -> Tensor:
        """Return a constant as a settled tensor, from its new values where it has any."""
        if constant.name in self._values:
            tensor = numerics.settle(dtype, rounding)(numerics.tensor(self._values[constant.name]))
            return layout.apply(tensor)
        return self._base.tensor(constant, dtype, rounding, layout)


def _decode(op: Op, kernel: Kernel, inputs: Mapping[str, Array]) -> tuple[Array, ...]:
    arguments = {name: PLAIN[annotation(kernel, op, name)](array) for name, array in inputs.items()}
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
