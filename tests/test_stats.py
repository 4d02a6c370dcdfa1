# SPDX-License-Identifier: Apache-2.0
"""The statistics against published examples, independent computations, and their own promises in simulation."""

from fractions import Fraction

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as scipy_stats

from gate import stats
from gate.report import Outcome
from gate.stats import Flips

Z95 = 1.6448536269514722


# --- counts and margins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"), [(0.5 / 100, "1/200"), (0.7 / 100, "7/1000"), (1 / 100, "1/100"), (0.3, "3/10")]
)
def test_a_margin_is_the_fraction_that_was_written(value, expected):
    assert stats.exact(value) == Fraction(expected)


@pytest.mark.parametrize("points", [0.1, 0.3, 0.5, 0.7, 0.9, 1.1])
def test_a_drop_of_exactly_the_margin_has_a_score_of_exactly_zero(points):
    lost = round(points * 100)
    assert stats.tango_score(10_000, lost, 0, stats.exact(points / 100)) == 0
    assert stats.tango_score(10_000, lost + 1, 0, stats.exact(points / 100)) > 0
    assert stats.tango_score(10_000, lost - 1, 0, stats.exact(points / 100)) < 0


def test_five_in_a_thousand_is_exactly_half_a_point():
    margin = stats.exact(0.5 / 100)
    assert Flips(1000, 5, 0).drop == margin
    assert 0.985 - 0.98 > 0.5 / 100  # what a comparison of two rounded accuracies says
    assert stats.non_inferior(Flips(1000, 5, 0), margin, 0.95) is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("counts", [(10, -1, 0), (10, 6, 5), (-1, 0, 0)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError, match="expected counts"):
        Flips(*counts)


# --- Tango -------------------------------------------------------------------------------------------------------------


def _likelihood_score(n, lost, gained, drop):
    """The score with the constrained maximum found by a search instead of the closed form."""

    def minus_log_likelihood(gain):
        lose = gain + drop
        cells = [(lost, lose), (gained, gain), (n - lost - gained, 1 - gain - lose)]
        return -sum(count * np.log(max(p, 1e-300)) for count, p in cells if count)

    low, high = max(0.0, -drop), (1 - drop) / 2
    gain = optimize.minimize_scalar(
        minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    ).x
    return (lost - gained - n * drop) / np.sqrt(n * (2 * gain + drop * (1 - drop)))


@pytest.mark.parametrize("counts", [(44, 1, 0), (50, 14, 3), (360, 5, 2), (1000, 21, 20), (100, 0, 4), (75, 3, 3)])
@pytest.mark.parametrize("drop", ["-1/50", "1/200", "1/100", "1/20"])
def test_the_score_agrees_with_a_search_for_the_constrained_maximum(counts, drop):
    expected = _likelihood_score(*counts, float(Fraction(drop)))
    assert float(stats.tango_score(*counts, Fraction(drop))) == pytest.approx(expected, abs=1e-5)


def test_the_interval_of_a_published_example():
    """Cavo 2012 (161 patients, 16 and 6 discordant) as in Fagerland, Lydersen & Laake 2017, ch. 8: 0.0054 to 0.1240."""
    found = stats.tango_interval(Flips(161, 16, 6), 0.975)
    assert (found.low, found.high) == pytest.approx((0.0054, 0.1240), abs=5e-5)
    assert 2 * stats.mcnemar_exact(Flips(161, 16, 6)) == pytest.approx(0.052479, abs=5e-7)


@pytest.mark.parametrize("counts", [(44, 1, 0), (50, 14, 3), (1000, 21, 20), (360, 0, 0)])
def test_the_interval_ends_where_the_score_reaches_the_quantile(counts):
    found = stats.tango_interval(Flips(*counts), 0.95)
    assert _likelihood_score(*counts, found.low) == pytest.approx(Z95, abs=1e-4)
    assert _likelihood_score(*counts, found.high) == pytest.approx(-Z95, abs=1e-4)


def test_without_flips_the_interval_has_its_known_width():
    z = scipy_stats.norm.ppf(0.975)
    found = stats.tango_interval(Flips(50, 0, 0), 0.975)
    assert (found.low, found.high) == pytest.approx((-(z**2) / (50 + z**2), z**2 / (50 + z**2)))


def test_with_a_margin_of_zero_the_score_is_mcnemars():
    assert float(stats.tango_score(500, 30, 12, Fraction(0))) == pytest.approx((30 - 12) / np.sqrt(30 + 12))


def test_268_items_without_a_flip_prove_one_point():
    margin = Fraction(1, 100)
    assert stats.flawless_items(margin, 0.95) == 268
    assert stats.non_inferior(Flips(268, 0, 0), margin, 0.95) is Outcome.PASS
    assert stats.non_inferior(Flips(267, 0, 0), margin, 0.95) is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("margin", ["1/200", "1/50", "1/10"])
def test_the_score_rises_with_losses_and_falls_with_gains(margin):
    """Curtailment relies on it: the extremes of what remains bound every verdict between them."""
    for n in (12, 40, 75):
        lost, gained = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
        score = stats.tango_score(n, lost, gained, Fraction(margin))
        score = np.where(lost + gained <= n, score, np.nan)
        assert not (np.diff(score, axis=0) < -1e-9).any()
        assert not (np.diff(score, axis=1) > 1e-9).any()


def _rates(n, drop, discordance, margin, decide):
    """Exact probabilities of each outcome, by summing over all likely counts."""
    lose, gain = (discordance + drop) / 2, (discordance - drop) / 2
    lost, gained = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    likely = (
        (lost + gained <= n)
        & (lost < n * lose + 8 * np.sqrt(n * lose) + 10)
        & (gained < n * gain + 8 * np.sqrt(n * gain) + 10)
    )
    lost, gained = lost[likely], gained[likely]
    cells = np.stack([lost, gained, n - lost - gained], axis=1)
    p = scipy_stats.multinomial.pmf(cells, n, [lose, gain, 1 - discordance])
    return float(p[decide(lost, gained, margin)].sum())


@pytest.mark.parametrize("n", [128, 500, 1000])
def test_a_model_that_loses_exactly_the_margin_passes_at_most_as_often_as_allowed(n):
    def passes(lost, gained, margin):
        return stats.tango_score(n, lost, gained, margin) <= -Z95

    assert _rates(n, 0.01, 0.04, Fraction(1, 100), passes) <= 0.055


@pytest.mark.parametrize("n", [128, 500])
def test_it_fails_at_most_as_often_as_allowed(n):
    assert _rates(n, 0.01, 0.04, Fraction(1, 100), lambda b, c, m: stats.tango_score(n, b, c, m) >= Z95) <= 0.06


def test_mcnemar_exact_is_the_binomial_tail():
    expected = scipy_stats.binomtest(9, 12, 0.5, alternative="greater").pvalue
    assert stats.mcnemar_exact(Flips(200, 9, 3)) == pytest.approx(expected)
    assert stats.mcnemar_exact(Flips(200, 0, 0)) == 1


@pytest.mark.parametrize(("right", "n"), [(0, 20), (20, 20), (353, 360), (1, 3)])
def test_the_floors_interval_agrees_with_scipy(right, n):
    expected = scipy_stats.binomtest(right, n).proportion_ci(0.90, method="exact")
    found = stats.clopper_pearson(right, n, 0.95)
    assert found.low == pytest.approx(expected.low if right else 0)
    assert found.high == pytest.approx(expected.high if right < n else 1)


# --- clusters ----------------------------------------------------------------------------------------------------------


def test_copies_of_an_item_are_worth_one():
    drops = np.repeat((np.arange(100) < 30).astype(float), 5)
    assert stats.effective_size(drops, np.repeat(np.arange(100), 5)) == pytest.approx(100)


def test_clusters_of_independent_items_are_worth_nearly_all():
    rng = np.random.default_rng(0)
    drops = rng.choice([1.0, 0.0, -1.0], 2000, p=[0.1, 0.8, 0.1])
    assert 1500 < stats.effective_size(drops, np.repeat(np.arange(400), 5)) <= 2000


def test_with_few_changed_clusters_each_is_worth_one_item():
    drops = np.zeros(500)
    drops[0] = 1
    assert stats.effective_size(drops, np.repeat(np.arange(100), 5)) == 100


# --- planning ----------------------------------------------------------------------------------------------------------


def test_the_items_asked_for_decide_in_four_runs_of_five():
    flips, margin = Flips(1000, 20, 20), Fraction(1, 100)
    needed = stats.required_items(flips, margin, 0.95)
    rng = np.random.default_rng(1)
    lost, gained, _ = rng.multinomial(needed, [0.02, 0.02, 0.96], 20_000).T
    passed = (stats.tango_score(needed, lost, gained, margin) <= -Z95).mean()
    assert 0.77 < passed < 0.84


def test_no_number_of_items_decides_a_drop_of_exactly_the_margin():
    assert stats.required_items(Flips(1000, 10, 0), Fraction(1, 100), 0.95) is None


def test_without_flips_as_many_are_asked_for_as_prove_it():
    assert stats.required_items(Flips(100, 0, 0), Fraction(1, 100), 0.95) == 268


def test_the_provable_margin_is_met_by_an_equal_model_in_four_runs_of_five():
    margin = stats.exact(round(stats.provable_margin(2000, 0.04, 0.95), 6))
    rng = np.random.default_rng(2)
    lost, gained, _ = rng.multinomial(2000, [0.02, 0.02, 0.96], 20_000).T
    assert 0.77 < (stats.tango_score(2000, lost, gained, margin) <= -Z95).mean() < 0.83


def test_the_detectable_drop_is_called_in_four_runs_of_five():
    drop = stats.detectable_drop(2000, 0.04, 0.01, 0.95)
    rng = np.random.default_rng(3)
    discordance = max(0.04, drop)
    p = [(discordance + drop) / 2, (discordance - drop) / 2, 1 - discordance]
    lost, gained, _ = rng.multinomial(2000, p, 20_000).T
    assert 0.74 < (stats.tango_score(2000, lost, gained, Fraction(1, 100)) >= Z95).mean() < 0.9


# --- bootstrap ---------------------------------------------------------------------------------------------------------


def _mean(values):
    return lambda weights: weights @ values / weights.sum(axis=1)


@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_bca_agrees_with_scipy(draw):
    values = getattr(np.random.default_rng(4), draw)(size=400)  # so many that Student's quantile is nearly normal
    expected = scipy_stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=0.9,
        n_resamples=20_000,
        batch=500,
        method="BCa",
        rng=np.random.default_rng(5),
    ).confidence_interval
    found = stats.bootstrap(_mean(values), 400, 0.95, resamples=20_000)
    width = expected.high - expected.low
    assert (found.low, found.high) == pytest.approx(
        (expected.low, expected.high), abs=0.05 * width
    )  # never narrower than the t interval


def test_bca_agrees_with_scipy_on_a_ratio_of_sums():
    rng = np.random.default_rng(6)
    errors, words = rng.poisson(2, 400), rng.integers(5, 30, 400)
    expected = scipy_stats.bootstrap(
        (errors, words),
        lambda e, w, axis: e.sum(axis) / w.sum(axis),
        paired=True,
        vectorized=True,
        confidence_level=0.9,
        n_resamples=20_000,
        batch=500,
        rng=np.random.default_rng(7),
    ).confidence_interval
    found = stats.bootstrap(lambda w: w @ errors / (w @ words), 400, 0.95, resamples=20_000)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=0.02)


def test_a_figure_that_resampling_shifts_gets_a_symmetric_interval():
    """The number of distinct values always falls when items are drawn twice; its percentiles all lie below it."""

    def distinct(weights):
        return (weights > 0).sum(axis=1).astype(float)

    found = stats.bootstrap(distinct, 200, 0.95)
    assert found.low < 200 < found.high
    assert found.method.startswith("normal bootstrap")


def test_the_bootstrap_repeats_itself():
    values = np.random.default_rng(8).normal(size=50)
    assert stats.bootstrap(_mean(values), 50, 0.95) == stats.bootstrap(_mean(values), 50, 0.95)
    assert stats.bootstrap(_mean(values), 50, 0.95) != stats.bootstrap(_mean(values), 50, 0.95, seed=1)


def test_whole_clusters_are_drawn():
    """Copies add nothing: 40 values five times over have the interval of the 40."""
    values = np.random.default_rng(9).normal(size=40)
    clustered = stats.bootstrap(_mean(np.repeat(values, 5)), 200, 0.95, clusters=np.repeat(np.arange(40), 5))
    single = stats.bootstrap(_mean(values), 40, 0.95)
    assert (clustered.low, clustered.high) == pytest.approx((single.low, single.high))


def test_equal_items_have_no_spread():
    found = stats.bootstrap(_mean(np.full(20, 0.3)), 20, 0.95)
    assert (found.low, found.high) == pytest.approx((0.3, 0.3))


def _coverage(runs, draw, truth, n, **options):
    inside = 0
    for seed in range(runs):
        values, clusters = draw(np.random.default_rng(seed), n)
        found = stats.bootstrap(_mean(values), len(values), 0.95, clusters=clusters, resamples=1000, **options)
        inside += found.low <= truth <= found.high
    return inside / runs


def _grouped(rng, n):
    shared = rng.normal(size=n)
    return (shared[:, None] + 0.5 * rng.normal(size=(n, 4))).ravel(), np.repeat(np.arange(n), 4)


def test_the_interval_covers_the_truth_as_often_as_promised():
    covered = _coverage(200, lambda rng, n: (rng.exponential(size=n), None), 1.0, 60)
    assert 0.83 < covered < 0.95  # both ends together promise 90 %


@pytest.mark.slow
def test_the_interval_covers_the_truth_of_clustered_items_as_often_as_promised():
    assert 0.87 < _coverage(2000, _grouped, 0.0, 60) < 0.92


def test_ignoring_clusters_would_be_too_sure():
    alone = _coverage(100, lambda rng, n: (_grouped(rng, n)[0], None), 0.0, 60)
    assert alone < 0.75 < _coverage(100, _grouped, 0.0, 60)


def test_rare_changes_follow_the_rule_of_three():
    assert stats.rare_change(0, 300, 0.95) == pytest.approx(1 - 0.05 ** (1 / 300))
    assert stats.rare_change(5, 5, 0.95) == 1


# --- many questions ------------------------------------------------------------------------------------------------------


def _holm(p_values):
    """Holm's procedure as he wrote it: in the order of the p-values, the r-th of m against 5 % / (m - r + 1)."""
    called = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > 0.05 / (len(p_values) - rank):
            break
        called.add(index)
    return called


@pytest.mark.parametrize("p_values", [[0.01, 0.04, 0.03], [0.01, 0.02, 0.04], [0.9, 0.8], [], [0.02], [0.012] * 4])
def test_calls_among_many_are_holms(p_values):
    def low_at(index, confidence):  # a normal estimate with this p-value for "at most 0"
        return scipy_stats.norm.isf(p_values[index]) - scipy_stats.norm.ppf(confidence)

    lows = [low_at(index, 0.95) for index in range(len(p_values))]
    assert set(stats.beyond_all(lows, low_at, 0.0, 0.95)) == _holm(p_values)


# --- stopping early ------------------------------------------------------------------------------------------------------


def _batches(values, size=16):
    return [values[i : i + size] for i in range(0, len(values), size)]


@pytest.mark.parametrize("seed", range(30))
def test_curtailment_gives_exactly_the_full_sets_verdict(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(100, 600))
    yardstick = rng.random(n) < rng.choice([0.9, 0.98])
    candidate = yardstick ^ (rng.random(n) < rng.choice([0.0, 0.01, 0.05, 0.2]))
    margin = Fraction(2, 100)
    flips = Flips(n, int((yardstick & ~candidate).sum()), int((candidate & ~yardstick).sum()))
    decider = stats.Curtailment(int(yardstick.sum()), n, margin, 0.95)
    answers = [decider.update(c, y) for c, y in zip(_batches(candidate), _batches(yardstick), strict=True)]
    said = {answer for answer in answers if answer is not None}
    assert said == {stats.non_inferior(flips, margin, 0.95)}
    assert answers[-1] is not None


def test_curtailment_stops_a_clear_failure_early_and_a_pass_late():
    rng = np.random.default_rng(0)
    yardstick = rng.random(5000) < 0.98
    stopped = {}
    for name, rate in (("bad", 0.1), ("good", 0.001)):
        candidate = yardstick & (rng.random(5000) >= rate)
        decider = stats.Curtailment(int(yardstick.sum()), 5000, Fraction(1, 100), 0.95)
        answers = [decider.update(c, y) for c, y in zip(_batches(candidate), _batches(yardstick), strict=True)]
        stopped[name] = next(i for i, answer in enumerate(answers) if answer) * 16
    assert stopped["bad"] < 0.4 * 5000 < 0.9 * 5000 < stopped["good"]


@pytest.mark.parametrize("right", [180, 185, 192, 200])
def test_a_floor_is_curtailed_to_the_full_sets_verdict(right):
    candidate = np.random.default_rng(1).permutation(np.arange(200) < right)
    decider = stats.FloorCurtailment(200, 0.92, 0.95)
    said = {answer for batch in _batches(candidate) if (answer := decider.update(batch)) is not None}
    assert said == {stats.decide_floor(stats.clopper_pearson(right, 200, 0.95), 0.92)}


def _sequence_false_rate(drop, margin, want, runs, n):
    """How often a sequence that is looked at after every item ever says `want`."""
    rng = np.random.default_rng(2)
    p = [(0.04 - drop) / 2, 0.96, (0.04 + drop) / 2]
    values = np.array([-1.0, 0.0, 1.0])
    false = 0
    for _ in range(runs):
        drawn = rng.choice(3, n, p=p)
        counts = np.cumsum(np.eye(3)[drawn], axis=0)
        wealth = stats.log_wealth(values, counts, margin)[want]
        false += wealth.max() >= np.log(1 / 0.05)
    return false / runs


def test_a_sequence_looked_at_after_every_item_keeps_its_error():
    assert _sequence_false_rate(0.01, 0.01, 0, 300, 2000) <= 0.05 + 0.03
    assert _sequence_false_rate(0.01, 0.01, 1, 300, 2000) <= 0.05 + 0.03


def test_a_sequence_finds_clear_cases():
    rng = np.random.default_rng(3)
    for p, want in (([0.004, 0.99, 0.006], Outcome.PASS), ([0.0, 0.9, 0.1], Outcome.FAIL)):
        sequence = stats.ConfidenceSequence(0.01, 0.99)
        answers = [sequence.update(rng.choice([-1.0, 0.0, 1.0], 32, p=p)) for _ in range(120)]
        assert next(answer for answer in answers if answer is not None) is want


def test_a_sequences_interval_excludes_the_margin_when_it_decides():
    sequence = stats.ConfidenceSequence(0.01, 0.99)
    while sequence.update(np.zeros(32)) is None:
        pass
    assert sequence.interval().low < 0 < sequence.interval().high <= 0.01


def test_wealth_is_a_fair_game_at_the_margin():
    """The expected capital after one item is 1 when the true drop is the margin."""
    values, p = np.array([-1.0, 0.0, 1.0]), np.array([0.1, 0.78, 0.12])
    capital = np.exp([stats.log_wealth(values, np.eye(3)[i], 0.02) for i in range(3)])
    assert p @ capital == pytest.approx([1.0, 1.0])


def test_the_shared_errors_add_up_to_the_level():
    early, final = stats.shared_confidence(0.95)
    assert (1 - early) + (1 - final) == pytest.approx(0.05)
