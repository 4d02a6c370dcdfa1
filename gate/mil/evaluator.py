# SPDX-License-Identifier: Apache-2.0
"""What does the program compute? Read, compute, settle, observe, free.

Loading turns each op into a `Step`: kernel found, constants decoded and converted, values numbered. Running is one
pass over the steps. Nested blocks (`cond`, `while_loop`) run over the same numbered values as the ops around them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from gate.mil import ops as ops  # registers the kernels
from gate.mil.batch import run_batch
from gate.mil.blob import Array
from gate.mil.compiler import FAULTS, Plan, Roundings, Step, compile_function, unpacked
from gate.mil.constants import Constants, Exchanged
from gate.mil.errors import BadInput, BadPackage, MilError, OpFailed
from gate.mil.features import Feature, read_features
from gate.mil.numerics import Precision, Rounding, array, tensor
from gate.mil.ops.registry import Context, State
from gate.mil.overwriting import overwriting
from gate.mil.program import DAMAGE, Block, Op, Program, load_stages
from gate.mil.quick import Quick, QuickPlan, quick

Observe = Callable[[Op, Mapping[str, Any], tuple[Any, ...]], None]
Precise = str | Rounding | Callable[[Op], Rounding]

LARGEST_COUNTED = 2**25 - 2**16  # bytes; the allocator adds its own


@dataclass(eq=False)
class Run:
    """The values of one pass."""

    plan: Plan
    values: list[Any]
    seed: int = 0
    observe: Observe | None = None
    prepared: QuickPlan | None = None

    @cached_property
    def generator(self) -> torch.Generator:
        """Return the source of the run's random numbers."""
        return torch.Generator().manual_seed(self.seed)

    def steps(self, steps: Iterable[Step]) -> None:
        """Run steps in order."""
        values = self.values
        for step in steps:
            inputs: dict[str, Any] = {}
            try:
                inputs = step.read(values)
                if step.context is not None:
                    inputs[step.context] = Context(step.op, self.block, self.generator)
                results = step.settle(step.function(**inputs))
            except MilError:
                raise
            except FAULTS as error:
                raise OpFailed(step.failure(inputs, error)) from error
            if self.observe is not None:
                self.observe(step.op, unpacked(inputs) if step.packed else inputs, results)
            for slot, result in zip(step.outputs, results, strict=True):
                values[slot] = result
            for slot in step.frees:
                values[slot] = None

    def quickly(self, steps: Iterable[Quick | Step]) -> None:
        """Run steps in order, for their results alone."""
        values = self.values
        for step in steps:
            if isinstance(step, Step):
                self.steps((step,))
                continue
            try:
                values[step.output] = step.call(values)
            except MilError:
                raise
            except FAULTS as error:
                raise OpFailed(step.step.failure(_readable(step.step, values), error)) from error
            for slot in step.frees:
                values[slot] = None

    def block(self, block: Block, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Run a nested block."""
        body = self.plan.blocks[block]
        for slot, value in zip(body.inputs, arguments, strict=True):
            self.values[slot] = value
        ready = self.prepared.blocks[block] if self.prepared else None
        if ready and ready.takes(arguments):
            self.quickly(ready.steps)
        else:
            self.steps(body.steps)
        return tuple(self.values[slot] for slot in body.outputs)


def _readable(step: Step, values: list[Any]) -> Mapping[str, Any]:
    """Return what a step that failed has read, if reading was not what failed."""
    try:
        return step.read(values)
    except FAULTS:
        return {}


class ModelState(dict[str, State]):
    """The states of one conversation with a model, as `MLModel.make_state` returns them."""

    def read_state(self, name: str) -> Array:
        """Return a copy of one state."""
        return array(self[name].value, "float32")

    def write_state(self, name: str, value: Array) -> None:
        """Overwrite one state."""
        new = tensor(value)
        if new.shape != self[name].value.shape:
            raise BadInput(f"state {name!r}: shape {tuple(new.shape)} found, {tuple(self[name].value.shape)} expected")
        self[name].value = new


class Evaluator:
    """A loaded function of a program; `predict` follows `MLModel.predict`."""

    def __init__(
        self,
        program: Program,
        precision: Precise = Precision.DECLARED,
        function: str | None = None,
        constants: Constants | None = None,
    ) -> None:
        self.program = program
        self.function = program.function(function)
        self.constants = constants or Constants()
        self.precision = precision
        try:
            self._prepare(program, precision)
        except DAMAGE as error:
            raise BadPackage(f"the program contradicts itself ({type(error).__name__}: {error})") from error

    def _prepare(self, program: Program, precision: Precise) -> None:
        keep_freed_memory()
        self.features = read_features(program, self.function)
        boundary = Rounding() if callable(precision) else _rounding(precision)
        self.plan = compile_function(self.function, _roundings(precision), boundary, self.constants)
        self._pruned = lru_cache(maxsize=64)(self.plan.pruned)

    @cached_property
    def _quick(self) -> QuickPlan:
        return quick(replace(self.plan, body=overwriting(self.plan)))

    @cached_property
    def _stacked(self) -> Plan:
        return replace(self.plan, body=overwriting(self.plan, most_reads=1))

    @property
    def inputs(self) -> tuple[Feature, ...]:
        """Describe what `predict` takes."""
        return self.features.inputs

    @property
    def outputs(self) -> tuple[Feature, ...]:
        """Describe what `predict` returns."""
        return self.features.outputs

    def at(self, precision: Precise) -> Evaluator:
        """Return the same function under another precision; decoded weights are shared."""
        return Evaluator(self.program, precision, self.function.name, self.constants)

    def with_weights(self, weights: Mapping[str, Array]) -> Evaluator:
        """Return the same function with other values for some constants, by name; all else is shared."""
        return Evaluator(self.program, self.precision, self.function.name, Exchanged(self.constants, weights))

    def make_state(self) -> ModelState:
        """Return fresh states, all zeros."""
        return ModelState({f.name: State(torch.zeros(f.shape)) for f in self.features.states})

    def predict(
        self,
        inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        state: Mapping[str, State] | None = None,
        *,
        observe: Observe | None = None,
        seed: int = 0,
    ) -> Any:
        """Return a dict of outputs for a dict of inputs, or a list of them for a list."""
        if isinstance(inputs, list | tuple):
            if state is not None or self.features.states:
                raise BadInput("a state can only be used for one sample at a time, not with a list of them")
            return list(self.predict_batch(inputs, seed=seed))
        results = self.run(self.features.read(inputs), state, observe=observe, seed=seed)
        return self.features.write(results)

    def predict_batch(
        self, samples: Iterable[Mapping[str, Any]], *, byte_budget: int = 2**29, seed: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Yield the outputs of many samples, several at once as long as their values fit the budget; each begins with fresh states."""
        read = (self.features.read(sample) for sample in samples)
        one = partial(self._run_afresh, seed=seed)
        for columns, count in run_batch(self._stacked, self.function, read, one, byte_budget):
            yield from self.features.write_all(columns, count)

    def _run_afresh(self, inputs: Mapping[str, Tensor], *, seed: int) -> dict[str, Any]:
        return self.run(inputs, self.make_state(), seed=seed)

    def run(
        self,
        inputs: Mapping[str, Tensor],
        state: Mapping[str, State] | None = None,
        *,
        observe: Observe | None = None,
        given: Mapping[str, Tensor] | None = None,
        keep: Iterable[str] = (),
        seed: int = 0,
    ) -> dict[str, Any]:
        """Compute tensors from tensors.

        `keep` also returns the values of the ops named. `given` sets such values: what they make superfluous is not
        computed, so trials that differ late share the prefix.
        """
        values = list(self.plan.presets)
        for value, slot, settle in zip(
            self.function.inputs, self.plan.body.inputs, self.plan.settle_inputs, strict=True
        ):
            values[slot] = settle(inputs[value.name]) if value.name in inputs else self._state(value.name, state)
        kept = tuple(keep)
        with torch.inference_mode():
            if observe or given or kept:
                Run(self.plan, values, seed, observe).steps(self._body(given or {}, kept, values))
            else:
                Run(self.plan, values, seed, prepared=self._quick).quickly(self._quick.body.steps)
        outputs = {
            v.name: values[slot] for v, slot in zip(self.function.body.outputs, self.plan.body.outputs, strict=True)
        }
        return {**{name: values[self.plan.slots[name]] for name in kept}, **outputs}

    def _body(self, given: Mapping[str, Tensor], keep: tuple[str, ...], values: list[Any]) -> tuple[Step, ...]:
        """Return the steps that are needed, and put the values given into their places."""
        if not given and not keep:
            return self.plan.body.steps
        unknown = sorted({*given, *keep} - self.plan.slots.keys())
        if unknown:
            raise MilError(f"no op of function {self.function.name!r} computes {', '.join(unknown)}")
        for name, value in given.items():
            values[self.plan.slots[name]] = value
        return self._pruned(frozenset(given), frozenset(keep)).steps

    def _state(self, name: str, state: Mapping[str, State] | None) -> State:
        if state is None or name not in state:
            raise BadInput(f"state {name!r} is missing: pass state=make_state()")
        return state[name]


def keep_freed_memory() -> None:
    """Have glibc keep up to 64 MiB of what a run frees for the next one, instead of asking for new memory, page by page.

    It keeps twice the largest block it has yet taken back from a mapping of its own, and counts none above 32 MiB (mallopt(3),
    M_MMAP_THRESHOLD). This one is never written, so it costs nothing.
    """
    torch.empty(LARGEST_COUNTED, dtype=torch.uint8)


def _rounding(precision: str | Rounding) -> Rounding:
    if isinstance(precision, Rounding):
        return precision
    if precision not in list(Precision):
        raise MilError(f"precision {precision!r}: expected one of {', '.join(Precision)}")
    return Rounding(Precision(precision))


def _roundings(precision: Precise) -> Roundings:
    if callable(precision):
        return precision
    rounding = _rounding(precision)
    return lambda op: rounding


def load(model: Any, *, precision: Precise = "declared", function: str | None = None) -> Evaluator:
    """Load a path or an `MLModel` for evaluation; a pipeline comes as a `Pipeline`."""
    name = function or getattr(model, "function_name", None)
    description, programs = load_stages(model)
    if description is None:
        return Evaluator(programs[0], precision, name)
    from gate.mil.pipeline import Pipeline

    return Pipeline(description, tuple(Evaluator(program, precision) for program in programs))
