# SPDX-License-Identifier: Apache-2.0
"""What is a weight called where a reader meets it? The same in every drawing of a report.

By its layer and the parameter that it is, such as `encoder.fc1.weight`: the name of the constant changes with precision and compression.
"""

from collections import Counter
from collections.abc import Sequence


def weight_label(layer: str | None, op: str, parameter: str) -> str:
    """Name a weight by its layer; where none is known, by the op that reads it."""
    return f"{layer or op}.{parameter}"


def apart(labels: Sequence[str], constants: Sequence[str]) -> tuple[str, ...]:
    """Add the constant's name where several weights have one label."""
    times = Counter(labels)
    return tuple(
        label if times[label] == 1 else f"{label} ({constant})"
        for label, constant in zip(labels, constants, strict=True)
    )
