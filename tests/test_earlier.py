# SPDX-License-Identifier: Apache-2.0
"""Earlier reports as yardsticks: what is paired item by item, and every reason for which one is refused."""

from dataclasses import replace

import numpy as np
import pytest

from gate import data, earlier
from gate.baseline import Baseline
from gate.checks import accuracy
from gate.config import AccuracyBudget, MetricChoice
from gate.errors import UsageError
from gate.evidence import Evidence, Recorded, Stop
from gate.files import sha256_file
from gate.metrics import load
from gate.report import Candidate, CheckName, Data, Environment, Model, Outcome, Result, Role, Run, make_report
from gate.tools import ANSWERS_DEPEND_ON, other_versions

ACCURACY = load(MetricChoice(name="accuracy"))
TOOLS = dict.fromkeys(ANSWERS_DEPEND_ON, "1.0")
N = 200


def dataset(folder):
    classes = np.random.default_rng(3).integers(0, 5, N)
    np.savez(folder / "eval.npz", x=np.eye(5, dtype=np.float32)[classes], label=classes)
    return data.load("eval.npz", folder)


def written(folder, items, *, answered=N, tools=TOOLS, engine="mil", name="tiny"):
    """Write an earlier report whose candidate was right on every item that it answered."""
    evidence = Evidence(ACCURACY, items.ids[:answered], np.ones(answered), {}, N, dataset=items.digest)
    path = earlier.per_item_path(folder, name, "float16")
    path.parent.mkdir(parents=True, exist_ok=True)
    accuracy.write_per_item(path, evidence)
    row = Result(check=CheckName.ACCURACY, outcome=Outcome.PASS, message="good", environment=Environment(engine=engine))
    model = Model(
        name=name,
        data=Data(dataset=items.digest, items=N, labelled=True, per_item=sha256_file(path)),
        candidates=(Candidate(role=Role.SHIP, policy="float16", results=(row,)),),
    )
    return Baseline(make_report(Run(config_digest="0" * 64, tools=tools), (model,)), folder)


def yardstick(folder, items, metric=ACCURACY, **changed):
    return earlier.yardstick(written(folder, items, **changed), "tiny", items, metric, "mil", TOOLS)


def test_the_answers_of_the_same_protocol_data_and_tools_are_a_yardstick(tmp_path):
    items = dataset(tmp_path)
    assert yardstick(tmp_path, items).rows.keys() == set(items.ids)


@pytest.mark.parametrize("tool", ANSWERS_DEPEND_ON)
def test_another_tool_version_is_refused_by_name(tmp_path, tool):
    with pytest.raises(UsageError, match=rf"other tools \({tool} 0.9, now 1.0\)"):
        yardstick(tmp_path, dataset(tmp_path), tools={**TOOLS, tool: "0.9"})


def test_tools_that_decide_about_no_answer_may_differ():
    assert other_versions({**TOOLS, "python": "3.11.1"}, {**TOOLS, "python": "3.11.9", "onnxruntime": "1.2"}) == []
    assert other_versions({}, TOOLS)[0] == "coreml-gate unknown, now 1.0"


def test_another_engine_is_refused(tmp_path):
    with pytest.raises(UsageError, match="measured by the coreml engine, and this run uses mil"):
        yardstick(tmp_path, dataset(tmp_path), engine="coreml")


def test_another_metric_is_refused_with_both_protocols(tmp_path):
    with pytest.raises(UsageError, match=r"another protocol \(accuracy, now top_k \(k: 2\)\)"):
        yardstick(tmp_path, dataset(tmp_path), metric=load(MetricChoice(name="top_k", k=2)))


def test_other_data_is_refused(tmp_path):
    items = dataset(tmp_path)
    earlier_report = written(tmp_path, items)
    with pytest.raises(UsageError, match="measured on other data"):
        earlier.yardstick(earlier_report, "tiny", replace(items, digest="0" * 64), ACCURACY, "mil", TOOLS)


def test_an_edited_or_missing_file_of_items_is_refused(tmp_path):
    items = dataset(tmp_path)
    report = written(tmp_path, items)
    path = earlier.per_item_path(tmp_path, "tiny", "float16")
    path.write_text(path.read_text().replace('"candidate":1.0', '"candidate":0.0', 1))
    with pytest.raises(UsageError, match="the digest differs"):
        earlier.yardstick(report, "tiny", items, ACCURACY, "mil", TOOLS)
    path.unlink()
    with pytest.raises(UsageError, match="brings no per-item values"):
        earlier.yardstick(report, "tiny", items, ACCURACY, "mil", TOOLS)


def test_a_model_that_it_does_not_know_is_named(tmp_path):
    with pytest.raises(UsageError, match="no model entry 'tiny'"):
        yardstick(tmp_path, dataset(tmp_path), name="other")


# --- a yardstick that stopped early ----------------------------------------------------------------------------------------


class Model5:
    """Right but where it was told to be wrong."""

    def __init__(self, wrong):
        self.wrong = wrong

    def __call__(self, batch):
        scores = batch.inputs["x"]
        return {"scores": np.where(self.wrong[batch.index][:, None], np.roll(scores, 1, axis=1), scores)}


@pytest.mark.parametrize("stop", ["curtailed", "sequential", "never"])
def test_one_that_stopped_early_is_paired_on_the_items_that_both_have(tmp_path, stop):
    items = dataset(tmp_path)
    wrong = np.arange(N) >= 120  # wrong only where the earlier report has nothing
    limits = AccuracyBudget.model_validate({"drop": "4 points", "against": "base", "stop": stop})
    evidence = accuracy.measure(
        Model5(wrong), {"base": yardstick(tmp_path, items, answered=120)}, items, ACCURACY, limits
    )
    (row,) = accuracy.judge(evidence, limits)
    assert (row.outcome, row.measurements[0].n, row.measurements[0].value) == (Outcome.PASS, 120, 0.0)
    assert "120 items that both have answered" in row.message
    accuracy.write_per_item(tmp_path / "items.jsonl", evidence)
    assert accuracy.rejudge(tmp_path / "items.jsonl", limits) == (row,)


def test_curtailment_counts_only_what_both_have(tmp_path):
    items = dataset(tmp_path)
    limits = AccuracyBudget.model_validate({"drop": "4 points", "against": "base"})
    base = yardstick(tmp_path, items, answered=120)
    evidence = accuracy.measure(Model5(np.ones(N, dtype=bool)), {"base": base}, items, ACCURACY, limits)
    (row,) = accuracy.judge(evidence, limits)
    assert (row.outcome, evidence.stop) == (Outcome.FAIL, Stop.CURTAILED)
    assert isinstance(base, Recorded)
    assert evidence.right == {"base": 120}
