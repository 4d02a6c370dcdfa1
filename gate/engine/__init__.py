# SPDX-License-Identifier: Apache-2.0
"""What runs a candidate? `mil` is ours and runs anywhere; `coreml` is Apple's runtime and needs macOS."""

import re
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gate.errors import UsageError
from gate.report import Environment

Array = npt.NDArray[Any]


class Session(Protocol):
    """A loaded package, ready to predict."""

    def predict(self, samples: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
        """Return the outputs of each sample."""
        ...


class Engine(Protocol):
    """Loads packages and says where its numbers come from."""

    @property
    def environment(self) -> Environment:
        """Where this engine's numbers come from."""
        ...

    def load(self, package: Path, precision: str = "declared") -> Session:
        """Load a package."""
        ...

    def on(self, compute_units: str) -> "Engine":
        """The same engine with another setting of compute units."""
        ...


def plain(outputs: Mapping[str, Any], classes: Sequence[Any] = ()) -> dict[str, Array]:
    """Return outputs as arrays; a classifier's probabilities become (1, n), in the order of `classes` where it is given."""
    return {name: _plain(value, classes) for name, value in outputs.items()}


def _plain(value: Any, classes: Sequence[Any]) -> Array:
    if not isinstance(value, Mapping):
        return np.asarray(value)
    return np.array([[value[label] for label in classes or value]], dtype=np.float32)


def has_torch() -> bool:
    """Can the evaluator and its decoders run here? A Mac that is handed packages needs neither."""
    try:
        return find_spec("torch") is not None
    except ImportError:
        return False


TEAM = re.compile(r"[A-Z0-9]{0,20}")  # coremltools puts it into a shell's line


def _refuse_device(engine: str, device: str, team: str) -> None:
    if engine == "mil":
        raise UsageError(f"--device {device}: timed by a Mac that it is connected to; expected --engine coreml, there")
    if not TEAM.fullmatch(team):
        raise UsageError(f"--development-team {team}: expected Apple's ten letters and digits, such as AB12CD34EF")


def make_engine(name: str, device: str = "", team: str = "") -> Engine:
    """Return the engine of a name: auto is coreml on a Mac and mil elsewhere. A connected device is timed beside the Mac itself."""
    if name == "auto":
        name = "coreml" if sys.platform == "darwin" else "mil"
    if device:
        _refuse_device(name, device, team)
    if name == "mil":
        from gate.engine.mil import MilEngine

        return MilEngine()
    if sys.platform != "darwin":
        raise UsageError(f"--engine coreml: found {sys.platform}, expected macOS; use --engine mil here, or auto")
    from gate.engine.coreml import Connected, CoreMLEngine

    return CoreMLEngine(connected=Connected(device, team) if device else None)
