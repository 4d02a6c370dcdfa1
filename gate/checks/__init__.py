# SPDX-License-Identifier: Apache-2.0
"""The checks, in the order in which a report shows them. `app_size` is about the app and is asked once, by the pipeline."""

from gate.checks import accuracy, feasibility, fidelity, float16, integrity, interface, latency, memory, size
from gate.checks.base import Check

CHECKS: tuple[Check, ...] = (
    feasibility.CHECK,
    fidelity.CHECK,
    integrity.CHECK,
    interface.CHECK,
    float16.CHECK,
    size.CHECK,
    memory.CHECK,
    accuracy.CHECK,
    latency.CHECK,
)
