# SPDX-License-Identifier: Apache-2.0
"""Which ops lose what is missing at the outputs?

Injection, not exclusion: the float32 program with one op in half. (Keeping one op in float32 and hoping that the float16 program
heals names a culprit in half of the cases only, since an infinity comes back at the next op.) Every op is tried where that is cheap.
In larger programs the ops that lose most by themselves are tried first; if they do not explain the damage, segments of the program are
halved until single ops are left, which finds what no local measure shows (an index that is off by one).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

from gate.float16.trials import Local, Place, Trials

BUDGET = 10.0  # evaluations of the model that the search may cost; with the three passes before it, under 15
FREE_S = 1.0  # small programs: try everything
FIRST_GUESSES = 4
EXPLAINS = 0.5  # share of the whole damage that explains it
MATTERS = 0.25  # of the limit: less is not worth a name
RANKED = 20


@dataclass(frozen=True)
class Culprit:
    """An op (or input) that does damage when it alone runs in half."""

    place: Place
    damage: float
    local: Local


@dataclass(frozen=True)
class Blame:
    """What was found out about one program on one sample."""

    culprits: tuple[Culprit, ...]  # the worst first; among equals the one that comes first in the program
    all_half: float  # damage when everything runs in half
    limit: float
    tried: int
    evaluations: float  # what the search cost, in evaluations of the model
    places: tuple[Place, ...] = field(repr=False)
    locals: tuple[Local, ...] = field(repr=False)
    curve: tuple[float | None, ...] = field(repr=False)

    @property
    def explained(self) -> bool:
        """Does one op alone do most of the damage?"""
        return bool(self.culprits) and self.culprits[0].damage >= EXPLAINS * min(self.all_half, self.limit)


def find_culprits(trials: Trials, limit: float, allowed: Iterable[Place] | None = None) -> Blame:
    """Rank the ops of a program by the damage that each does alone; `limit` is what the outputs may be off."""
    return _Search(trials, limit, tuple(trials.places if allowed is None else allowed)).run()


class _Search:
    def __init__(self, trials: Trials, limit: float, places: tuple[Place, ...]) -> None:
        self.trials = trials
        self.limit = limit
        self.places = places
        self.found: dict[Place, float] = {}
        self.tried = 0

    def run(self) -> Blame:
        curve = self.trials.curve()
        locals_ = dict(zip(self.places, map(self.trials.local, self.places), strict=True))
        self.trials.seconds = 0.0
        everything = self.damage(self.places)
        if self.affordable():
            for place in self.places:
                self.inject(place)
        else:
            self.guess(locals_, everything)
            if not self.explained(everything):
                self.bisect(everything)
        return Blame(
            culprits=self.ranked(locals_),
            all_half=everything,
            limit=self.limit,
            tried=self.tried,
            evaluations=3 + self.trials.seconds / max(self.trials.evaluation_s, 1e-9),
            places=self.places,
            locals=tuple(locals_.values()),
            curve=tuple(curve),
        )

    def affordable(self) -> bool:
        total = sum(map(self.trials.cost, self.places))
        return total <= max(FREE_S, BUDGET * self.trials.evaluation_s)

    def left_s(self) -> float:
        return max(FREE_S, BUDGET * self.trials.evaluation_s) - self.trials.seconds

    def damage(self, places: Iterable[Place]) -> float:
        self.tried += 1
        return self.trials.damage(places)

    def inject(self, place: Place) -> None:
        if place not in self.found:
            self.found[place] = self.damage([place])

    def guess(self, locals_: dict[Place, Local], everything: float) -> None:
        """Try what loses most by itself; stop when the damage is explained and half of the time is gone."""
        order = sorted(self.places, key=lambda p: (-locals_[p].error, p.index))
        for number, place in enumerate(order):
            spent = self.left_s() < self.trials.cost(place)
            if spent or (number >= FIRST_GUESSES and self.left_s() < 0.7 * BUDGET * self.trials.evaluation_s):
                return
            self.inject(place)
            if number >= FIRST_GUESSES and self.explained(everything):
                return

    def explained(self, everything: float) -> bool:
        return max(self.found.values(), default=0.0) >= EXPLAINS * min(everything, self.limit)

    def bisect(self, everything: float) -> None:
        """Halve the segment that does most damage, until its ops are single or the time is up."""
        queue: list[tuple[float, int, tuple[Place, ...]]] = []
        heappush(queue, (-everything, 0, self.places))
        while queue:
            _, _, segment = heappop(queue)
            for half in _halves(segment):
                if self.left_s() < self.trials.cost(half[0]):
                    return
                damage = self.found[half[0]] if len(half) == 1 and half[0] in self.found else self.damage(half)
                if len(half) == 1:
                    self.found[half[0]] = damage
                elif damage >= MATTERS * self.limit:
                    heappush(queue, (-damage, self.tried, half))

    def ranked(self, locals_: dict[Place, Local]) -> tuple[Culprit, ...]:
        found = [Culprit(p, d, locals_[p]) for p, d in self.found.items() if d > 0.0]
        return tuple(sorted(found, key=_rank)[:RANKED])


def _rank(culprit: Culprit) -> tuple[float, bool, int]:
    """By damage; among equals the first in the program, and a cast inside it after the op that it serves."""
    place = culprit.place
    return -float(f"{culprit.damage:.2g}"), place.type == "cast" and place.index >= 0, place.index


def _halves(segment: tuple[Place, ...]) -> Iterator[tuple[Place, ...]]:
    middle = len(segment) // 2
    yield from (half for half in (segment[middle:], segment[:middle]) if half)
