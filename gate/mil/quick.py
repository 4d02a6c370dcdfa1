# SPDX-License-Identifier: Apache-2.0
"""What of a step can be done before the first run?

A run that nobody observes needs no names: each of its steps is one call that reads slots of the list of values and fills one (those
with several results, or that run blocks, stay as they are). Where
sizes and all inputs but one are known at load, a kernel may have worked out the rest then (`registry.plan`). Starting an op
costs a small network more than computing it. Nested blocks are prepared alike: the body of a loop is started the most often.
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
    parameters = _parameters(kernel)
    names = tuple(name for name in parameters if name in slots)
    before = parameters[: parameters.index(names[0])] if names else ()
    by_place = names == parameters[len(before) : len(before) + len(names)] and step.constants.keys() >= set(before)
    if not names or not by_place:
        return lambda values: settle(kernel(**step.read(values)))
    function = _rest(step, names, before)
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


def _rest(step: Step, names: tuple[str, ...], before: tuple[str, ...]) -> Callable[..., Any]:
    """Return what is left of a kernel once its constants are known, those in front of the others among them."""
    plan, sizes = PLANS.get(step.function), None if before else _sizes(step, names)
    if plan and sizes is not None:
        try:
            return plan(sizes, **step.constants)
        except FAULTS:
            pass  # the run says what is wrong
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
    """Return the sizes of what a step reads, if that is one tensor of floats and none of them is open."""
    kind = step.op.inputs[names[0]][0].type if len(names) == 1 else None
    return kind.sizes if isinstance(kind, TensorType) and kind.dtype in FLOATS else None


@lru_cache(maxsize=1024)
def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)
