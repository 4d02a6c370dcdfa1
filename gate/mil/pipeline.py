# SPDX-License-Identifier: Apache-2.0
"""How does a pipeline of programs predict? Stage by stage: each reads the caller's inputs and what came before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from gate.mil.errors import BadInput, BadPackage, Unsupported
from gate.mil.evaluator import Evaluator, ModelState, Observe, Precise
from gate.mil.features import Feature
from gate.mil.ops.registry import State


class Pipeline(Evaluator):
    """Evaluators in a row, with the description of the whole."""

    def __init__(self, description: Any, stages: tuple[Evaluator, ...]) -> None:
        self.description = description
        self.stages = stages
        if not stages:
            raise BadPackage("the pipeline has no stage")
        if any(stage.features.states for stage in stages):
            raise Unsupported("a stage of the pipeline has states; Core ML gives none to a pipeline")

    @property
    def inputs(self) -> tuple[Feature, ...]:
        """Describe what `predict` takes."""
        return self._described(self.description.input, [f for s in reversed(self.stages) for f in s.inputs])

    @property
    def outputs(self) -> tuple[Feature, ...]:
        """Describe what `predict` returns."""
        return self._described(self.description.output, [f for s in self.stages for f in s.outputs])

    def _described(self, specs: Iterable[Any], features: list[Feature]) -> tuple[Feature, ...]:
        named = {f.name: f for f in features}
        missing = [spec.name for spec in specs if spec.name not in named]
        if missing:
            raise BadPackage(f"the pipeline describes {', '.join(missing)}, which no stage has")
        return tuple(named[spec.name] for spec in specs)

    def at(self, precision: Precise) -> Pipeline:
        """Return the same pipeline under another precision; decoded weights are shared."""
        return Pipeline(self.description, tuple(stage.at(precision) for stage in self.stages))

    def make_state(self) -> ModelState:
        """Return no states: a pipeline has none."""
        return ModelState()

    def predict(
        self, inputs: Any, state: Mapping[str, State] | None = None, *, observe: Observe | None = None, seed: int = 0
    ) -> Any:
        """Return a dict of outputs for a dict of inputs, or a list of them for a list."""
        if isinstance(inputs, list | tuple):
            return list(self.predict_batch(inputs, seed=seed))
        values = dict(self._checked(inputs))
        for stage in self.stages:
            given = {f.name: values[f.name] for f in stage.inputs if f.name in values}
            values.update(stage.predict(given, observe=observe, seed=seed))
        return {f.name: values[f.name] for f in self.outputs}

    def predict_batch(
        self, samples: Iterable[Mapping[str, Any]], *, byte_budget: int = 2**30, seed: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Yield the outputs of many samples, one by one."""
        for sample in samples:
            yield self.predict(sample, seed=seed)

    def run(self, inputs: Mapping[str, Tensor], *_: Any, **options: Any) -> dict[str, Any]:
        """Refuse: only a program has tensors of its own."""
        raise Unsupported("a pipeline has no program of its own; run its `stages`")

    def _checked(self, inputs: Any) -> Mapping[str, Any]:
        if not isinstance(inputs, Mapping):
            raise BadInput(f"inputs must be a dict of arrays, found {type(inputs).__name__}")
        names = [f.name for f in self.inputs]
        extra = sorted(map(str, set(inputs) - set(names)))
        if extra:
            raise BadInput(f"no input is called {', '.join(map(repr, extra))}; the pipeline takes {', '.join(names)}")
        return inputs
