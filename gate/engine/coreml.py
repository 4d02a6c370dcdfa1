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
from gate.errors import NoAnswer
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
        """Load (and compile) a package. Apple's runtime rounds as declared: in float32 it runs float32 packages only."""
        if precision != "declared" and not (precision == "float32" and _is_float32(package)):
            raise NoAnswer(f"precision {precision!r}: Core ML runs the program as declared; use --engine mil for this")
        return CoreMLSession(self._model(package), class_labels(package))

    def compiled_bytes(self, package: Path) -> int:
        """Size of the .mlmodelc that Core ML compiles a package to, which is what an app bundles."""
        folder = Path(self._model(package).get_compiled_model_path())
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    def _model(self, package: Path) -> Any:
        import coremltools as ct

        return ct.models.MLModel(str(package), compute_units=getattr(ct.ComputeUnit, self._compute_units))


def _is_float32(package: Path) -> bool:
    """Has the program no float16 result at all?"""
    ops = (op for function in load_program(package).functions.values() for op in function.body.walk())
    return all(getattr(value.type, "dtype", None) != "float16" for op in ops for value in op.outputs)


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
