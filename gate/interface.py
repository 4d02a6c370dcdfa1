# SPDX-License-Identifier: Apache-2.0
"""What does the app's code see of a model, and which changes of it break that code?

Core ML is called by name; Xcode's generated class also fixes the order of inputs and the Swift type of each feature. A change is
breaking where code or data that worked with the old model no longer do.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gate.mil import MilError
from gate.mil.features import Feature, read_features
from gate.mil.program import Constant, Program, load_program
from gate.report import Interface, InterfaceFeature


@dataclass(frozen=True)
class Change:
    """One difference between two interfaces."""

    breaking: bool
    what: str
    rule: str  # added, removed, renamed, order, type, shape, labels


def interface_of(package: Path) -> Interface | None:
    """Describe a package; None where it is no ML program."""
    try:
        return read_interface(load_program(package))
    except MilError:
        return None


def read_interface(program: Program) -> Interface:
    """Describe the default function, and the labels of a classifier."""
    features = read_features(program, program.function())
    description = program.spec.description
    labels = _labels(program)
    return Interface(
        inputs=tuple(map(_record, features.inputs)),
        outputs=tuple(map(_record, features.outputs)),
        states=tuple(map(_record, features.states)),
        functions=tuple(sorted(program.functions)),
        predicted_class=description.predictedFeatureName or None,
        probabilities=description.predictedProbabilitiesName or None,
        classes=len(labels) if labels else None,
        classes_digest=hashlib.sha256("\0".join(labels).encode()).hexdigest() if labels else None,
    )


def _labels(program: Program) -> tuple[str, ...]:
    for op in program.function().body.walk():
        given = op.inputs.get("classes", ()) if op.type == "classify" else ()
        if given and isinstance(given[0], Constant):
            held: Any = given[0].immediate
            return tuple(map(str, held if isinstance(held, list) else held.reshape(-1).tolist()))
    return ()


def _record(feature: Feature) -> InterfaceFeature:
    return InterfaceFeature(
        name=feature.name,
        kind=feature.kind.value,
        dtype=feature.dtype,
        shape=feature.shape,
        enumerated=feature.enumerated,
        ranges=feature.ranges,
        optional=feature.optional,
        color=feature.color,
    )


def changes(old: Interface, new: Interface) -> tuple[Change, ...]:
    """List what is different, inputs first."""
    return (
        *_features("input", old.inputs, new.inputs),
        *_features("output", old.outputs, new.outputs),
        *_features("state", old.states, new.states),
        *_classifier(old, new),
        *_functions(old.functions, new.functions),
    )


def _features(role: str, old: Sequence[InterfaceFeature], new: Sequence[InterfaceFeature]) -> Iterator[Change]:
    before, after = ({f.name: f for f in side} for side in (old, new))
    gone = [f for f in old if f.name not in after]
    come = [f for f in new if f.name not in before]
    for feature in gone:
        twin = next((f for f in come if f.model_copy(update={"name": feature.name}) == feature), None)
        if twin is not None and len(gone) == len(come):
            come.remove(twin)
            yield Change(True, f"{role} {feature.name!r} is now called {twin.name!r}", "renamed")
        else:
            yield Change(True, f"{role} {feature.name!r} is gone", "removed")
    for feature in come:
        needed = role == "input" and not feature.optional
        yield Change(needed, f"{role} {feature.name!r} is new{' and required' if needed else ''}", "added")
    yield from _order(role, [f.name for f in old if f.name in after], [f.name for f in new if f.name in before])
    for name, feature in before.items():
        if name in after:
            yield from _feature(f"{role} {name!r}", role, feature, after[name])


def _order(role: str, old: list[str], new: list[str]) -> Iterator[Change]:
    if old != new:
        told = f"the order of {role}s is now {', '.join(new)}; it was {', '.join(old)}"
        yield Change(role == "input", told, "order")  # a generated class takes its arguments in this order


def _feature(name: str, role: str, old: InterfaceFeature, new: InterfaceFeature) -> Iterator[Change]:
    for what in ("kind", "dtype", "color"):
        before, after = getattr(old, what), getattr(new, what)
        if before != after:
            yield Change(True, f"{name}: {what} was {before or 'none'}, is {after or 'none'}", "type")
    if (old.shape, old.enumerated, old.ranges) != (new.shape, new.enumerated, new.ranges):
        kept = role == "input" and _accepts(new, old)
        yield Change(not kept, f"{name}: shape was {shapes(old)}, is {shapes(new)}", "shape")
    if old.optional != new.optional:
        yield Change(old.optional, f"{name}: {'optional' if new.optional else 'required'} now", "type")


def _accepts(new: InterfaceFeature, old: InterfaceFeature) -> bool:
    """Does the new input take every shape that the old one took?"""
    if old.enumerated or not old.ranges:
        return all(_takes(new, shape) for shape in (*old.enumerated, old.shape) if shape)
    return len(new.ranges) == len(old.ranges) and all(
        low <= before and (math.inf if high is None else high) >= (math.inf if after is None else after)
        for (low, high), (before, after) in zip(new.ranges, old.ranges, strict=True)
    )


def _takes(feature: InterfaceFeature, shape: tuple[int, ...]) -> bool:
    if feature.enumerated:
        return shape in feature.enumerated
    if feature.ranges:
        return len(shape) == len(feature.ranges) and all(
            low <= n <= (math.inf if high is None else high)
            for n, (low, high) in zip(shape, feature.ranges, strict=True)
        )
    return shape == feature.shape


def shapes(feature: InterfaceFeature) -> str:
    """Say which shapes a feature has."""
    if feature.enumerated:
        return " or ".join(str(list(shape)) for shape in feature.enumerated)
    if feature.ranges:
        sizes = (str(low) if low == high else f"{low}…{'' if high is None else high}" for low, high in feature.ranges)
        return f"[{', '.join(sizes)}]"
    return str(list(feature.shape))


def _classifier(old: Interface, new: Interface) -> Iterator[Change]:
    for what in ("predicted_class", "probabilities"):
        before, after = getattr(old, what), getattr(new, what)
        if before != after:
            told = what.replace("_", " ")
            yield Change(before is not None, f"{told} was {before or 'none'}, is {after or 'none'}", "labels")
    if old.classes_digest != new.classes_digest:
        count = f"{old.classes or 0} before, {new.classes or 0} now"
        yield Change(old.classes is not None, f"the class labels, or their order, are different ({count})", "labels")


def _functions(old: tuple[str, ...], new: tuple[str, ...]) -> Iterator[Change]:
    if old and new and old != new and not (len(old) == len(new) == 1):
        gone = sorted({*old} - {*new})
        told = f"functions were {', '.join(old)}, are {', '.join(new)}"
        yield Change(bool(gone), told, "removed" if gone else "added")
