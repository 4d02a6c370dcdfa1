# SPDX-License-Identifier: Apache-2.0
"""What is the least that has to stay in float32?

A set of ops is tried on the float32 program (everything in half but the set), which costs one evaluation; the best is then really converted
and judged like any package on all samples. Where one of them still fails, it joins the trials, and the search goes on. Sets are tried by
size, so that the first that passes is minimal; where there are many candidates, the set grows by rank and is then thinned. Ops are named as a team can name them and as they survive the next conversion: `encoder.norm/softmax`, or
`encoder.norm/softmax:2` where only the second of several has to stay.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from time import perf_counter
from typing import Any

from gate.float16.blame import Blame
from gate.float16.investigate import origin
from gate.float16.models import Models
from gate.float16.trials import NONFINITE, Place, Trials
from gate.mil.program import TensorType, load_program
from gate.quantity import percent

EXHAUSTIVE = 12  # candidates up to which every set may be tried: 4,095
MOST_CANDIDATES = 24
ATTEMPTS = 8  # conversions
STRICTER = (1.0, 0.5, 0.2)  # of the limit, where the package is worse than its trials
PATIENCE_S = 120.0  # for injecting every op of a large program
MOST_WITNESSES = 4  # samples besides the first; each keeps all its values in memory
MOST_DROPPED = 60  # trials of leaving one out
DEPTH = 4  # ops before a culprit that may carry its loss


@dataclass(frozen=True)
class Plan:
    """A set that should do, from trials."""

    places: tuple[Place, ...]
    patterns: tuple[str, ...]
    minimal: bool  # every smaller set was tried


@dataclass(frozen=True)
class Cure:
    """A set that does: converted and judged."""

    keep_float32: tuple[str, ...]
    names: tuple[str, ...]  # MIL names of the ops
    ops: int
    minimal: bool
    package: Path
    bytes_before: int
    bytes_after: int
    casts_before: int
    casts_after: int
    conversions: int


Failing = tuple[Mapping[str, Any], Mapping[str, float]]  # a sample whose outputs are still off, and their ranges
Convert = Callable[[Sequence[str]], Path]
Judge = Callable[[Path], Failing | None]


def find_cure(
    trials: Trials, blame: Blame, models: Models, limit: float, convert: Convert, failing: Judge
) -> Cure | str:
    """Return the smallest set that brings the outputs under their limit, converted and judged; where none does, why."""
    search, namer = _Search(trials, blame, limit), Namer(trials, models)
    tried: list[tuple[str, ...]] = []
    while len(tried) < ATTEMPTS:
        plan = next((plan for plan in _plans(search, namer) if plan.patterns not in tried), None)
        if plan is None:
            break
        tried.append(plan.patterns)
        package = convert(plan.patterns)
        worst = failing(package)
        if worst is None:
            return _cure(plan, models.float16, package, len(tried))
        search.learn(*worst)
    return _why_none(search, len(tried))


def _why_none(search: "_Search", conversions: int) -> str:
    """Say how far precision gets, so that a reader knows what is left to do."""
    if conversions == ATTEMPTS:
        return (
            f"no cure within {ATTEMPTS} conversions: trials pass, the packages do not; take the advice for the first op"
        )
    ranked = {place.index for place in search.ranked()}
    left = search.damage([place for place in search.ops if place.index not in ranked])
    still = "infinite or NaN" if left >= NONFINITE else f"off by {percent(left)} of their range"
    text = f"precision alone does not cure: with the {len(ranked)} ops that do damage in float32, outputs are still {still}"
    stored = "; Core ML keeps states in float16, so scale what is stored" if search.trials.keeps_states else ""
    return f"{text}{stored}; take the advice for the first op"


def _plans(search: "_Search", namer: "Namer") -> Iterator[Plan]:
    """Yield sets that pass in trials, the smallest first; at last all candidates with their likes, and stricter sets."""
    places = candidates(search.blame, search.trials)
    small = len(places) <= EXHAUSTIVE
    for chosen in islice(search.every(places) if small else search.grow(places), ATTEMPTS - 4):
        yield Plan(chosen, namer.patterns(chosen), minimal=small)
    if places and search.passes(alike := namer.alike(places)):
        yield Plan(alike, namer.patterns(alike), minimal=False)
    ranked = search.ranked()
    for share in STRICTER:
        for chosen in search.grow(ranked, share):
            yield Plan(chosen, namer.patterns(chosen), minimal=False)


def candidates(blame: Blame, trials: Trials) -> tuple[Place, ...]:
    """List the culprits, the worst first, and what reads a culprit input; a diffuse loss brings in what loses most by itself.

    Where not every op was tried, the ops around the worst culprit may carry the same loss: an input that is zero before it is read.
    """
    wanted = [c.place for c in blame.culprits if c.damage > 0.02 * blame.limit]
    if not blame.explained:
        losses = zip(blame.places, blame.locals, strict=True)
        wanted += [p for p, _ in sorted(losses, key=lambda pair: -pair[1].error)]
    ops = [op for place in wanted for op in ([place] if place.index >= 0 else trials.reading(place))]
    if blame.tried <= len(blame.places):
        ops += [near for op in ops[:1] for near in _around(op, trials)]
    allowed = set(blame.places)
    return tuple(op for op in dict.fromkeys(ops) if op in allowed)[:MOST_CANDIDATES]


def _around(place: Place, trials: Trials) -> Iterator[Place]:
    """Yield the ops before a place, nearest first, and those that read it."""
    before = [place]
    for _ in range(DEPTH):
        before = [op for one in before for op in trials.feeding(one)]
        yield from before
    yield from trials.reading(place)


class Namer:
    """Names ops by layer, type and position, as `keep_float32` does."""

    def __init__(self, trials: Trials, models: Models) -> None:
        self.trials = trials
        self.keys: dict[str, tuple[str, str]] = {}
        self.names: dict[tuple[str, str], list[str]] = {}
        for op in trials.function.body.ops:
            if op.outputs:
                name = op.outputs[0].name
                self.keys[name] = origin(name, models)[0] or "", op.type
                self.names.setdefault(self.keys[name], []).append(name)

    def patterns(self, places: Sequence[Place]) -> tuple[str, ...]:
        """Name each op; all ops of a kind in a layer together."""
        chosen = {place.name for place in places}
        return tuple(dict.fromkeys(self._pattern(place, chosen) for place in places))

    def _pattern(self, place: Place, chosen: set[str]) -> str:
        layer, kind = self.keys[place.name]
        alike = self.names[layer, kind]
        return f"{layer}/{kind}" if chosen.issuperset(alike) else f"{layer}/{kind}:{alike.index(place.name) + 1}"

    def alike(self, places: Sequence[Place]) -> tuple[Place, ...]:
        """Add the ops of the same kind in the same layer."""
        keys = {self.keys[place.name] for place in places}
        return tuple(p for p in self.trials.places if p.index >= 0 and self.keys[p.name] in keys)


class _Search:
    """Trials of sets on the samples that matter: the one that was blamed, and those that failed since."""

    def __init__(self, trials: Trials, blame: Blame, limit: float) -> None:
        self.trials = trials
        self.blame = blame
        self.limit = limit
        self.witnesses: list[tuple[Mapping[str, Any] | None, Trials]] = [(None, trials)]
        self.ops = tuple(place for place in blame.places if place.index >= 0)  # without what stays in float32 anyway
        self._damages: dict[tuple[int, frozenset[int]], float] = {}  # by witness and places in half
        self._ranked: tuple[Place, ...] | None = None

    def learn(self, sample: Mapping[str, Any], ranges: Mapping[str, float]) -> None:
        """Hold later sets to this sample too."""
        if len(self.witnesses) <= MOST_WITNESSES and not any(sample is known for known, _ in self.witnesses):
            self.witnesses.append((sample, self.trials.on(sample, ranges)))

    def damage(self, places: Iterable[Place], enough: float = float("inf")) -> float:
        """The worst over the witnesses; stops at the first that is beyond `enough`."""
        chosen = tuple(places)
        worst = 0.0
        for number in reversed(range(len(self.witnesses))):  # what failed last is the hardest
            worst = max(worst, self._damage(number, chosen))
            if worst > enough:
                break
        return worst

    def _damage(self, number: int, places: tuple[Place, ...]) -> float:
        key = number, frozenset(place.index for place in places)
        if key not in self._damages:
            self._damages[key] = self.witnesses[number][1].damage(places)
        return self._damages[key]

    def passes(self, kept: Iterable[Place], share: float = 1.0) -> bool:
        """Everything in half but these."""
        chosen = {place.index for place in kept}
        limit = self.limit * share
        return self.damage([place for place in self.ops if place.index not in chosen], limit) <= limit

    def every(self, places: Sequence[Place]) -> Iterator[tuple[Place, ...]]:
        """Yield the passing sets by size; none where even all of them together do not pass."""
        if not places or not self.passes(places):
            return
        for size in range(1, len(places) + 1):
            yield from filter(self.passes, combinations(places, size))

    def ranked(self) -> tuple[Place, ...]:
        """Inject each op, as far as the time goes, and rank all that do damage."""
        if self._ranked is None:
            self._ranked = self._rank()
        return self._ranked

    def _rank(self) -> tuple[Place, ...]:
        locals_ = dict(zip(self.blame.places, self.blame.locals, strict=True))
        started, damages = perf_counter(), dict[Place, float]()
        for place in sorted(self.ops, key=lambda p: -locals_[p].error):
            if perf_counter() - started > PATIENCE_S:
                break
            damages[place] = self.damage([place])
        return tuple(sorted(filter(damages.get, damages), key=lambda p: -damages[p]))

    def grow(self, places: Sequence[Place], share: float = 1.0) -> Iterator[tuple[Place, ...]]:
        """Find the shortest beginning of a ranking that passes, then drop what is not needed."""
        if not places or not self.passes(places, share):
            return
        low, high = 0, len(places)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.passes(places[:middle], share) else (middle, high)
        chosen = list(places[:high])
        for place in chosen[-MOST_DROPPED:]:
            rest = [p for p in chosen if p is not place]
            if rest and self.passes(rest, share):
                chosen = rest
        yield tuple(chosen)


def _cure(plan: Plan, before: Path, after: Path, conversions: int) -> Cure:
    return Cure(
        keep_float32=plan.patterns,
        names=tuple(place.name for place in plan.places),
        ops=len(plan.places),
        minimal=plan.minimal,
        package=after,
        bytes_before=_bytes(before),
        bytes_after=_bytes(after),
        casts_before=_casts(before),
        casts_after=_casts(after),
        conversions=conversions,
    )


def _bytes(package: Path) -> int:
    return sum(file.stat().st_size for file in package.rglob("*") if file.is_file())


def _casts(package: Path) -> int:
    """Count the casts between float types."""
    ops = load_program(package).function().body.walk()
    return sum(op.type == "cast" and _is_float(op.outputs[0].type) for op in ops)


def _is_float(kind: object) -> bool:
    return isinstance(kind, TensorType) and kind.dtype in ("float16", "float32")
