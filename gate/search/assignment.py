# SPDX-License-Identifier: Apache-2.0
"""Which option should each weight take, if losses add up? Pure numbers: bytes and losses in, a path of assignments out.

For every price of a byte, the best assignment takes for each weight the option with the least loss + price × bytes; sweeping the price
walks along the lower convex hull of each weight (Everett's Lagrange multipliers, Operations Research 11 (1963) 399). The path goes
from all weights as they are to the smallest; each move makes one weight smaller, cheapest loss a byte first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Point:
    """One weight under one option."""

    option: str
    bytes: int
    loss: float


@dataclass(frozen=True)
class Move:
    """One weight becomes smaller."""

    weight: str
    option: str
    saved: int  # bytes
    loss: float  # added


Assignment = Mapping[str, str]  # weight -> option


def hull(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return the lower convex hull, largest first: what some price of a byte chooses."""
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.bytes, p.loss)):
        while found and (point.loss <= found[-1].loss or (len(found) > 1 and not _turns(found[-2], found[-1], point))):
            found.pop()
        if not found or point.bytes < found[-1].bytes:
            found.append(point)
    return tuple(found)


def _turns(first: Point, middle: Point, last: Point) -> bool:
    """Is the middle below the line from the first to the last?"""
    early = (middle.loss - first.loss) * (middle.bytes - last.bytes)
    return early < (last.loss - middle.loss) * (first.bytes - middle.bytes)


def moves(weights: Mapping[str, Sequence[Point]]) -> tuple[Assignment, tuple[Move, ...]]:
    """Return where the path starts, and the moves from there, cheapest loss a byte first."""
    hulls = {name: hull(points) for name, points in weights.items()}
    start = {name: points[0].option for name, points in hulls.items()}
    steps = [
        Move(name, after.option, before.bytes - after.bytes, after.loss - before.loss)
        for name, points in hulls.items()
        for before, after in pairwise(points)
    ]
    return start, tuple(sorted(steps, key=lambda move: move.loss / move.saved))


def after(start: Assignment, steps: Sequence[Move]) -> dict[str, str]:
    """Return the assignment that the moves lead to."""
    return {**start, **{move.weight: move.option for move in steps}}


def front(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Return the positions that no other point beats in both numbers, by size."""
    order = sorted(range(len(points)), key=lambda i: points[i])
    kept: list[int] = []
    for i in order:
        if not kept or points[i][1] < points[kept[-1]][1]:
            kept.append(i)
    return tuple(kept)
