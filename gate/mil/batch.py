# SPDX-License-Identifier: Apache-2.0
"""How do many samples run through a program that was written for one?

Each step runs once over a stack of samples (`torch.vmap`); a value that does not depend on the input stays single.
A step that can't be mapped runs sample by sample, the rest of the program does not. Programs with states, random
numbers or control flow, and short lists, run whole samples one by one. The first sample runs alone and shows how many bytes one takes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby, islice
from typing import Any

import torch
from torch import Tensor

from gate.mil.compiler import FAULTS, Plan, Step
from gate.mil.errors import OpFailed
from gate.mil.program import Function, StateType

Sample = Mapping[str, Tensor]
# For each output the values of all samples, as a stack if they are tensors.
Columns = Mapping[str, Sequence[Any] | Tensor]
One = Callable[[Sample], dict[str, Any]]

SHAPE_ONLY = frozenset({"shape", "fill_like"})  # the same for all samples of a stack
WORTH_STACKING = 4  # samples; fewer are quicker one by one
MARGIN = 3  # a kernel's own temporaries, and the allocator's


class _Ragged(Exception):
    """The samples of a stack give results of different shapes."""


def run_batch(
    plan: Plan, function: Function, samples: Iterable[Sample], one: One, byte_budget: int
) -> Iterator[tuple[Columns, int]]:
    """Yield the results of as many samples as fit at once, and their number, in order."""
    rest = iter(samples)
    few = list(islice(rest, WORTH_STACKING))
    if len(few) < WORTH_STACKING or not stackable(plan, function):
        yield from (_alone(one(sample)) for sample in chain(few, rest))
        return
    first, *few = few
    rest = chain(few, rest)
    stack = Stack(plan, function)
    columns = stack.run([first])
    limit = max(1, byte_budget // (MARGIN * stack.peak_bytes))
    yield columns, 1
    while group := list(islice(rest, limit)):
        for _, same in groupby(group, _shapes):
            members = list(same)
            try:
                yield Stack(plan, function).run(members), len(members)
            except _Ragged:
                yield from (_alone(one(sample)) for sample in members)


def _alone(results: Mapping[str, Any]) -> tuple[Columns, int]:
    return {name: [value] for name, value in results.items()}, 1


def stackable(plan: Plan, function: Function) -> bool:
    """Can samples of this program run side by side?"""
    states = any(isinstance(v.type, StateType) for v in function.inputs)
    return not states and all(step.context is None for step in plan.body.steps)


def _shapes(sample: Sample) -> list[torch.Size]:
    return [x.shape for x in sample.values()]


class Stack:
    """The values of one pass over several samples; those in `mapped` have the samples as first axis."""

    def __init__(self, plan: Plan, function: Function) -> None:
        self.plan = plan
        self.function = function
        self.values = list(plan.presets)
        self.mapped: set[int] = set()
        self.count = 0
        self.peak_bytes = 1
        self.live_bytes = 0

    def run(self, samples: Sequence[Sample]) -> Columns:
        """Return the results of all samples."""
        self.count = len(samples)
        settles = zip(self.function.inputs, self.plan.body.inputs, self.plan.settle_inputs, strict=True)
        for value, slot, settle in settles:
            self.store(slot, settle(torch.stack([s[value.name] for s in samples])), True)
        self.go(self.plan.body.steps)
        return self.results()

    def go(self, steps: Iterable[Step]) -> None:
        """Run steps in order."""
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # vmap's notes on slow fallbacks
            for step in steps:
                self.step(step)

    def results(self) -> Columns:
        """Return the outputs of all samples."""
        outputs = zip(self.function.body.outputs, self.plan.body.outputs, strict=True)
        return {
            v.name: self.values[slot] if slot in self.mapped else [self.values[slot]] * self.count
            for v, slot in outputs
        }

    def resumed(self, plan: Plan) -> Stack:
        """Return a stack with the values of this one, on which steps of another plan of the same program can run."""
        other = Stack(plan, self.function)
        pairs = zip(self.values, plan.presets, strict=True)
        other.values = [value if preset is None else preset for value, preset in pairs]
        other.mapped, other.count = set(self.mapped), self.count
        return other

    def step(self, step: Step) -> None:
        slots = [s for _, slot, _ in step.reads for s in ((slot,) if isinstance(slot, int) else slot)]
        mapped = any(s in self.mapped for s in slots)
        try:
            results = self.compute(step, mapped)
        except FAULTS as error:
            raise OpFailed(f"{step.op.type} {step.op.name!r}: {error}") from error
        for slot, result in zip(step.outputs, results, strict=True):
            self.store(slot, result, mapped and step.op.type not in SHAPE_ONLY)
        for slot in step.frees:
            self.live_bytes -= _bytes(self.values[slot])
            self.values[slot] = None

    def store(self, slot: int, value: Any, mapped: bool) -> None:
        self.values[slot] = value
        if mapped:
            self.mapped.add(slot)
        self.live_bytes += _bytes(value)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def compute(self, step: Step, mapped: bool) -> tuple[Any, ...]:
        if not mapped or step.op.type in SHAPE_ONLY:
            return self.single(step, 0)
        if self.count > 1 and step.batch and (step.rows or not step.packed):
            try:
                return self.rows(step) if step.rows else self.together(step)
            except (RuntimeError, ValueError, TypeError):
                pass  # no batching rule, or a shape that depends on a value
        columns = list(zip(*(self.single(step, i) for i in range(self.count)), strict=True))
        return tuple(_stacked(column) for column in columns)

    def single(self, step: Step, i: int) -> tuple[Any, ...]:
        """Run a step on one sample."""
        inputs = dict(step.constants)
        for name, slot, convert in step.reads:
            value = self.sample(slot, i) if isinstance(slot, int) else [self.sample(s, i) for s in slot]
            inputs[name] = value if convert is None else convert(value)
        return step.settle(step.function(**inputs))

    def together(self, step: Step) -> tuple[Any, ...]:
        """Run a step on all samples."""
        places = [slot if isinstance(slot, int) else list(slot) for _, slot, _ in step.reads]
        values = [self.values[p] if isinstance(p, int) else [self.values[s] for s in p] for p in places]
        axes = tuple(self.axis(p) if isinstance(p, int) else [self.axis(s) for s in p] for p in places)

        def one(*arguments: Any) -> tuple[Any, ...]:
            inputs = dict(step.constants)
            for (name, _, convert), value in zip(step.reads, arguments, strict=True):
                inputs[name] = value if convert is None else convert(value)
            return step.settle(step.function(**inputs))

        results: tuple[Any, ...] = torch.vmap(one, in_dims=axes)(*values)
        return results

    def rows(self, step: Step) -> tuple[Any, ...]:
        """Run a step on all samples as the rows of one."""
        ((name, slot, convert),) = step.reads
        assert isinstance(slot, int), "a kernel's rows are those of a tensor"
        assert step.settle_one is not None, "kernels over rows have one result"
        x = self.values[slot].flatten(0, 1)
        result = step.function(**{**step.constants, name: x if convert is None else convert(x)})
        return (step.settle_one(result, self.count).unflatten(0, (self.count, -1)),)

    def axis(self, slot: int) -> int | None:
        return 0 if slot in self.mapped else None

    def sample(self, slot: int, i: int) -> Any:
        value = self.values[slot]
        return value[i] if slot in self.mapped else value


def _stacked(column: tuple[Any, ...]) -> Any:
    if not isinstance(column[0], Tensor):
        return list(column)
    if any(x.shape != column[0].shape for x in column):
        raise _Ragged
    return torch.stack(column)


def _bytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0
