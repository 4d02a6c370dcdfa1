# SPDX-License-Identifier: Apache-2.0
"""Runs a Core ML program on torch, anywhere. Imports nothing of `gate`.

    evaluator = gate.mil.load("Model.mlpackage")
    outputs = evaluator.predict({"image": pixels})

`gate.mil.weights.weights(load_program(path))` lists how each weight is stored. Light until one of the functions is called: torch, numpy and coremltools load then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gate.mil.errors import BadInput, BadPackage, MilError, OpFailed, Unsupported, UnsupportedOp

if TYPE_CHECKING:
    from gate.mil.evaluator import Evaluator
    from gate.mil.numerics import Rounding
    from gate.mil.program import Op, Program

__all__ = [
    "BadInput",
    "BadPackage",
    "MilError",
    "OpFailed",
    "Unsupported",
    "UnsupportedOp",
    "load",
    "load_program",
]


def load(
    model: Any, *, precision: str | Rounding | Callable[[Op], Rounding] = "declared", function: str | None = None
) -> Evaluator:
    """Load a path to a package, or a `coremltools.models.MLModel`, for evaluation."""
    from gate.mil import evaluator

    return evaluator.load(model, precision=precision, function=function)


def load_program(model: Any) -> Program:
    """Read what a package says, as records, without decoding a weight."""
    from gate.mil import program

    return program.load_program(model)
