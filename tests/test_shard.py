# SPDX-License-Identifier: Apache-2.0
"""Who judges what: balance by last durations, one part each, and plans that do not fit."""

import json

import pytest
from typer.testing import CliRunner

from gate import config, shard
from gate.cli import app
from gate.errors import UsageError
from gate.report import Candidate, Model, Role, Run, make_report

CONFIG = """
version: 1
models:
  - {name: a, source: {factory: m.py:build, example: m.py:example}, explore: [int8, palette-4bit]}
  - {name: b, source: {factory: m.py:build, example: m.py:example}, ship: palette-6bit}
"""
UNITS = {"a": ("float16", "int8", "palette-4bit"), "b": ("palette-6bit",)}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "gate.yml"
    path.write_text(CONFIG)
    return path


def last(**seconds):
    """A report that says how long each policy of model `a` took; its conversion took ten seconds."""
    rows = [
        Candidate(role=Role.EXPLORE if i else Role.SHIP, policy=name.replace("_", "-"), seconds=took)
        for i, (name, took) in enumerate(seconds.items())
    ]
    model = Model(name="a", candidates=tuple(rows), seconds=10 + sum(seconds.values()))
    return make_report(Run(config_digest="0" * 64), (model,))


def test_units_are_the_policies_of_each_entry_and_a_filter_never_drops_what_ships(file):
    loaded = config.load(file)

    assert shard.units_of(loaded) == UNITS
    assert shard.units_of(loaded, policies=["int8"]) == {"a": ("float16", "int8"), "b": ("palette-6bit",)}
    assert shard.units_of(loaded, models=["b"]) == {"b": ("palette-6bit",)}
    with pytest.raises(UsageError, match="no such entry"):
        shard.units_of(loaded, models=["c"])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_each_unit_is_in_one_part(count):
    parts = shard.deal(UNITS, count)

    assert len(parts) == count
    assert sorted(unit for part in parts for unit in part) == sorted(shard.names(UNITS))


def test_what_took_long_stands_alone():
    units = {"a": ("float16", "int8", "palette-4bit")}
    report = last(float16=5.0, int8=4.0, palette_4bit=100.0)

    assert shard.deal(units, 2, report) == (("a/palette-4bit",), ("a/float16", "a/int8"))
    assert [job.seconds for job in shard.matrix(units, 2, report).include] == [110.0, 19.0]


def test_converting_a_model_again_is_counted():
    units = {"a": ("float16", "int8"), "b": ("float16", "int8")}

    assert {frozenset(map(shard.model_of, part)) for part in shard.deal(units, 2)} == {frozenset("a"), frozenset("b")}


def test_no_job_is_empty():
    assert len(shard.matrix(UNITS, 100).include) == 4


def test_the_command_prints_what_a_workflow_reads_and_a_part_takes(file, tmp_path):
    done = CliRunner().invoke(app, ["plan", "--config", str(file), "--shards", "2"])

    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 1
    rows = json.loads(done.stdout)["include"]
    assert [row["shard"] for row in rows] == ["1/2", "2/2"]
    (tmp_path / "plan.json").write_text(done.stdout)
    part = shard.take("2/2", UNITS, shard.read_matrix(tmp_path / "plan.json"))
    assert list(part.units[1]) == rows[1]["units"].split()
    assert part == shard.take("2/2", UNITS, None), "dealt anew, it is the same"


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2", "1/257", "１/２"])
def test_what_is_no_part_is_named(text):
    with pytest.raises(UsageError, match="expected K/N"):
        shard.take(text, UNITS, None)


def test_a_part_beyond_the_units_judges_nothing():
    part = shard.take("5/5", UNITS, None)

    assert part.units[4] == ()


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        pytest.param(
            [("1/2", "a/float16"), ("2/2", "b/palette-6bit")], "in the plan or in gate.yml", id="units missing"
        ),
        pytest.param(
            [("1/1", "a/float16 a/int8 a/palette-4bit b/palette-6bit c/x")], "the plan has 1 parts", id="another count"
        ),
        pytest.param([("2/2", "a/float16"), ("1/2", "a/int8")], "row 1 is shard 2/2", id="out of order"),
        pytest.param(
            [("1/2", "a/float16 a/int8"), ("2/2", "a/int8 a/palette-4bit b/palette-6bit")], "in two parts", id="twice"
        ),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(plan, told):
    rows = [{"shard": name, "name": "x", "units": units, "seconds": 1.0} for name, units in plan]

    with pytest.raises(UsageError, match=told):
        shard.take("1/2", UNITS, shard.parse_matrix(json.dumps({"include": rows}), "--plan"))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"include": [{}]}', '{"include": [], "more": 1}', "x" * 1_000_001])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(UsageError, match="--plan"):
        shard.parse_matrix(text, "--plan")
