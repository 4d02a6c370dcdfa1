# SPDX-License-Identifier: Apache-2.0
"""Which assignment of options to weights is the smallest that will most likely be certified?

Compress every weight by every option; measure what each does by itself; walk the path that is best if losses add up, by bisection; then
try the moves beyond, one by one. Whatever stops it, the best so far is there: to begin with, no weight compressed.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gate.policy import Policy, Precision, Target
from gate.quantity import size as size_words
from gate.search.assignment import Assignment, Move, after, front, moves
from gate.search.ground import Ground
from gate.search.options import GROUPED, LEAVE, OPTIONS, Option, carried, mixed_policy
from gate.search.sensitivity import Effect, Sensitivities, items_for, measure
from gate.search.tradeoff import Curve, curves
from gate.search.verify import Goal, Verdict, verify

COMPRESS_SHARE, MEASURE_SHARE = 0.4, 0.6  # of the time; what is left verifies
HARMLESS = 0.01  # squared distance of the outputs at which the bisection begins; a guess, which costs a trial or two where wrong
MOST_TRIALS = 60  # verified assignments


@dataclass(frozen=True)
class Ask:
    """What a search may use and should look for."""

    seconds: float = 300.0
    size: int | None = None  # bytes: then the best accuracy under this size is sought
    options: tuple[str, ...] = ()  # names; all that the target carries where empty
    tradeoff: bool = True


@dataclass(eq=False)
class Clock:
    """How long may it still take?"""

    seconds: float
    started: float = field(default_factory=time.monotonic)
    stopped: str | None = None

    def within(self, share: float = 1.0) -> bool:
        """Is this share of the time not used up? Notes where all of it is."""
        used = time.monotonic() - self.started
        if used >= self.seconds:
            self.stopped = self.stopped or f"its time of {self.seconds:g} s was used up"
        return used < share * self.seconds


@dataclass(eq=False)
class Found:
    """What a search has found, so far."""

    policy: Policy
    best: Verdict | None = None
    effects: tuple[Effect, ...] = ()
    effect_items: int = 0
    tried: list[Verdict] = field(default_factory=list)
    curves: tuple[Curve, ...] = ()
    stopped: str | None = None
    spent: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)  # weight -> what a reader knows it by
    goal: Goal | None = None
    interrupted: bool = False
    notes: tuple[str, ...] = ()
    unkept: str | None = None  # the division of the items, where gate.yml keeps none for a search

    @property
    def front(self) -> tuple[Verdict, ...]:
        """The verified assignments that no other beats in both size and loss."""
        full = [v for v in self.tried if v.accepted] or self.tried
        return tuple(full[i] for i in front([(v.bytes, v.loss) for v in full]))

    @property
    def fallen(self) -> tuple[Verdict, ...]:
        """The verified assignments that were not accepted, smallest first."""
        return tuple(sorted((v for v in self.tried if not v.accepted), key=lambda v: v.bytes))


Progress = Callable[[str], None]


def find(
    ground: Ground, goal: Goal, ask: Ask, target: Target, precision: Precision, progress: Progress = lambda text: None
) -> Found:
    """Search until done, out of time, or interrupted (Ctrl-C); return the best that was found."""
    clock = Clock(ask.seconds)
    found = Found(mixed_policy({}, precision), goal=goal, spent=ground.spent)
    search = _Search(ground, goal, ask, target, precision, clock, found, progress)
    try:
        search.run()
    except KeyboardInterrupt:
        found.interrupted = True
        clock.stopped = "Ctrl-C"
        progress("stopped: judging the best so far; Ctrl-C again leaves without a report")
    found.stopped = clock.stopped
    found.labels = {name: place.label for name, place in ground.places.items()}
    return found


class _Search:
    def __init__(
        self,
        ground: Ground,
        goal: Goal,
        ask: Ask,
        target: Target,
        precision: Precision,
        clock: Clock,
        found: Found,
        progress: Progress,
    ) -> None:
        self.ground, self.goal, self.ask, self.target = ground, goal, ask, target
        self.precision, self.clock, self.found, self.progress = precision, clock, found, progress
        self.known = {option.name: option for option in carried((*OPTIONS, *GROUPED), target)}

    def run(self) -> None:
        self.compress()
        start, path = moves(self.measure().points(self.ground))
        self.descend(start, path)
        if self.ask.tradeoff and self.clock.within():
            self.progress("drawing the trade-off")
            policy = self.everywhere
            self.found.curves = curves(self.ground, self.goal, policy, self.target, self.clock.within)

    def everywhere(self, option: Option) -> Policy:
        return option.everywhere(self.precision)

    def compress(self) -> None:
        names = self.ask.options or tuple(option.name for option in OPTIONS)
        wanted = [option for option in self.known.values() if option.name in names]
        for number, option in enumerate(wanted, 1):
            if number > 1 and not self.clock.within(COMPRESS_SHARE):
                self.note(f"{len(wanted) - number + 1} of {len(wanted)} options were not tried, for lack of time")
                return
            self.progress(f"compressing each weight, option {number} of {len(wanted)}: {option.name}")
            self.ground.add(option, self.everywhere(option))

    def measure(self) -> Sensitivities:
        variants = self.ground.variants(items_for(self.ground))
        count, weights = len(variants.answers), len(self.ground.places)
        self.progress(f"measuring each option of {weights} weights on {count} items")
        found = measure(self.ground, variants, count, lambda: self.clock.within(MEASURE_SHARE))
        self.found.effects, self.found.effect_items = found.effects, count
        return found

    def descend(self, start: Assignment, path: Sequence[Move]) -> None:
        """Find the last assignment of the path that is accepted, then add what may still be added."""
        if self.ask.size is not None:
            self.fit(start, path, self.ask.size)
            return
        accepted, refused = self.bisect(start, path)
        if accepted is not None:
            lost = sum(move.loss for move in path[:accepted])
            self.extend(after(start, path[:accepted]), path[refused:], lost)

    def bisect(self, start: Assignment, path: Sequence[Move]) -> tuple[int | None, int]:
        """Return the longest stretch of the path that is accepted, and the shortest beyond it that is not."""
        low, high = -1, len(path) + 1
        total, guess = 0.0, 0
        for guess, move in enumerate(path):  # noqa: B007  # where the predicted loss leaves what is harmless
            total += move.loss
            if total > HARMLESS:
                break
        else:
            guess = len(path)
        while high - low > 1 and self.may_try():
            middle = min(max(guess, low + 1), high - 1)
            if self.accepts(after(start, path[:middle])):
                low = middle
            else:
                high = middle
            guess = (low + high) // 2
            if low >= 0 and high > len(path):  # nothing was refused yet: stride on, twice as far
                guess = min(len(path), 2 * low + 1)
        return (low if low >= 0 else None), high

    def extend(self, assignment: dict[str, str], rest: Sequence[Move], lost: float) -> None:
        """Try the moves beyond the one that was refused, each by itself; keep those that are accepted.

        A move that by itself would lose more than the refused one, and more than all that was accepted, has no chance.
        """
        hopeless = max(rest[0].loss, lost) if rest else 0.0
        blocked = {rest[0].weight} if rest else set()
        for move in rest[1:]:
            if not self.may_try():
                return
            if move.weight in blocked or move.loss > hopeless:
                continue
            wider = {**assignment, move.weight: move.option}
            if self.accepts(wider):
                assignment = wider
            else:
                blocked.add(move.weight)

    def fit(self, start: Assignment, path: Sequence[Move], size: int) -> None:
        """Take the least compressed assignment under a size, accepted or not; the smallest where none is under it."""
        every = [after(start, path[:length]) for length in range(len(path) + 1)]
        likely = next((i for i, one in enumerate(every) if self.ground.bytes(one) <= size), len(path))
        fitting = (one for one in every[likely:] if self.ground.exact_bytes(one) <= size)
        chosen = next(fitting, every[-1])
        if self.ground.exact_bytes(chosen) > size:
            self.note(f"no assignment is under {size:,} bytes; this is the smallest")
        self.accepts(chosen, keep=True)

    def may_try(self) -> bool:
        if len(self.found.tried) >= MOST_TRIALS:
            self.note(f"{MOST_TRIALS} assignments were verified; no more are")
            return False
        return self.clock.within()

    def accepts(self, assignment: Mapping[str, str], *, keep: bool = False) -> bool:
        verdict = verify(self.ground, self.goal, assignment)
        self.found.tried.append(verdict)
        best = self.found.best
        if keep or (verdict.accepted and (best is None or verdict.bytes < best.bytes)):
            self.found.best = verdict
            choices = {n: None if option == LEAVE else self.known[option] for n, option in assignment.items()}
            self.found.policy = mixed_policy(choices, self.precision, self.ground.own_layers)
        what = "passes" if verdict.accepted else f"falls: {verdict.why}"
        self.progress(f"{size_words(verdict.bytes)} {what}")
        return verdict.accepted

    def note(self, text: str) -> None:
        if text not in self.found.notes:
            self.found.notes = (*self.found.notes, text)
