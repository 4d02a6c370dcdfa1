# SPDX-License-Identifier: Apache-2.0
"""Accepted exceptions: who, why, until when; never for a missing answer."""

from datetime import date

import pytest

from gate import config, waivers
from gate.checks import size
from gate.config import SizeBudget, Waiver
from gate.errors import ConfigError
from gate.report import Bound, CheckName, Finding, Measurement, Outcome, Result, Severity, Unit

TODAY = date(2026, 11, 21)
TOO_LARGE = Result(
    check=CheckName.SIZE,
    outcome=Outcome.FAIL,
    message="too large",
    measurements=(Measurement(name="package_bytes", value=7e6, unit=Unit.BYTES, limit=6e6),),
)


def waiver(**more):
    facts = {"check": "size", "model": "tagger", "reason": "new head", "owner": "ana", "expires": "2026-12-01"}
    return Waiver(**(facts | more))


@pytest.mark.parametrize(
    ("entry", "outcome"),
    [
        pytest.param(waiver(), "pass", id="covers"),
        pytest.param(waiver(expires="2026-11-21"), "pass", id="last day"),
        pytest.param(waiver(expires="2026-11-20"), "fail", id="expired"),
        pytest.param(waiver(model="other"), "fail", id="another model"),
        pytest.param(waiver(check="accuracy"), "fail", id="another check"),
        pytest.param(waiver(limit="7 MB"), "pass", id="at the accepted value"),
        pytest.param(waiver(limit="6.9 MB"), "fail", id="above the accepted value"),
        pytest.param(waiver(rule="size.other"), "fail", id="another rule"),
    ],
)
def test_a_waiver_covers_what_it_says(entry, outcome):
    judged = waivers.waive(TOO_LARGE, "tagger", [entry], TODAY)

    assert judged.outcome == outcome
    assert (judged.waiver is not None) == (outcome == "pass")


@pytest.mark.parametrize(("limit", "outcome"), [("2 MB", "pass"), ("6 KB", "fail")])
def test_an_accepted_size_is_that_of_the_whole_also_where_growth_alone_is_too_much(limit, outcome):
    grown = size.judge(7_000, SizeBudget(limit="1 MB", growth="999 B"), 5_000)

    assert waivers.waive(grown, "tagger", [waiver(limit=limit)], TODAY).outcome == outcome


def test_a_warning_of_an_accepted_rule_is_a_note_that_says_who_accepted_it():
    pitfall, other = (Finding(rule=r, severity=Severity.WARNING, message="m", advice="do") for r in ("a.b", "c.d"))
    seen = Result(check=CheckName.FEASIBILITY, outcome=Outcome.PASS, message="m", findings=(pitfall, other))
    accepted = waivers.waive(seen, "tagger", [waiver(check="feasibility", rule="a.b")], TODAY)
    assert [f.severity for f in accepted.findings] == [Severity.INFO, Severity.WARNING]
    assert "accepted by" in accepted.findings[0].advice
    assert accepted.waiver is None
    ended = waivers.waive(seen, "tagger", [waiver(check="feasibility", rule="a.b", expires="2020-01-01")], TODAY)
    assert ended.findings == seen.findings


def test_a_rule_waives_only_when_it_is_the_only_thing_that_blocks():
    one, two = (Finding(rule=r, severity=Severity.ERROR, message="m") for r in ("float16.error", "float16.nonfinite"))
    accepted = [waiver(check="float16", rule="float16.error")]
    failed = Result(check=CheckName.FLOAT16, outcome=Outcome.FAIL, message="m", findings=(one,))

    assert waivers.waive(failed, "tagger", accepted, TODAY).outcome is Outcome.PASS
    both = failed.model_copy(update={"findings": (one, two)})
    assert waivers.waive(both, "tagger", accepted, TODAY).outcome is Outcome.FAIL


def test_a_missing_answer_is_never_waived():
    unknown = TOO_LARGE.model_copy(update={"outcome": Outcome.ERROR})

    assert waivers.waive(unknown, "tagger", [waiver()], TODAY).outcome is Outcome.ERROR


@pytest.mark.parametrize(
    ("value", "limit", "outcome"),
    [
        pytest.param(0.91, "90 %", "pass", id="above the accepted floor"),
        pytest.param(0.90, "90 %", "pass", id="at the accepted floor"),
        pytest.param(0.895, "90 %", "fail", id="below the accepted floor"),
    ],
)
def test_a_floor_is_waived_down_to_the_accepted_value(value, limit, outcome):
    floor = Measurement(name="accuracy", value=value, unit=Unit.FRACTION, limit=0.92, bound=Bound.AT_LEAST)
    failed = Result(check=CheckName.ACCURACY, outcome=Outcome.FAIL, message="m", measurements=(floor,))

    assert waivers.waive(failed, "tagger", [waiver(check="accuracy", limit=limit)], TODAY).outcome == outcome


@pytest.mark.parametrize(
    ("unit", "value", "limit"),
    [(Unit.POINTS, 0.015, "2 points"), (Unit.DECIBEL, 25.0, "30 dB"), (Unit.NUMBER, 0.2, "0.3")],
)
def test_a_limit_is_written_in_the_budgets_own_form(unit, value, limit):
    measured = Measurement(name="drop", value=value, unit=unit, limit=0.01)
    failed = Result(check=CheckName.ACCURACY, outcome=Outcome.FAIL, message="m", measurements=(measured,))

    assert waivers.waive(failed, "tagger", [waiver(check="accuracy", limit=limit)], TODAY).outcome is Outcome.PASS


def test_a_limit_that_is_no_quantity_is_refused_before_any_work():
    with pytest.raises(ConfigError, match="found 'banana', expected a quantity"):
        waivers.refuse_impossible([waiver(limit="banana")], ["tagger"])


@pytest.mark.parametrize("wrong", [{"limit": "banana"}, {"model": "taggr"}, {"check": "app_size"}])
def test_a_refused_waiver_is_told_with_its_own_file(wrong):
    with pytest.raises(ConfigError, match=r"^accepted\.yml: "):
        waivers.refuse_impossible([waiver(**wrong)], ["tagger"], "accepted.yml")


def test_an_ended_waiver_is_a_finding():
    assert [f.rule for f in waivers.expired([waiver(expires="2026-11-20"), waiver()], TODAY)] == ["waiver.expired"]


def test_a_waiver_for_nothing_is_refused():
    with pytest.raises(ConfigError, match="model 'taggr': no such entry; known: app, tagger"):
        waivers.refuse_impossible([waiver(model="taggr")], ["tagger"])
    with pytest.raises(ConfigError, match="app_size belongs to app"):
        waivers.refuse_impossible([waiver(check="app_size")], ["tagger"])


def test_the_file_is_read_and_its_mistakes_are_told(tmp_path):
    path = tmp_path / "waivers.yml"
    path.write_text("waivers:\n  - {check: size, model: m, reason: r, owner: o, expires: 2026-12-01}\n")
    assert config.load_waivers(path)[0].expires == date(2026, 12, 1)

    path.write_text("waivers:\n  - {check: size, model: m, reason: r, expires: 2026-12-01}\n")
    with pytest.raises(ConfigError, match=r"waivers\[0\].owner: required"):
        config.load_waivers(path)
