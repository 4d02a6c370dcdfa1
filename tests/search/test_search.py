# SPDX-License-Identifier: Apache-2.0
"""`gate search` and `ship: auto`: what they find, what they leave when stopped, and that nothing that certifies was searched."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gate import pipeline, policy
from gate.errors import ConfigError, Exit, UsageError
from gate.pipeline import Options
from gate.report import CheckName, Outcome, Report, Result
from gate.search import Ask, ask
from tests.search.network import CONFIG, write_project

ROOT = Path(__file__).parents[2]
FAST = Ask(seconds=120, options=("int8", "palette-2bit", "palette-4bit"))


def found(report: Report) -> Result:
    """What the report says of the search."""
    return next(result for result in report.models[0].shipped.results if result.slice == "search")


def certified(report: Report) -> Result:
    return next(r for r in report.models[0].shipped.results if r.check is CheckName.ACCURACY and r.against == "source")


def search(config: Path, out: Path, ask: Ask = FAST) -> Report:
    return pipeline.search_one(Options(config=config, out=out, search=ask))


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("searched")
    return folder / "out", search(write_project(folder), folder / "out")


def test_the_weight_that_compression_ruins_is_treated_apart(searched):
    out, _ = searched
    made = policy.load("policies/deep.yaml", out)
    treated = {
        layer: made.action_for(made.steps[-1], op_type="linear", name="x", layer=f"layers.{layer}", elements=1024)
        for layer in range(6)
    }
    assert treated[2] != treated[1], "its outlier takes all levels of int8 and of few bits"
    assert any(action is not None for action in treated.values())


def test_what_was_found_is_certified_on_items_that_the_search_did_not_see(searched):
    out, report = searched
    assert certified(report).outcome is Outcome.PASS
    items = [json.loads(line) for line in (out / "per_item" / "deep" / "auto.jsonl").read_text().splitlines()[1:]]
    assert len(items) == report.models[0].data.items < 300
    verified = next(m for m in found(report).measurements if m.name == "search_drop")
    assert verified.n + len(items) == 400


@pytest.mark.slow
def test_the_policy_file_makes_the_same_package(searched, tmp_path):
    out, report = searched
    config = write_project(tmp_path, config=CONFIG + "    ship: found.yaml\n")
    (tmp_path / "found.yaml").write_text((out / "policies" / "deep.yaml").read_text())
    again = pipeline.check(Options(config=config, out=tmp_path / "out"))
    assert again.models[0].shipped.package_digest == report.models[0].shipped.package_digest
    assert again.models[0].shipped.policy_digest == report.models[0].shipped.policy_digest


def test_items_that_chose_must_not_judge_and_the_report_says_how(searched):
    _, report = searched
    told = next(finding for finding in found(report).findings if finding.rule == "search.splits")
    assert told.advice == "add `splits: {seed: 0, search: 30%, confirm: 70%}` to the model entry"


def test_every_sample_that_a_model_ran_on_is_counted(searched):
    _, report = searched
    counted = next(m for m in found(report).measurements if m.name == "evaluated_samples")
    parts = dict(part.rsplit(" ", 1) for part in counted.method.split(", "))
    assert counted.value == sum(int(number.replace(",", "")) for number in parts.values())
    assert parts["sensitivity"] == str(1 + (1 + 18) * 8), (
        "a first item, the program itself and 3 options of 6 weights on 8 items each"
    )


def test_the_report_shows_sensitivity_front_and_both_marks(searched):
    out, report = searched
    names = {series.name for series in found(report).series}
    assert {"sensitivity of the outputs · int8", "sensitivity of the metric · int8", "Pareto front"} <= names
    assert {"trade-off · bits", "trade-off · sparsity (smaller, not faster)"} <= names
    said = [finding.message for finding in found(report).findings if finding.rule == "search.tradeoff"]
    assert any("artefacts begin at" in text for text in said)
    assert any("breaks at" in text for text in said)
    assert any("recommended is" in text and "smaller, not faster" in text for text in said)
    assert any(finding.rule == "search.fell" for finding in found(report).findings)
    page = (out / "report.html").read_text()
    assert "Sensitivity" in page
    assert "smaller, not faster" in page


def test_ship_auto_searches_within_a_check(tmp_path):
    config = write_project(tmp_path, config=CONFIG + "    ship: auto\n    explore: [float16]\n")
    report = pipeline.check(Options(config=config, out=tmp_path / "out"))
    shipped, explored = report.models[0].candidates
    assert (shipped.policy, explored.policy) == ("auto", "float16")
    assert shipped.results
    assert certified(report).outcome is Outcome.PASS
    size = {c.policy: sum(f.bytes for f in c.files) for c in report.models[0].candidates}
    assert size["auto"] < size["float16"]


@pytest.mark.slow
def test_a_size_is_met_with_the_least_loss(searched, tmp_path):
    _, free = searched
    smallest = sum(file.bytes for file in free.models[0].shipped.files)
    report = search(write_project(tmp_path), tmp_path / "out", Ask(seconds=120, size=smallest + 4_000, tradeoff=False))
    assert sum(file.bytes for file in report.models[0].shipped.files) <= smallest + 4_000
    assert len([f for f in found(report).series if f.name == "Pareto front"]) == 1


def test_a_search_out_of_time_leaves_the_best_so_far_and_a_valid_report(tmp_path):
    report = search(write_project(tmp_path), tmp_path / "out", Ask(seconds=0.001))
    assert Report.model_validate_json((tmp_path / "out" / "report.json").read_text()) == report
    assert any(finding.rule == "search.stopped" for finding in found(report).findings)
    assert policy.load("policies/deep.yaml", tmp_path / "out").precision == "float16"
    assert certified(report).outcome is Outcome.PASS


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_leaves_the_best_so_far_and_a_valid_report(tmp_path):
    config, out = write_project(tmp_path, items=400), tmp_path / "out"
    command = [sys.executable, "-m", "gate", "search", "--config", str(config), "--out", str(out), "--time", "10 min"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT, start_new_session=True
    )
    seen = ""
    for line in process.stderr:
        seen += line
        if "compressing each weight, option 3" in line:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
        if "stopped: judging" in line:
            break
    started = time.monotonic()
    seen += process.communicate(timeout=200)[1]
    assert process.returncode == Exit.STOPPED, seen
    assert time.monotonic() - started < 200
    report = Report.model_validate_json((out / "report.json").read_text())
    assert any(finding.rule == "search.interrupted" for finding in found(report).findings)
    policy.load("policies/deep.yaml", out)
    assert not list(out.glob(".gate-*"))


def test_a_search_without_items_is_refused(tmp_path):
    config = CONFIG.replace("    dataset: eval.npz\n", "").replace("    metric: accuracy\n", "")
    config = config.replace("    budgets: {accuracy: {drop: 3 points}}\n", "")
    with pytest.raises(ConfigError, match=r"models\.deep: a search chooses by items; give it a dataset"):
        search(write_project(tmp_path, config=config), tmp_path / "out")


def test_an_unknown_option_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"--option int5: no such option; known: int8, int4-block32"):
        ask("", "5 min", ("int5",), True)


def test_a_time_without_a_unit_is_refused():
    with pytest.raises(UsageError, match=r"--time: found '5', expected a duration such as 10 min"):
        ask("", "5", (), True)
