# SPDX-License-Identifier: Apache-2.0
"""Do coremltools' own tests pass on the evaluator? And does the runner count them rightly?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conformance.known import KNOWN
from tests.conformance.results import Outcome, Result, read, summarize
from tests.conformance.run import main, parse, select

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


def test_the_committed_run_passes_and_explains_each_failure() -> None:
    summary = json.loads(SUMMARY.read_text())
    assert summary["totals"]["share"] >= LEAST
    assert [f["id"] for f in summary["failures"] if not f["why"]] == []


def documented() -> str:
    document = (Path(__file__).parents[2] / "docs" / "evaluator.md").read_text()
    return " ".join(document.partition("## Conformance")[2].partition("\n## ")[0].split())


def test_each_known_failure_is_in_the_documentation() -> None:
    assert [known.why for known in KNOWN if known.why not in documented()] == []


def test_the_documented_numbers_are_those_of_the_committed_run() -> None:
    totals = json.loads(SUMMARY.read_text())["totals"]
    numbers = [f"{totals[name]:,}" for name in ("ran", "reached", "passed", "beyond_float16")]
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
        result("half", Outcome.FAILED, beyond_float16=True),
    ]
    summary = summarize(results)
    totals = summary["totals"]
    assert (totals["ran"], totals["reached"], totals["passed"], totals["share"]) == (8, 3, 1, 0.33333)
    assert (totals["other_format"], totals["beyond_float16"], totals["without_predict_failed"]) == (2, 1, 1)
    assert [failure["id"] for failure in summary["failures"]] == ["b", "c"]


def test_results_are_read_back_and_the_last_line_holds(tmp_path: Path) -> None:
    lines = tmp_path / "results.jsonl"
    lines.write_text(result("a", Outcome.CRASHED).as_line() + result("a", Outcome.PASSED).as_line())
    assert read(lines) == {"a": result("a", Outcome.PASSED)}


IDS = [f"test_{name}[{i}]" for name in ("conv", "relu", "lstm") for i in range(20)]


def test_shards_share_the_suite_without_overlap() -> None:
    shards = [select(IDS, parse(["--shard", f"{i}/3"])) for i in (1, 2, 3)]
    assert sorted(test_id for part in shards for test_id in part) == sorted(IDS)
    assert all(shards)


def test_a_sample_is_the_suite_in_a_seeded_order() -> None:
    first, again, other = (select(IDS, parse(["--sample", "5", "--seed", seed])) for seed in ("1", "1", "2"))
    assert first == again != other
    assert sorted(first) == sorted(IDS)


def test_each_takes_so_many_of_every_function() -> None:
    chosen = select(IDS, parse(["--each", "2", "--only", "l"]))
    assert [i.partition("[")[0] for i in chosen] == ["test_relu"] * 2 + ["test_lstm"] * 2
