# SPDX-License-Identifier: Apache-2.0
"""How does an op become a step that costs next to nothing to run?

Everything that can be known at load is settled here: which kernel, which constants in which form, which slot each
value has, when it is read last, and what its result must look like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from gate.mil import numerics
from gate.mil.constants import PLAIN, PLAINLY, Constants, annotation, check_shape, only
from gate.mil.errors import OpFailed, UnsupportedOp
from gate.mil.numerics import Precision, Rounding
from gate.mil.ops.recurrent import torch_gates
from gate.mil.ops.registry import ACCUMULATE16, LAYOUTS, NARROW, Kernel, Layout, find
from gate.mil.program import DAMAGE, Argument, Block, Constant, Function, Op, TensorType, Type

FAULTS = (RuntimeError, ArithmeticError, AttributeError, *DAMAGE)  # what a step may raise over damaged programs
LISTS = ("Ints", "Floats", "Bools", "Strings")
LABELS = ("string", "int64")  # what `classify` returns is no tensor
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
    settle_one: Callable[..., Any] | None = field(repr=False)  # one tensor, and of how many samples
    outputs: tuple[int, ...]
    frees: tuple[int, ...] = ()
    batch: bool = True
    fresh: bool = False
    rows: bool = False

    def read(self, values: list[Any]) -> dict[str, Any]:
        """Gather the kernel's arguments."""
        inputs = dict(self.constants)
        for name, slot, convert in self.reads:
            value = values[slot] if isinstance(slot, int) else [values[i] for i in slot]
            inputs[name] = value if convert is None else convert(value)
        return inputs

    @property
    def packed(self) -> bool:
        """Do its weights lie as oneDNN wants them, and as few other functions of torch take them?"""
        return any(isinstance(value, Tensor) and value.is_mkldnn for value in self.constants.values())

    def failure(self, inputs: Mapping[str, Any], error: Exception) -> str:
        """Say which op failed on what."""
        shown = ", ".join(f"{k}={_show(v)}" for k, v in inputs.items() if k != self.context)
        return f"{self.op.type} {self.op.name!r}({shown}): {error}"


def unpacked(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step's inputs with the packed ones as plain tensors."""
    return {n: x.to_dense() if isinstance(x, Tensor) and x.is_mkldnn else x for n, x in inputs.items()}


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
    slots: Mapping[str, int]

    def pruned(self, given: frozenset[str], wanted: frozenset[str]) -> Body:
        """Return the steps that are still needed when some values are given, and keep the wanted ones."""
        known = {self.slots[name] for name in given}
        needed = {*self.body.outputs, *(self.slots[name] for name in wanted)}
        steps = []
        for step in reversed(self.body.steps):
            if step.outputs and not (needed - known) & set(step.outputs):
                continue
            steps.append(replace(step, frees=()))
            needed |= touched(step, self.blocks)
        steps.reverse()
        own = {*self.body.inputs, *self.slots.values()}
        kept = {*self.body.outputs, *(self.slots[name] for name in wanted)}
        return Body(self.body.inputs, _free(steps, kept, own, self.blocks), self.body.outputs)


Roundings = Callable[[Op], Rounding]


def compile_function(function: Function, roundings: Roundings, inputs: Rounding, constants: Constants) -> Plan:
    """Compile a function; raise UnsupportedOp that names every op type without a kernel."""
    missing = sorted({op.type for op in function.body.walk() if find(op.type, function.opset) is None})
    if missing:
        raise UnsupportedOp(tuple(missing), f"function {function.name!r} ({function.opset})")
    compiler = _Compiler(function.opset, roundings, inputs, constants)
    body = compiler.block(function.body)
    constants.check_unread()
    settles = tuple(_settle_input(v.type, inputs) for v in function.inputs)
    slots = {v.name: compiler.slots[v] for op in function.body.ops for v in op.outputs if v in compiler.slots}
    return Plan(body, compiler.blocks, tuple(compiler.presets), settles, slots)


class _Compiler:
    def __init__(self, opset: str, roundings: Roundings, inputs: Rounding, constants: Constants) -> None:
        self.opset = opset
        self.roundings = roundings
        self.inputs = inputs
        self.constants = constants
        self.slots: dict[Argument, int] = {}
        self.presets: list[Any] = []
        self.blocks: dict[Block, Body] = {}

    def block(self, block: Block) -> Body:
        """Compile a block; what is decoded from constants alone becomes a constant."""
        inputs = tuple(self.slot(v) for v in block.inputs)
        steps = []
        for op in block.ops:
            if op.type.startswith("constexpr_"):
                self.constants.fold(op, self.opset)
            else:
                steps.append(self.step(op))
        outputs = tuple(self.slot(self.constants.resolve(v)) for v in block.outputs)
        return Body(inputs, _free(steps, {*outputs}, self.own(block, inputs), self.blocks), outputs)

    def own(self, block: Block, inputs: Iterable[int]) -> set[int]:
        return {*inputs, *(self.slots[v] for op in block.ops for v in op.outputs if v in self.slots)}

    def slot(self, argument: Argument) -> int:
        if argument not in self.slots:
            self.slots[argument] = len(self.presets)
            self.presets.append(self.preset(argument))
        return self.slots[argument]

    def preset(self, argument: Argument) -> Any:
        return self.constant(argument, "Tensor", self.inputs) if isinstance(argument, Constant) else None

    def constant(self, constant: Constant, form: str, rounding: Rounding, layout: Layout = PLAINLY) -> Any:
        kind = constant.type
        if form in ("Tensor", "Any", *LAYOUTS) and isinstance(kind, TensorType) and kind.dtype != "string":
            return self.constants.tensor(constant, kind.dtype, rounding, layout)
        return PLAIN[form](constant.array)

    def kernel(self, op: Op) -> Kernel:
        kernel = find(op.type, self.opset)
        assert kernel is not None, "compile_function has looked"
        return kernel

    def step(self, op: Op) -> Step:
        rounding = self.roundings(op)
        kernel = self.refined(op, rounding)
        constants: dict[str, Any] = {}
        reads: list[Read] = []
        laid_out: dict[str, Constant] = {}
        for name, arguments in op.inputs.items():
            form = annotation(kernel, op, name)
            known = tuple(self.constants.resolve(a) for a in arguments)
            convert = numerics.half if rounding.as_half else None
            if form == "Tensors":
                reads.append((name, tuple(self.slot(a) for a in known), convert and _each(convert)))
                continue
            written = [a for a in known if isinstance(a, Constant)]
            if len(known) > 1 and form in LISTS and len(written) == len(known):
                constants[name] = [x for a in written for x in self.constant(a, form, rounding)]
                continue
            argument = only(op, name, known)
            if isinstance(argument, Constant) and form in LAYOUTS:
                laid_out[name] = argument
            elif isinstance(argument, Constant):
                constants[name] = self.constant(argument, form, rounding)
                if form == "float" and rounding.as_half and (op.type, name) not in MIXED:
                    constants[name] = numerics.half_constant(torch.tensor(constants[name])).item()
            elif form in ("Tensor", *LAYOUTS):
                reads.append((name, self.slot(argument), _both(convert and _floats(convert), COMPUTED.get(form))))
            else:
                reads.append((name, self.slot(argument), COMPUTED.get(form)))
        for name, argument in laid_out.items():
            form = kernel.parameters[name]
            constants[name] = self.constant(argument, form, rounding, LAYOUTS[form](op, constants))
        for block in op.blocks:
            self.blocks[block] = self.block(block)
        settle, settle_one = self.settle(op, kernel, rounding)
        outputs = tuple(self.slot(v) for v in op.outputs)
        return Step(
            op,
            kernel.function,
            constants,
            tuple(reads),
            kernel.context,
            settle,
            settle_one,
            outputs,
            batch=kernel.batch,
            fresh=kernel.fresh,
            rows=kernel.rows and settle_one is not None and _reads_rows(op, kernel, reads),
        )

    def refined(self, op: Op, rounding: Rounding) -> Kernel:
        """Return the kernel, or its harsher variant where the results are rounded to float16."""
        plain = self.kernel(op)
        if not any(isinstance(v.type, TensorType) and rounding.halves(v.type.dtype) for v in op.outputs):
            return plain
        harsher = NARROW.get(op.type, plain) if rounding.precision in HARSH else plain
        return ACCUMULATE16.get(op.type, harsher) if rounding.precision is Precision.ACCUMULATE16 else harsher

    def settle(self, op: Op, kernel: Kernel, rounding: Rounding) -> tuple[Settle, Callable[..., Any] | None]:
        """Return what makes a kernel's result values of the declared types, and checks their shapes; the same for a lone tensor."""
        types = tuple(v.type for v in op.outputs)
        settles = tuple(_settle(t, rounding, kernel.exact, kernel.fresh) for t in types)
        if len(types) == 1 and settles[0] is not None and isinstance(types[0], TensorType):
            one = _single(op, settles[0], types[0])
            return lambda result: (one(result),), one
        return _several(op, settles, types), None


def _reads_rows(op: Op, kernel: Kernel, reads: list[Read]) -> bool:
    """Say whether an op reads its first input alone, and that has rows."""
    first = next(iter(kernel.parameters))
    kind = op.inputs[first][0].type if [name for name, _, _ in reads] == [first] else None
    return isinstance(kind, TensorType) and len(kind.shape or ()) > 1


def _single(op: Op, settle: Convert, kind: TensorType) -> Callable[..., Any]:
    """Settle one tensor: the usual case, kept short."""
    exact = None if kind.sizes is None else kind.shape

    def settled(result: Any, samples: int = 1) -> Any:
        value = settle(result)
        if value.shape != exact:
            check_shape(op, kind, tuple(value.shape) if samples == 1 else (len(value) // samples, *value.shape[1:]))
        return value

    return settled


def _several(op: Op, settles: tuple[Convert | None, ...], types: tuple[Type, ...]) -> Settle:
    def settled(result: Any) -> tuple[Any, ...]:
        results = result if isinstance(result, tuple) else (result,) if types else ()
        if len(results) != len(types):
            raise OpFailed(f"{op.type} {op.name!r}: {len(results)} results, the program declares {len(types)}")
        values = tuple(r if s is None else s(r) for r, s in zip(results, settles, strict=True))
        for value, kind in zip(values, types, strict=True):
            if isinstance(value, Tensor):
                check_shape(op, kind, tuple(value.shape))
        return values

    return settled


def _settle(kind: Type, rounding: Rounding, exact: bool, fresh: bool = False) -> Convert | None:
    if not isinstance(kind, TensorType) or kind.dtype in LABELS:
        return None
    return numerics.keep(kind.dtype) if exact and not rounding.as_half else numerics.settle(kind.dtype, rounding, fresh)


def _settle_input(kind: Type, rounding: Rounding) -> Convert:
    return _settle(kind, rounding, exact=False) or (lambda value: value)


def _each(convert: Convert) -> Convert:
    one = _floats(convert)
    return lambda values: [one(v) for v in values]


def _both(first: Convert | None, second: Convert | None) -> Convert | None:
    return (lambda value: second(first(value))) if first and second else first or second


def _floats(convert: Convert) -> Convert:
    return lambda value: convert(value) if value.is_floating_point() else value


def _free(steps: list[Step], kept: set[int], own: set[int], blocks: Mapping[Block, Body]) -> tuple[Step, ...]:
    """Let each step drop the block's own values that nothing after it reads."""
    freed, seen = [], set(kept)
    for step in reversed(steps):
        used = (touched(step, blocks) | {*step.outputs}) & own
        freed.append(replace(step, frees=tuple(sorted(used - seen))))
        seen |= used
    return tuple(reversed(freed))


def touched(step: Step, blocks: Mapping[Block, Body]) -> set[int]:
    """Return the slots that a step reads, in its nested blocks as well."""
    slots = {i for _, slot, _ in step.reads for i in ((slot,) if isinstance(slot, int) else slot)}
    for block in step.op.blocks:
        slots.update(blocks[block].outputs)
        for inner in blocks[block].steps:
            slots |= touched(inner, blocks)
    return slots


# Parameters that coremltools' float16 cast leaves alone (FP16ComputePrecision.should_cast_parameter, iOS17 on).
MIXED = frozenset(
    {("inverse", "epsilon"), ("log", "epsilon"), ("rsqrt", "epsilon")}
    | {(op, "alpha") for op in ("elu", "leaky_relu", "prelu", "thresholded_relu")}
    | {
        (op, name)
        for op in ("clamped_relu", "linear_activation", "scaled_tanh", "sigmoid_hard", "softplus_parametric")
        for name in ("alpha", "beta")
    }
)
HARSH = (Precision.NARROW, Precision.ACCUMULATE16)
COMPUTED: dict[str, Convert] = {
    "Gates": torch_gates,
    **dict.fromkeys(("int", "float", "bool"), lambda t: t.item()),
    **dict.fromkeys(("Ints", "Floats", "Bools"), lambda t: t.reshape(-1).tolist()),
}


def _show(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)}"
    return f"[{', '.join(map(_show, value))}]" if isinstance(value, list) and len(value) < 9 else f"{value!s:.60}"
