# SPDX-License-Identifier: Apache-2.0
"""Given a model that float16 damages: on which sample is it worst, which ops are to blame, and why?

Injection is on the float32 program. What only the float16 program has (an integer narrowed to int16, a constant rounded in another form)
is looked for there when the float32 program does not explain the damage.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from gate.choices import choices
from gate.difference import Ranges, compare
from gate.float16 import Tier
from gate.float16.blame import EXPLAINS, Blame, Culprit, find_culprits
from gate.float16.causes import Cause, Diagnosis, diagnose, number, peak
from gate.float16.models import Models
from gate.float16.tiers import MEASURED
from gate.float16.trials import Place, Trials, worst
from gate.mil.evaluator import Evaluator, load
from gate.mil.numerics import SIGNED, UNSIGNED, Precision, Rounding
from gate.mil.program import Constant, Function, Op, TensorType

NAMED = 0.1  # of the worst culprit's damage: less is not worth a name
CAST_SUFFIXES = ("_cast_fp16", "_cast_uint16", "_cast_int16", "_to_fp16", "_to_int16", "_to_uint16")

Sample = Mapping[str, Any]
Outputs = Mapping[str, Any]


@dataclass(frozen=True)
class Suspect:
    """An op that is to blame, as a reader finds it again."""

    type: str
    name: str
    damage: float
    local: float
    diagnosis: Diagnosis
    layer: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Investigation:
    """What was found out."""

    tier: Tier
    sample: int
    suspects: tuple[Suspect, ...]
    blame: Blame | None
    limit: float
    trials: Trials | None = field(default=None, repr=False)

    @property
    def spread(self) -> bool:
        """Is the damage the sum of many small losses, with no single op to blame?"""
        return self.blame is not None and not self.blame.explained


def investigate(
    models: Models,
    samples: Sequence[Sample],
    reference: Sequence[Outputs],
    found: Sequence[Outputs],
    ranges: Ranges,
    tier: Tier,
    limit: float,
) -> Investigation:
    """Find the culprits on the worst sample; `found` are the float16 program's answers under the tier."""
    index = worst_sample(reference, found, ranges, choices(models.float16))
    integers = narrowed(models, samples[index]) if tier is Tier.DECLARED else ()
    if integers:
        return Investigation(tier, index, integers, None, limit)
    case = _Case(models, samples[index], ranges[index], tier, limit, index)
    found_ = case.inject()
    if models.float32 is None or not found_.spread:
        return found_
    lost = lost_ops(models, samples[index], reference[index], ranges[index], limit)
    if lost:
        return replace(found_, suspects=lost, blame=None)
    inside = case.inject_in_float16()
    return found_ if inside.spread else inside


@dataclass(frozen=True)
class _Case:
    """One model on its worst sample."""

    models: Models
    sample: Sample
    ranges: Mapping[str, float]
    tier: Tier
    limit: float
    index: int

    def inject(self) -> Investigation:
        """Try ops of the float32 program in half; of a finished package, its own ops as declared."""
        models = self.models
        half = load(models.float16)
        exact = load(models.float32) if models.float32 else half
        return self._blame(exact, half.function, as_half=models.float32 is not None)

    def inject_in_float16(self) -> Investigation:
        """Try ops of the float16 program, against itself run in float32."""
        half = load(self.models.float16)
        return self._blame(half, half.function, as_half=False)

    def _blame(self, exact: Evaluator, half: Function, as_half: bool) -> Investigation:
        precision = Precision(self.tier.rounding)
        trials = Trials(exact, self.sample, Rounding(precision, as_half), self.ranges)
        blame = find_culprits(trials, self.limit, _allowed(trials, half, self.tier, as_half=as_half))
        worth = blame.culprits[0].damage * NAMED if blame.culprits else 0.0
        named = [c for c in blame.culprits if c.damage >= worth]
        suspects = tuple(_suspect(trials, c, precision, self.models) for c in named)
        return Investigation(self.tier, self.index, suspects, blame, self.limit, trials)


def lost_ops(
    models: Models, sample: Sample, reference: Outputs, ranges: Mapping[str, float], limit: float
) -> tuple[Suspect, ...]:
    """Name what the float16 program no longer has, when it is wrong even without rounding: the converter's bug, not float16's."""
    assert models.float32 is not None
    half = load(models.float16, precision=Precision.FLOAT32)
    found = next(half.predict_batch([sample]))
    if worst(compare([reference], [found], [ranges], choices(models.float16))) < EXPLAINS * limit:
        return ()
    kept = Counter(op.type for op in half.function.body.walk())
    suspects = []
    for op in load(models.float32).function.body.walk():
        kept[op.type] -= 1
        if kept[op.type] < 0 and op.outputs:
            layer, source = origin(op.outputs[0].name, models)
            suspects.append(Suspect(op.type, op.outputs[0].name, 1.0, 1.0, LOST, layer, source))
    return tuple(suspects)


LOST = Diagnosis(
    Cause.CONVERTER,
    "the float16 program lacks this op, and is wrong even without rounding",
    "use another conversion route or a newer coremltools; float16 itself is not to blame",
)


def worst_sample(
    reference: Sequence[Outputs], found: Sequence[Outputs], ranges: Ranges, choosing: frozenset[str] = frozenset()
) -> int:
    """The sample that float16 damages most."""
    damages = [worst(compare([a], [b], [r], choosing)) for a, b, r in zip(reference, found, ranges, strict=True)]
    return damages.index(max(damages))


def _suspect(trials: Trials, culprit: Culprit, precision: Precision, models: Models) -> Suspect:
    place = culprit.place
    layer, source = origin(place.name, models)
    return Suspect(
        place.type, place.name, culprit.damage, culprit.local.error, diagnose(trials, place, precision), layer, source
    )


def origin(name: str, models: Models) -> tuple[str | None, str | None]:
    """Layer and source line of an op, under any of the names that the casts give it."""
    names = (name, *(name + suffix for suffix in CAST_SUFFIXES), *(name.removesuffix(s) for s in CAST_SUFFIXES))
    layer = next((models.layers[n] for n in names if n in models.layers), None)
    return layer, next((models.lines[n] for n in names if n in models.lines), None)


def _allowed(trials: Trials, half: Function, tier: Tier, *, as_half: bool) -> tuple[Place, ...]:
    """Leave out what the float16 program computes in float32 anyway; under `cliffs` only the measured ops are accused.

    A conversion to float16 leaves casts as they are: one that turns floats into integers reads what its neighbour gives. Of a program
    that is in float16 already, casts are where it rounds.
    """
    kept = float32_names(half)
    if as_half:
        kept |= _casts(trials.function)
    places = tuple(place for place in trials.places if place.name not in kept)
    if tier is not Tier.CLIFFS:
        return places
    return tuple(place for place in places if place.type in MEASURED)


def _casts(exact: Function) -> frozenset[str]:
    """Names of the casts inside a program; one whose result is an output is rounded there."""
    outputs = {value.name for value in exact.body.outputs}
    return frozenset(v.name for op in exact.body.ops if op.type == "cast" for v in op.outputs) - outputs


def float32_names(half: Function, *, inputs: bool = True) -> frozenset[str]:
    """Names of what stays in float32 in a mixed program: ops, and inputs that are never cast."""
    ops = {v.name for op in half.body.ops if op.type != "cast" for v in op.outputs if _is(v.type, "float32")}
    if not inputs:
        return frozenset(ops)
    cast = {a.name for op in half.body.ops if op.type == "cast" for a in op.inputs["x"]}
    return frozenset(ops | {v.name for v in half.inputs if _is(v.type, "float32") and v.name not in cast})


def _is(kind: Any, dtype: str) -> bool:
    return isinstance(kind, TensorType) and kind.dtype == dtype


# ------------------------------------------------------------------------------------------------------------- integers


def narrowed(models: Models, sample: Sample) -> tuple[Suspect, ...]:
    """Find casts to a narrower integer that change a value, and name the op that reads them."""
    evaluator = load(models.float16)
    changed: dict[str, float] = {}

    def observe(op: Op, inputs: Mapping[str, Any], results: tuple[Any, ...]) -> None:
        if op.type == "cast" and _narrow(op) and not torch.equal(inputs["x"], results[0]):
            changed[op.outputs[0].name] = peak(inputs["x"].float())

    if not any(op.type == "cast" and _narrow(op) for op in evaluator.function.body.walk()):
        return ()
    evaluator.run(evaluator.features.read(sample), evaluator.make_state(), observe=observe)
    return tuple(
        _integer_suspect(op, changed[a.name], models)
        for op in evaluator.function.body.walk()
        for arguments in op.inputs.values()
        for a in arguments
        if not isinstance(a, Constant) and a.name in changed
    )


def _narrow(op: Op) -> bool:
    kind = op.outputs[0].type
    return isinstance(kind, TensorType) and kind.dtype in (SIGNED.keys() | UNSIGNED.keys())


def _integer_suspect(op: Op, top: float, models: Models) -> Suspect:
    name = op.outputs[0].name
    layer, source = origin(name, models)
    advice = "remove the pass common::add_int16_cast from the pass pipeline, or keep the values below 32,768"
    margin = f"integers up to {number(top)} are narrowed to 16 bits, which end at 32,767"
    cause = Diagnosis(Cause.INTEGERS, margin, advice, "https://github.com/apple/coremltools/issues/2222")
    return Suspect(op.type, name, 1.0, 1.0, cause, layer, source)
