# SPDX-License-Identifier: Apache-2.0
"""Which versions of which tools made the numbers? Numbers of other versions are not compared item by item."""

import importlib.metadata
import platform
from collections.abc import Mapping

from gate import __version__

NAMES = ("torch", "coremltools", "numpy", "scikit-learn", "onnxruntime")
ANSWERS_DEPEND_ON = ("coreml-gate", "coremltools", "numpy", "torch")  # they convert and evaluate; the others do not


def tool_versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on; what is not installed is left out."""
    found = {"coreml-gate": __version__, "python": platform.python_version()}
    for name in NAMES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def other_versions(earlier: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Say which tools that decide about answers differ, as `torch 2.7.0, now 2.13.0`."""
    return [
        f"{name} {earlier.get(name, 'unknown')}, now {now.get(name, 'absent')}"
        for name in ANSWERS_DEPEND_ON
        if earlier.get(name) != now.get(name)
    ]
