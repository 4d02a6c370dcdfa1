# SPDX-License-Identifier: Apache-2.0
"""Is one package faster than another, and how sure can we be?

Two packages were timed in the same rounds. Times of neighbouring rounds resemble one another (heat, other jobs), so rounds are
resampled in blocks, as pairs; the figure is the ratio of the medians, which a few slow outliers do not move.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gate.stats import Interval

Array = npt.NDArray[Any]

RESAMPLES = 4_000


def speedup(candidate: Sequence[float], other: Sequence[float], confidence: float, *, seed: int = 0) -> Interval:
    """Return the interval of (median time of the other) / (median time of the candidate): 2 is twice as fast.

    Circular block bootstrap (Politis & Romano 1992) over rounds, blocks of n^(1/3) rounds. Each end on its own is right with
    `confidence`.
    """
    times = np.stack([np.asarray(candidate), np.asarray(other)])
    n = times.shape[1]
    block = max(1, round(n ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(0, n, (RESAMPLES, -(-n // block)))
    rounds = (starts[:, :, None] + np.arange(block)).reshape(RESAMPLES, -1)[:, :n] % n
    ratios = np.median(times[1][rounds], axis=1) / np.median(times[0][rounds], axis=1)
    low, high = np.quantile(ratios, [1 - confidence, confidence])
    return Interval(float(low), float(high), confidence, f"block bootstrap of the ratio of medians, {n} rounds")


def upper_quantile(times: Sequence[float], share: float, confidence: float) -> tuple[float, Interval]:
    """Return a quantile of the times, such as the 95th percentile, and its interval by order statistics.

    The count of times below the true quantile is binomial, whatever the times are distributed like. Where there are too few
    times for an upper end, it is the slowest one.
    """
    from scipy.stats import binom  # a second to import, which a run without times is spared

    ordered = np.sort(np.asarray(times, dtype=float))
    n = len(ordered)
    low = int(binom.ppf(1 - confidence, n, share)) - 1
    high = int(binom.ppf(confidence, n, share))
    ends = ordered[max(low, 0)], ordered[min(high, n - 1)]
    interval = Interval(float(ends[0]), float(ends[1]), confidence, f"order statistics of {n} times")
    return float(np.quantile(ordered, share)), interval
