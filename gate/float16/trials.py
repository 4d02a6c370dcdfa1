# SPDX-License-Identifier: Apache-2.0
"""What reaches the outputs when only some ops of a program lose precision?

`Trials` runs a program once exactly and keeps every value. A trial then runs chosen ops in half and, of the rest, only what depends on
them: all other values are the exact ones. Two compiled plans of one program number their values alike, so a trial is a walk over the
steps of both. States begin at zero in each trial; the ops that read or write one always run, since no saved value stands for their effect.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from gate.choices import chosen
from gate.difference import OutputDifference, compare, find_ranges
from gate.mil.compiler import Plan, Step, unpacked
from gate.mil.evaluator import Evaluator, Run
from gate.mil.numerics import FLOATS, Precision, Rounding
from gate.mil.ops.registry import State
from gate.mil.program import Op, StateType, TensorType

NONFINITE = 10.0  # damage of an infinity or NaN: worse than any error
TINY = 1e-30
WRONG_INTEGER = 1.0  # damage of a wrong id; plus the share that is wrong


@dataclass(frozen=True)
class Place:
    """An op, or a program input, that may lose precision."""

    index: int  # position of the step; inputs come before, at -1
    type: str
    name: str
    op: Op | None = None


@dataclass(frozen=True)
class Local:
    """What an op loses by itself, given exact inputs."""

    error: float  # largest difference, as a fraction of the result's range; 10 when a finite value is lost


Values = list[Any]


class Trials:
    """One program on one sample."""

    def __init__(
        self,
        evaluator: Evaluator,
        sample: Mapping[str, Any],
        half: Rounding = Rounding(Precision.DECLARED, as_half=True),  # noqa: B008
        ranges: Mapping[str, float] | None = None,
    ) -> None:
        self._evaluator, self._half = evaluator, half
        self.exact_plan = evaluator.at(Rounding(Precision.FLOAT32)).plan
        self.half_plan = evaluator.at(half).plan
        self.function = evaluator.function
        self._choices = chosen(evaluator.function.body)
        self.seconds = 0.0  # spent on trials so far
        self._ranges = ranges or {}
        self._peaks: dict[int, tuple[float, bool]] = {}
        self._inputs = evaluator.features.read(sample)
        self._exact_steps = _kept(self.exact_plan)
        self._half_steps = _kept(self.half_plan)
        self.costs = [0.0] * len(self._exact_steps)
        self.values = self._run_exactly()

    def on(self, sample: Mapping[str, Any], ranges: Mapping[str, float] | None = None) -> "Trials":
        """The same program on another sample; places mean the same there."""
        return Trials(self._evaluator, sample, self._half, ranges)

    @property
    def evaluation_s(self) -> float:
        """Time of one evaluation of the whole program."""
        return sum(self.costs)

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Everything that computes or receives floats, in order."""
        inputs = (
            Place(-1, "cast", value.name)
            for value in self.function.inputs
            if isinstance(value.type, TensorType) and value.type.dtype in FLOATS
        )
        ops = (
            Place(i, step.op.type, _name(step.op), step.op)
            for i, step in enumerate(self._exact_steps)
            if _rounds(step.op) and i not in self._state_steps
        )
        return (*inputs, *ops)

    @property
    def keeps_states(self) -> bool:
        """Does the program have states?"""
        return bool(self._states)

    @cached_property
    def _states(self) -> dict[int, tuple[int, ...]]:
        """The shape of each state, by slot."""
        inputs = zip(self.function.inputs, self.exact_plan.body.inputs, strict=True)
        return {slot: _wrapped_shape(value.type) for value, slot in inputs if isinstance(value.type, StateType)}

    @cached_property
    def _state_steps(self) -> frozenset[int]:
        """The steps that read or write a state."""
        return frozenset(i for i, slots in enumerate(self._reads) if not slots.isdisjoint(self._states))

    def _fresh(self, values: Values) -> Values:
        """A copy with states at zero."""
        copy = list(values)
        for slot, shape in self._states.items():
            copy[slot] = State(torch.zeros(shape))
        return copy

    @cached_property
    def outputs(self) -> dict[str, Any]:
        """The exact answers."""
        return self._outputs(self.values)

    def local(self, place: Place) -> Local:
        """What one op loses given exact inputs; see `Local`."""
        if place.index < 0:
            slot = self._slot(place.name)
            return Local(self._error(slot, _halved(self.values[slot])))
        step = self._exact_steps[place.index]
        scratch = list(self.values)
        with torch.inference_mode():
            self._half_run(scratch).steps([self._half_steps[place.index]])
            return Local(self._worst(step, scratch))

    def read(self, place: Place) -> dict[str, Any]:
        """The exact inputs of an op, weights as plain tensors."""
        return unpacked(self._exact_steps[place.index].read(self.values))

    def results(self, place: Place, *, half: bool = False) -> list[Tensor]:
        """The results of an op on exact inputs."""
        if place.index < 0:
            value = self.values[self._slot(place.name)]
            return [value.half().float() if half else value]
        values = self.values
        if half:
            values = list(values)
            self._half_run(values).steps([self._half_steps[place.index]])
        return [values[s] for s in self._exact_steps[place.index].outputs if isinstance(values[s], Tensor)]

    def reading(self, place: Place) -> list[Place]:
        """The places that read a place's result."""
        written = {self._slot(place.name)} if place.index < 0 else set(self._exact_steps[place.index].outputs)
        by_index = {other.index: other for other in self.places if other.index >= 0}
        return [by_index[i] for i, slots in enumerate(self._reads) if slots & written and i in by_index]

    def feeding(self, place: Place) -> list[Place]:
        """The ops whose results a place reads."""
        slots = self._reads[place.index] if place.index >= 0 else set()
        return [
            other for other in self.places if other.index >= 0 and slots & set(self._exact_steps[other.index].outputs)
        ]

    def readers(self, place: Place) -> set[str]:
        """Types of the ops that read a place's result."""
        return {other.type for other in self.reading(place)}

    def damage(self, places: Iterable[Place]) -> float:
        """How far the outputs are off when these places alone run in half."""
        return worst(self.differences(places))

    def differences(self, places: Iterable[Place]) -> tuple[OutputDifference, ...]:
        """Compare the outputs of a trial with the exact ones."""
        found = self._outputs(self._trial(tuple(places)))
        return compare([self.outputs], [found], [self._range], self._choices)

    @cached_property
    def _range(self) -> dict[str, float]:
        """Ranges over all samples where they are known under the program's own names, else of this sample."""
        return find_ranges([self.outputs], [""])[0] | {n: r for n, r in self._ranges.items() if n in self.outputs}

    def curve(self) -> list[float | None]:
        """How far each op's result is off when every op runs in half, as a fraction of the result's range."""
        started = perf_counter()
        values = self._fresh(self.values)
        for value in self.function.inputs:
            slot = self._slot(value.name)
            values[slot] = _halved(values[slot])
        errors: list[float | None] = []
        run = self._half_run(values)
        with torch.inference_mode():
            for step in self._half_steps:
                if not _random(step):
                    run.steps([step])
                errors.append(self._worst(step, values) if _rounds(step.op) else None)
        self.seconds += perf_counter() - started
        return errors

    def _worst(self, step: Step, values: Values) -> float:
        return max((self._error(s, values[s]) for s in step.outputs if isinstance(values[s], Tensor)), default=0.0)

    def _error(self, slot: int, found: Tensor) -> float:
        """Largest error of a value, as a fraction of its exact range; 10 where a finite element is lost."""
        exact = self.values[slot]
        if exact.numel() == 0 or exact.shape != found.shape:
            return 0.0
        top, finite = self._peak(slot)
        delta = float((found.float() - exact.float()).abs().max())
        if delta < float("inf"):
            return delta / max(top, TINY)
        if finite:
            return NONFINITE
        both = exact.isfinite()
        if bool((both & ~found.isfinite()).any()):
            return NONFINITE
        return float((found - exact)[both].abs().max()) / max(top, TINY) if bool(both.any()) else 0.0

    def _peak(self, slot: int) -> tuple[float, bool]:
        """Largest finite |value|, and whether all elements are finite; kept, since many trials ask."""
        if slot not in self._peaks:
            magnitude = self.values[slot].float().abs()
            top = float(magnitude.max())
            finite = top < float("inf")
            self._peaks[slot] = (top if finite else float(magnitude.nan_to_num(0.0, 0.0).max()), finite)
        return self._peaks[slot]

    def cost(self, place: Place) -> float:
        """Estimate the time of a trial of one place: what comes after it."""
        return sum(self.costs[max(place.index, 0) :])

    def _trial(self, places: Sequence[Place]) -> Values:
        started = perf_counter()
        values = self._fresh(self.values)
        dirty = set()
        for place in places:
            if place.index < 0:
                slot = self._slot(place.name)
                values[slot] = _halved(values[slot])
                dirty.add(slot)
        self._walk(values, dirty, {place.index for place in places})
        self.seconds += perf_counter() - started
        return values

    def _walk(self, values: Values, dirty: set[int], chosen: set[int]) -> None:
        exact, half = self._exact_run(values), self._half_run(values)
        first = min(chosen, default=0) if not (dirty or self._states) else 0
        with torch.inference_mode():
            for index in range(max(first, 0), len(self._exact_steps)):
                step = self._exact_steps[index]
                if index in self._state_steps:
                    exact.steps([step])
                    dirty.update(slot for slot in step.outputs if not torch.equal(values[slot], self.values[slot]))
                    continue
                if index in chosen:
                    half.steps([self._half_steps[index]])
                elif not _random(step) and not dirty.isdisjoint(self._reads[index]):
                    exact.steps([step])
                else:
                    continue
                dirty.update(step.outputs)

    @cached_property
    def _reads(self) -> list[set[int]]:
        return [reads(step, self.exact_plan) for step in self._exact_steps]

    def _run_exactly(self) -> Values:
        values = self._fresh(list(self.exact_plan.presets))
        plan = self.exact_plan
        for value, slot, settle in zip(self.function.inputs, plan.body.inputs, plan.settle_inputs, strict=True):
            if slot not in self._states:
                values[slot] = settle(self._inputs[value.name])
        run = self._exact_run(values)
        with torch.inference_mode():
            for index, step in enumerate(self._exact_steps):
                started = perf_counter()
                run.steps([step])
                self.costs[index] = perf_counter() - started
        return values

    def _exact_run(self, values: Values) -> Run:
        return Run(self.exact_plan, values)

    def _half_run(self, values: Values) -> Run:
        return Run(self.half_plan, values)

    def _outputs(self, values: Values) -> dict[str, Any]:
        slots = zip(self.function.body.outputs, self.exact_plan.body.outputs, strict=True)
        return {v.name: values[s].numpy() for v, s in slots if isinstance(values[s], Tensor)}

    def _slot(self, name: str) -> int:
        names = [value.name for value in self.function.inputs]
        return self.exact_plan.body.inputs[names.index(name)]


def worst(differences: Sequence[OutputDifference]) -> float:
    """Turn differences into one number that ranks: infinities first, then wrong integers, then error."""
    return max((_damage(d) for d in differences), default=0.0)


def _damage(d: OutputDifference) -> float:
    if d.new_nonfinite or d.problem:
        return NONFINITE
    return WRONG_INTEGER + min(d.error, 1.0) if d.wrong_integers else min(d.error, 0.99 * NONFINITE)


def reads(step: Step, plan: Plan) -> set[int]:
    """The slots that a step reads, in its nested blocks as well."""
    slots = {i for _, slot, _ in step.reads for i in ((slot,) if isinstance(slot, int) else slot)}
    for block in step.op.blocks:
        body = plan.blocks[block]
        slots.update(body.outputs)
        for inner in body.steps:
            slots |= reads(inner, plan)
    return slots


def _wrapped_shape(kind: StateType) -> tuple[int, ...]:
    return tuple(size or 1 for size in kind.wrapped.shape or ())


def _kept(plan: Plan) -> tuple[Step, ...]:
    """The steps, with no value freed."""
    return tuple(replace(step, frees=()) for step in plan.body.steps)


def _name(op: Op) -> str:
    return op.outputs[0].name if op.outputs else op.name


def _rounds(op: Op) -> bool:
    """Does the op compute floats, or turn them into something else?"""
    values = (*op.outputs, *(a for arguments in op.inputs.values() for a in arguments))
    return any(isinstance(v.type, TensorType) and v.type.dtype in FLOATS for v in values)


def _random(step: Step) -> bool:
    return step.op.type.startswith("random_")


def _halved(value: Any) -> Any:
    return value.half().float() if isinstance(value, Tensor) and value.is_floating_point() else value
