# SPDX-License-Identifier: Apache-2.0
"""What of a step can be done before the first run?

A run that nobody observes needs no names: each of its steps is one call that reads slots of the list of values and fills one
(steps with several results, or with blocks, stay as they are). Where the sizes and most inputs are known at load, a kernel may have
worked out the rest then (`registry.plan`). Starting an op costs a small network more than computing it. Nested blocks are prepared
alike: nothing is started as often as the body of a loop.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any, NamedTuple

import torch

from gate.mil.compiler import FAULTS, Body, Plan, Step
from gate.mil.numerics import FLOATS
from gate.mil.ops.registry import PLANS
from gate.mil.program import Block, TensorType, Type

Values = list[Any]
Kind = tuple[torch.dtype, tuple[int, ...]]


class Quick(NamedTuple):
    """A step with one result: `call` returns it."""

    call: Callable[[Values], Any]
    output: int
    frees: tuple[int, ...]
    step: Step


class QuickBody(NamedTuple):
    """The steps of a body, and what they take for granted of its inputs: nobody has checked the values that a block is given."""

    steps: tuple[Quick | Step, ...]
    kinds: tuple[Kind | None, ...] = ()

    def takes(self, arguments: tuple[Any, ...]) -> bool:
        """Say whether these are the values that the block declares."""
        pairs = zip(arguments, self.kinds, strict=True)
        return all(kind is None or (value.dtype, value.shape) == kind for value, kind in pairs)


class QuickPlan(NamedTuple):
    """A plan whose steps are prepared as far as each allows."""

    body: QuickBody
    blocks: Mapping[Block, QuickBody]


def quick(plan: Plan) -> QuickPlan:
    """Prepare the steps of a plan, and of its blocks."""
    blocks = {
        block: QuickBody(_steps(body), tuple(_kind(value.type) for value in block.inputs))
        for block, body in plan.blocks.items()
    }
    return QuickPlan(QuickBody(_steps(plan.body)), blocks)


def _steps(body: Body) -> tuple[Quick | Step, ...]:
    return tuple(_prepared(step) for step in body.steps)


def _prepared(step: Step) -> Quick | Step:
    if step.settle_one is None or step.context:
        return step
    return Quick(_call(step, step.settle_one), step.outputs[0], step.frees, step)


def _call(step: Step, settle: Callable[[Any], Any]) -> Callable[[Values], Any]:
    kernel, slots = step.function, _slots(step)
    names = tuple(name for name in _parameters(kernel) if name in slots)
    function = _planned(step, names) or _by_place(step, names)
    if function is None:
        return lambda values: settle(kernel(**step.read(values)))
    if len(names) == 1:
        a = slots[names[0]]
        return lambda values: settle(function(values[a]))
    if len(names) == 2:
        a, b = (slots[name] for name in names)
        return lambda values: settle(function(values[a], values[b]))
    several = itemgetter(*(slots[name] for name in names))
    return lambda values: settle(function(*several(values)))


def _slots(step: Step) -> dict[str, int]:
    """Return the slots that a step reads, if it takes their values as they are."""
    slots = {name: slot for name, slot, convert in step.reads if isinstance(slot, int) and convert is None}
    return slots if len(slots) == len(step.reads) else {}


def _planned(step: Step, names: tuple[str, ...]) -> Callable[..., Any] | None:
    """Return what is left of a kernel that plans, if the inputs named are those that its plan leaves open."""
    plan, sizes = PLANS.get(step.function), _sizes(step, names)
    if plan is None or sizes is None or names != _left_open(step.function, plan):
        return None
    try:
        return plan(sizes, **step.constants)
    except FAULTS:
        return None  # the run says what is wrong


def _left_open(kernel: Callable[..., Any], plan: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(name for name in _parameters(kernel) if name not in _parameters(plan))


def _by_place(step: Step, names: tuple[str, ...]) -> Callable[..., Any] | None:
    """Return a kernel with its constants, if the inputs named follow each other and constants alone stand before them."""
    parameters = _parameters(step.function)
    before = parameters[: parameters.index(names[0])] if names else ()
    in_a_row = names == parameters[len(before) : len(before) + len(names)]
    if not names or not in_a_row or not step.constants.keys() >= set(before):
        return None
    if not step.constants:
        return step.function
    named = {name: value for name, value in step.constants.items() if name not in before}
    return partial(step.function, *(step.constants[name] for name in before), **named)


def _kind(declared: Type) -> Kind | None:
    """Return what the tensors of a declared type are, if it leaves no size open."""
    if not isinstance(declared, TensorType) or declared.sizes is None:
        return None
    floats = torch.float32 if declared.dtype in FLOATS else torch.int32
    return torch.bool if declared.dtype == "bool" else floats, tuple(declared.sizes)


def _sizes(step: Step, names: tuple[str, ...]) -> list[int] | None:
    """Return the sizes of the first tensor that a step reads, if it is one of floats and none of them is open."""
    kind = step.op.inputs[names[0]][0].type if names else None
    return kind.sizes if isinstance(kind, TensorType) and kind.dtype in FLOATS else None


@lru_cache(maxsize=1024)
def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)
