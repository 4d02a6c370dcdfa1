# SPDX-License-Identifier: Apache-2.0
"""The schema of record: outcomes follow from results, round trips lose nothing, edits do not load."""

import json

import pytest
from pydantic import ValidationError

from gate.report import (
    Candidate,
    CheckName,
    Environment,
    Measurement,
    Model,
    Outcome,
    Report,
    Result,
    Role,
    Run,
    Unit,
    make_report,
    verdict,
)

RUN = Run(config_digest="0" * 64)


def result(outcome, check=CheckName.SIZE, **more):
    return Result(check=check, outcome=outcome, message="m", **more)


def model(*shipped, explored=()):
    rows = (Candidate(role=Role.SHIP, policy="float16", results=shipped),)
    return Model(
        name="m", candidates=rows + tuple(Candidate(role=Role.EXPLORE, policy="int8", results=(r,)) for r in explored)
    )


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], "pass"),
        (["pass", "not_run"], "pass"),
        (["pass", "inconclusive"], "inconclusive"),
        (["inconclusive", "error"], "error"),
        (["error", "fail"], "fail"),
    ],
)
def test_the_verdict_is_the_worst_answer(outcomes, expected):
    assert verdict(tuple(result(Outcome(o)) for o in outcomes)) == expected


def test_a_required_answer_that_was_not_given_is_no_pass():
    assert verdict((result(Outcome.NOT_RUN, required=True),)) is Outcome.ERROR


def test_explored_rows_never_decide():
    report = make_report(RUN, (model(result(Outcome.PASS), explored=[result(Outcome.FAIL)]),))

    assert report.outcome is Outcome.PASS


def test_a_report_survives_a_round_trip():
    measured = Measurement(name="package_bytes", value=5.0, unit=Unit.BYTES, limit=6.0)
    report = make_report(RUN, (model(result(Outcome.PASS, measurements=(measured,))),))

    assert Report.model_validate_json(report.model_dump_json()) == report


def test_an_edited_verdict_does_not_load():
    report = make_report(RUN, (model(result(Outcome.FAIL)),))
    edited = json.loads(report.model_dump_json()) | {"outcome": "pass"}

    with pytest.raises(ValidationError, match="follows from the results to be fail"):
        Report.model_validate(edited)


def test_unknown_keys_and_infinite_numbers_do_not_load():
    with pytest.raises(ValidationError):
        Measurement(name="x", value=float("inf"), unit=Unit.COUNT)
    with pytest.raises(ValidationError):
        Run(config_digest="0" * 64, token="secret")


def test_two_environments_may_answer_one_check_but_one_may_not_answer_twice():
    linux, mac = Environment(engine="mil"), Environment(engine="coreml")
    model(result(Outcome.PASS, environment=linux), result(Outcome.FAIL, environment=mac))

    with pytest.raises(ValidationError, match="two results for size"):
        model(result(Outcome.PASS, environment=linux), result(Outcome.FAIL, environment=linux))


def test_exactly_one_candidate_ships():
    with pytest.raises(ValidationError, match="exactly one candidate ships"):
        Model(name="m", candidates=(Candidate(role=Role.EXPLORE, policy="int8"),))
