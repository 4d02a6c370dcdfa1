# SPDX-License-Identifier: Apache-2.0
"""Has the model become worse by more than is allowed, and how sure can we be?

The statistics beneath the accuracy verdict, on plain numbers: no metric, no model, no file is known here. A verdict is about
the population that the items were drawn from. Every interval's ends are one-sided: at a confidence of 95 % the upper end alone
is wrong at most 5 times in 100, so a verdict read from either end has that error. `docs/statistics.md` explains it in words.

A *drop* is positive when the candidate is worse. Counts stay integers, and the margin is the fraction that the team wrote
(0.5 points is 1/200), so a drop of exactly the margin is seen to be exactly that.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from gate.report import Outcome

Array = npt.NDArray[Any]

RESAMPLES = 4_000  # the 5 % quantile of 4,000 resamples has a standard error of 0.34 points of probability
POWER = 0.8  # "how many items" means: enough in four runs out of five, the convention of trial planning
SEQUENCE_SHARE = 0.2  # of the error that optional stopping may use; the rest is left to the final test
RARE = 10  # fewer changed items than this say too little about how changes are distributed
MOST_BIASED = (
    0.15  # share of resamples on the rarer side of the figure; one standard error of bias. A judgement, not measured
)
MOST_LEFT_OUT = 500  # estimates of a jackknife; beyond that many units, groups of them are left out together
_CHUNK = 4_000_000  # weights held at once by a bootstrap: 32 MB


@dataclass(frozen=True)
class Interval:
    """Where the true value lies; each end on its own is right with `confidence`."""

    low: float
    high: float
    confidence: float
    method: str


@dataclass(frozen=True)
class Flips:
    """Paired counts of a right-or-wrong metric: of n items, `lost` went from right to wrong, `gained` the other way."""

    n: int
    lost: int
    gained: int

    def __post_init__(self) -> None:
        if min(self.n, self.lost, self.gained) < 0 or self.lost + self.gained > self.n:
            raise ValueError(f"{self}: expected counts of at least 0 and at most n flips")

    @property
    def drop(self) -> Fraction:
        """Observed drop of the proportion, exactly."""
        return Fraction(self.lost - self.gained, self.n)

    @property
    def discordance(self) -> Fraction:
        """Share of items on which the two sides differ."""
        return Fraction(self.lost + self.gained, self.n)


def exact(value: float) -> Fraction:
    """Return the decimal fraction that a float stands for: 0.005 is 1/200, and 0.7/100 is 7/1000."""
    return Fraction(value).limit_denominator(10**9)


def quantile(confidence: float) -> float:
    """Return the normal quantile, 1.645 for 95 %."""
    return float(special.ndtri(confidence))


# --- paired proportions ------------------------------------------------------------------------------------------------


def tango_score(n: Any, lost: Any, gained: Any, margin: Fraction) -> Array:
    """Return Tango's score for the hypothesis that the true drop is `margin`; large where the loss is larger.

    Tango, Statistics in Medicine 17 (1998) 891-908, equations 4-6. Works on arrays. The numerator is computed in integers, so
    its sign is right also at the margin itself.
    """
    n, lost, gained = np.broadcast_arrays(n, lost, gained)
    excess = ((lost - gained) * margin.denominator - n * margin.numerator) / margin.denominator
    return _score(n, lost, gained, excess, float(margin))


def _score(n: Array, lost: Array, gained: Array, excess: Array, drop: Any) -> Array:
    """Divide the excess over n·drop by its standard deviation under that drop, by the constrained maximum likelihood."""
    half = (2.0 * n - lost + gained) * drop - lost - gained
    gain_rate = (np.sqrt(np.maximum(half * half + 8.0 * n * gained * drop * (1 - drop), 0.0)) - half) / (4.0 * n)
    deviation = np.sqrt(np.maximum(n * (2 * gain_rate + drop * (1 - drop)), 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(excess == 0, 0.0, excess / deviation))


def tango_bounds(n: Any, lost: Any, gained: Any, confidence: float, z: float | None = None) -> tuple[Array, Array]:
    """Return the two drops at which the score reaches ∓ the quantile (or `z`), by bisection, for arrays of counts."""
    n, lost, gained = (np.asarray(value, dtype=float) for value in np.broadcast_arrays(n, lost, gained))
    seen = (lost - gained) / n
    z = quantile(confidence) if z is None else z

    def solve(near: Array, far: Array, sign: float) -> Array:
        for _ in range(52):  # halves an interval of at most 2 down to the spacing of floats
            middle = (near + far) / 2
            outside = sign * _score(n, lost, gained, lost - gained - n * middle, middle) > z
            near, far = np.where(outside, near, middle), np.where(outside, middle, far)
        return far

    return solve(seen, np.full_like(seen, -1.0), 1.0), solve(seen, np.full_like(seen, 1.0), -1.0)


def tango_interval(flips: Flips, confidence: float) -> Interval:
    """Return Tango's score interval of the drop; not degenerate when nothing flipped."""
    low, high = tango_bounds(flips.n, flips.lost, flips.gained, confidence)
    return Interval(float(low), float(high), confidence, "Tango score interval of paired proportions")


def non_inferior(flips: Flips, margin: Fraction, confidence: float) -> Outcome:
    """Decide whether the true drop is below the margin (pass), above it (fail), or still open."""
    score = float(tango_score(flips.n, flips.lost, flips.gained, margin))
    z = quantile(confidence)
    return Outcome.PASS if score <= -z else Outcome.FAIL if score >= z else Outcome.INCONCLUSIVE


def mcnemar_exact(flips: Flips) -> float:
    """Return the one-sided p-value of "worse at all": so many losses among the flips, were each a fair coin."""
    return float(special.bdtrc(flips.lost - 1, flips.lost + flips.gained, 0.5))


def clopper_pearson(right: float, n: float, confidence: float) -> Interval:
    """Return the exact interval of a single proportion."""
    error = 1 - confidence
    low = 0.0 if right == 0 else float(special.betaincinv(right, n - right + 1, error))
    high = 1.0 if right == n else float(special.betaincinv(right + 1, n - right, confidence))
    return Interval(low, high, confidence, "Clopper-Pearson interval of a proportion")


def clustered_bounds(flips: Flips, drops: Array, clusters: Array, confidence: float) -> tuple[Interval, float]:
    """Return Tango's interval for items that come in clusters, and how many independent items they are worth.

    The counts are scaled to what the clusters are worth (Rao and Scott, Biometrics 48 (1992) 577-585), and the normal quantile gives
    way to Student's: how much clusters vary is itself only known from that many of them, and from fewer where some vary most.
    """
    worth = effective_size(drops, clusters)
    free = degrees_of_freedom(_cluster_sums(drops - drops.mean(), clusters))
    scale = worth / flips.n
    low, high = tango_bounds(worth, flips.lost * scale, flips.gained * scale, confidence, student(confidence, free))
    method = f"Tango score interval, {flips.n:,} clustered items worth {worth:.0f} independent ones, t with {free:.0f} degrees of freedom"
    return Interval(float(low), float(high), confidence, method), worth


def student(confidence: float, free: float) -> float:
    """Return Student's quantile."""
    return float(special.stdtrit(free, confidence))


def degrees_of_freedom(parts: Array) -> float:
    """Return how well the parts of a sum tell its variance, as Satterthwaite counts it: n - 1, fewer with heavy tails.

    2 / (relative variance of the variance estimate), which is (kurtosis - 1) / n; Satterthwaite, Biometrics Bulletin 2 (1946).
    """
    most = max(len(parts) - 1.0, 1.0)
    square = float((parts**2).mean()) if len(parts) else 0.0
    if square == 0:
        return most
    kurtosis = float((parts**4).mean()) / square**2
    return float(min(max(2 * len(parts) / max(kurtosis - 1, 1e-9), 1.0), most))


def _cluster_sums(values: Array, clusters: Array) -> Array:
    units, member = _members(clusters)
    return np.bincount(member, weights=values, minlength=units)


def clustered_share(wrong: Array, clusters: Array, confidence: float) -> Interval:
    """Return the interval of a proportion whose items come in clusters: Clopper and Pearson's, of the items' worth.

    Korn and Graubard, Survey Methodology 24 (1998) 193-201: the worth falls further where few clusters tell their variance.
    """
    free = degrees_of_freedom(_cluster_sums(wrong - wrong.mean(), clusters))
    worth = effective_size(wrong, clusters) * min(1.0, (quantile(confidence) / student(confidence, free)) ** 2)
    found = clopper_pearson(float(1 - wrong.mean()) * worth, worth, confidence)
    return Interval(
        found.low, found.high, confidence, f"{found.method}, {len(wrong):,} clustered items worth {worth:.0f}"
    )


def effective_size(drops: Array, clusters: Array) -> float:
    """Return how many independent items the clustered ones are worth, at most their number.

    Compares the variance of the mean drop between clusters with that of independent items (the design effect). With fewer than
    RARE clusters that show any change the ratio says little: then a cluster is worth one item.
    """
    _, member, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    worst = float((sizes**2).sum() / sizes.sum())
    changed = np.bincount(member, weights=drops != 0) > 0
    residual = drops - drops.mean()
    if changed.sum() < RARE or not residual.any():
        return len(drops) / worst
    between = np.bincount(member, weights=residual)
    ratio = (between**2).sum() / (residual**2).sum() * len(sizes) / max(len(sizes) - 1, 1)
    return float(len(drops) / min(max(ratio, 1.0), worst))


# --- planning ----------------------------------------------------------------------------------------------------------


def flawless_items(margin: Fraction, confidence: float) -> int:
    """Return how many items without any flip prove the margin: 268 for 1 point at 95 %."""
    return int(np.ceil(quantile(confidence) ** 2 * (1 - float(margin)) / float(margin)))


def required_items(flips: Flips, margin: Fraction, confidence: float) -> int | None:
    """Return how many items would decide, in four runs out of five, at the flip rates seen; None when none would.

    n = (z_confidence + z_power)² · (discordance - drop²) / (margin - drop)², for either verdict, and at least as many as would
    bring the score itself to the quantile. A drop of exactly the margin stays open at any n.
    """
    score = float(tango_score(flips.n, flips.lost, flips.gained, margin))
    if score == 0:
        return None
    distance, drop, z = float(margin - flips.drop), float(flips.drop), quantile(confidence)
    planned = (z + quantile(POWER)) ** 2 * (float(flips.discordance) - drop**2) / distance**2
    return int(np.ceil(max(planned, flips.n * (z / score) ** 2)))


def provable_margin(n: float, discordance: float, confidence: float) -> float:
    """Return the smallest margin that n items prove for an equally good model in four runs out of five."""
    z = quantile(confidence)
    unflipped = z**2 / (n + z**2)
    return float(max(unflipped, (z + quantile(POWER)) * np.sqrt(discordance / n)))


def detectable_drop(n: float, discordance: float, margin: float, confidence: float) -> float:
    """Return the smallest true drop that n items call a failure in four runs out of five, solved for its own spread."""
    reach = (quantile(confidence) + quantile(POWER)) ** 2 / n
    drop = margin
    for _ in range(50):  # a drop needs at least as much discordance as itself
        drop = margin + float(np.sqrt(reach * max(discordance, drop)))
    return min(drop, 1.0)


# --- anything that is not right or wrong per item ------------------------------------------------------------------------

Figure = Callable[[Array], Array]
"""Statistic of the items under weights: (resamples, items) → (resamples,)."""


def bootstrap(
    figure: Figure,
    n: int,
    confidence: float,
    *,
    clusters: Array | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return the bootstrap interval of a statistic, resampling whole clusters where they are given.

    BCa (Efron 1987) with Student's quantiles, since the percentiles of a resample are too narrow for few or uneven units
    (Hesterberg, The American Statistician 69 (2015) 371-386), and at least as wide as the jackknife's t interval.
    """
    units, member = (n, np.arange(n)) if clusters is None else _members(clusters)

    def of(weights: Array) -> Array:  # a cluster's weight is that of each of its items
        return figure(weights[:, member])

    seen = float(of(np.ones((1, units)))[0])
    drawn = np.concatenate([of(weights) for weights in _resamples(units, n, resamples, seed)])
    left_out = np.concatenate([of(weights) for weights in _without_each(units, n)]) if units > 1 else drawn[:1]
    low, high, how = _bca(seen, drawn[np.isfinite(drawn)], left_out[np.isfinite(left_out)], confidence)
    over = "" if clusters is None else f" over {units:,} clusters"
    return Interval(low, high, confidence, f"{how} bootstrap{over}, {resamples:,} resamples")


def _members(clusters: Array) -> tuple[int, Array]:
    names, member = np.unique(clusters, return_inverse=True)
    return len(names), member


def _resamples(units: int, n: int, resamples: int, seed: int) -> Iterator[Array]:
    """Yield weights in chunks: how often each unit was drawn."""
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // n)
    for start in range(0, resamples, rows):
        yield _counts(generator.integers(0, units, (min(rows, resamples - start), units)), units)


def _counts(drawn: Array, units: int) -> Array:
    """Count how often each unit appears in each row."""
    shifted = drawn + units * np.arange(len(drawn))[:, None]
    return np.bincount(shifted.ravel(), minlength=units * len(drawn)).reshape(len(drawn), units).astype(float)


def _without_each(units: int, n: int) -> Iterator[Array]:
    """Yield the weights of the jackknife: all units but one, in chunks; of many units, all but a random group of them."""
    groups = min(units, MOST_LEFT_OUT)
    group = np.random.default_rng(0).permutation(units) % groups
    rows = max(1, _CHUNK // n)
    for start in range(0, groups, rows):
        yield (group[None, :] != np.arange(start, min(start + rows, groups))[:, None]).astype(float)


def _bca(seen: float, drawn: Array, left_out: Array, confidence: float) -> tuple[float, float, str]:
    """Correct the percentiles for bias and for a spread that changes with the value (Efron & Tibshirani 1993, 14.3).

    Where nearly all resamples lie on one side of the figure itself, no percentile means anything: drawing items twice changes
    the figure, as it does an F1 over many classes of few items. Then the interval is the figure ± its standard error.
    """
    if not len(drawn) or not np.ptp(drawn) or len(left_out) < 2:
        return seen, seen, "BCa"
    pull, units = left_out.mean() - left_out, len(left_out)
    t = student(confidence, degrees_of_freedom(pull))
    reach = t * float(np.sqrt((units - 1) / units * (pull**2).sum()))  # of the jackknife's t interval
    ends = np.array([-t, t]) * np.sqrt(units / (units - 1))  # a resample's spread is that of n, not of n - 1
    below = ((drawn < seen).mean() + (drawn <= seen).mean()) / 2
    if MOST_BIASED < below < 1 - MOST_BIASED:
        levels, how = _levels(float(special.ndtri(below)), pull, ends), "BCa"
        low, high = np.quantile(drawn, levels)
    else:
        (low, high), how = seen + ends * drawn.std(), "normal"
    return min(float(low), seen - reach), max(float(high), seen + reach), how


def _levels(bias: float, pull: Array, ends: Array) -> Array:
    """Return the two percentiles to read off; a spread so skewed that the formula turns around gives the outermost."""
    spread = (pull**2).sum() ** 1.5
    skew = (pull**3).sum() / (6 * spread) if spread else 0.0
    shifted = bias + ends
    room = 1 - skew * shifted
    turned = np.where(room > 0, bias + shifted / np.where(room > 0, room, 1.0), np.sign(shifted) * np.inf)
    return np.asarray(special.ndtr(turned))


def rare_change(changed: int, n: float, confidence: float) -> float:
    """Return the largest share of items that may change, given how many did: what a bootstrap cannot see when few did."""
    return float(special.betaincinv(changed + 1, n - changed, confidence)) if changed < n else 1.0


def decide(interval: Interval, limit: float) -> Outcome:
    """Read a verdict from the interval of something that must stay below the limit."""
    if interval.high < limit:
        return Outcome.PASS
    return Outcome.FAIL if interval.low > limit else Outcome.INCONCLUSIVE


# --- many questions ------------------------------------------------------------------------------------------------------


def beyond_all(
    lows: Sequence[float], low_at: Callable[[int, float], float], limit: float, confidence: float
) -> dict[int, float]:
    """Return which of many lower ends lie beyond the limit when each is corrected for how many there are (Holm 1979).

    Step by step, strongest first: the r-th of m is asked at the error shared by the m - r + 1 that are left, and the first that does
    not reach ends it. So any of them is wrong at most once in 1/error. `low_at(position, confidence)` gives an end again.
    """
    found: dict[int, float] = {}
    order = sorted(range(len(lows)), key=lows.__getitem__, reverse=True)
    for rank, index in enumerate(order):
        low = low_at(index, 1 - (1 - confidence) / (len(lows) - rank))
        if not low > limit:
            break
        found[index] = low
    return found


# --- stopping early ------------------------------------------------------------------------------------------------------


class Curtailment:
    """Stop when the verdict of the full set can no longer change: exactly that verdict, without loss of confidence.

    The yardstick's answers are known beforehand, so the remaining items can lose at most where it is right and gain at most
    where it is wrong. That is why failures stop early, and passes rarely do.
    """

    def __init__(self, yardstick_right: int, total: int, margin: Fraction, confidence: float) -> None:
        self._may_lose, self._may_gain = yardstick_right, total - yardstick_right
        self._total, self._margin, self._confidence = total, margin, confidence
        self._lost = self._gained = 0

    @property
    def extremes(self) -> tuple[Flips, Flips]:
        """The full set's counts if all that remain are lost where possible, and if all are gained."""
        worst = Flips(self._total, self._lost + self._may_lose, self._gained)
        return worst, Flips(self._total, self._lost, self._gained + self._may_gain)

    def update(self, candidate: Array, yardstick: Array) -> Outcome | None:
        """Take the next items, right or wrong on both sides; return the verdict once nothing can change it."""
        candidate, yardstick = candidate.astype(bool), yardstick.astype(bool)
        self._may_lose -= int(yardstick.sum())
        self._may_gain -= int((~yardstick).sum())
        self._lost += int((yardstick & ~candidate).sum())
        self._gained += int((candidate & ~yardstick).sum())
        worst, best = (non_inferior(flips, self._margin, self._confidence) for flips in self.extremes)
        return worst if worst is best else None


class FloorCurtailment:
    """The same for a floor: stop when the remaining items cannot change on which side of it the proportion lies."""

    def __init__(self, total: int, floor: float, confidence: float) -> None:
        self._total, self._floor, self._confidence = total, floor, confidence
        self._right = self._seen = 0

    def update(self, candidate: Array, yardstick: Array | None = None) -> Outcome | None:
        """Take the next items, right or wrong; the yardstick does not matter."""
        self._right += int(candidate.astype(bool).sum())
        self._seen += len(candidate)
        left = self._total - self._seen
        worst, best = (
            decide_floor(clopper_pearson(right, self._total, self._confidence), self._floor)
            for right in (self._right, self._right + left)
        )
        return worst if worst is best else None


def decide_floor(interval: Interval, floor: float) -> Outcome:
    """Read a verdict from the interval of something that must reach the floor."""
    if interval.low >= floor:
        return Outcome.PASS
    return Outcome.FAIL if interval.high < floor else Outcome.INCONCLUSIVE


def log_wealth(values: Array, counts: Array, margin: float, span: tuple[float, float] = (-1, 1)) -> tuple[Array, Array]:
    """Return the log capital of two gamblers, one betting that the mean drop is below the margin, one that it is above.

    Each starts with 1 and stakes fixed fractions of what a fair game allows; the capital is the average over the fractions. Were
    the true drop the margin, no gambler could expect to gain, so a capital of 1/error is seen with at most that probability, at
    any time one cares to look (Ville; Waudby-Smith & Ramdas, JRSS-B 2024). values: drops within the span; counts (..., values).
    """
    below = _capital(margin - values, counts, span[1] - margin)
    above = _capital(values - margin, counts, margin - span[0])
    return below, above


_STAKES = 0.9 * 0.5 ** np.arange(6)  # from nearly all-in, best without flips, to 3 %, best with many


def _capital(payoff: Array, counts: Array, worst: float) -> Array:
    growth = np.log1p(np.outer(payoff, _STAKES) / max(worst, 1e-12))
    return np.asarray(np.logaddexp.reduce(counts @ growth, axis=-1) - np.log(len(_STAKES)))


class ConfidenceSequence:
    """Stop as soon as the capital of either gambler refutes its opponent; valid however often one looks."""

    def __init__(self, margin: float, confidence: float, span: tuple[float, float] = (-1, 1)) -> None:
        self._margin, self._span, self._needed = margin, span, -float(np.log1p(-confidence))
        self._drops: list[Array] = []

    def update(self, drops: Array) -> Outcome | None:
        """Take the drops of the next items, within the span."""
        self._drops.append(np.asarray(drops, dtype=float))
        below, above = self._wealth(self._margin)
        return Outcome.PASS if below >= self._needed else Outcome.FAIL if above >= self._needed else None

    def interval(self) -> Interval:
        """Return the margins that neither gambler has refuted so far."""
        low = self._edge(1, self._span[0])
        high = self._edge(0, self._span[1])
        return Interval(low, high, 1 - float(np.exp(-self._needed)), "confidence sequence by betting")

    def _wealth(self, margin: float) -> tuple[float, float]:
        values, counts = np.unique(np.concatenate(self._drops), return_counts=True)
        below, above = log_wealth(values, counts, margin, self._span)
        return float(below), float(above)

    def _edge(self, side: int, far: float) -> float:
        near = float(np.concatenate(self._drops).mean())
        for _ in range(40):
            middle = (near + far) / 2
            near, far = (near, middle) if self._wealth(middle)[side] >= self._needed else (middle, far)
        return far


def shared_confidence(confidence: float) -> tuple[float, float]:
    """Divide the allowed error between optional stopping and the final test; together they keep the level."""
    error = 1 - confidence
    return 1 - SEQUENCE_SHARE * error, 1 - (1 - SEQUENCE_SHARE) * error
