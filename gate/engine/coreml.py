# SPDX-License-Identifier: Apache-2.0
"""Apple's runtime as an engine. Needs macOS; needs no torch.

Not run where this was written (no Mac): it is written against coremltools' documented `MLModel.predict` and tested through a
double of `MLModel` that our evaluator answers.
"""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from gate.engine import plain
from gate.mil.program import load_program
from gate.report import Environment

Array = npt.NDArray[Any]


class CoreMLEngine:
    """Runs packages with Core ML."""

    def __init__(self, compute_units: str = "ALL") -> None:
        self._compute_units = compute_units

    @property
    def environment(self) -> Environment:
        """This Mac."""
        return Environment(
            engine="coreml",
            os=f"macOS {platform.mac_ver()[0]}",
            device=platform.machine(),
            compute_units=self._compute_units,
        )

    def load(self, package: Path, precision: str = "declared") -> "CoreMLSession":
        """Load (and compile) a package. Apple's runtime rounds as it does: only `declared` can be asked for."""
        if precision != "declared":
            raise ValueError(f"precision {precision!r}: Core ML runs the program as declared; use the mil engine")
        import coremltools as ct

        units = getattr(ct.ComputeUnit, self._compute_units)
        return CoreMLSession(ct.models.MLModel(str(package), compute_units=units), class_labels(package))


def class_labels(package: Path) -> list[Any]:
    """The labels of a classifier in the program's order, which Core ML's dictionary does not keep; empty for other models."""
    function = load_program(package).function(None)
    classify = next((op for op in function.body.walk() if op.type == "classify"), None)
    return list(classify.inputs["classes"][0].array) if classify else []  # type: ignore[union-attr]


class CoreMLSession:
    """A loaded model."""

    def __init__(self, model: Any, classes: Sequence[Any] = ()) -> None:
        self._model = model
        self._classes = classes

    def predict(self, samples: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
        """Return the outputs of each sample."""
        return [plain(self._model.predict(dict(sample)), self._classes) for sample in samples]
