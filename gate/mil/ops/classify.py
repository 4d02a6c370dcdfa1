# SPDX-License-Identifier: Apache-2.0
"""The last op of a classifier: which class, and how probable is each?"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gate.mil.ops.registry import Result, kernel


@kernel(batch=False)
def classify(probabilities: Tensor, classes: Any) -> Result:
    """Return the most probable class (the first of several) and a dict of all."""
    flat = probabilities.reshape(-1)
    if flat.numel() != len(classes):
        raise ValueError(f"{flat.numel()} probabilities for {len(classes)} classes")
    return classes[int(flat.argmax())], dict(zip(classes, flat.tolist(), strict=True))
