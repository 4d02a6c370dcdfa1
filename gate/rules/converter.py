# SPDX-License-Identifier: Apache-2.0
"""Which ops of a program are traces of what coremltools 9.0 is known to convert wrongly?

A trace alone proves nothing where the same ops may be what the author wrote, and the harm takes certain values: these are warnings, and
`fidelity` decides with numbers. `gate.suspects` asks the same questions of a program that was found wrong. Each bug is mended on
coremltools' main.
"""

from collections.abc import Callable, Iterator

from gate.mil.program import Constant, Op
from gate.report import Severity
from gate.rules.base import Hit, Rule, Scene

COREMLTOOLS = "https://github.com/apple/coremltools"
LEAST_HARMFUL_EPSILON = 1e-6


def is_inflated_norm(op: Op, scene: Scene) -> bool:
    """Is it the sum with epsilon in rms_norm's lowering, whose mean square was divided by max|x|² before?"""
    mean = scene.maker(op, "x") if op.type == "add" else None
    square = scene.maker(mean, "x") if mean is not None and mean.type == "reduce_mean" else None
    scaled = scene.maker(square, "x") if square is not None and square.type in ("square", "pow", "mul") else None
    largest = scene.maker(scaled, "y") if scaled is not None and scaled.type == "real_div" else None
    return largest is not None and largest.type == "reduce_max"


def is_inflated_inverse(op: Op, _: Scene) -> bool:
    """Does it add a large epsilon to what it divides by?"""
    epsilons = [a.array for a in op.inputs.get("epsilon", ()) if isinstance(a, Constant)]
    return op.type == "inverse" and any(float(e) >= LEAST_HARMFUL_EPSILON for e in epsilons)


def is_quadrant_arctangent(op: Op, scene: Scene) -> bool:
    """Is it atan of a quotient, chosen among quadrants afterwards: the lowering of atan2?"""
    quotient = scene.maker(op, "x") if op.type == "atan" else None
    return quotient is not None and quotient.type == "real_div" and bool(scene.readers(op, "add", "sub", "select"))


def is_infinite_triangle(op: Op, scene: Scene) -> bool:
    """Is it x minus a band of x: the lowering of triu, which is NaN where x is infinite?"""
    band = scene.maker(op, "y") if op.type == "sub" else None
    return band is not None and band.type == "band_part" and band.inputs["x"] == op.inputs["x"]


def _each(fits: Callable[[Op, Scene], bool], what: str) -> Callable[[Scene], Iterator[Hit]]:
    return lambda scene: (Hit(op, what) for op in scene.ops if fits(op, scene))


RULES = (
    Rule(
        "converter.rms-norm", Severity.WARNING,
        "coremltools converts rms_norm with its epsilon multiplied by max|x|², and to NaN for rows of zeros.",
        "write the norm by hand: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)",
        f"{COREMLTOOLS}/issues/2821", _each(is_inflated_norm, "where epsilon is added"),
    ),
    Rule(
        "converter.inverse", Severity.WARNING, "coremltools converts 1/x to 1/(x + 1e-4): wrong near zero.",
        "write torch.ones_like(x) / x, or use a newer coremltools", f"{COREMLTOOLS}/pull/2773",
        _each(is_inflated_inverse, "epsilon of 1e-6 or more"),
    ),
    Rule(
        "converter.atan2", Severity.WARNING,
        "coremltools converts atan2 by quadrants: wrong where y is 0 and x is negative.",
        "write the angle with your own formula, or use a newer coremltools", f"{COREMLTOOLS}/pull/2769",
        _each(is_quadrant_arctangent, "atan of a quotient"),
    ),
    Rule(
        "converter.triu", Severity.WARNING,
        "coremltools converts triu to x minus a band of x: NaN where x is infinite, as in a mask.",
        "make the mask a constant, or use torch.where", f"{COREMLTOOLS}/pull/2771",
        _each(is_infinite_triangle, "minus its band"),
    ),
)  # fmt: skip
