# SPDX-License-Identifier: Apache-2.0
"""What does a program compute on its way, and where does another program leave that way?

Programs decompose differently, so ops cannot be paired by name; but what both compute appears in both. An output that differs is
followed back through values that the other program has nowhere: where that begins is the op to look at. Values are compared in
order of size, so that layout does not matter; only where that finds nothing, as they lie in memory, which finds a wrong order.

A torch program tells its trail from the worker (`gate.steps`), a MIL program from the evaluator (`gate.divergence`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
SAME = 1e-4  # of the largest value; healthy float32 noise is 2e-4 at worst (docs/checks.md)
POINTS = 512  # of a larger value that are kept


@dataclass(frozen=True)
class Seen:
    """One value: as much of it as is needed to know it again."""

    size: int
    whole: bool  # integers or booleans, which have no noise
    placed: Array  # as they lie in memory
    ranked: Array  # in order of size

    @cached_property
    def noise(self) -> float:
        """How far another value may be off and still be this one."""
        return SAME * float(np.abs(self.ranked[np.isfinite(self.ranked)]).max(initial=0) or 1)

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest element; of nothing, zeros."""
        return (float(self.ranked[0]), float(self.ranked[-1])) if len(self.ranked) else (0.0, 0.0)

    def is_like(self, other: "Seen", *, placed: bool) -> bool:
        """Is it the same value, but for noise?"""
        noise = min(other.noise, 0.5) if self.whole and other.whole else other.noise
        if self.size != other.size or any(abs(a - b) > noise for a, b in zip(self.ends, other.ends, strict=True)):
            return False  # most pairs end here
        ours, theirs = (self.placed, other.placed) if placed else (self.ranked, other.ranked)
        return bool(np.allclose(ours, theirs, rtol=0, atol=noise, equal_nan=True))


def see(array: Array) -> Seen:
    """Note a value."""
    flat = array.reshape(-1).astype(np.float64)
    at = np.linspace(0, flat.size - 1, POINTS).astype(int) if flat.size > POINTS else slice(None)
    return Seen(flat.size, array.dtype.kind in "biu", flat[at], np.sort(flat)[at])


@dataclass(frozen=True)
class Step:
    """One op, with the numbers of the values that it reads and makes."""

    what: str
    place: str | None  # model.py:41
    reads: tuple[int, ...]
    makes: tuple[int, ...]


@dataclass(frozen=True)
class Trail:
    """Every op of one run, in order."""

    steps: tuple[Step, ...]
    values: dict[int, Seen]
    outputs: tuple[int, ...]

    def departure(self, other: "Trail") -> int | None:
        """Return the position of the op at which this program computes what the other has nowhere; None where it does not."""
        return next((at for placed in (False, True) if (at := self._departure(other, placed)) is not None), None)

    def ending(self) -> int | None:
        """Return the position of the op that makes the first output."""
        return next((at for at, step in enumerate(self.steps) if set(step.makes) & set(self.outputs[:1])), None)

    def _departure(self, other: "Trail", placed: bool) -> int | None:
        by_size: dict[int, list[Seen]] = {}
        for value in other.values.values():
            by_size.setdefault(value.size, []).append(value)

        @cache
        def unknown(number: int) -> bool:
            value = self.values.get(number)
            return value is not None and not any(
                value.is_like(known, placed=placed) for known in by_size.get(value.size, ())
            )

        reached = self._reached(unknown)
        return next((at for at in sorted(reached) if not any(map(unknown, self.steps[at].reads))), None)

    def _reached(self, unknown: Callable[[int], bool]) -> set[int]:
        """Positions of the ops that lead to unknown outputs through nothing but unknown values."""
        makers = {number: at for at, step in enumerate(self.steps) for number in step.makes}
        wanted, reached = list(filter(unknown, self.outputs)), set[int]()
        while wanted:
            at = makers.get(wanted.pop())
            if at is not None and at not in reached:
                reached.add(at)
                wanted += filter(unknown, self.steps[at].reads)
        return reached


# ------------------------------------------------------------------------------------------- from the worker to us


def encode(trail: Trail) -> dict[str, Any]:
    """Turn a trail into plain data and one array."""
    values = trail.values.values()
    return {
        "steps": [[step.what, step.place, list(step.reads), list(step.makes)] for step in trail.steps],
        "values": [[number, value.size, value.whole] for number, value in trail.values.items()],
        "numbers": np.concatenate([np.empty(0), *(part for value in values for part in (value.placed, value.ranked))]),
        "outputs": list(trail.outputs),
    }


def decode(raw: Any) -> Trail:
    """Undo `encode`; raise ValueError, TypeError or KeyError where the data is no trail."""
    numbers = np.asarray(raw["numbers"], np.float64)
    values = dict(_values(raw["values"], numbers))
    steps = tuple(
        Step(str(what)[:200], None if place is None else str(place)[:1_000], _whole(reads), _whole(makes))
        for what, place, reads, makes in raw["steps"]
    )
    return Trail(steps, values, _whole(raw["outputs"]))


def _values(rows: Sequence[Any], numbers: Array) -> Iterator[tuple[int, Seen]]:
    at = 0
    for number, size, whole in rows:
        kept = min(int(size), POINTS)
        placed, ranked = numbers[at : at + kept], numbers[at + kept : at + 2 * kept]
        if len(ranked) != kept:
            raise ValueError(f"value {number} has {len(ranked)} points, expected {kept}")
        yield int(number), Seen(int(size), bool(whole), placed, ranked)
        at += 2 * kept


def _whole(numbers: Sequence[Any]) -> tuple[int, ...]:
    return tuple(map(int, numbers))
