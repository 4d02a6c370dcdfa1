# SPDX-License-Identifier: Apache-2.0
"""Limits on slices, classes and items: what breaks them, what cannot tell, and how many of them may be wrong by chance."""

import numpy as np
import pytest

from gate.checks import accuracy
from gate.config import AccuracyBudget, MetricChoice
from gate.errors import ConfigError, UsageError
from gate.evidence import Evidence
from gate.metrics import load
from gate.report import Outcome

ACCURACY = load(MetricChoice(name="accuracy"))


def budget(**given):
    return AccuracyBudget.model_validate({"drop": "2 points", **given})


def flipped(n, lost, **more):
    """The first `lost` items went from right to wrong."""
    now = np.ones(n)
    now[:lost] = 0
    return Evidence(ACCURACY, tuple(map(str, range(n))), now, {"source": np.ones(n)}, n, **more)


def groups(**sizes):
    return tuple(name for name, size in sizes.items() for _ in range(size))


def row(evidence, limits, part):
    return next(r for r in accuracy.judge(evidence, limits) if r.slice == part)


def test_a_slice_that_the_mean_hides_fails_where_it_has_a_limit():
    evidence = flipped(2000, 12, slices=groups(night=50, day=1950))
    whole, night = accuracy.judge(evidence, budget(slice_drop="3 points"))
    assert (whole.outcome, night.outcome, night.slice) == (Outcome.PASS, Outcome.FAIL, "each slice")
    assert night.message.startswith(
        "1 slice of 2 lost more than allowed: night at least 14.3 points, corrected for 2 slices"
    )
    assert night.measurements[0].name == "slice_drop"
    assert night.measurements[0].value == pytest.approx(0.24)
    assert [m.name for m in night.measurements[1:]] == ["slice_drop:day", "slice_drop:night"]
    assert not any("slice" in f.rule for f in whole.findings), "its own row tells it"


def test_slices_pass_when_each_shows_it():
    result = row(flipped(2000, 2, slices=groups(a=1000, b=1000)), budget(slice_drop="3 points"), "each slice")
    assert result.outcome is Outcome.PASS
    assert result.message == "none of 2 slices loses more than 0.61 points (95 % sure), 3 points allowed"


def test_a_slice_of_few_items_cannot_tell_and_says_how_many_would():
    result = row(flipped(2000, 0, slices=groups(night=20, day=1980)), budget(slice_drop="3 points"), "each slice")
    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.message.startswith(
        "1 slice of 2 has too few items to tell; night (20 items) may lose up to 11.9 points"
    )
    assert "for slice night, about" in result.remedy


def test_classes_are_judged_by_the_share_of_their_items_that_is_right():
    f1 = load(MetricChoice(name="f1"))
    true = np.repeat([0, 1], 400)
    said = np.where(np.arange(800) < 40, 1, true)
    rows, before = (np.stack([answers, true], axis=1).astype(float) for answers in (said, true))
    evidence = Evidence(f1, tuple(map(str, range(800))), rows, {"source": before}, 800, classes=tuple(map(str, true)))
    result = row(evidence, budget(drop="20 points", class_drop="5 points"), "each class")
    assert result.outcome is Outcome.FAIL
    assert {m.name: round(m.value, 3) for m in result.measurements} == {
        "class_drop": 0.1,
        "class_drop:0": 0.1,
        "class_drop:1": 0.0,
    }


@pytest.mark.parametrize(
    ("by", "share", "outcome"),
    [(0.0, "95 %", Outcome.FAIL), (0.5, "95 %", Outcome.PASS), (0.0, "89 %", Outcome.INCONCLUSIVE)],
)
def test_so_many_items_may_become_worse_by_so_much(by, share, outcome):
    psnr = load(MetricChoice(name="psnr"))
    before = np.random.default_rng(0).uniform(30, 40, 300)
    now = before - np.where(np.arange(300) < 30, 0.5, 0.0)  # a tenth is worse, by exactly 0.5 dB
    evidence = Evidence(psnr, tuple(map(str, range(300))), now, {"source": before}, 300)
    result = row(evidence, budget(drop=1, not_worse={"share": share, "by": by}), "each item")
    assert result.outcome is outcome
    assert result.measurements[0].value == (1.0 if by else 0.9)


def test_a_word_error_rate_can_be_held_item_by_item():
    wer = load(MetricChoice(name="wer"))
    before = np.tile([1.0, 10.0], (200, 1))
    now = before + [[1.0, 0.0]] * (np.arange(200) < 60)[:, None]
    evidence = Evidence(wer, tuple(map(str, range(200))), now, {"source": before}, 200)
    result = row(evidence, budget(drop="5 points", not_worse="90 %"), "each item")
    assert (result.outcome, result.measurements[0].value) == (Outcome.FAIL, 0.7)
    assert result.message.startswith("60 of 200 items became worse: at most 75.")


def test_an_identical_model_keeps_every_part():
    evidence = flipped(50, 0, same=frozenset({"source"}))
    rows = accuracy.judge(evidence, budget(slice_drop="1 point", class_drop="1 point", not_worse="99 %"))
    assert [(r.slice, r.outcome) for r in rows] == [
        (part, Outcome.PASS) for part in (None, "each slice", "each class", "each item")
    ]


@pytest.mark.parametrize(
    ("metric", "given", "told"),
    [
        ("accuracy", {"slice_drop": "3 %"}, "slice_drop: found 3 %; accuracy is a proportion"),
        ("mae", {"drop": 1, "slice_drop": "3 points"}, "slice_drop: found 3 points; mae is no proportion"),
        ("mae", {"drop": 1, "class_drop": "3 points"}, "class_drop: mae has no classes"),
        ("accuracy", {"class_drop": "3 %"}, "write 5 points"),
        ("f1", {"not_worse": "95 %"}, "not_worse: f1 says nothing of one item alone"),
    ],
)
def test_a_limit_that_the_metric_cannot_have_is_refused(metric, given, told):
    with pytest.raises(ConfigError, match=told):
        accuracy.check_budget(load(MetricChoice(name=metric)), budget(**given))


def test_a_limit_on_slices_needs_slices():
    with pytest.raises(UsageError, match="slice_drop: the dataset says no slice"):
        accuracy.judge(flipped(100, 0), budget(slice_drop="3 points"))


def test_a_slice_on_which_the_metric_has_no_value_is_told_and_is_no_pass():
    f1 = load(MetricChoice(name="f1", average="binary"))
    rows = np.array([[1.0, 1.0]] * 300 + [[0.0, 0.0]] * 50)
    evidence = Evidence(f1, tuple(map(str, range(350))), rows, {"source": rows}, 350, slices=groups(yes=300, no=50))
    result = row(evidence, budget(slice_drop="3 points"), "each slice")
    assert result.outcome is Outcome.INCONCLUSIVE
    assert "on 1 slice the metric has no value" in result.message


@pytest.mark.slow
def test_of_forty_slices_at_the_limit_one_is_called_at_most_as_often_as_one_alone():
    rng, runs, false = np.random.default_rng(1), 120, 0
    slices = tuple(f"s{i % 40:02d}" for i in range(4000))
    for _ in range(runs):
        now = (rng.random(4000) >= 0.05).astype(float)  # each slice loses exactly the 5 points that it may
        evidence = Evidence(ACCURACY, tuple(map(str, range(4000))), now, {"source": np.ones(4000)}, 4000, slices=slices)
        false += row(evidence, budget(drop="50 points", slice_drop="5 points"), "each slice").outcome is Outcome.FAIL
    assert false / runs <= 0.05 + 0.05  # uncorrected, it would be more than four runs in five
