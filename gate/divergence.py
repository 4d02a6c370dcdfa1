# SPDX-License-Identifier: Apache-2.0
"""Where does a route that converts wrongly leave the route that converts rightly?

Both float32 programs run on the same input. Routes decompose differently, so ops cannot be paired by name; but what both compute
appears in both, in whatever layout. The wrong output is followed back through values that the right program has nowhere: where that
begins is the op to look at. What the right program computes there instead is named too, since an op that was dropped leaves nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gate.mil import MilError
from gate.mil.evaluator import Evaluator
from gate.mil.program import Op, Program, Value, load_program
from gate.protocol import SourceLine, SourceMap
from gate.report import Finding, Severity
from gate.source import Converted
from gate.suspects import suspects

Array = npt.NDArray[Any]
Sample = Mapping[str, Array]
SAME = 1e-4  # of the largest value; healthy float32 noise is 2e-4 at worst (docs/checks.md)


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
    """Where two programs part."""

    op: Op
    instead: Op | None  # what the right program computes and the wrong one does not
    refused: str | None = None  # what the evaluator said where the wrong program does not even run


def _finding(parting: _Parting, wrong: Converted, right: Converted) -> Finding:
    line = wrong.source_map.ops.get(parting.op.name)
    message = f"route {wrong.route}: goes wrong at {_told(parting.op, line)}"
    if parting.refused:
        message += f", which cannot run: {parting.refused}"
    if parting.instead is not None:
        instead = _told(parting.instead, right.source_map.ops.get(parting.instead.name))
        message += f"; route {right.route} computes {instead} instead"
    return Finding(
        rule="convert.wrong_op",
        severity=Severity.INFO,
        message=message[:4_000],
        advice="report it to coremltools, and keep the route that is right",
        op=f"{parting.op.type} {parting.op.name}",
        layer=line.layer if line else None,
        source=line.place if line else None,
    )


def _told(op: Op, line: SourceLine | None) -> str:
    return f"{op.type} {op.name}" + (f" (torch {line.torch})" if line and line.torch else "")


def _parting(wrong: Program, right: Program, sample: Sample) -> _Parting | None:
    """Compare the values of two programs on one input; None where their outputs agree."""
    theirs = _Values(right, sample)
    if theirs.refused:
        return None
    ours = _Values(wrong, sample)
    if ours.refused is not None:
        return _Parting(ours.refused, None, ours.why)
    op = ours.first_unknown_to(theirs)
    return None if op is None else _Parting(op, theirs.first_unknown_to(ours))


class _Values:
    """Every value that a program computes for one input, sorted, so that layout does not matter."""

    def __init__(self, program: Program, sample: Sample) -> None:
        self.ops = tuple(program.function().body.walk())
        self.outputs = tuple(program.function().body.outputs)
        self.held: dict[Value, Array] = {}
        self.refused: Op | None = None
        self.why = ""
        evaluator = Evaluator(program, "float32")
        try:
            evaluator.predict(sample, evaluator.make_state(), observe=self._note)
        except MilError as error:
            self.refused = next((op for op in self.ops if op.outputs and op.outputs[0] not in self.held), None)
            self.why = str(error).split(": ", 1)[-1][:300]

    def _note(self, op: Op, _: Mapping[str, Any], results: tuple[Any, ...]) -> None:
        for value, result in zip(op.outputs, results, strict=True):
            if hasattr(result, "numel"):
                self.held[value] = np.sort(result.detach().float().numpy().reshape(-1))

    def first_unknown_to(self, other: "_Values") -> Op | None:
        """Follow the outputs back through values that the other program has nowhere; return where that begins."""
        by_size: dict[int, list[Array]] = {}
        for values in other.held.values():
            by_size.setdefault(values.size, []).append(values)
        unknown = {v for v, a in self.held.items() if not any(_same(a, b) for b in by_size.get(a.size, ()))}
        makers = {value: op for op in self.ops for value in op.outputs}
        wanted, reached = [v for v in self.outputs if v in unknown], set[Op]()
        while wanted:
            op = makers.get(wanted.pop())
            if op is not None and op not in reached:
                reached.add(op)
                wanted += [v for v in _reads(op) if v in unknown]
        starts = (op for op in self.ops if op in reached and not any(v in unknown for v in _reads(op)))
        return next(starts, None)


def _reads(op: Op) -> Iterator[Value]:
    return (a for given in op.inputs.values() for a in given if isinstance(a, Value))


def _same(a: Array, b: Array) -> bool:
    finite = np.abs(b[np.isfinite(b)])
    return bool(np.allclose(a, b, rtol=0, atol=SAME * (finite.max(initial=0) or 1), equal_nan=True))
