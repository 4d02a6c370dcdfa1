# SPDX-License-Identifier: Apache-2.0
"""Which op of a float32 program looks like the converter's own wrong code?

coremltools 9.0 has bugs that leave a pattern in the program. They are looked for once `fidelity` has failed, to name the op; a pattern
alone proves nothing, since the same ops may be what the author wrote. Each is mended on coremltools' main.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gate.mil.program import Constant, Op, load_program
from gate.report import Finding, Severity
from gate.rules import converter
from gate.rules.base import Scene, make_scene
from gate.shapes import Sizes

INT32_ENDS = (2**31 - 1, -(2**31) + 1, -(2**31))
ARITHMETIC = frozenset({"add", "sub", "mul", "mod", "floor_div", "real_div", "pow", "maximum", "minimum"})


@dataclass(frozen=True)
class Pattern:
    """A trace that one bug leaves."""

    rule: str
    says: str
    advice: str
    evidence: str
    fits: Callable[[Op, Scene], bool]
    code: str = ""  # what the author's line must contain


def suspects(package: Path, layers: Mapping[str, str], lines: Mapping[str, str], folder: Path) -> Iterator[Finding]:
    """Name the ops that fit a known pattern; the author's files, below `folder`, are read as text only."""
    program = load_program(package)
    scene = make_scene(program, Sizes(program.function(), {}))  # patterns do not look at sizes
    for op in scene.ops:
        name = op.outputs[0].name if op.outputs else ""
        for pattern in PATTERNS:
            if name and pattern.fits(op, scene) and pattern.code in _line(lines.get(name), folder):
                yield Finding(
                    rule=pattern.rule,
                    severity=Severity.WARNING,
                    op=f"{op.type} {name}",
                    layer=layers.get(name),
                    source=lines.get(name),
                    message=pattern.says,
                    advice=pattern.advice,
                    evidence=pattern.evidence,
                )


def _line(place: str | None, folder: Path) -> str:
    """Read the line that a place such as model.py:41 names; empty where there is none."""
    file, _, number = (place or "").rpartition(":")
    path = (folder / file).resolve()
    if not file or not number.isdigit() or not path.is_relative_to(folder.resolve()) or not path.is_file():
        return ""
    rows = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return rows[int(number) - 1] if 0 < int(number) <= len(rows) else ""


def _constants(op: Op) -> Iterator[Any]:
    for arguments in op.inputs.values():
        for argument in arguments:
            if isinstance(argument, Constant) and argument.array.dtype.kind in "iuf":
                yield argument.array


def _saturated(op: Op, _: Scene) -> bool:
    return op.type in ARITHMETIC and any(
        a.dtype.kind == "i" and bool(np.isin(a, INT32_ENDS).any()) for a in _constants(op)
    )


COREMLTOOLS = "https://github.com/apple/coremltools"
PATTERNS = (
    Pattern(
        "fidelity.saturated_integer",
        "A constant is the largest 32-bit integer: a 64-bit constant was cut down to it without a word.",
        "do 64-bit hashing outside the model",
        f"{COREMLTOOLS}/issues/2193",
        _saturated,
    ),
    Pattern(
        "fidelity.inverse",
        "1/x is computed as 1/(x + 1e-4), which is wrong near zero.",
        "write torch.ones_like(x) / x, or use a newer coremltools",
        f"{COREMLTOOLS}/pull/2773",
        converter.is_inflated_inverse,
    ),
    Pattern(
        "fidelity.atan2",
        "atan2 is computed by quadrants, and wrong where y is 0 and x is negative.",
        "write the angle with your own formula, or use a newer coremltools",
        f"{COREMLTOOLS}/pull/2769",
        converter.is_quadrant_arctangent,
    ),
    Pattern(
        "fidelity.rms_norm",
        "rms_norm multiplies its epsilon by max|x|², and gives NaN for rows of zeros.",
        "write the norm by hand: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)",
        f"{COREMLTOOLS}/issues/2821",
        converter.is_inflated_norm,
    ),
    Pattern(
        "fidelity.triu",
        "triu is computed as x minus a band of x, which is not a number where x is infinite.",
        "make the mask a constant, or use torch.where",
        f"{COREMLTOOLS}/pull/2771",
        converter.is_infinite_triangle,
    ),
    Pattern(
        "fidelity.gelu",
        "The argument approximate of gelu is dropped on the export route.",
        "use the trace route, or write the approximation out",
        f"{COREMLTOOLS}/issues/2863",
        lambda op, _: op.type == "gelu",
        code="approximate=",
    ),
    Pattern(
        "fidelity.alpha",
        "The argument alpha of an addition or subtraction is dropped on the export route.",
        "multiply explicitly: x + alpha * y",
        f"{COREMLTOOLS}/pull/2680",
        lambda op, _: op.type in ("add", "sub"),
        code="alpha=",
    ),
)
