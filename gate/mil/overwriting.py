# SPDX-License-Identifier: Apache-2.0
"""Which ops may write their result over an argument, and so need no new memory?

`relu` after a convolution reads a tensor that nobody reads again: clamped where it lies, it gives the same bits and
spares the memory and the time to fill it. Most of what an elementwise op of a mobile network costs is that time.

An argument qualifies if it is memory of this run that only this op still sees: made by a `fresh` kernel, read by
`fresh` kernels alone (whatever they return is no view of it), and dead after this op. Inputs, constants, states and
outputs never qualify. Runs that are observed, or keep or replace values, take the plan's own steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from gate.mil.compiler import Body, Plan, Step, touched
from gate.mil.numerics import FLOATS
from gate.mil.ops import activation, elementwise_binary, elementwise_unary
from gate.mil.program import Op, TensorType


def overwriting(plan: Plan, most_reads: int = 2) -> Body:
    """Return the body of a plan whose steps write over what dies; over a stack of samples those with one read alone may.

    (With two, the one written over may be the same for all samples, and the other not.)
    """
    own = _own(plan)
    steps = (_over(step, own & set(step.frees)) if len(step.reads) <= most_reads else step for step in plan.body.steps)
    return replace(plan.body, steps=tuple(steps))


def _own(plan: Plan) -> set[int]:
    """Return the slots of new memory that no view shows."""
    made = {slot for step in plan.body.steps if step.fresh and len(step.outputs) == 1 for slot in step.outputs}
    shown = {slot for step in plan.body.steps if not step.fresh for slot in touched(step, plan.blocks)}
    return made - shown


def _over(step: Step, dying: set[int]) -> Step:
    for name, function in OVERWRITE.get(step.function, {}).items():
        slots = [slot for read, slot, _ in step.reads if read == name]
        if dying.issuperset(slots) and slots and _holds(step.op, name):
            return replace(step, function=function)
    return step


def _holds(op: Op, name: str) -> bool:
    """Say whether the result has the shape of an argument, and both are floats."""
    given, made = op.inputs[name][0].type, op.outputs[0].type
    if not isinstance(given, TensorType) or not isinstance(made, TensorType):
        return False
    return made.sizes is not None and given.shape == made.shape and {given.dtype, made.dtype} <= FLOATS


def _threshold(x: Tensor, alpha: float = 1.0) -> Tensor:
    return F.threshold(x, activation.below(alpha), 0.0, inplace=True)


def _add_second(x: Tensor, y: Tensor) -> Tensor:
    return y.add_(x) if x.stride() == y.stride() else x + y  # x decides how a sum lies in memory


def _mul_second(x: Tensor, y: Tensor) -> Tensor:
    return y.mul_(x) if x.stride() == y.stride() else x * y


# For a kernel: what computes the same, bit for bit, over the argument named.
OVERWRITE: Mapping[Callable[..., Any], Mapping[str, Callable[..., Tensor]]] = {
    activation.relu: {"x": lambda x: x.relu_()},
    activation.relu6: {"x": lambda x: x.clamp_(0, 6)},
    activation.sigmoid: {"x": lambda x: x.sigmoid_()},
    activation.silu: {"x": lambda x: F.silu(x, inplace=True)},
    activation.leaky_relu: {"x": lambda x, alpha: F.leaky_relu_(x, alpha)},
    activation.thresholded_relu: {"x": _threshold},
    elementwise_unary.clip: {"x": lambda x, alpha, beta: x.clamp_(alpha, beta)},
    elementwise_unary.tanh: {"x": lambda x: x.tanh_()},
    elementwise_binary.add: {"x": lambda x, y: x.add_(y), "y": _add_second},
    elementwise_binary.mul: {"x": lambda x, y: x.mul_(y), "y": _mul_second},
    elementwise_binary.sub: {"x": lambda x, y: x.sub_(y)},
    elementwise_binary.real_div: {"x": lambda x, y: x.div_(y)},
}
