# SPDX-License-Identifier: Apache-2.0
"""What of a step can be done before the first run?

A run that nobody observes needs no names: each of its steps is one call that reads slots of the list of values and fills one. Where
sizes and all inputs but one are known at load, a kernel may have worked out the rest then (`registry.plan`). Starting an op
costs a small network more than computing it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

from gate.mil.compiler import FAULTS, Body, Step
from gate.mil.numerics import FLOATS
from gate.mil.ops.registry import PLANS
from gate.mil.program import TensorType

Values = list[Any]


class Quick(NamedTuple):
    """A step with one result: `call` returns it."""

    call: Callable[[Values], Any]
    output: int
    frees: tuple[int, ...]
    step: Step


def quick(body: Body) -> tuple[Quick | Step, ...]:
    """Return the steps of a body, prepared as far as each allows."""
    return tuple(_prepared(step) for step in body.steps)


def _prepared(step: Step) -> Quick | Step:
    slots = {name: slot for name, slot, convert in step.reads if isinstance(slot, int) and convert is None}
    names = _parameters(step.function)[: len(slots)]
    if step.settle_one is None or step.context or len(slots) != len(step.reads) or set(names) != slots.keys():
        return step
    call = _call(_rest(step, names), [slots[name] for name in names], step.settle_one)
    return Quick(call, step.outputs[0], step.frees, step) if call else step


def _call(
    function: Callable[..., Any], slots: list[int], settle: Callable[[Any], Any]
) -> Callable[[Values], Any] | None:
    if len(slots) == 1:
        (a,) = slots
        return lambda values: settle(function(values[a]))
    if len(slots) == 2:
        a, b = slots
        return lambda values: settle(function(values[a], values[b]))
    return None


def _rest(step: Step, names: tuple[str, ...]) -> Callable[..., Any]:
    """Return what is left of a kernel once its constants are known."""
    plan, sizes = PLANS.get(step.function), _sizes(step, names)
    if plan and sizes is not None:
        try:
            return plan(sizes, **step.constants)
        except FAULTS:
            pass  # the run says what is wrong
    return partial(step.function, **step.constants) if step.constants else step.function


def _sizes(step: Step, names: tuple[str, ...]) -> list[int] | None:
    """Return the sizes of what a step reads, if that is one tensor of floats and none of them is open."""
    kind = step.op.inputs[names[0]][0].type if len(names) == 1 else None
    return kind.sizes if isinstance(kind, TensorType) and kind.dtype in FLOATS else None


@lru_cache(maxsize=1024)
def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)
