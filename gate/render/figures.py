# SPDX-License-Identifier: Apache-2.0
"""How is a measurement written, so that value and limit can be told apart and nobody needs to know the unit?

Value and limit share unit and digits, and get as many digits as it takes to differ: never "6.00 MB of 6 MB: too large".
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from gate.quantity import duration, percent, points, significant, size, trimmed
from gate.report import Bound, Measurement, Unit

MOST_FIGURES = 15  # of a float
FLOOR = 1e-6  # of 1; below it a reader wants to know that it is next to nothing, not how many zeros it has
NONE = "–"


@dataclass(frozen=True)
class Figures:
    """One measurement in words."""

    value: str
    limit: str  # bare, "6 MB"
    bound: str  # with its side, "≤ 6 MB"
    before: str
    interval: str


@functools.lru_cache(maxsize=8_192)  # each view and each try at a shorter comment asks again
def figures(m: Measurement) -> Figures:
    """Write a measurement; what it lacks is a dash."""
    count = _figures_to_differ([v for v in (m.value, m.limit) if v is not None], m.unit)

    def show(value: float | None) -> str:
        return NONE if value is None else write(value, m.unit, count)

    limit = NONE if m.limit is None else plain(show(m.limit))
    side = "≥" if m.bound is Bound.AT_LEAST else "≤"
    return Figures(
        value=show(m.value),
        limit=limit,
        bound=NONE if m.limit is None else f"{side} {limit}",
        before=show(m.baseline),
        interval="" if m.low is None and m.high is None else f"{_end(m.low, m.unit)} to {_end(m.high, m.unit)}",
    )


def write(value: float, unit: Unit, count: int = 3) -> str:
    """Write one number with its unit."""
    text = _write(value, unit, count)
    return f"−{text[1:]}" if text.startswith("-") else text


def _write(value: float, unit: Unit, count: int) -> str:
    match unit:
        case Unit.BYTES:
            return size(value, count)
        case Unit.FRACTION:
            return f"< {percent(FLOOR)}" if 0 < abs(value) < FLOOR else percent(value, count)
        case Unit.POINTS:
            return points(value, count)
        case Unit.DECIBEL:
            return f"{trimmed(significant(value, count))} dB"
        case Unit.MILLISECONDS:
            return (
                duration(value / 1000) if value >= 1000 and count == 3 else f"{trimmed(significant(value, count))} ms"
            )
        case Unit.RATIO:
            return f"{trimmed(significant(value, count))} ×"
        case Unit.COUNT:
            return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
        case Unit.NUMBER:
            return f"{value:.{count}g}"


def _end(value: float | None, unit: Unit) -> str:
    return "?" if value is None else write(value, unit)


def _figures_to_differ(numbers: Sequence[float], unit: Unit) -> int:
    """Return how many figures tell the numbers apart, and a proportion from 100 %."""
    apart = list(numbers)
    if unit is Unit.FRACTION and all(abs(number) <= 1 for number in numbers):
        apart.append(1.0)
    distinct = [n for i, n in enumerate(apart) if not any(math.isclose(n, m, rel_tol=1e-9) for m in apart[:i])]
    for count in range(3, MOST_FIGURES):
        if len({write(number, unit, count) for number in distinct}) == len(distinct):
            return count
    return 3


def plain(shown: str) -> str:
    """Write a limit as its author did: 6 MB, not 6.00 MB."""
    number, _, unit = shown.partition(" ")
    return f"{trimmed(number)} {unit}".strip()


def is_size(m: Measurement) -> bool:
    """Is this a size on disk?"""
    return m.unit is Unit.BYTES
