# SPDX-License-Identifier: Apache-2.0
"""Verdicts on evidence that is made by hand, and on models that are small functions."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from gate import data
from gate.checks import accuracy
from gate.config import AccuracyBudget, MetricChoice
from gate.errors import ConfigError, UsageError
from gate.evidence import Evidence, Stop, recorded
from gate.metrics import batched, load
from gate.report import Bound, Outcome, Severity, Unit

ACCURACY = load(MetricChoice(name="accuracy"))


def budget(**given):
    return AccuracyBudget.model_validate({"drop": "1 point", **given})


def flipped(n, lost, gained, right=None, **more):
    """Evidence of a right-or-wrong metric with so many flips; the yardstick is right on all but what is gained."""
    before, now = np.ones(n), np.ones(n)
    before[:gained] = 0
    now[gained : gained + lost] = 0
    if right is not None:
        now[right:], before[right:] = 0, 0
    given = {"ids": tuple(f"i{k:04d}" for k in range(n)), "total": n} | more
    return Evidence(metric=ACCURACY, candidate=now, yardsticks={"source": before}, **given)


def only(results):
    (result,) = results
    return result


def named(result, name):
    return next(m for m in result.measurements if m.name == name)


# --- the rule ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "lost", "gained", "outcome"),
    [
        (1000, 0, 0, Outcome.PASS),
        (268, 0, 0, Outcome.PASS),
        (267, 0, 0, Outcome.INCONCLUSIVE),
        (1000, 3, 0, Outcome.PASS),
        (1000, 5, 0, Outcome.INCONCLUSIVE),
        (1000, 10, 0, Outcome.INCONCLUSIVE),
        (1000, 30, 0, Outcome.FAIL),
        (1000, 0, 30, Outcome.PASS),
        (128, 20, 20, Outcome.INCONCLUSIVE),
    ],
)
def test_pass_fail_or_too_thin_to_say(n, lost, gained, outcome):
    assert only(accuracy.judge(flipped(n, lost, gained), budget())).outcome is outcome


def test_a_drop_of_exactly_the_margin_is_seen_as_exactly_that():
    result = only(accuracy.judge(flipped(1000, 5, 0), budget(drop="0.5 points")))
    drop = named(result, "accuracy_drop")
    assert (drop.value, drop.limit, result.outcome) == (0.005, 0.005, Outcome.INCONCLUSIVE)
    assert "exactly the margin" in result.remedy


def test_the_message_is_for_someone_who_is_no_statistician():
    result = only(accuracy.judge(flipped(360, 1, 0), budget(drop="2 points")))
    assert result.message == (
        "99.7 % of 360 items right, the original 100 %: the loss is at most 1.24 points (95 % sure), 2 points allowed"
    )
    assert result.remedy is None


def test_a_thin_case_says_how_many_items_would_decide_and_what_these_prove():
    result = only(accuracy.judge(flipped(200, 1, 1), budget()))
    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.message.endswith(
        "too few items to tell; in truth up to 1.77 points may be lost, or up to 1.77 points gained (95 % sure of each end), 1 point allowed"
    )
    assert "about 419 further items would decide" in result.remedy
    assert "with these 200, the smallest margin" in result.remedy


def test_the_measurements_say_what_was_compared_and_how():
    result = only(accuracy.judge(flipped(1000, 12, 4), budget(confidence="99 %")))
    drop, now = named(result, "accuracy_drop"), named(result, "accuracy")
    assert (drop.value, drop.unit, drop.limit, drop.n, drop.confidence) == (0.008, Unit.POINTS, 0.01, 1000, 0.99)
    assert drop.low < 0.008 < drop.high
    assert "Tango" in drop.method
    assert (now.value, now.baseline) == (0.988, 0.996)
    assert named(result, "right_to_wrong").value == 12
    assert named(result, "wrong_to_right").value == 4
    assert named(result, "provable_margin").value > 0.009


def test_confidence_decides_how_much_is_asked_for():
    evidence = flipped(1000, 4, 0)
    assert only(accuracy.judge(evidence, budget(confidence="90 %"))).outcome is Outcome.PASS
    assert only(accuracy.judge(evidence, budget(confidence="99 %"))).outcome is Outcome.INCONCLUSIVE


def test_without_a_limit_the_loss_is_shown_without_a_verdict():
    result = only(accuracy.judge(flipped(1000, 100, 0), None))
    assert result.outcome is Outcome.PASS
    assert result.message.endswith("no limit is set")
    assert named(result, "accuracy_drop").limit is None


def test_each_yardstick_is_its_own_row_in_the_order_asked_for():
    evidence = flipped(1000, 30, 0)
    both = Evidence(
        metric=ACCURACY,
        ids=evidence.ids,
        candidate=evidence.candidate,
        yardsticks={"source": evidence.yardsticks["source"], "base": evidence.candidate.copy()},
        total=1000,
    )
    rows = accuracy.judge(both, budget(against=["base", "source"]))
    assert [(r.against, r.outcome) for r in rows] == [("base", Outcome.PASS), ("source", Outcome.FAIL)]


def test_bounds_are_written_on_their_own_side_of_the_margin():
    thin, enough = (only(accuracy.judge(flipped(n, 0, 0), budget())).message for n in (267, 268))
    assert "up to 1.01 points may be lost, or up to 1.01 points gained" in thin
    assert "at most 1 point " in enough


def test_a_figure_is_not_rounded_to_100_percent():
    assert only(accuracy.judge(flipped(5000, 1, 0), budget())).message.startswith("99.98 % of 5,000 items right")


@pytest.mark.parametrize("name", ["f1", "map"])
def test_data_on_which_a_metric_has_no_value_is_refused(name):
    given = {"boxes": "b", "scores": "s"} if name == "map" else {"average": "binary"}
    metric = load(MetricChoice(name=name, **given))
    rows = np.full((5, 3), -1.0) if name == "map" else np.zeros((5, 2))
    evidence = Evidence(metric, tuple("abcde"), rows, {"source": rows}, 5)
    with pytest.raises(UsageError, match="has no value on these items"):
        accuracy.judge(evidence, budget())


def test_a_percentage_of_nothing_is_refused():
    with pytest.raises(UsageError, match="there is no percentage"):
        accuracy.judge(continuous("mae", np.zeros(50), np.ones(50)), budget(drop="5 %"))


def test_one_item_proves_nothing():
    one = continuous("mae", [1.0], [1.0])
    floor, drop = accuracy.judge(one, budget(drop=0.1, at_least=2))
    assert {floor.outcome, drop.outcome} == {Outcome.INCONCLUSIVE}
    assert "one alone says nothing of others" in floor.message
    assert (drop.measurements[0].low, drop.measurements[0].high) == (None, None)


@pytest.mark.parametrize(
    ("now", "before", "outcome"),
    [([0, 1] * 50, [1, 0] * 50, "inconclusive"), ([0] * 50, [1] * 50, "fail"), ([1] * 50, [0] * 50, "pass")],
)
def test_where_every_item_changes_the_counts_still_decide(now, before, outcome):
    ids = tuple(map(str, range(len(now))))
    evidence = Evidence(ACCURACY, ids, np.array(now, float), {"source": np.array(before, float)}, len(ids))
    assert only(accuracy.judge(evidence, budget())).outcome == outcome


def test_one_cluster_is_one_item_however_many_it_holds():
    result = only(accuracy.judge(flipped(300, 0, 0, clusters=("a",) * 300), budget()))
    assert result.outcome is Outcome.INCONCLUSIVE


# --- the floor ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "outcome"), [(360, Outcome.PASS), (342, Outcome.PASS), (331, Outcome.INCONCLUSIVE), (300, Outcome.FAIL)]
)
def test_the_floor_is_a_row_of_its_own(right, outcome):
    floor, _ = accuracy.judge(flipped(360, 0, 0, right), budget(at_least="92 %"))
    figure = floor.measurements[0]
    assert (floor.outcome, floor.against) == (outcome, None)
    assert (figure.name, figure.value, figure.limit, figure.bound) == ("accuracy", right / 360, 0.92, Bound.AT_LEAST)


def test_a_floor_of_an_error_is_a_ceiling():
    metric = load(MetricChoice(name="mae"))
    rows = np.random.default_rng(0).uniform(0.9, 1.1, 200)
    evidence = Evidence(metric, tuple(map(str, range(200))), rows, {}, 200)
    high, low = (accuracy.judge(evidence, AccuracyBudget(at_least=limit))[0] for limit in (1.1, 0.9))
    assert (high.outcome, low.outcome) == (Outcome.PASS, Outcome.FAIL)
    assert high.measurements[0].bound is Bound.AT_MOST


# --- other metrics -----------------------------------------------------------------------------------------------------


def continuous(name, before, now, **more):
    metric = load(MetricChoice(name=name))
    ids = tuple(map(str, range(len(before))))
    return Evidence(metric, ids, np.asarray(now), {"source": np.asarray(before)}, len(ids), **more)


ERRORS = np.random.default_rng(1).uniform(1, 2, 300)


@pytest.mark.parametrize(
    ("drop", "worse", "outcome"),
    [
        (0.1, 0.0, Outcome.PASS),
        (0.1, 0.3, Outcome.FAIL),
        (0.1, 0.1, Outcome.INCONCLUSIVE),
        ("5 %", 0.01, Outcome.PASS),
        ("5 %", 0.3, Outcome.FAIL),
    ],
)
def test_an_error_may_rise_in_its_own_unit_or_relative_to_what_it_was(drop, worse, outcome):
    noise = np.random.default_rng(2).normal(0, 0.1, 300)
    result = only(accuracy.judge(continuous("mae", ERRORS, ERRORS + worse + noise - noise.mean()), budget(drop=drop)))
    assert result.outcome is outcome
    assert "bootstrap" in named(result, "mae_drop").method
    assert named(result, "mae_drop").value == pytest.approx(worse / (ERRORS.mean() if drop == "5 %" else 1))


def test_the_share_of_items_that_did_not_become_worse_is_told():
    result = only(
        accuracy.judge(continuous("mae", ERRORS, ERRORS + np.where(np.arange(300) < 30, 0.1, 0)), budget(drop=0.1))
    )
    assert named(result, "not_worse").value == 0.9


def test_few_changes_do_not_make_a_bootstrap_too_sure():
    """Ten items alike prove nothing about one in a hundred, though their bootstrap has no spread at all."""
    metric = load(MetricChoice(name="f1"))
    scores = np.eye(3)[np.arange(10) % 3]
    rows = metric.per_item({"out": scores}, np.arange(10) % 3)
    ids = tuple(map(str, range(10)))
    result = only(accuracy.judge(Evidence(metric, ids, rows, {"source": rows}, 10), budget()))
    assert result.outcome is Outcome.INCONCLUSIVE
    assert named(result, "f1_drop").high > 0.2


def test_clustered_items_count_less():
    alone = flipped(1000, 3, 0)
    grouped = flipped(1000, 3, 0, clusters=tuple(str(i // 20) for i in range(1000)))
    assert only(accuracy.judge(alone, budget())).outcome is Outcome.PASS
    result = only(accuracy.judge(grouped, budget()))
    assert result.outcome is Outcome.INCONCLUSIVE
    assert "worth 50 independent" in named(result, "accuracy_drop").method


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("accuracy", {"drop": "1 %"}, "write points"),
        ("accuracy", {"drop": 1}, "write points"),
        ("mae", {"drop": "1 point"}, "no proportion"),
        ("accuracy", {"at_least": 92}, "write it as 92 %"),
        ("accuracy", {"drop": "0 points"}, "no number of items proves"),
    ],
)
def test_a_limit_that_could_mean_two_things_is_refused(name, given, told):
    with pytest.raises(ConfigError, match=told):
        accuracy.check_budget(load(MetricChoice(name=name)), AccuracyBudget.model_validate(given))


# --- answers that are none -----------------------------------------------------------------------------------------------


def test_new_answers_that_are_not_finite_fail():
    evidence = flipped(1000, 0, 0)
    evidence.candidate[[7, 3]] = np.nan
    result = only(accuracy.judge(evidence, budget()))
    assert result.outcome is Outcome.FAIL
    assert result.message.startswith("2 of 1,000 answers are not finite")
    assert result.findings[0].evidence == "i0003, i0007"


def test_a_yardstick_that_is_not_finite_is_no_answer():
    before = ERRORS.copy()
    before[0] = np.nan
    assert only(accuracy.judge(continuous("mae", before, ERRORS), budget(drop=0.1))).outcome is Outcome.ERROR


# --- details -----------------------------------------------------------------------------------------------------------


def test_flips_name_their_items():
    found = only(accuracy.judge(flipped(1000, 12, 1), budget())).findings
    assert [f.message for f in found] == ["went from right to wrong: 12 items", "went from wrong to right: 1 item"]
    assert found[0].evidence.startswith("i0001, i0002")
    assert found[0].evidence.endswith("and 2 more")


def test_a_slice_that_the_mean_hides_is_told():
    slices = tuple("night" if i < 50 else "day" for i in range(2000))
    result = only(accuracy.judge(flipped(2000, 12, 0, slices=slices), budget(drop="2 points")))
    assert result.outcome is Outcome.PASS
    (told,) = (f for f in result.findings if f.rule == "accuracy.slice_drop")
    assert told.severity is Severity.WARNING
    assert told.message.startswith("slice night: 24 points lost on 50 items, more than the 2 points allowed")


def test_of_many_slices_the_worst_by_chance_is_not_called_a_drop():
    slices = tuple(f"s{i % 40:02d}" for i in range(2000))
    found = only(accuracy.judge(flipped(2000, 2, 0, slices=slices), budget())).findings
    assert [f.rule for f in found if "slice" in f.rule] == ["accuracy.worst_slice"]


def test_the_worst_class_is_told():
    classes = tuple("cat" if i < 100 else "dog" for i in range(1000))
    found = only(accuracy.judge(flipped(1000, 1, 0, classes=classes), budget())).findings
    assert "class cat: 1 point lost on 100 items" in next(f.message for f in found if f.rule == "accuracy.worst_class")


# --- running models ------------------------------------------------------------------------------------------------------


class Model:
    """Answers right but where it was told to be wrong; counts the items that it saw."""

    def __init__(self, wrong, *, shift=0.0):
        self.wrong, self.shift, self.seen = wrong, shift, 0

    def __call__(self, batch):
        self.seen += len(batch.ids)
        scores = batch.inputs["x"] + np.float32(self.shift)
        return {"scores": np.where(self.wrong[batch.index][:, None], np.roll(scores, 1, axis=1), scores)}


def dataset(folder, n, labels=True, **more):
    classes = np.random.default_rng(3).integers(0, 10, n)
    x = np.eye(10, dtype=np.float32)[classes]
    np.savez(folder / "eval.npz", x=x, **({"label": classes} if labels else {}), **more)
    return data.load("eval.npz", folder)


def wrong(n, share, seed=4):
    return np.random.default_rng(seed).random(n) < share


def run(folder, candidate, original, n, metric=ACCURACY, **given):
    limits = budget(**given)
    evidence = accuracy.measure(candidate, {"source": original}, dataset(folder, n), metric, limits, seed=5)
    return evidence, accuracy.judge(evidence, limits)


def test_a_clear_failure_stops_early_by_curtailment(tmp_path):
    original = wrong(5000, 0.02)
    candidate = Model(original | wrong(5000, 0.1, 6))
    evidence, (result,) = run(tmp_path, candidate, Model(original), 5000)
    assert (result.outcome, evidence.stop) == (Outcome.FAIL, Stop.CURTAILED)
    assert candidate.seen == evidence.n < 0.4 * 5000
    assert f"stopped after {evidence.n:,} of 5,000 items" in result.message


def test_a_clear_pass_stops_early_by_the_sequence(tmp_path):
    original = wrong(5000, 0.02)
    candidate = Model(original ^ wrong(5000, 0.001, 6))
    evidence, (result,) = run(tmp_path, candidate, Model(original), 5000, stop="sequential")
    assert (result.outcome, evidence.stop) == (Outcome.PASS, Stop.SEQUENTIAL)
    assert candidate.seen < 0.4 * 5000
    assert "confidence sequence" in result.measurements[0].method


@pytest.mark.parametrize("stop", ["curtailed", "sequential"])
def test_a_close_call_uses_all_items(tmp_path, stop):
    original = wrong(5000, 0.02)
    candidate = Model(original | wrong(5000, 0.008, 6))
    evidence, (result,) = run(tmp_path, candidate, Model(original), 5000, stop=stop)
    assert (result.outcome, evidence.stop, candidate.seen) == (Outcome.INCONCLUSIVE, Stop.ALL, 5000)


@pytest.mark.parametrize("share", [0.0, 0.002, 0.01, 0.02, 0.05])
def test_curtailment_gives_the_full_sets_verdict(tmp_path, share):
    original = wrong(1500, 0.03)
    models = [Model(original | wrong(1500, share, 6), shift=0.1) for _ in range(2)]
    verdicts = [
        [r.outcome for r in run(tmp_path, model, Model(original), 1500, stop=stop)[1]]
        for model, stop in zip(models, ("curtailed", "never"), strict=True)
    ]
    assert verdicts[0] == verdicts[1]


def test_an_equal_program_passes_without_running_anything(tmp_path):
    model = Model(wrong(100, 0.1))
    evidence = accuracy.measure(
        model, {"source": model}, dataset(tmp_path, 100), ACCURACY, budget(), same=frozenset({"source"})
    )
    result = only(accuracy.judge(evidence, budget()))
    assert (result.outcome, result.identical, model.seen, evidence.n) == (Outcome.PASS, True, 0, 0)
    assert result.message == "the program is equal to the original bit for bit, so nothing is lost"


def test_equal_answers_pass_on_however_few_items(tmp_path):
    same = wrong(50, 0.1)
    _, (result,) = run(tmp_path, Model(same), Model(same), 50)
    assert (result.outcome, result.identical) == (Outcome.PASS, True)
    _, (result,) = run(tmp_path, Model(same, shift=1e-3), Model(same), 50)
    assert (result.outcome, result.identical) == (Outcome.INCONCLUSIVE, False)


def test_the_reference_labels_data_without_labels(tmp_path):
    items = dataset(tmp_path, 400, labels=False)
    evidence = accuracy.measure(
        Model(wrong(400, 0.1)), {"source": Model(wrong(400, 0.0), shift=0.1)}, items, ACCURACY, budget()
    )
    result = only(accuracy.judge(evidence, budget()))
    assert result.outcome is Outcome.FAIL
    assert named(result, "agreement (accuracy)").baseline == 1
    assert "answered as before" in result.message


@pytest.mark.parametrize(
    ("scale", "outcome", "findings"), [(1.04, Outcome.PASS, 0), (1.06, Outcome.PASS, 1), (1.11, Outcome.FAIL, 1)]
)
def test_without_a_metric_each_output_must_agree(tmp_path, scale, outcome, findings):
    items = dataset(tmp_path, 20, labels=False)

    def original(batch):
        return {"a": batch.inputs["x"], "b": batch.inputs["x"]}

    def candidate(batch):
        return {"a": batch.inputs["x"], "b": batch.inputs["x"] * scale}

    evidence = accuracy.measure(candidate, {"source": original}, items, load(None), None)
    result = only(accuracy.judge(evidence, None))
    assert (result.outcome, len(result.findings)) == (outcome, findings)
    assert result.measurements[0].name == "distance:b"
    assert result.measurements[0].value == pytest.approx(scale - 1, rel=1e-5)


def test_an_output_that_is_not_finite_does_not_agree(tmp_path):
    items = dataset(tmp_path, 20, labels=False)
    evidence = accuracy.measure(
        lambda batch: {"a": np.full_like(batch.inputs["x"], np.nan)},
        {"source": lambda batch: {"a": batch.inputs["x"]}},
        items,
        load(None),
        None,
    )
    assert only(accuracy.judge(evidence, None)).outcome is Outcome.FAIL


BROKEN = np.array([True] * 32 + [False] * 8)


@pytest.mark.parametrize("row", [[1.0], [1.0, 2.0]], ids=["a number", "several numbers"])
@pytest.mark.parametrize("broken", [BROKEN, ~BROKEN, np.ones(40, dtype=bool)], ids=["most", "a batch", "all"])
def test_a_batch_without_any_finite_answer_fails_a_metric_of_the_teams_own(tmp_path, row, broken):
    items = dataset(tmp_path, 40)
    metric = load(
        MetricChoice(name="score.py"),
        per_item=lambda outputs, labels: np.array([row] * len(labels)) if len(row) > 1 else np.ones(len(labels)),
        aggregate=lambda rows, weights: weights @ rows.reshape(len(rows), -1)[:, 0] / weights.sum(axis=1),
    )
    order = np.random.default_rng(0).permutation(40)

    def candidate(batch):
        return {"a": np.where(np.isin(batch.index, order[broken])[:, None], np.nan, batch.inputs["x"])}

    def original(batch):
        return {"a": batch.inputs["x"]}

    evidence = accuracy.measure(candidate, {"source": original}, items, metric, budget(drop=0.1), batch_items=8)
    for result in (
        accuracy.judge(evidence, budget(drop=0.1)),
        accuracy.judge(evidence, budget(drop=0.1, at_least=0.5)),
    ):
        assert {r.outcome for r in result} == {Outcome.FAIL}
        assert f"{broken.sum()} of 40 answers are not finite" in result[-1].message


def test_one_number_for_some_items_and_several_for_others_is_refused(tmp_path):
    metric = load(
        MetricChoice(name="score.py"),
        per_item=lambda outputs, labels: np.ones(len(labels)) if 0 in labels else np.ones((len(labels), 2)),
        aggregate=lambda rows, weights: weights.sum(axis=1),
    )
    model = Model(wrong(40, 0))
    with pytest.raises(UsageError, match="expected as many for each"):
        accuracy.measure(model, {"source": model}, dataset(tmp_path, 40), metric, budget(drop=0.1), batch_items=1)


def test_data_of_one_class_is_refused(tmp_path):
    np.savez(tmp_path / "one.npz", x=np.zeros((5, 10), np.float32), label=np.full(5, 3))
    items = data.load("one.npz", tmp_path)
    with pytest.raises(UsageError, match="every label is 3; accuracy needs at least two classes"):
        accuracy.measure(Model(wrong(5, 0)), {"source": Model(wrong(5, 0))}, items, ACCURACY, budget())


def test_labels_beyond_the_outputs_classes_are_refused(tmp_path):
    np.savez(tmp_path / "many.npz", x=np.zeros((5, 10), np.float32), label=np.arange(5) * 3)
    items = data.load("many.npz", tmp_path)
    with pytest.raises(UsageError, match="found label 12, but the output has 10 classes"):
        accuracy.measure(Model(wrong(5, 0)), {"source": Model(wrong(5, 0))}, items, ACCURACY, budget())


def test_an_output_with_too_few_rows_is_refused(tmp_path):
    with pytest.raises(UsageError, match="output scores: found 1 rows"):
        accuracy.measure(
            lambda batch: {"scores": np.zeros((1, 10))},
            {"source": Model(wrong(50, 0))},
            dataset(tmp_path, 50),
            ACCURACY,
            None,
        )


def test_an_earlier_report_is_a_yardstick_that_need_not_run(tmp_path):
    items, original = dataset(tmp_path, 600), wrong(600, 0.05)
    model = Model(original)
    earlier = accuracy.measure(model, {"source": Model(original, shift=0.1)}, items, ACCURACY, None)
    accuracy.write_per_item(tmp_path / "per_item.jsonl", earlier)
    yardstick = recorded(accuracy.read_per_item(tmp_path / "per_item.jsonl"), items, ACCURACY)
    limits = budget(against="base", drop="3 points")
    worse = Model(original | wrong(600, 0.1, 6))
    evidence = accuracy.measure(worse, {"base": yardstick}, items, ACCURACY, limits)
    live = accuracy.measure(worse, {"base": Model(original)}, items, ACCURACY, limits)
    assert accuracy.judge(evidence, limits) == accuracy.judge(live, limits)
    assert only(accuracy.judge(evidence, limits)).outcome is Outcome.FAIL


def test_the_same_protocol_is_recognised_after_the_file(tmp_path):
    metric = load(MetricChoice(name="accuracy", threshold=0.5), class_names=list("abcdefghij"))
    items = dataset(tmp_path, 50)
    earlier = accuracy.measure(Model(wrong(50, 0)), {}, items, metric, budget(at_least="50 %", stop="never"))
    accuracy.write_per_item(tmp_path / "per_item.jsonl", earlier)
    assert len(recorded(accuracy.read_per_item(tmp_path / "per_item.jsonl"), items, metric).rows) == 50


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"metric": load(MetricChoice(name="accuracy", threshold=0.3))}, "another protocol"),
        ({"labelled": False}, "no labels"),
        ({"dataset": "0" * 64}, "other data"),
        ({"ids": (), "candidate": np.zeros(0)}, "needed no evaluation"),
    ],
)
def test_an_earlier_report_that_cannot_be_compared_with_is_refused(tmp_path, changed, told):
    items = dataset(tmp_path, 50)
    earlier = accuracy.measure(Model(wrong(50, 0)), {}, items, ACCURACY, budget(at_least="50 %", stop="never"))
    assert recorded(earlier, items, ACCURACY).rows.keys() == set(items.ids)
    with pytest.raises(UsageError, match=told):
        recorded(replace(earlier, **changed), items, ACCURACY)


def test_an_engines_outputs_item_by_item_become_a_batch():
    samples = [
        {"p": np.array([[0.1, 0.9]]), "name": "cat", "box": np.zeros((2, 4))},
        {"p": np.array([[0.3, 0.7]]), "name": "a", "box": np.ones((3, 4))},
    ]
    made = batched(samples)
    assert made["p"].tolist() == [[0.1, 0.9], [0.3, 0.7]]
    assert made["name"].tolist() == ["cat", "a"]
    assert made["box"][0].tolist() == [[0.0] * 4, [0.0] * 4, [-1.0] * 4]


# --- per_item.jsonl ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", ["curtailed", "sequential", "never"])
def test_the_verdict_can_be_derived_again_from_the_file(tmp_path, stop):
    original = wrong(3000, 0.02)
    given = {"at_least": "80 %", "stop": stop}
    evidence, rows = run(tmp_path, Model(original | wrong(3000, 0.06, 6)), Model(original), 3000, **given)
    accuracy.write_per_item(tmp_path / "per_item.jsonl", evidence)
    assert accuracy.rejudge(tmp_path / "per_item.jsonl", budget(**given)) == rows


@pytest.mark.parametrize("name", ["f1", "psnr", "own.py"])
def test_every_kind_of_metric_survives_the_file(tmp_path, name):
    metric = load(MetricChoice(name=name))
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 2, (60, 2)).astype(float) if name == "f1" else rng.normal(size=60) for _ in range(2)]
    ids = tuple(map(str, range(60)))
    evidence = Evidence(metric, ids, rows[0], {"base": rows[1]}, 60, clusters=tuple(i[0] for i in ids))
    accuracy.write_per_item(tmp_path / "per_item.jsonl", evidence)
    limits = budget(drop="1 point" if name == "f1" else 0.1, against="base")
    assert accuracy.rejudge(tmp_path / "per_item.jsonl", limits) == accuracy.judge(evidence, limits)


def test_the_files_digest_is_that_of_its_bytes(tmp_path):
    evidence = flipped(5, 1, 1, slices=tuple("abcde"))
    digest = accuracy.write_per_item(tmp_path / "per_item.jsonl", evidence)
    assert digest == hashlib.sha256((tmp_path / "per_item.jsonl").read_bytes()).hexdigest()
    head, first, *_ = map(json.loads, (tmp_path / "per_item.jsonl").read_text().splitlines())
    assert head["metric"] == {"name": "accuracy"}
    assert first == {"id": "i0000", "candidate": 1.0, "slice": "a", "yardsticks": {"source": 0.0}}


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "other/1"}', "nonsense", '{"schema":"gate.per_item/1"}'])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    (tmp_path / "per_item.jsonl").write_text(text)
    with pytest.raises(UsageError):
        accuracy.rejudge(tmp_path / "per_item.jsonl", budget())
