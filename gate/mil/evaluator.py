# SPDX-License-Identifier: Apache-2.0
"""What does the program compute? Read, compute, settle, observe, free.

Loading turns each op into a `Step`: kernel found, constants decoded and converted, values numbered. Running is one
pass over the steps. Nested blocks (`cond`, `while_loop`) run over the same numbered values as the ops around them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from gate.mil import numerics, ops
from gate.mil.compiler import Plan, Step, compile_function
from gate.mil.errors import MilError, OpFailed
from gate.mil.numerics import Precision
from gate.mil.ops.registry import Context, State
from gate.mil.program import Block, Op, Program, StateType, load_program

__all__ = ["Evaluator", "Observe", "load", "ops"]

Observe = Callable[[Op, Mapping[str, Any], tuple[Any, ...]], None]


@dataclass(eq=False)
class Run:
    """The values of one pass."""

    plan: Plan
    values: list[Any]
    generator: torch.Generator
    observe: Observe | None = None

    def steps(self, steps: tuple[Step, ...]) -> None:
        """Run some steps in order."""
        values = self.values
        for step in steps:
            inputs = step.read(values)
            if step.context is not None:
                inputs[step.context] = Context(step.op, partial(self.block, self.plan), self.generator)
            try:
                results = step.settle(step.function(**inputs))
            except MilError:
                raise
            except (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError, AttributeError, KeyError) as error:
                raise OpFailed(step.failure(inputs, error)) from error
            if self.observe is not None:
                self.observe(step.op, inputs, results)
            for slot, result in zip(step.outputs, results, strict=True):
                values[slot] = result
            for slot in step.frees:
                values[slot] = None

    def block(self, plan: Plan, block: Block, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Run a nested block."""
        inner = plan.blocks[block]
        for slot, value in zip(inner.inputs, arguments, strict=True):
            self.values[slot] = value
        self.steps(inner.steps)
        return tuple(self.values[slot] for slot in inner.outputs)


class Evaluator:
    """A loaded function of a program; `predict` follows `MLModel.predict`."""

    def __init__(self, program: Program, precision: Precision, function: str | None = None) -> None:
        self.program = program
        self.function = program.function(function)
        self.precision = precision
        self.plan = compile_function(self.function, precision)

    def run(self, inputs: Mapping[str, Any], observe: Observe | None = None, seed: int = 0) -> dict[str, Any]:
        """Compute the outputs as settled tensors, from tensors and states."""
        plan = self.plan
        run = Run(plan, list(plan.presets), torch.Generator().manual_seed(seed), observe)
        for value, slot, settle in zip(self.function.inputs, plan.body.inputs, plan.settle_inputs, strict=True):
            given = inputs[value.name]
            run.values[slot] = given if isinstance(given, State) else settle(given)
        with torch.inference_mode():
            run.steps(plan.body.steps)
        names = (v.name for v in self.function.body.outputs)
        return {name: run.values[slot] for name, slot in zip(names, plan.body.outputs, strict=True)}

    def make_state(self) -> dict[str, State]:
        """Return fresh states, all zeros."""
        states = (v for v in self.function.inputs if isinstance(v.type, StateType))
        return {v.name: State(torch.zeros(v.type.wrapped.shape)) for v in states}

    def predict(self, inputs: Mapping[str, Any], state: Mapping[str, State] | None = None) -> dict[str, Any]:
        """Compute the outputs of one sample."""
        values = {name: numerics.tensor(value) for name, value in inputs.items()}
        results = self.run({**values, **(state or {})})
        types = {v.name: v.type for v in self.function.body.outputs}
        return {name: numerics.array(x, types[name].dtype) for name, x in results.items()}


def load(model: Any, *, precision: str = "declared", function: str | None = None) -> Evaluator:
    """Load a path or an `MLModel` for evaluation."""
    return Evaluator(load_program(model), Precision(precision), function)
