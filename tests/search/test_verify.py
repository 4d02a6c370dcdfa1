# SPDX-License-Identifier: Apache-2.0
"""Which losses on the search items let a candidate fall, and what is told where all fall?"""

import numpy as np
import pytest

from gate.config import AccuracyBudget, MetricChoice
from gate.evidence import Evidence
from gate.metrics import load
from gate.policy import Precision
from gate.report import Environment
from gate.search import result
from gate.search.find import Found
from gate.search.options import LEAVE, mixed_policy
from gate.search.verify import Goal, Verdict


def evidence(metric: str, before: np.ndarray, now: np.ndarray) -> Evidence:
    ids = tuple(map(str, range(len(now))))
    return Evidence(load(MetricChoice(name=metric)), ids, now, {"source": before}, len(now))


def flipped(n: int, lost: int) -> Evidence:
    before = np.ones(n)
    return evidence("accuracy", before, np.where(np.arange(n) < lost, 0.0, before))


@pytest.mark.parametrize(
    ("searched", "confirm", "lost", "falls"),
    [
        pytest.param(97, 303, 0, False, id="303 prove 1 point when nothing is lost, and no more than that"),
        pytest.param(97, 303, 1, True, id="one lost among few is too many"),
        pytest.param(97, 267, 0, False, id="no proof is possible: nothing lost"),
        pytest.param(300, 3_000, 0, False, id="many items bear the doubt"),
        pytest.param(300, 3_000, 3, True, id="as large a loss as is allowed"),
    ],
)
def test_what_certification_would_pass_does_not_fall_for_nothing(searched, confirm, lost, falls):
    goal = Goal.of(AccuracyBudget.model_validate({"drop": "1 point"}), load(MetricChoice(name="accuracy")), confirm)

    assert (goal.falls(flipped(searched, lost), searched) is not None) == falls


@pytest.mark.parametrize(("drop", "falls"), [("1 %", False), ("0.1 %", True)])
def test_equal_answers_fall_only_where_the_items_that_certify_cannot_prove_it(drop, falls):
    psnr = np.linspace(30.0, 31.0, 97)
    goal = Goal.of(AccuracyBudget.model_validate({"drop": drop}), load(MetricChoice(name="psnr")), 400)

    assert (goal.falls(evidence("psnr", psnr, psnr), 97) is not None) == falls


def told(*tried: Verdict) -> str:
    goal = Goal.of(None, load(MetricChoice(name="accuracy")), 303)
    found = Found(mixed_policy({}, Precision.FLOAT16), tried=list(tried), goal=goal)
    findings = result(found, Environment(engine="mil")).findings
    return next(f"{f.message} | {f.advice}" for f in findings if f.rule == "search.nothing")


def test_a_fallen_uncompressed_model_is_told_with_what_was_seen():
    whole = Verdict({"w": LEAVE}, 10, False, 0.01, 97, "1 lost and 0 won of 97: too many")

    said = told(whole, Verdict({"w": "int8"}, 5, False, 0.02, 97, "2 lost"))

    assert "not even the uncompressed one (1 lost and 0 won of 97: too many)" in said
    assert "what the conversion itself loses" in said


def test_of_an_uncompressed_model_that_was_not_tried_nothing_is_said():
    said = told(Verdict({"w": "int8"}, 5, False, 0.02, 97, "2 lost"))

    assert "uncompressed" not in said
    assert "the conversion" not in said
