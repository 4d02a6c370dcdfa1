# SPDX-License-Identifier: Apache-2.0
"""How are sizes, percentages, points, decibels and durations written, read and shown?

A quantity carries its unit in the file: `6 MB` (decimal, as Apple prints it), `6 MiB`, `0.1 %`, `1 point`, `40 dB`, `10 min`.
A bare number is refused where it could mean two things.
"""

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

SIZE_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
TIME_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
LARGEST_SIZE = 10**15
LONGEST_SECONDS = 7 * 24 * 3600.0
_NUMBER = re.compile(r"^\s*([+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([^\d\s].*?)?\s*$")


def _split(value: Any, expected: str) -> tuple[float, str]:
    """Split `6 MB` into (6.0, "MB"); a ValueError says what was expected."""
    match = _NUMBER.match(value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"found {value!r}, expected {expected}")
    return float(match[1]), (match[2] or "").strip()


def _not_negative(number: float, text: Any, expected: str) -> float:
    if not 0 <= number < float("inf"):
        raise ValueError(f"found {text!r}, expected {expected}, not negative and finite")
    return number


def parse_size(value: Any) -> int:
    """Read `6 MB`, `6 MiB` or a whole number of bytes, in bytes."""
    expected = "a size such as 6 MB (decimal) or 6 MiB"
    if isinstance(value, int) and not isinstance(value, bool):
        return _plausible_size(value, value, expected)
    number, unit = _split(value, expected)
    if unit.upper() not in SIZE_UNITS:
        raise ValueError(f"found {value!r}, expected {expected}")
    if unit.endswith("b") and unit[0].isupper():
        meant = unit[:-1] + "B"
        raise ValueError(f"found {value!r}, expected {expected} (did you mean {meant}? a small b stands for bits)")
    return _plausible_size(number * SIZE_UNITS[unit.upper()], value, expected)


def _plausible_size(count: float, text: Any, expected: str) -> int:
    if not 0 <= count <= LARGEST_SIZE:
        raise ValueError(f"found {text!r}, expected {expected}, not negative and at most 1 PB")
    return round(count)


def parse_fraction(value: Any) -> float:
    """Read `0.1 %` as 0.001. A bare number is refused: 2 could mean 2 % or 200 %."""
    expected = "a percentage such as 2 %"
    number, unit = _split(
        str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value, expected
    )
    if unit != "%":
        raise ValueError(f"found {value!r}, expected {expected} (write the % sign)")
    return _not_negative(number, value, expected) / 100


def parse_proportion(value: Any) -> float:
    """Read a percentage that cannot exceed 100 %."""
    fraction = parse_fraction(value)
    if fraction > 1:
        raise ValueError(f"found {value!r}, expected a percentage of at most 100 %")
    return fraction


def parse_decibel(value: Any) -> float:
    """Read `40 dB` as 40.0."""
    number, unit = _split(value, "a level such as 40 dB")
    if unit.lower() != "db":
        raise ValueError(f"found {value!r}, expected a level such as 40 dB")
    return number


def parse_duration(value: Any) -> float:
    """Read `10 min`, `30 s`, `5 ms` or `2 h`, in seconds."""
    expected = "a duration such as 10 min or 30 s"
    number, unit = _split(value, expected)
    seconds = number * TIME_UNITS.get(unit, 0.0)
    if not 0 < seconds <= LONGEST_SECONDS:
        raise ValueError(f"found {value!r}, expected {expected}, above zero and at most 7 days (168 h)")
    return seconds


class ChangeKind(StrEnum):
    """What a change is measured in."""

    POINTS = "points"
    RELATIVE = "relative"
    OWN_UNIT = "own unit"
    BYTES = "bytes"


@dataclass(frozen=True)
class Change:
    """How much a figure may move: 1 point (0.01 of a proportion), 5 % of the old value, 2 MB, or 0.3 in a metric's own unit."""

    value: float
    kind: ChangeKind

    def __str__(self) -> str:
        match self.kind:
            case ChangeKind.POINTS:
                return points(self.value)
            case ChangeKind.RELATIVE:
                return percent(self.value)
            case ChangeKind.BYTES:
                return size(self.value)
            case ChangeKind.OWN_UNIT:
                return f"{self.value:g}"


def parse_drop(value: Any) -> Change:
    """Read the margin of a metric: `1 point`, `5 %` (relative; refused for proportions later) or a number in its own unit."""
    expected = "points (1 point), or for a metric that is no proportion a number in its own unit or a relative 5 %"
    if isinstance(value, Change):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Change(_not_negative(float(value), value, expected), ChangeKind.OWN_UNIT)
    number, unit = _split(value, expected)
    number = _not_negative(number, value, expected)
    if unit in ("point", "points"):
        if number > 100:
            raise ValueError(f"found {value!r}, expected at most 100 points: a proportion has no more to lose")
        return Change(number / 100, ChangeKind.POINTS)
    if unit == "%":
        return Change(number / 100, ChangeKind.RELATIVE)
    if unit == "":
        return Change(number, ChangeKind.OWN_UNIT)
    raise ValueError(f"found {value!r}, expected {expected}")


def parse_growth(value: Any) -> Change:
    """Read how much a size may grow: `5 %` of the baseline or `2 MB`."""
    if isinstance(value, Change):
        return value
    if isinstance(value, str) and value.strip().endswith("%"):
        return Change(parse_fraction(value), ChangeKind.RELATIVE)
    return Change(float(parse_size(value)), ChangeKind.BYTES)


def parse_level(value: Any) -> float:
    """Read a floor of a metric: `92 %` as 0.92, or a number in the metric's own unit."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return parse_fraction(value)


def _schema(pattern: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


_DIGITS = r"^\s*\d+(\.\d+)?\s*"
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": LARGEST_SIZE},
                {"type": "string", "pattern": rf"{_DIGITS}([kKMG]i?)?B\s*$"},
            ],
            "examples": ["6 MB"],
        }
    ),
]
Fraction = Annotated[float, BeforeValidator(parse_fraction), _schema(rf"{_DIGITS}%\s*$", "2 %")]
Proportion = Annotated[float, BeforeValidator(parse_proportion), _schema(rf"{_DIGITS}%\s*$", "50 %")]
Decibel = Annotated[float, BeforeValidator(parse_decibel), _schema(r"^\s*-?\d+(\.\d+)?\s*[dD][bB]\s*$", "40 dB")]
Duration = Annotated[float, BeforeValidator(parse_duration), _schema(rf"{_DIGITS}(ms|s|min|h)\s*$", "10 min")]
Drop = Annotated[
    Change,
    BeforeValidator(parse_drop),
    WithJsonSchema(
        {
            "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": rf"{_DIGITS}(points?|%)?\s*$"}],
            "examples": ["1 point"],
        }
    ),
]
Growth = Annotated[
    Change,
    BeforeValidator(parse_growth),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": LARGEST_SIZE},
                {"type": "string", "pattern": rf"{_DIGITS}(([kKMG]i?)?B|%)\s*$"},
            ],
            "examples": ["5 %"],
        }
    ),
]
Level = Annotated[
    float,
    BeforeValidator(parse_level),
    WithJsonSchema(
        {"anyOf": [{"type": "number"}, {"type": "string", "pattern": rf"{_DIGITS}%\s*$"}], "examples": ["92 %"]}
    ),
]


def significant(value: float, figures: int = 3) -> str:
    """Write a number with so many significant figures, without an exponent; whole digits are never dropped."""
    if value == 0:
        return "0"
    decimals = max(0, figures - 1 - _exponent(value))
    decimals = max(0, figures - 1 - _exponent(round(value, decimals) or value))  # 9.996 becomes 10.0, not 10.00
    return f"{value:.{decimals}f}"


def _exponent(value: float) -> int:
    return math.floor(math.log10(abs(value)))


def size(count: float, figures: int = 3) -> str:
    """Show bytes in decimal units: 51.1 MB, 790 kB, 12 B."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= scale * (1 - 0.5 * 10**-figures):
            return f"{significant(count / scale, figures)} {unit}"
    return f"{count:.0f} B"


def sizes(*counts: float) -> tuple[str, ...]:
    """Show sizes with as many figures as tell those apart that differ: 4.903 kB and 4.902 kB."""
    for figures in range(3, 16):
        shown = tuple(size(count, figures) for count in counts)
        if len(set(shown)) == len(set(counts)):
            return shown
    return tuple(map(size, counts))


def percent(fraction: float, figures: int = 3) -> str:
    """Show a fraction: 0.123 %, 97.2 %, 100 %."""
    return f"{trimmed(significant(fraction * 100, figures))} %"


def points(fraction: float, figures: int = 3) -> str:
    """Show a difference of two proportions: 1 point, 0.3 points."""
    value = trimmed(significant(round(fraction * 100, 12), figures))
    return f"{value} point" if value in ("1", "-1") else f"{value} points"


def trimmed(number: str) -> str:
    """Drop zeros that say nothing: 6.00 becomes 6."""
    return number.rstrip("0").rstrip(".") if "." in number else number


def duration(seconds: float) -> str:
    """Show a duration: 4.2 s, 3 min 05 s."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
