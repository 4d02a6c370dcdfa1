# SPDX-License-Identifier: Apache-2.0
"""`judge` of the checks that are tables: below, at and above the limit."""

import pytest

from gate import app_size
from gate.checks import feasibility, fidelity, float16, size
from gate.config import AppSizeBudget, Float16Budget, SizeBudget
from gate.conversion import Conversion
from gate.difference import OutputDifference
from gate.report import Environment, Finding, Outcome, Severity

MIL = Environment(engine="mil")


def difference(error=0.0, **more):
    facts = {"new_nonfinite": 0, "wrong_integers": 0, "decisions": 0, "snr_db": 60.0, "identical": error == 0}
    return OutputDifference(**({"name": "y", "samples": 3, "max_error": error, "range": 1.0} | facts | more))


@pytest.mark.parametrize(
    ("count", "budget", "baseline", "outcome"),
    [
        pytest.param(5_999_999, {"limit": "6 MB"}, None, "pass", id="below"),
        pytest.param(6_000_000, {"limit": "6 MB"}, None, "pass", id="at"),
        pytest.param(6_000_001, {"limit": "6 MB"}, None, "fail", id="one byte over"),
        pytest.param(10**9, {}, None, "pass", id="no limit"),
        pytest.param(1_050_000, {"growth": "5 %"}, 1_000_000, "pass", id="relative growth, at"),
        pytest.param(1_050_001, {"growth": "5 %"}, 1_000_000, "fail", id="relative growth, over"),
        pytest.param(1_200_001, {"growth": "200 KB"}, 1_000_000, "fail", id="absolute growth, over"),
        pytest.param(9_000_000, {"growth": "5 %"}, None, "pass", id="growth without a baseline is neutral"),
    ],
)
def test_size(count, budget, baseline, outcome):
    judged = size.judge(count, SizeBudget(**budget), baseline)

    assert judged.outcome == outcome
    assert (judged.remedy is not None) == (outcome == "fail")


@pytest.mark.parametrize(
    ("budget", "baseline", "told"),
    [
        pytest.param({"limit": 4902}, None, "too large: 4.903 kB; the limit is 4.902 kB.", id="limit"),
        pytest.param(
            {"growth": "2 B"}, 4900, "too large: 4.903 kB; the growth over the baseline allows 4.902 kB.", id="growth"
        ),
        pytest.param({"limit": 4903}, None, "The package is 4.90 kB; the limit is 4.90 kB.", id="equal"),
    ],
)
def test_a_size_and_its_limit_are_told_with_the_figures_that_it_takes(budget, baseline, told):
    assert told in size.judge(4903, SizeBudget(**budget), baseline).message


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        pytest.param({"total": 4902}, "take 4.903 kB together; the limit is 4.902 kB.", id="total"),
        pytest.param({"growth": "2 B"}, "together; the growth over the baseline allows 4.902 kB.", id="growth"),
        pytest.param({"total": 9000, "growth": "2 B"}, "the growth over the baseline allows 4.902 kB.", id="stricter"),
    ],
)
def test_an_app_that_is_too_large_says_which_limit_it_breaks(budget, told):
    assert told in app_size.judge({"a": 4903}, AppSizeBudget(**budget), 4900).message


def test_app_size_sums_and_is_unknown_when_one_package_is_missing():
    budget = AppSizeBudget(total="10 MB")

    assert app_size.judge({"a": 6_000_000, "b": 4_000_000}, budget).outcome is Outcome.PASS
    assert app_size.judge({"a": 6_000_000, "b": 4_000_001}, budget).outcome is Outcome.FAIL
    missing = app_size.judge({"a": 1, "b": None}, budget)
    assert missing.outcome is Outcome.NOT_RUN
    assert missing.required
    assert "see why b has no package" in missing.remedy


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        pytest.param(difference(0.001), "pass", id="at the limit"),
        pytest.param(difference(0.0011), "fail", id="above"),
        pytest.param(difference(0.0, new_nonfinite=1), "fail", id="infinite"),
        pytest.param(difference(0.0, wrong_integers=1), "fail", id="integer"),
        pytest.param(difference(0.0, problem="wrong shape"), "fail", id="shape"),
    ],
)
def test_fidelity(found, outcome):
    assert fidelity.judge((found,), 0.001, "the source", MIL).outcome == outcome


@pytest.mark.parametrize(
    ("found", "budget", "labelled", "outcome", "rules"),
    [
        pytest.param(difference(0.004), None, False, "pass", [], id="quiet"),
        pytest.param(difference(0.01), None, False, "pass", ["float16.drift"], id="drift is a warning"),
        pytest.param(difference(0.021), None, False, "fail", ["float16.error"], id="too much without labels"),
        pytest.param(difference(0.5), None, True, "pass", ["float16.drift"], id="labels decide"),
        pytest.param(
            difference(0.0, new_nonfinite=2),
            None,
            True,
            "fail",
            ["float16.nonfinite"],
            id="infinite blocks in any case",
        ),
        pytest.param(
            difference(0.0, wrong_integers=1), None, True, "fail", ["float16.integers"], id="integers block in any case"
        ),
        pytest.param(difference(0.004), {"error": "0.3 %"}, True, "fail", ["float16.error"], id="the team's own limit"),
        pytest.param(difference(0.004), {"snr": "59 dB"}, False, "pass", [], id="signal to noise, above"),
        pytest.param(
            difference(0.004), {"snr": "61 dB"}, False, "fail", ["float16.error"], id="signal to noise, below"
        ),
    ],
)
def test_float16(found, budget, labelled, outcome, rules):
    judged = float16.judge((found,), Float16Budget(**budget) if budget else None, labelled=labelled, environment=MIL)

    assert judged.outcome == outcome
    assert [f.rule for f in judged.findings] == rules


def test_feasibility_keeps_the_models_fault_apart_from_the_toolchains():
    finding = Finding(rule="convert.unsupported", severity=Severity.ERROR, message="no polar", advice="use sin and cos")

    fault = feasibility.judge(Conversion(fault="no route converts", findings=(finding,)))
    tool = feasibility.judge(Conversion(no_answer="time limit of 60 s"))

    assert (fault.outcome, fault.remedy) == (Outcome.FAIL, "use sin and cos")
    assert tool.outcome is Outcome.ERROR
