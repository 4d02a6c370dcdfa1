# SPDX-License-Identifier: Apache-2.0
"""What is a pitfall rule? A pure function over one function of a program, with its evidence and its advice.

A rule reads the program only; what depends on the data belongs to the checks that run the model. `off` names the compute units that
an op found by the rule is not eligible for: eligible means that no rule speaks against it, not that Core ML will place it there.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from gate.mil.features import Features, read_features
from gate.mil.program import Argument, Constant, Op, Program, TensorType, Value
from gate.report import Finding, Severity
from gate.shapes import Sizes


class Unit(StrEnum):
    """Where Core ML can run an op."""

    CPU = "CPU"
    GPU = "GPU"
    NEURAL_ENGINE = "Neural Engine"


@dataclass(frozen=True)
class Scene:
    """What a rule may look at."""

    sizes: Sizes
    features: Features
    ops: tuple[Op, ...]  # that run, nested ones too
    made: Mapping[Value, Op]

    @cached_property
    def mixed(self) -> bool:
        """Does the program compute in float16 at all?"""
        return any(dtype(value) == "float16" for op in self.ops for value in op.outputs)

    @cached_property
    def _read(self) -> Mapping[Value, tuple[Op, ...]]:
        read: dict[Value, tuple[Op, ...]] = {}
        for op in self.ops:
            for value in {a for given in op.inputs.values() for a in given if isinstance(a, Value)}:
                read[value] = (*read.get(value, ()), op)
        return read

    def readers(self, op: Op, *types: str) -> tuple[Op, ...]:
        """Return the ops that read a result of this one; only those of the types, where some are given."""
        found = (reader for value in op.outputs for reader in self._read.get(value, ()))
        return tuple(reader for reader in found if not types or reader.type in types)

    def maker(self, op: Op, parameter: str) -> Op | None:
        """Return the op that made an argument."""
        given = op.inputs.get(parameter, ())
        return self.made.get(given[0]) if given and isinstance(given[0], Value) else None


def make_scene(program: Program, sizes: Sizes) -> Scene:
    """Gather what the rules look at."""
    ops = tuple(op for op in sizes.function.body.walk() if not op.type.startswith("constexpr_"))
    return Scene(sizes, read_features(program, sizes.function), ops, {v: op for op in ops for v in op.outputs})


@dataclass(frozen=True)
class Hit:
    """Where a rule applies; without an op, to the whole function."""

    op: Op | None
    what: str  # "dilations [2, 2]": reads on after the op's name


@dataclass(frozen=True)
class Rule:
    """One thing that is known to go wrong."""

    id: str
    severity: Severity
    means: str  # one sentence: what happens
    advice: str
    evidence: str
    find: Callable[[Scene], Iterator[Hit]]
    off: tuple[Unit, ...] = ()


MOST_NAMED = 3


def finding(rule: Rule, hits: tuple[Hit, ...]) -> Finding:
    """Write the hits of one rule as one finding, about the first op."""
    first = hits[0].op
    shown = ", ".join(f"{h.op.name} ({h.what})" if h.op and h.what else h.op.name if h.op else h.what for h in hits[:3])
    more = f" and {len(hits) - MOST_NAMED} more" if len(hits) > MOST_NAMED else ""
    return Finding(
        rule=rule.id,
        severity=rule.severity,
        message=f"{rule.means} Found: {shown}{more}."[:4_000],
        advice=rule.advice,
        op=f"{first.type} {first.name}" if first else None,
        evidence=rule.evidence,
    )


def dtype(argument: Argument) -> str:
    """Return the element type of a tensor."""
    return argument.type.dtype if isinstance(argument.type, TensorType) else ""


def numbers(op: Op, parameter: str) -> list[int]:
    """Return the integers of a constant parameter; empty when it is absent or computed."""
    given = op.inputs.get(parameter, ())
    found = given[0] if len(given) == 1 else None
    return [int(n) for n in found.array.reshape(-1).tolist()] if isinstance(found, Constant) else []
