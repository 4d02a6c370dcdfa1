# SPDX-License-Identifier: Apache-2.0
"""Do coremltools' own tests pass on the evaluator? And does the runner count them rightly?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conformance.known import KNOWN
from tests.conformance.plugin import within_steps
from tests.conformance.results import Outcome, Result, read, summarize
from tests.conformance.run import main, parse, promising_first, select
from tests.conformance.suite import FLOAT32, OTHERS

SUMMARY = Path(__file__).with_name("summary.json")
LEAST = 0.995


@pytest.mark.conformance
def test_a_sample_of_400_passes(tmp_path: Path) -> None:
    report = tmp_path / "summary.json"
    main(["--sample", "400", "--seed", "7", "--resume", str(tmp_path), "--summary", str(report)])
    summary = json.loads(report.read_text())
    assert summary["totals"]["reached"] >= 400
    assert [f for f in summary["failures"] if not f["why"]] == []
    assert summary["totals"]["share"] >= LEAST
    assert summary["configurations"][OTHERS]["share_as_written"] >= LEAST


def test_the_committed_run_passes_and_explains_each_failure() -> None:
    summary = json.loads(SUMMARY.read_text())
    assert summary["totals"]["share"] >= LEAST
    assert summary["configurations"][OTHERS]["share_as_written"] >= LEAST
    assert [f["id"] for f in summary["failures"] if not f["why"]] == []


def documented() -> str:
    document = (Path(__file__).parents[2] / "docs" / "evaluator.md").read_text()
    return " ".join(document.partition("## Conformance")[2].partition("\n## ")[0].split())


def test_each_known_failure_is_in_the_documentation() -> None:
    assert [known.why for known in KNOWN if known.why not in documented()] == []


def test_the_documented_numbers_are_those_of_the_committed_run() -> None:
    summary = json.loads(SUMMARY.read_text())
    parts = [summary["totals"], *summary["configurations"].values()]
    numbers = [f"{part[name]:,}" for part in parts for name in ("reached", "passed")]
    numbers += [f"{summary['totals'][name]:,}" for name in ("ran", "within_steps")]
    assert [number for number in numbers if f" {number} " not in documented()] == []


def result(name: str, outcome: Outcome, formats: tuple[str, ...] = ("mlProgram",), **options: bool) -> Result:
    return Result(name, len(formats), list(formats), outcome, 0.1, "because", [], **options)


def test_only_what_reaches_an_ml_program_counts() -> None:
    results = [
        result("a", Outcome.PASSED),
        result("b", Outcome.FAILED),
        result("c", Outcome.CRASHED),
        result("never", Outcome.FAILED, ()),
        result("network", Outcome.FAILED, ("neuralNetwork",)),
        result("both", Outcome.FAILED, ("mlProgram", "neuralNetwork")),
        result("expected", Outcome.XFAILED),
        result("half[precision='fp32']", Outcome.FAILED, within_steps=True),
    ]
    summary = summarize(results)
    totals = summary["totals"]
    assert (totals["ran"], totals["reached"], totals["passed"], totals["within_steps"]) == (8, 4, 1, 1)
    assert (totals["share"], totals["share_as_written"]) == (0.5, 0.25)
    parts = {name: (part["reached"], part.get("passed", 0)) for name, part in summary["configurations"].items()}
    assert parts == {OTHERS: (3, 1), FLOAT32: (1, 0)}
    assert (totals["other_format"], totals["without_predict_failed"]) == (2, 1)
    assert [failure["id"] for failure in summary["failures"]] == ["b", "c"]


def test_results_are_read_back_and_the_last_line_holds(tmp_path: Path) -> None:
    lines = tmp_path / "results.jsonl"
    lines.write_text(result("a", Outcome.CRASHED).as_line() + result("a", Outcome.PASSED).as_line())
    assert read(lines) == {"a": result("a", Outcome.PASSED)}


@pytest.mark.parametrize(
    ("answer", "tolerance", "agrees"),
    [
        pytest.param([1.0, 0.5039], 1e-4, True, id="four steps of the largest value"),
        pytest.param([1.0, 0.5050], 1e-4, False, id="more than four"),
        pytest.param([1.0, 0.5020], 1e-3, False, id="the test allows a step already"),
        pytest.param([1.0], 1e-4, False, id="another shape"),
        pytest.param([1.0, float("nan")], 1e-4, False, id="not a number"),
    ],
)
def test_a_few_float16_steps_are_granted_only_where_less_than_one_is_asked_for(
    answer: list[float], tolerance: float, agrees: bool
) -> None:
    assert within_steps(answer, [1.0, 0.5], 0.0, tolerance) is agrees


IDS = [f"test_{name}[{i}]" for name in ("conv", "relu", "lstm") for i in range(20)]


def test_shards_share_the_suite_without_overlap() -> None:
    shards = [select(IDS, parse(["--shard", f"{i}/3"])) for i in (1, 2, 3)]
    assert sorted(test_id for part in shards for test_id in part) == sorted(IDS)
    assert all(shards)


def functions(ids: list[str]) -> list[str]:
    return [i.partition("[")[0] for i in ids]


def test_the_order_is_seeded() -> None:
    first, again, other = (select(IDS, parse(["--seed", seed])) for seed in ("1", "1", "2"))
    assert first == again != other
    assert sorted(first) == sorted(IDS)


def test_each_round_has_one_test_of_every_function() -> None:
    chosen = functions(select([*IDS, "test_lone"], parse([])))
    assert set(chosen[:4]) == {"test_conv", "test_relu", "test_lstm", "test_lone"}
    assert all(set(chosen[i : i + 3]) == {"test_conv", "test_relu", "test_lstm"} for i in range(4, len(chosen), 3))


def test_each_takes_so_many_of_every_function() -> None:
    chosen = select(IDS, parse(["--each", "2", "--only", "l"]))
    assert sorted(functions(chosen)) == ["test_lstm"] * 2 + ["test_relu"] * 2


def test_functions_that_never_predict_are_put_off() -> None:
    silent = [result(f"test_conv[{i}]", Outcome.PASSED, ()) for i in range(3)]
    done = {r.id: r for r in [*silent, result("test_relu[0]", Outcome.PASSED)]}
    order = promising_first(["test_conv[7]", "test_relu[7]", "test_lstm[7]"], done)
    assert order == ["test_relu[7]", "test_lstm[7]", "test_conv[7]"]
