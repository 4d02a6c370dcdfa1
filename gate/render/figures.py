# SPDX-License-Identifier: Apache-2.0
"""How is a measurement written, so that value and limit can be told apart and nobody needs to know the unit?

Value and limit share unit and digits, and get as many digits as it takes to differ: never "6.00 MB of 6 MB: too large".
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from gate.quantity import duration, percent, points, significant, size, trimmed
from gate.render.escape import clip
from gate.report import Bound, Candidate, CheckName, Measurement, Outcome, Result, Unit

MAX_TITLE = 40
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


def deciding(result: Result) -> Measurement | None:
    """Return the number that a reader understands: of a failure the first beyond its limit, else the first.

    A signal-to-noise ratio only where nothing else has a limit.
    """
    others = [m for m in result.measurements if not _is_ratio(m)]
    held = any(m.limit is not None for m in others)
    readable = [] if held else [m for m in result.measurements if _is_ratio(m) and m.limit is not None]
    readable += others
    beyond = [m for m in readable if result.outcome is Outcome.FAIL and not keeps(m)]
    return next(iter([*beyond, *readable]), None)


def _is_ratio(m: Measurement) -> bool:
    """Is it an output's signal-to-noise ratio? (A metric in decibels is none.)"""
    return m.name.startswith("snr:")


def keeps(m: Measurement) -> bool:
    """Is the number itself on the right side of its limit? (The verdict may look at its interval.)"""
    if m.limit is None:
        return True
    return m.value >= m.limit if m.bound is Bound.AT_LEAST else m.value <= m.limit


def level(result: Result) -> Measurement | None:
    """Return the metric itself, where the deciding number may be its drop."""
    return next((m for m in result.measurements if not _is_ratio(m) and not is_drop(m)), None)


def is_drop(m: Measurement) -> bool:
    """Does it count what was lost, and not what is left?"""
    name = m.name.split(":")[0]  # what follows is a slice, class or output
    return name.endswith("_drop") or name == "drop"


def title(m: Measurement) -> str:
    """Name a number; what follows a colon is an output's name, which is for engineers."""
    return clip(m.name.split(":")[0].replace("_", " "), MAX_TITLE)


def against_limit(m: Measurement) -> str:
    """Write a number against its limit: 6.41 MB of 6 MB allowed."""
    shown = figures(m)
    if m.limit is None:
        return shown.value
    if is_size(m) and m.bound is Bound.AT_MOST:
        return f"{shown.value} of {shown.limit} allowed"
    side = f"at least {shown.limit} needed" if m.bound is Bound.AT_LEAST else f"at most {shown.limit} allowed"
    return f"{title(m)} {shown.value}, {side}"


def package_bytes(candidate: Candidate) -> float | None:
    """Return the size of a candidate's package, as the `size` check measured it."""
    return next(
        (m.value for r in candidate.results if r.check is CheckName.SIZE for m in r.measurements if is_size(m)), None
    )


def accuracy_words(candidate: Candidate) -> str:
    """Write how good a candidate's answers are, over all items: accuracy 97.2 %."""
    found = [r for r in candidate.results if r.check is CheckName.ACCURACY and not r.slice]
    metric = next((m for result in found if (m := level(result))), None)
    if metric is not None:
        return f"{title(metric)} {figures(metric).value}"
    return "answers identical" if any(result.identical for result in found) else ""


def accuracy_value(candidate: Candidate) -> str:
    """Write the same for a column that is called accuracy."""
    return accuracy_words(candidate).removeprefix("accuracy ").removeprefix("answers ")


def merits(candidate: Candidate) -> list[str]:
    """Size and accuracy of a candidate: 4.10 MB, accuracy 97.2 %."""
    bytes_ = package_bytes(candidate)
    return [text for text in (write(bytes_, Unit.BYTES) if bytes_ else "", accuracy_words(candidate)) if text]
