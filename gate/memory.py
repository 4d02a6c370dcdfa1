# SPDX-License-Identifier: Apache-2.0
"""How much memory does a prediction need at once?

The most that is alive between two ops, in the declared types: activations, inputs, outputs and states. What the runtime does with
buffers is not documented, so the answer is a range. Its upper end gives each value a buffer of its own; its lower end lets views share
one and elementwise ops overwrite an input that nothing reads again. Weights come on top as the runtime holds them. Workspaces inside
ops, padding of rows and the runtime itself are left out: nobody outside Apple knows them.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from gate.macs import ELEMENTWISE
from gate.mil.blob import BITS, packed_bytes
from gate.mil.program import Argument, Block, Op, Program, StateType, Value
from gate.mil.weights import Stored, Weight, weights
from gate.shapes import Sizes, largest_sizes

EXPANDED_BEFORE = 17  # iOS16 expands compressed weights to float at load; from iOS17 they may be expanded just in time
VIEWS = {  # ops whose result can be their argument's memory, and that argument
    **dict.fromkeys(("expand_dims", "flatten2d", "identity", "reshape", "reshape_like", "squeeze"), "x"),
    "read_state": "input",
    "coreml_update_state": "state",
}


@dataclass(frozen=True)
class Range:
    """Bytes, at least and at most."""

    low: int
    high: int

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.high + other.high)


@dataclass(frozen=True)
class Estimate:
    """What one function needs."""

    function: str
    activations: Range  # at the peak, with inputs, outputs and states
    weights: Range
    states: int
    interface: int  # inputs and outputs, which the app holds
    peak_op: str  # where the upper end is reached
    ops: tuple[str, ...] = field(repr=False)
    alive: tuple[Range, ...] = field(repr=False)  # while each of `ops` runs
    inputs: Mapping[str, tuple[int, ...]]  # the shapes that this is about
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> Range:
        """Activations and weights together."""
        return self.activations + self.weights


def estimate(program: Program, ios: int, found: tuple[Weight, ...] | None = None) -> Estimate:
    """Return the need of the function that needs most; a package with several loads one at a time."""
    held = weights(program) if found is None else found
    each = [_estimate(largest_sizes(program, name), held, ios) for name in program.functions]
    return max(each, key=lambda one: one.total.high)


def _estimate(sizes: Sizes, held: tuple[Weight, ...], ios: int) -> Estimate:
    function = sizes.function
    ops = tuple(_running(function.body))
    own, shared = (tuple(_Timeline(function.body, sizes, reuse).bytes) for reuse in (False, True))
    peak = max(range(len(own)), key=own.__getitem__)
    outputs = {*_values(function.body.outputs)}
    given = [v for v in function.inputs if not isinstance(v.type, StateType)]
    return Estimate(
        function=function.name,
        activations=Range(max(shared), own[peak]),
        weights=weight_bytes([w for w in held if w.function == function.name], ios),
        states=sum(sizes.bytes(v) for v in function.inputs if isinstance(v.type, StateType)),
        interface=sum(map(sizes.bytes, {*given, *outputs})),
        peak_op=f"{ops[peak].type} {ops[peak].name}" if ops else "",
        ops=tuple(op.name for op in ops),
        alive=tuple(Range(low, high) for low, high in zip(shared, own, strict=True)),
        inputs=sizes.inputs,
        notes=sizes.notes,
    )


def weight_bytes(held: list[Weight], ios: int) -> Range:
    """Return what weights take once loaded; one that two ops read is held once."""
    stored = {place(s): s.package_bytes for w in held for s in w.stored}
    high = sum(_plain(weight) for weight in distinct(held))
    low = high if ios < EXPANDED_BEFORE else min(sum(stored.values()), high)
    return Range(low, high)


def distinct(held: Iterable[Weight]) -> tuple[Weight, ...]:
    """Leave out weights that are made of the same stored data as one before."""
    return tuple({frozenset(map(place, weight.stored)): weight for weight in held}.values())


def place(stored: Stored) -> Hashable:
    """Say where data are stored; two weights may share the place."""
    return (stored.file, stored.offset) if stored.file else stored.constant


def _plain(weight: Weight) -> int:
    return packed_bytes(weight.dtype, weight.elements) if weight.dtype in BITS else 0


def _running(block: Block) -> Iterator[Op]:
    """Yield the ops of a block that run: weights are decoded apart."""
    return (op for op in block.ops if not op.type.startswith("constexpr_"))


@dataclass
class _Buffer:
    """Memory that one value, or several after each other, live in."""

    bytes: int
    start: int
    end: int
    ours: bool  # the caller's buffers are not overwritten


class _Timeline:
    """The bytes alive while each op of a block runs."""

    def __init__(self, block: Block, sizes: Sizes, reuse: bool, inner: bool = False) -> None:
        self.sizes = sizes
        self.reuse = reuse
        self.ops = tuple(_running(block))
        self.last = max(len(self.ops) - 1, 0)
        self.read = self._last_reads(block)
        self.buffers: dict[Value, _Buffer] = {}
        for value in block.inputs:  # those of an inner block can be what the op around it was given
            count = 0 if inner and reuse else sizes.bytes(value)
            self.buffers[value] = _Buffer(count, 0, self.last, ours=False)
        for index, op in enumerate(self.ops):
            for value in op.outputs:
                self.buffers[value] = self._place(op, index, value)

    def _last_reads(self, block: Block) -> dict[Value, int]:
        read = {v: index for index, op in enumerate(self.ops) for v in _reads(op)}
        return read | dict.fromkeys(_values(block.outputs), self.last)

    def _place(self, op: Op, index: int, value: Value) -> _Buffer:
        """Return the buffer of a result: a new one, or with reuse one that is there already."""
        count, end = self.sizes.bytes(value), self.read.get(value, index)
        shared = self._shared(op, index, count) if self.reuse else None
        if shared is None:
            return _Buffer(count, index, end, ours=True)
        shared.end = max(shared.end, end)
        return shared

    def _shared(self, op: Op, index: int, count: int) -> _Buffer | None:
        if op.type in VIEWS:
            return next((self.buffers[v] for v in _values(op.inputs[VIEWS[op.type]]) if v in self.buffers), None)
        if op.type not in ELEMENTWISE:
            return None
        given = (self.buffers[v] for v in _reads(op) if v in self.buffers)
        return next((b for b in given if b.ours and b.end == index and b.bytes == count), None)

    @property
    def bytes(self) -> list[int]:
        """Sum what is alive at each op, and what its inner blocks hold at their worst."""
        change = [0] * (self.last + 2)
        for buffer in {id(b): b for b in self.buffers.values()}.values():
            change[buffer.start] += buffer.bytes
            change[buffer.end + 1] -= buffer.bytes
        alive = list(accumulate(change[:-1]))
        for index, op in enumerate(self.ops):
            inner = (max(_Timeline(b, self.sizes, self.reuse, inner=True).bytes) for b in op.blocks)
            alive[index] += max(inner, default=0)
        return alive


def _reads(op: Op) -> Iterator[Value]:
    """Yield what an op and its inner blocks read."""
    for arguments in op.inputs.values():
        yield from _values(arguments)
    for block in op.blocks:
        yield from _values(block.outputs)
        for inner in block.ops:
            yield from _reads(inner)


def _values(arguments: Iterable[Argument]) -> Iterator[Value]:
    return (a for a in arguments if isinstance(a, Value))
