# SPDX-License-Identifier: Apache-2.0
"""How large is each value of a function?

Most programs declare every size. Where one is open, because an input is flexible or a size depends on data, the evaluator runs
once on zeros of the default or the largest shape, and what it computed says the rest.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gate.mil import BadInput, MilError
from gate.mil.blob import BITS, packed_bytes
from gate.mil.features import Feature, Features, Shape, read_features
from gate.mil.program import Argument, Function, ListType, Op, Program, StateType, TensorType, Type, Value

Shapes = dict[str, Shape]
LONGEST = 20.0  # seconds; a check that reads a program must not become one that runs it for minutes


@dataclass(frozen=True)
class Sizes:
    """The shape of every value of a function, at one shape of its inputs."""

    function: Function
    inputs: Mapping[str, Shape]
    notes: tuple[str, ...] = ()  # what had to be assumed
    _seen: Mapping[Value, Shape] = field(default_factory=dict, repr=False)

    def shape(self, argument: Argument) -> Shape:
        """Return the sizes of a tensor; of a state, of the tensor in it."""
        if isinstance(argument, Value) and argument in self._seen:
            return self._seen[argument]
        kind = _tensor(argument.type)
        return tuple(1 if n is None else n for n in kind.shape or ()) if kind else ()

    def elements(self, argument: Argument) -> int:
        """Return how many elements it has."""
        return math.prod(self.shape(argument))

    def bytes(self, argument: Argument) -> int:
        """Return the bytes that it takes in its declared type; text and labels count nothing."""
        kind = _tensor(argument.type)
        if kind is None or kind.dtype not in BITS:
            return 0
        length = argument.type.length or 1 if isinstance(argument.type, ListType) else 1
        return packed_bytes(kind.dtype, self.elements(argument)) * length


def _tensor(kind: Type) -> TensorType | None:
    if isinstance(kind, ListType):
        return _tensor(kind.element)
    if isinstance(kind, StateType):
        return kind.wrapped
    return kind if isinstance(kind, TensorType) else None


def default_sizes(program: Program, name: str | None = None) -> Sizes:
    """Return the sizes at the shapes that a caller gives without saying more."""
    function = program.function(name)
    features = read_features(program, function)
    return _sizes(program, function, {f.name: _default(f) for f in features.inputs}, ())


def largest_sizes(program: Program, name: str | None = None) -> Sizes:
    """Return the sizes at the largest shapes that the description allows; without an upper bound, at the default."""
    function = program.function(name)
    features = read_features(program, function)
    open_ended = [f.name for f in features.inputs if any(high is None for _, high in f.ranges)]
    notes = tuple(f"input {n!r} has no upper bound; its default size was taken" for n in open_ended)
    return _sizes(program, function, {f.name: _largest(f) for f in features.inputs}, notes)


def _default(feature: Feature) -> Shape:
    if feature.shape and feature.accepts(feature.shape):
        return feature.shape
    if feature.enumerated:
        return feature.enumerated[0]
    return tuple(low for low, _ in feature.ranges) or feature.shape


def _largest(feature: Feature) -> Shape:
    default = _default(feature)
    if feature.ranges:
        return tuple(n if high is None else high for n, (_, high) in zip(default, feature.ranges, strict=True))
    return max(feature.enumerated, key=math.prod, default=default)


def _sizes(program: Program, function: Function, inputs: Shapes, notes: tuple[str, ...]) -> Sizes:
    if is_static(function):
        return Sizes(function, inputs, notes)
    return Sizes(function, inputs, notes, _run(program, function, inputs))


def is_static(function: Function) -> bool:
    """Does the program declare the size of every value?"""
    values = [*function.inputs, *(v for op in function.body.walk() for v in op.outputs)]
    return all(_known(value.type) for value in values)


def _known(kind: Type) -> bool:
    tensor = _tensor(kind)
    return tensor is None or tensor.sizes is not None


def _run(program: Program, function: Function, inputs: Shapes) -> dict[Value, Shape]:
    """Run the function on zeros and note the largest shape that each value had."""
    from gate.mil.evaluator import Evaluator

    seen: dict[Value, Shape] = {}
    deadline = time.monotonic() + LONGEST

    def note(value: Value, shape: Shape) -> None:
        if math.prod(shape) >= math.prod(seen.get(value, (0,))):
            seen[value] = shape

    def observe(op: Op, _: Mapping[str, Any], results: tuple[Any, ...]) -> None:
        if time.monotonic() > deadline:
            told = ", ".join(f"{name} {list(shape)}" for name, shape in inputs.items())
            raise MilError(f"finding the sizes at {told} took over {LONGEST:.0f} s; lower the upper bound of the range")
        for value, result in zip(op.outputs, results, strict=True):
            if hasattr(result, "shape"):
                note(value, tuple(result.shape))

    evaluator = Evaluator(program, "float32", function.name)
    evaluator.predict(_zeros(evaluator.features, inputs), evaluator.make_state(), observe=observe)
    for value in function.inputs:
        if value.name in inputs:
            note(value, inputs[value.name])
    return seen


def _zeros(features: Features, inputs: Shapes) -> dict[str, Any]:
    for feature in features.inputs:
        if not feature.accepts(inputs[feature.name]):
            raise BadInput(f"input {feature.name!r}: {feature.refusal(inputs[feature.name])}")
    return {f.name: np.zeros(inputs[f.name], f.dtype) for f in features.inputs}
