# SPDX-License-Identifier: Apache-2.0
"""Which weights does a policy compress, and what does each step do to each of them?

The rules are those of coremltools' passes: constants of floating point with at least ten elements, of rank two or more, that
some op reads. Each weight that is left alone has a reason. What a step will really do is decided where the numbers are.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gate.compress.encode import Axes, Skip, refusal
from gate.errors import PolicyError
from gate.mil.program import Block, Constant, Op, Program, TensorType
from gate.policy import Action, Policy, QuantizeActivations, Step

LEAST_ELEMENTS = 10  # smaller constants are written inside the program, not in the weight file
FLOATS = ("float16", "float32")


@dataclass(frozen=True)
class Consumer:
    """An op that reads a weight, as which input, and the layer of the torch module that it comes from."""

    op_type: str
    op_name: str
    input: str
    layer: str | None


@dataclass(frozen=True, eq=False)
class Weight:
    """A constant of the program that ops read. `name` is the one its consumers see."""

    function: str
    name: str
    constant: Constant
    consumers: tuple[Consumer, ...]
    axes: Axes
    is_output: bool

    @property
    def layer(self) -> str | None:
        """Layer of the first op that reads it and has one."""
        return next((consumer.layer for consumer in self.consumers if consumer.layer), None)

    @property
    def dtype(self) -> str:
        """Element type, as MIL names it."""
        return self._type.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes; a constant's are always known."""
        return tuple(size for size in self._type.shape or () if size is not None)

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def _type(self) -> TensorType:
        assert isinstance(self.constant.type, TensorType)
        return self.constant.type


@dataclass(frozen=True, eq=False)
class Plan:
    """What the steps do to one weight: an action or None per step, and why there is none."""

    weight: Weight
    actions: tuple[Action | None, ...]
    skips: tuple[Skip | None, ...]


def plan(program: Program, policy: Policy, layers: Mapping[str, str]) -> tuple[Plan, ...]:
    """Return a plan for each weight of the program, in program order."""
    return tuple(_plan(weight, policy) for weight in weights(program, layers))


def weights(program: Program, layers: Mapping[str, str]) -> Iterator[Weight]:
    """Yield every stored floating-point constant once per function, with all ops that compute with it.

    Parts of a weight that arrived compressed are read by `constexpr_*` ops, and are no weights of their own.
    """
    for function in program.functions.values():
        readers: dict[int, tuple[Constant, list[tuple[Op, str]]]] = {}
        for op, name, constant in _reads(function.body):
            readers.setdefault(id(constant), (constant, []))[1].append((op, name))
        outputs = {id(value) for block in _blocks(function.body) for value in block.outputs}
        for key, (constant, reads) in readers.items():
            yield _weight(function.name, constant, reads, key in outputs, layers)


def _reads(body: Block) -> Iterator[tuple[Op, str, Constant]]:
    for op in body.walk():
        if not op.type.startswith("constexpr_"):
            for name, arguments in op.inputs.items():
                yield from ((op, name, one) for one in arguments if isinstance(one, Constant) and is_weight(one))


def is_weight(constant: Constant) -> bool:
    """Is it a stored tensor of numbers with fractions, large enough to matter?"""
    kind = constant.type
    return (
        constant.file is not None
        and isinstance(kind, TensorType)
        and kind.dtype in FLOATS
        and math.prod(size or 0 for size in kind.shape or ()) >= LEAST_ELEMENTS
    )


def _blocks(block: Block) -> Iterator[Block]:
    yield block
    for op in block.ops:
        for inner in op.blocks:
            yield from _blocks(inner)


def _weight(
    function: str, constant: Constant, reads: Sequence[tuple[Op, str]], is_output: bool, layers: Mapping[str, str]
) -> Weight:
    own = layers.get(constant.name)
    consumers = tuple(Consumer(op.type, op.name, name, layers.get(op.name, own)) for op, name in reads)
    assert isinstance(constant.type, TensorType)
    axes = _axes(constant, reads, len(constant.type.shape or ()))
    return Weight(function, constant.name, constant, consumers, axes, is_output)


def _axes(constant: Constant, reads: Sequence[tuple[Op, str]], rank: int) -> Axes:
    found = {_channels(op, name, rank) for op, name in reads}
    inputs = {pair[0] for pair in found}
    outputs = {pair[1] for pair in found}
    return Axes(
        inputs=inputs.pop() if len(inputs) == 1 else None,
        outputs=outputs.pop() if len(outputs) == 1 else None,
        groups=max((_number(op, "groups", 1) for op, _ in reads if op.type in ("conv", "conv_transpose")), default=1),
        structured=all(op.type in ("conv", "linear") and name == "weight" for op, name in reads),
    )


def _channels(op: Op, name: str, rank: int) -> tuple[int, int]:
    """Return the axes of input and output channels, as coremltools' `select_input_output_channel_axis` has them."""
    if op.type == "conv_transpose":
        return 0, 1
    if op.type == "matmul":
        transposed = bool(_number(op, f"transpose_{name}", 0))
        last_is_output = transposed if name == "x" else not transposed
        return (rank - 2, rank - 1) if last_is_output else (rank - 1, rank - 2)
    return 1, 0


def _number(op: Op, name: str, default: int) -> int:
    for argument in op.inputs.get(name, ()):
        if isinstance(argument, Constant):
            return int(argument.array.item())
    return default


def _plan(weight: Weight, policy: Policy) -> Plan:
    general = _left_alone(weight)
    found = [general or _action(weight, policy, step) for step in policy.weight_steps]
    actions = tuple(None if isinstance(one, Skip) else one for one in found)
    return Plan(weight, actions, tuple(one if isinstance(one, Skip) else None for one in found))


def _left_alone(weight: Weight) -> Skip | None:
    if len(weight.shape) < 2:
        return Skip("a single axis, as biases and norms have", expected=True)
    if weight.is_output:
        return Skip("the model returns it")
    return None


def _action(weight: Weight, policy: Policy, step: Step) -> Action | Skip:
    wanted = {consumer: _wanted(weight, consumer, policy, step) for consumer in weight.consumers}
    actions = set(wanted.values())
    if None in actions:
        return Skip("the policy's overrides say so", expected=True)
    if len(actions) > 1:
        names = ", ".join(consumer.op_name for consumer in wanted)
        raise PolicyError(
            f"policy {policy.name}: weight {weight.name} is shared by {names}, and the overrides ask for different "
            f"{step.kind} settings; give these ops the same override"
        )
    action = actions.pop()
    assert action is not None
    if weight.elements <= action.weight_threshold:
        return Skip(f"no more elements than weight_threshold, {action.weight_threshold}", expected=True)
    reason = refusal(weight.shape, action, weight.axes)
    return Skip(reason) if reason else action


def _wanted(weight: Weight, consumer: Consumer, policy: Policy, step: Step) -> Action | None:
    """Ask the policy; an override names an op or a weight, and the first that matches either counts."""
    action = step.action
    assert not isinstance(action, QuantizeActivations)  # `weight_steps` has none
    for override in policy.overrides:
        for name in (consumer.op_name, weight.name):
            if override.matches(op_type=consumer.op_type, name=name, layer=consumer.layer, elements=weight.elements):
                return override.apply(action)
    return action
