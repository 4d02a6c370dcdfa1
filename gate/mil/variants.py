# SPDX-License-Identifier: Apache-2.0
"""What would a program answer, had some of its weights other values?

The program runs once over a few samples and every value is kept. A variant then computes only what depends on the weights that
were exchanged: what comes before the first of them is shared. Programs that cannot run several samples at once (states, control
flow, random numbers) are run whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gate.mil.batch import Stack, stackable
from gate.mil.blob import Array
from gate.mil.compiler import Body, Plan, Step, touched
from gate.mil.evaluator import Evaluator
from gate.mil.program import Block, Constant, Op


class Variants:
    """One program on one stack of samples: its own `answers`, and what it would answer with other weights."""

    def __init__(self, evaluator: Evaluator, samples: Sequence[Mapping[str, Any]]) -> None:
        self._evaluator = evaluator
        self._samples = [evaluator.features.read(sample) for sample in samples]
        self._plan = _keeping(evaluator.plan)
        self._base: Stack | None = None
        if stackable(self._plan, evaluator.function):
            self._base = Stack(self._plan, evaluator.function)
            columns = self._base.run(self._samples)
            self.answers = list(evaluator.features.write_all(columns, len(self._samples)))
        else:
            self.answers = [evaluator.features.write(evaluator.run(sample)) for sample in self._samples]

    @property
    def held_bytes(self) -> int:
        """How much memory the kept values take; nothing where samples run whole."""
        return self._base.live_bytes if self._base is not None else 0

    def answer(self, weights: Mapping[str, Array]) -> list[dict[str, Any]]:
        """Return the answers with these weights, by the names of their constants."""
        variant = self._evaluator.with_weights(weights)
        if self._base is None:
            return [variant.features.write(variant.run(sample)) for sample in self._samples]
        stack = self._base.resumed(_keeping(variant.plan))
        stack.go(_dependent(stack.plan, frozenset(weights)))
        return list(variant.features.write_all(stack.results(), len(self._samples)))


def _keeping(plan: Plan) -> Plan:
    """Return a plan that frees no value."""
    body = plan.body
    return replace(plan, body=Body(body.inputs, tuple(replace(s, frees=()) for s in body.steps), body.outputs))


def _dependent(plan: Plan, names: frozenset[str]) -> Iterator[Step]:
    """Yield the steps that read an exchanged weight, or what such a step computes."""
    changed: set[int] = set()
    for step in plan.body.steps:
        if _reads_any(step.op, names) or not changed.isdisjoint(touched(step, plan.blocks)):
            changed.update(step.outputs)
            yield step


def _reads_any(op: Op, names: frozenset[str]) -> bool:
    read = any(isinstance(a, Constant) and a.name in names for arguments in op.inputs.values() for a in arguments)
    return read or any(_reads_any(inner, names) for inner in _inside(op.blocks))


def _inside(blocks: Iterable[Block]) -> Iterator[Op]:
    for block in blocks:
        yield from block.ops
