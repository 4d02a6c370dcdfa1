# SPDX-License-Identifier: Apache-2.0
"""Runs a Core ML program on torch, anywhere. Imports nothing of `gate`; light until `load` is called."""

from typing import Any

from gate.mil.errors import BadInput, BadPackage, MilError, OpFailed, Unsupported, UnsupportedOp

__all__ = ["BadInput", "BadPackage", "MilError", "OpFailed", "Unsupported", "UnsupportedOp", "load"]


def load(model: Any, *, precision: Any = "declared", function: str | None = None) -> Any:
    """Load a path to a package, or a `coremltools.models.MLModel`; see `gate.mil.evaluator.Evaluator`."""
    from gate.mil.evaluator import load as load_evaluator

    return load_evaluator(model, precision=precision, function=function)
