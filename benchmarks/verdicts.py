# SPDX-License-Identifier: Apache-2.0
"""How often does an accuracy gate say the wrong thing?

Simulated models against their original, at a margin of 1 point and with 4 % of the answers changing. Our rule (Tango's score test at
95 %, and with optional stopping) and the rule of other gates (two accuracies, compared) see the same draws. Run from the
repository: python -m benchmarks.verdicts [--draws 20000]
"""

import argparse
import json
import platform
import sys
import time
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from gate import stats

MARGIN = Fraction(1, 100)
DISCORDANCE = 0.04
CONFIDENCE = 0.95
SIZES = (128, 500, 1000, 3000)
TRUE_DROPS = {"equal": 0.0, "at the margin": 0.01, "twice the margin": 0.02}
LOOK_EVERY = 32  # items, as the gate does

Counts = npt.NDArray[np.int64]


def draw(
    generator: np.random.Generator, draws: int, n: int, drop: float, discordance: float = DISCORDANCE
) -> tuple[Counts, Counts, Counts]:
    """Return items seen, losses and gains at each look: (draws, looks)."""
    seen = np.append(np.arange(LOOK_EVERY, n, LOOK_EVERY), n)
    steps = np.diff(seen, prepend=0)
    p = [(discordance + drop) / 2, (discordance - drop) / 2, 1 - discordance]
    taken = np.stack([generator.multinomial(step, p, draws) for step in steps], axis=1).cumsum(axis=1)
    return seen, taken[..., 0], taken[..., 1]


def point_rule(n: int, lost: Counts, gained: Counts) -> npt.NDArray[np.bool_]:
    """Pass when the measured drop is at most the margin, as gates that compare two accuracies do; in integers, to be fair."""
    return (lost - gained) * MARGIN.denominator <= n * MARGIN.numerator


def sequential(seen: Counts, lost: Counts, gained: Counts) -> tuple[npt.NDArray[np.bool_], Counts]:
    """Return whether the rule with optional stopping passes, and the items that it used."""
    early, final = stats.shared_confidence(CONFIDENCE)
    needed = -np.log1p(-early)
    counts = np.stack([gained, seen - lost - gained, lost], axis=-1)
    below, above = stats.log_wealth(np.array([-1.0, 0.0, 1.0]), counts, float(MARGIN))
    stopped = (below >= needed) | (above >= needed)
    first = np.where(stopped.any(axis=1), stopped.argmax(axis=1), len(seen) - 1)
    rows = np.arange(len(lost))
    at_the_end = stats.tango_score(seen[-1], lost[:, -1], gained[:, -1], MARGIN) <= -stats.quantile(final)
    passed = np.where(stopped.any(axis=1), below[rows, first] >= needed, at_the_end)
    return passed, seen[first]


def simulate(generator: np.random.Generator, draws: int, n: int, drop: float) -> dict[str, float]:
    """Return how often each rule passes, and the median of items used when stopping early."""
    seen, lost, gained = draw(generator, draws, n, drop)
    paired = stats.tango_score(n, lost[:, -1], gained[:, -1], MARGIN) <= -stats.quantile(CONFIDENCE)
    passed, used = sequential(seen, lost, gained)
    return {
        "point": float(point_rule(n, lost[:, -1], gained[:, -1]).mean()),
        "paired": float(paired.mean()),
        "sequential": float(passed.mean()),
        "items": float(np.median(used)),
    }


def early_shares(generator: np.random.Generator, draws: int) -> dict[str, float]:
    """Return the median share of 5,000 items that a clear case uses: passes by the sequence, failures by curtailment."""
    n, right = 5_000, 4_900
    seen, lost, gained = draw(generator, draws, n, 0.0, discordance=0.01)
    passes = np.median(sequential(seen, lost, gained)[1]) / n
    seen, lost, gained = draw(generator, draws, n, 0.10, discordance=0.10)
    left_to_gain = (n - right) * (1 - seen / n)  # as many as the original is expected to get wrong in what remains
    certain = stats.tango_score(n, lost, gained + left_to_gain, MARGIN) >= stats.quantile(CONFIDENCE)
    return {
        "pass_by_sequence": float(passes),
        "failure_by_curtailment": float(np.median(seen[certain.argmax(axis=1)]) / n),
    }


CLUSTERS = ((50, 40, 0.1), (50, 40, 0.3), (100, 20, 0.1), (20, 100, 0.1))  # clusters, items each, correlation


def clustered(generator: np.random.Generator, draws: int) -> dict[str, dict[str, float]]:
    """Return how often flips and a continuous loss of exactly the margin pass when items come in clusters."""
    return {
        f"{count} x {size}, correlation {inside}": {
            "flips": float(np.mean([_clustered_flips(generator, count, size, inside) for _ in range(draws)])),
            "continuous": float(np.mean([_clustered_values(generator, count, size, inside) for _ in range(draws)])),
        }
        for count, size, inside in CLUSTERS
    }


def _clustered_flips(generator: np.random.Generator, count: int, size: int, inside: float) -> bool:
    """Draw each cluster's own flip rates about the margin (Dirichlet), then its items; does it pass?"""
    spread = (1 - inside) / inside
    rates = np.array([(DISCORDANCE + float(MARGIN)) / 2, (DISCORDANCE - float(MARGIN)) / 2, 1 - DISCORDANCE])
    drawn = np.array([generator.multinomial(size, p) for p in generator.dirichlet(rates * spread, count)])
    drops = np.concatenate([np.repeat([1.0, -1.0, 0.0], row) for row in drawn])
    flips = stats.Flips(count * size, int(drawn[:, 0].sum()), int(drawn[:, 1].sum()))
    members = np.repeat(np.arange(count), size)
    interval, _ = stats.clustered_bounds(flips, drops, members, CONFIDENCE)
    return interval.high < float(MARGIN)


def _clustered_values(generator: np.random.Generator, count: int, size: int, inside: float) -> bool:
    """Draw skewed losses whose mean is exactly the margin, correlated within clusters; does it pass?"""
    shared = np.sqrt(inside) * (generator.exponential(size=(count, 1)) - 1)
    values = (1.0 + shared + np.sqrt(1 - inside) * generator.normal(size=(count, size))).ravel()

    def mean(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(weights @ values / weights.sum(axis=1))

    members = np.repeat(np.arange(count), size)
    return stats.bootstrap(mean, len(values), CONFIDENCE, clusters=members, resamples=500).high < 1.0


def table(found: dict[int, dict[str, dict[str, float]]]) -> str:
    """Lay the pass rates out, in per cent."""
    lines = [
        f"{'items':>6}  {'true drop':<17}{'two accuracies':>15}{'paired':>9}{'sequential':>12}{'median items':>14}"
    ]
    for n, cases in found.items():
        for case, rates in cases.items():
            shown = [f"{100 * rates[rule]:.1f} %" for rule in ("point", "paired", "sequential")]
            lines.append(f"{n:>6}  {case:<17}{shown[0]:>15}{shown[1]:>9}{shown[2]:>12}{rates['items']:>14.0f}")
    return "\n".join(lines)


def figures(found: dict[int, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Name the numbers that the project's promises are about, by number of items."""
    wanted = {
        "false_pass": ("at the margin", "paired"),
        "false_pass_sequential": ("at the margin", "sequential"),
        "false_pass_point": ("at the margin", "point"),
        "power": ("equal", "paired"),
        "power_sequential": ("equal", "sequential"),
        "power_point": ("equal", "point"),
    }
    return {name: {str(n): cases[case][rule] for n, cases in found.items()} for name, (case, rule) in wanted.items()}


def main() -> None:
    """Simulate, print the table, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20_000, help="simulated models per row")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    generator, started = np.random.default_rng(given.seed), time.monotonic()
    found = {n: {case: simulate(generator, given.draws, n, drop) for case, drop in TRUE_DROPS.items()} for n in SIZES}
    print("How often each rule passes; at the margin and beyond, a pass is an error")
    print(table(found))
    shares = early_shares(generator, given.draws // 10)
    print(f"share of 5,000 items used by clear cases: {shares}")
    in_clusters = clustered(generator, given.draws // 20)
    for name, rates in in_clusters.items():
        print(f"wrongly passes, clusters of {name}: flips {rates['flips']:.1%}, continuous {rates['continuous']:.1%}")
    at_margin = figures(found)
    ratios = {
        "false_pass_point_to_paired": min(
            at_margin["false_pass_point"][n] / max(at_margin["false_pass"][n], 1e-9) for n in at_margin["false_pass"]
        )
    }
    machine = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": sys.platform,
        "draws": given.draws,
        "seconds": round(time.monotonic() - started, 1),
    }
    print(
        json.dumps(
            {
                "benchmark": "verdicts",
                "ratios": ratios,
                "figures": {**at_margin, "items_share": shares, "false_pass_clustered": in_clusters},
                "machine": machine,
            }
        )
    )


if __name__ == "__main__":
    main()
