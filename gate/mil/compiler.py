# SPDX-License-Identifier: Apache-2.0
"""How does an op become a step that costs next to nothing to run?

Everything that can be known at load is settled here: which kernel, which constants in which form, which slot each
value has, when it is read last, and what its result must look like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from gate.mil import numerics
from gate.mil.errors import BadPackage, OpFailed, UnsupportedOp
from gate.mil.numerics import Precision
from gate.mil.ops.registry import Kernel, find
from gate.mil.program import Argument, Block, Constant, Function, Op, TensorType, Type, Value

Settle = Callable[[Any], tuple[Any, ...]]
Convert = Callable[[Any], Any]
Read = tuple[str, int | tuple[int, ...], Convert | None]


@dataclass(frozen=True, eq=False)
class Step:
    """One op, ready to run."""

    op: Op
    function: Callable[..., Any]
    constants: Mapping[str, Any] = field(repr=False)
    reads: tuple[Read, ...]
    context: str | None
    settle: Settle = field(repr=False)
    outputs: tuple[int, ...]
    frees: tuple[int, ...] = ()
    batch: bool = True

    def read(self, values: list[Any]) -> dict[str, Any]:
        """Gather the kernel's arguments."""
        inputs = dict(self.constants)
        for name, slot, convert in self.reads:
            value = values[slot] if isinstance(slot, int) else [values[i] for i in slot]
            inputs[name] = value if convert is None else convert(value)
        return inputs

    def failure(self, inputs: Mapping[str, Any], error: Exception) -> str:
        """Say which op failed on what."""
        shown = ", ".join(f"{k}={_show(v)}" for k, v in inputs.items() if k != self.context)
        return f"{self.op.type} {self.op.name!r}({shown}): {error}"


@dataclass(frozen=True, eq=False)
class Body:
    """The steps of a block, and where its inputs and outputs are."""

    inputs: tuple[int, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Plan:
    """A function, ready to run: `presets` is the list of values before anything ran."""

    body: Body
    blocks: Mapping[Block, Body]
    presets: tuple[Any, ...]
    settle_inputs: tuple[Callable[[Tensor], Tensor], ...]


def compile_function(function: Function, precision: Precision) -> Plan:
    """Compile a function; raise UnsupportedOp that names every op type without a kernel."""
    missing = sorted({op.type for op in function.body.walk() if find(op.type, function.opset) is None})
    if missing:
        raise UnsupportedOp(tuple(missing), f"function {function.name!r} ({function.opset})")
    compiler = _Compiler(function.opset, precision)
    body = compiler.block(function.body)
    inputs = tuple(_settle_input(v.type, precision) for v in function.inputs)
    return Plan(body, compiler.blocks, tuple(compiler.presets), inputs)


class _Compiler:
    def __init__(self, opset: str, precision: Precision) -> None:
        self.opset = opset
        self.precision = precision
        self.slots: dict[Argument, int] = {}
        self.presets: list[Any] = []
        self.blocks: dict[Block, Body] = {}
        self.folded: dict[Value, Constant] = {}

    def block(self, block: Block) -> Body:
        """Compile a block; what is decoded from constants alone becomes a constant."""
        inputs = tuple(self.slot(v) for v in block.inputs)
        steps = []
        for op in block.ops:
            if op.type.startswith("constexpr_"):
                self.fold(op)
            else:
                steps.append(self.step(op))
        outputs = tuple(self.slot(self.known(v)) for v in block.outputs)
        return Body(inputs, _free(steps, kept={*inputs, *outputs}, own=self.own(block, inputs)), outputs)

    def own(self, block: Block, inputs: Iterable[int]) -> set[int]:
        return {*inputs, *(self.slots[v] for op in block.ops for v in op.outputs if v in self.slots)}

    def known(self, argument: Argument) -> Argument:
        return self.folded.get(argument, argument) if isinstance(argument, Value) else argument

    def slot(self, argument: Argument) -> int:
        if argument not in self.slots:
            self.slots[argument] = len(self.presets)
            self.presets.append(self.constant(argument, "Tensor") if isinstance(argument, Constant) else None)
        return self.slots[argument]

    def fold(self, op: Op) -> None:
        kernel = self.kernel(op)
        inputs = {}
        for name, arguments in op.inputs.items():
            constant = self.known(_only(op, name, arguments))
            if not isinstance(constant, Constant):
                raise BadPackage(f"{op.type} {op.name!r}: {name} is {constant.name!r}, which is not a constant")
            inputs[name] = self.constant(constant, _annotation(kernel, op, name))
        try:
            arrays = kernel.function(**inputs)
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise BadPackage(f"{op.type} {op.name!r}: can't be decoded ({error})") from error
        for value, array in zip(op.outputs, arrays if isinstance(arrays, tuple) else (arrays,), strict=True):
            _check_shape(op, value.type, array.shape)
            self.folded[value] = Constant(value.name, value.type, array)

    def constant(self, constant: Constant, annotation: str) -> Any:
        if annotation in ("Tensor", "Tensors", "Any") and isinstance(constant.type, TensorType) and constant.type.dtype != "string":
            return numerics.settle(constant.type.dtype, self.precision)(numerics.tensor(constant.array))
        return PLAIN[annotation](constant.array)

    def kernel(self, op: Op) -> Kernel:
        kernel = find(op.type, self.opset)
        assert kernel is not None, "compile_function has looked"
        return kernel

    def step(self, op: Op) -> Step:
        kernel = self.kernel(op)
        constants, reads = {}, []
        for name, arguments in op.inputs.items():
            annotation = _annotation(kernel, op, name)
            known = tuple(self.known(a) for a in arguments)
            if annotation == "Tensors":
                reads.append((name, tuple(self.slot(a) for a in known), None))
                continue
            argument = _only(op, name, known)
            if isinstance(argument, Constant):
                constants[name] = self.constant(argument, annotation)
            else:
                reads.append((name, self.slot(argument), COMPUTED.get(annotation)))
        for block in op.blocks:
            self.blocks[block] = self.block(block)
        settle = self.settle(op, kernel)
        outputs = tuple(self.slot(v) for v in op.outputs)
        return Step(op, kernel.function, constants, tuple(reads), kernel.context, settle, outputs, (), kernel.batch)

    def settle(self, op: Op, kernel: Kernel) -> Settle:
        """Return what makes a kernel's result values of the declared types, and checks their shapes."""
        types = tuple(v.type for v in op.outputs)
        settles = tuple(_settle(t, self.precision, kernel.exact) for t in types)
        if len(types) == 1 and settles[0] is not None and isinstance(types[0], TensorType):
            return _single(op, settles[0], types[0])
        return _several(op, settles, types)


def _single(op: Op, settle: Convert, kind: TensorType) -> Settle:
    """Settle one tensor: the usual case, kept short."""
    exact = kind.shape if kind.shape is not None and None not in kind.shape else None

    def settled(result: Any) -> tuple[Any, ...]:
        value = settle(result)
        if value.shape != exact:
            _check_shape(op, kind, tuple(value.shape))
        return (value,)

    return settled


def _several(op: Op, settles: tuple[Convert | None, ...], types: tuple[Type, ...]) -> Settle:
    def settled(result: Any) -> tuple[Any, ...]:
        results = result if isinstance(result, tuple) else (result,) if types else ()
        if len(results) != len(types):
            raise OpFailed(f"{op.type} {op.name!r}: {len(results)} results, the program declares {len(types)}")
        values = tuple(r if s is None else s(r) for r, s in zip(results, settles, strict=True))
        for value, kind in zip(values, types, strict=True):
            if isinstance(value, Tensor):
                _check_shape(op, kind, tuple(value.shape))
        return values

    return settled


def _settle(kind: Type, precision: Precision, exact: bool) -> Convert | None:
    if not isinstance(kind, TensorType) or kind.dtype == "string":
        return None
    return numerics.keep(kind.dtype) if exact else numerics.settle(kind.dtype, precision)


def _settle_input(kind: Type, precision: Precision) -> Convert:
    return _settle(kind, precision, exact=False) or (lambda value: value)


def _check_shape(op: Op, kind: Type, found: tuple[int, ...]) -> None:
    """Compare with the declared shape: broadcasting hides mistakes."""
    if not isinstance(kind, TensorType) or kind.shape is None:
        return
    if len(found) != len(kind.shape) or any(d is not None and d != f for d, f in zip(kind.shape, found, strict=True)):
        raise OpFailed(f"{op.type} {op.name!r}: the result has shape {found}, the program declares {kind}")


def _free(steps: list[Step], kept: set[int], own: set[int]) -> tuple[Step, ...]:
    """Let each step drop the block's own values that nothing after it reads."""
    freed, seen = [], set(kept)
    for step in reversed(steps):
        touched = {*_slots(step), *step.outputs} & own
        freed.append(replace(step, frees=tuple(sorted(touched - seen))))
        seen |= touched
    return tuple(reversed(freed))


def _slots(step: Step) -> set[int]:
    return {i for _, slot, _ in step.reads for i in ((slot,) if isinstance(slot, int) else slot)}


def _only(op: Op, name: str, arguments: tuple[Argument, ...]) -> Argument:
    if len(arguments) != 1:
        raise BadPackage(f"{op.type} {op.name!r}: {name} has {len(arguments)} values, expected one")
    return arguments[0]


def _annotation(kernel: Kernel, op: Op, name: str) -> str:
    if name not in kernel.parameters:
        raise BadPackage(f"{op.type} {op.name!r}: no parameter {name!r}; it has {', '.join(kernel.parameters)}")
    return kernel.parameters[name]


def _list(array: Any) -> list[Any]:
    return [] if array is None else np.asarray(array).reshape(-1).tolist()


PLAIN: dict[str, Convert] = {
    **dict.fromkeys(("int", "float", "bool", "str"), lambda a: np.asarray(a).item()),
    **dict.fromkeys(("Ints", "Floats", "Bools", "Strings", "Any"), _list),
    "Array": lambda a: a,
}
COMPUTED: dict[str, Convert] = {
    **dict.fromkeys(("int", "float", "bool"), lambda t: t.item()),
    **dict.fromkeys(("Ints", "Floats", "Bools"), lambda t: t.reshape(-1).tolist()),
}


def _show(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)}"
    return f"[{', '.join(map(_show, value))}]" if isinstance(value, list) and len(value) < 9 else f"{value!s:.60}"
