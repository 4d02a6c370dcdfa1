# SPDX-License-Identifier: Apache-2.0
"""Our evaluator as an engine: Core ML's declared types on torch, on any operating system."""

import io
import platform
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gate import mil
from gate.engine import plain
from gate.errors import UsageError
from gate.files import located, write_bytes
from gate.report import Environment

Array = npt.NDArray[Any]


class MilEngine:
    """Runs ML programs with `gate.mil`."""

    @property
    def environment(self) -> Environment:
        """Ours, on this machine's CPU."""
        return Environment(engine="mil", os=platform.system(), device=platform.machine(), compute_units="evaluator")

    def load(self, package: Path, precision: str = "declared") -> "MilSession":
        """Load a package; an op without a kernel is named before anything runs."""
        return MilSession(mil.load(package, precision=precision))

    def on(self, compute_units: str) -> "MilEngine":
        """Itself: the evaluator has one way to compute."""
        return self


class MilSession:
    """A loaded program."""

    def __init__(self, evaluator: Any) -> None:
        self._evaluator = evaluator

    def predict(self, samples: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
        """Return the outputs of each sample, several at once where they fit."""
        return [plain(outputs) for outputs in self._evaluator.predict_batch(dict(sample) for sample in samples)]


def run_file(package: Path, inputs: Path, out: Path, precision: str) -> list[str]:
    """Predict once with arrays from an .npz, write the outputs to an .npz, and tell their names, types and shapes."""
    if not inputs.is_file():
        raise UsageError(f"--inputs {inputs}: no such file")
    try:
        with np.load(inputs, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (ValueError, OSError, EOFError, AttributeError, MemoryError, zipfile.BadZipFile) as error:
        raise UsageError(f"--inputs {inputs}: expected an .npz of plain arrays: {error}") from None
    try:
        outputs = mil.load(package, precision=precision).predict(arrays)
    except mil.MilError as error:
        raise UsageError(located(package, error)) from None
    plain = {name: np.asarray(value) for name, value in outputs.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **plain)
    write_bytes(out, buffer.getvalue())
    return [f"{name}: {value.dtype} {list(value.shape)}" for name, value in plain.items()]
