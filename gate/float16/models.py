# SPDX-License-Identifier: Apache-2.0
"""Which packages are one model in both precisions? Light, so that a Mac without torch can judge them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Models:
    """One model in both precisions, and what is known about where its ops come from."""

    float16: Path
    float32: Path | None = None  # None: a finished float16 package, compared with itself run in float32
    layers: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, str] = field(default_factory=dict)
