# SPDX-License-Identifier: Apache-2.0
"""Where does a program that was converted wrongly leave one that is right: another route's, or the source itself?

Both run on the same input, and `gate.trail` finds where one computes what the other has nowhere. What the right program computes
there instead is named too, since an op that was dropped leaves nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gate.mil import MilError
from gate.mil.evaluator import Evaluator
from gate.mil.program import Constant, Op, Program, Value, load_program
from gate.protocol import SourceLine, SourceMap
from gate.report import Finding, Severity
from gate.source import Converted
from gate.suspects import suspects
from gate.trail import Seen, Step, Trail, see

Sample = Mapping[str, npt.NDArray[Any]]


def explain(wrong: Converted, right: Converted, samples: Sequence[Sample], folder: Path) -> Iterator[Finding]:
    """Name the op at which a wrong route goes wrong, and what is known about it; the team's files lie below `folder`."""
    for found in suspects(wrong.package, *_places(wrong.source_map), folder):
        yield found.model_copy(
            update={
                "rule": "convert.wrong_op",
                "severity": Severity.INFO,
                "message": f"route {wrong.route}: {found.message}"[:4_000],
            }
        )
    for sample in samples:
        parting = _parting(load_program(wrong.package), load_program(right.package), sample)
        if parting is not None:
            yield _finding(parting, wrong, right)
            return


def _places(source_map: SourceMap) -> tuple[dict[str, str], dict[str, str]]:
    ops = source_map.ops.items()
    return {n: line.layer for n, line in ops if line.layer}, {n: line.place for n, line in ops if line.place}


@dataclass(frozen=True)
class _Parting:
    """Where two programs part; one of the two ops is known."""

    op: Op | None
    instead: Op | None  # what the right program computes and the wrong one does not
    last: Op | None = None  # the last op of a wrong program that computes nothing which the right one lacks
    refused: str | None = None  # what the evaluator said where the wrong program does not even run


def _finding(parting: _Parting, wrong: Converted, right: Converted) -> Finding:
    ours, theirs = (
        one and (one, origins.ops.get(one.outputs[0].name))
        for one, origins in ((parting.op, wrong.source_map), (parting.instead, right.source_map))
    )
    message = f"route {wrong.route}: goes wrong"
    if ours:
        message += f" at {_told(*ours)}"
    elif parting.last is not None:
        message += f": it ends with {_told(parting.last, wrong.source_map.ops.get(parting.last.outputs[0].name))}"
    if parting.refused:
        message += f", which cannot run: {parting.refused}"
    if theirs:
        message += f"; route {right.route} computes {_told(*theirs)} instead"
    op, line = ours or theirs or (None, None)
    assert op is not None
    return Finding(
        rule="convert.wrong_op",
        severity=Severity.INFO,
        message=message[:4_000],
        advice="report it to coremltools, and keep the route that is right",
        op=f"{op.type} {op.outputs[0].name}",
        layer=line.layer if line else None,
        source=line.place if line else None,
    )


def _told(op: Op, line: SourceLine | None) -> str:
    return f"{op.type} {op.outputs[0].name}" + (f" (torch {line.torch})" if line and line.torch else "")


def _parting(wrong: Program, right: Program, sample: Sample) -> _Parting | None:
    """Compare the values of two programs on one input; None where their outputs agree."""
    theirs = _Run(right, sample)
    if theirs.refused:
        return None
    ours = _Run(wrong, sample)
    if ours.refused is not None:
        return _Parting(ours.refused, None, refused=ours.why)
    op, instead = ours.departs(theirs.trail), theirs.departs(ours.trail)
    return None if op is None and instead is None else _Parting(op, instead, ours.last)


class _Run:
    """A program's run on one input, and what it computed."""

    def __init__(self, program: Program, sample: Sample) -> None:
        inputs = program.function().inputs
        self.ops = tuple(program.function().body.walk())
        self.numbers = {v: n for n, v in enumerate((*inputs, *(v for op in self.ops for v in op.outputs)))}
        self.values: dict[int, Seen] = {
            self.numbers[v]: see(np.asarray(sample[v.name])) for v in inputs if v.name in sample
        }
        self.refused: Op | None = None
        self.why = ""
        evaluator = Evaluator(program, "float32")
        try:
            evaluator.predict(sample, evaluator.make_state(), observe=self._note)
        except MilError as error:
            self.refused = next(
                (op for op in self.ops if op.outputs and self.numbers[op.outputs[0]] not in self.values), None
            )
            self.why = str(error).split(": ", 1)[-1][:300]
        steps = tuple(Step(op.type, None, self._known(_reads(op)), self._known(op.outputs)) for op in self.ops)
        self.trail = Trail(steps, self.values, self._known(program.function().body.outputs))

    def _note(self, op: Op, _: Mapping[str, Any], results: tuple[Any, ...]) -> None:
        for value, result in zip(op.outputs, results, strict=True):
            if hasattr(result, "numel"):
                self.values[self.numbers[value]] = see(result.detach().numpy())

    def _known(self, values: Iterable[Value | Constant]) -> tuple[int, ...]:
        return tuple(self.numbers[v] for v in values if isinstance(v, Value) and v in self.numbers)

    @property
    def last(self) -> Op | None:
        """The op that makes the first output."""
        at = self.trail.ending()
        return None if at is None else self.ops[at]

    def departs(self, other: Trail) -> Op | None:
        at = self.trail.departure(other)
        return None if at is None or not self.ops[at].outputs else self.ops[at]


def _reads(op: Op) -> Iterator[Value]:
    return (a for given in op.inputs.values() for a in given if isinstance(a, Value))


# ------------------------------------------------------------------------------------------------ from the source itself


def leave(package: Path, source: Trail, sample: Sample, origins: Mapping[str, str]) -> Finding | None:
    """Name the op at which a program leaves its source, or the torch op that it lacks; None where neither can be told.

    `origins` says from which torch op a MIL op comes, as far as that is known.
    """
    run = _Run(load_program(package), sample)
    if run.refused is not None:
        return None
    op, at = run.departs(source), source.departure(run.trail)
    step = None if at is None else source.steps[at]
    if step and (op is None or _comes_later(origins.get(op.outputs[0].name), step, source.steps[at:])):
        after = f"; it ends with {run.last.type} {run.last.outputs[0].name}" if op is None and run.last else ""
        return _left(step.what, f"does not compute {step.what}{_at(step)}, as the source does{after}", step.place)
    if op is None:
        return None
    name = f"{op.type} {op.outputs[0].name}"
    instead = f"; the source computes {step.what}{_at(step)} there" if step else ""
    return _left(name, f"leaves the source at {name}{instead}", step.place if step else None)


def _comes_later(origin: str | None, missed: Step, after: Sequence[Step]) -> bool:
    """Does the source compute an op after the one that is missed, which then was dropped, and not converted wrongly?"""
    return origin != missed.what and any(step.what == origin for step in after)


def _at(step: Step) -> str:
    return f" ({step.place})" if step.place else ""


def _left(op: str, what: str, place: str | None) -> Finding:
    return Finding(
        rule="fidelity.departs",
        severity=Severity.WARNING,
        message=f"The float32 program {what}."[:4_000],
        advice="write this line with other operations, try another route, and report it to coremltools",
        op=op,
        source=place,
    )
