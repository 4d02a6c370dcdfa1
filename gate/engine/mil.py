# SPDX-License-Identifier: Apache-2.0
"""Our evaluator as an engine: Core ML's declared types on torch, on any operating system."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from gate import mil
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


class MilSession:
    """A loaded program."""

    def __init__(self, evaluator: Any) -> None:
        self._evaluator = evaluator

    def predict(self, samples: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
        """Return the outputs of each sample."""
        return [self._evaluator.predict(dict(sample)) for sample in samples]
