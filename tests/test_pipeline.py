# SPDX-License-Identifier: Apache-2.0
"""The whole gate on tiny models: every kind of source, every kind of fault, and what is left on disk."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gate import pipeline, search
from gate.errors import ConfigError, Exit, UsageError
from gate.pipeline import Options
from gate.report import Basis, Candidate, CheckName, Finding, Outcome, Report, Result, Role, Severity, exit_code
from gate.source import Source

MODEL = """
import sys, time
import torch
from torch import nn

def build(width=8):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * 36, 10)).eval()

def example():
    torch.manual_seed(1)
    return (torch.randn(1, 1, 8, 8),)

def hang():
    time.sleep(600)

def leave():
    sys.exit(3)

def explode():
    raise RuntimeError("no such checkpoint")

def wrong():
    return "a model, honestly"

def unsupported():
    class Polar(nn.Module):
        def forward(self, x):
            return torch.linalg.det(x[0]) + torch.erfinv(x.clamp(-0.5, 0.5)).sum()
    return Polar().eval()

def convert():
    import coremltools as ct
    traced = torch.jit.trace(build(), example())
    return ct.convert(traced, inputs=[ct.TensorType(name="x", shape=(1, 1, 8, 8))], minimum_deployment_target=ct.target.iOS17)
"""
CONFIG = """
version: 1
app: {deployment_target: iOS17}
limits: {time: 120 s}
models:
  - name: tiny
    source: {factory: model.py:build, example: model.py:example}
"""


def project(tmp_path: Path, config: str = CONFIG, model: str = MODEL) -> Path:
    (tmp_path / "model.py").write_text(model)
    path = tmp_path / "gate.yml"
    path.write_text(config)
    return path


def run(tmp_path: Path, config: str = CONFIG, **options) -> Report:
    return pipeline.check(Options(config=project(tmp_path, config), out=tmp_path / "out", **options))


def outcomes(report: Report, row: int = 0) -> dict[str, str]:
    return {str(result.check): str(result.outcome) for result in report.models[0].candidates[row].results}


def test_a_factory_is_converted_compressed_run_and_reported(tmp_path):
    config = CONFIG + "    ship: palette-6bit\n    explore: [float16, int8]\n    budgets: {size: 100 KB}\n"

    report = run(tmp_path, config)

    assert report.outcome is Outcome.PASS
    assert [c.policy for c in report.models[0].candidates] == ["palette-6bit", "float16", "int8"]
    found = outcomes(report)
    assert {found[name] for name in ("feasibility", "fidelity", "integrity", "float16", "size")} == {"pass"}
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} >= {"report.json", "comment.md", "report.html", "packages"}
    assert Report.model_validate_json((out / "report.json").read_bytes()) == report
    for candidate in report.models[0].candidates:
        assert sum(f.stat().st_size for f in (out / candidate.package).rglob("*") if f.is_file()) == sum(
            f.bytes for f in candidate.files
        )
    assert not list(out.glob(".gate-*"))


def test_a_limit_that_is_exceeded_fails_and_the_comment_names_a_way_out(tmp_path):
    config = CONFIG + "    explore: [palette-4bit]\n    budgets: {size: 6 KB}\n"

    report = run(tmp_path, config)

    assert exit_code(report.outcome, "fail") is Exit.FAIL
    head = "\n".join((tmp_path / "out" / "comment.md").read_text().splitlines()[:8])
    assert "tiny" in head
    assert "6" in head
    assert exit_code(report.outcome, "never") is Exit.PASS


@pytest.mark.parametrize(
    ("function", "outcome", "told"),
    [
        pytest.param("explode", "fail", "no such checkpoint", id="an exception", marks=pytest.mark.slow),
        pytest.param("leave", "fail", "exit", id="sys.exit", marks=pytest.mark.slow),
        pytest.param("wrong", "fail", "str", id="a wrong return value"),
        pytest.param("unsupported", "fail", "det", id="unsupported ops"),
    ],
)
def test_the_models_own_fault_is_feasibility_fail(tmp_path, function, outcome, told):
    report = run(tmp_path, CONFIG.replace("model.py:build", f"model.py:{function}"))

    answer = report.models[0].shipped.results[0]
    assert (answer.check, answer.outcome) == (CheckName.FEASIBILITY, outcome)
    assert told in answer.model_dump_json()
    assert "Traceback" not in answer.message


def test_every_unsupported_op_is_told_at_once_with_its_line(tmp_path):
    report = run(tmp_path, CONFIG.replace("model.py:build", "model.py:unsupported"))

    text = report.models[0].shipped.results[0].model_dump_json()
    assert "erfinv" in text
    assert "det" in text
    assert "model.py:" in text


def test_a_source_that_hangs_ends_at_its_limit_without_an_answer(tmp_path):
    config = CONFIG.replace("model.py:build", "model.py:hang").replace("120 s", "12 s")
    started = time.monotonic()

    report = run(tmp_path, config)

    assert exit_code(report.outcome, "fail") is Exit.NO_ANSWER
    assert report.models[0].shipped.results[0].outcome is Outcome.ERROR
    assert time.monotonic() - started < 40


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        pytest.param("model.py:build", "model.py:biuld", "biuld", id="function"),
        pytest.param("model.py:build", "modle.py:build", "modle.py", id="file", marks=pytest.mark.slow),
        pytest.param(
            "{factory: model.py:build, example: model.py:example}",
            "{coreml: App.mlpackage}",
            "App.mlpackage",
            id="package",
        ),
        pytest.param(
            "{factory: model.py:build, example: model.py:example}",
            "{torchscript: m.pt}",
            "m.pt",
            id="torchscript",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_does_not_exist_is_wrong_usage(tmp_path, old, new, told):
    with pytest.raises(UsageError, match=told):
        run(tmp_path, CONFIG.replace(old, new))


def test_a_git_lfs_pointer_is_named_as_one(tmp_path):
    pointer = tmp_path / "App.mlpackage"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")

    with pytest.raises(UsageError, match="Git LFS pointer"):
        run(tmp_path, CONFIG.replace("{factory: model.py:build, example: model.py:example}", "{coreml: App.mlpackage}"))


def test_a_policy_that_the_target_cannot_carry_is_refused_before_any_work(tmp_path):
    with pytest.raises(UsageError, match="int4-block32 needs deployment target iOS18, found iOS17"):
        run(tmp_path, CONFIG + "    explore: [int4-block32]\n")

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"models": ("tinny",)}, 'did you mean "tiny"'),
        ({"policies": ("int9",)}, "no selected model"),
        ({"baseline": Path("missing.json")}, "no such report"),
    ],
)
def test_a_wrong_option_is_refused_before_any_work(tmp_path, options, told):
    with pytest.raises(UsageError, match=told):
        run(tmp_path, **options)

    assert not (tmp_path / "out").exists()


def test_a_converter_script_and_its_package_are_judged(tmp_path):
    config = CONFIG.replace("{factory: model.py:build, example: model.py:example}", "{converter: model.py:convert}")

    report = run(tmp_path, config + "    explore: [palette-4bit]\n")

    found = outcomes(report)
    assert report.models[0].shipped.policy == "as-is"
    assert found["feasibility"] == "pass"
    assert found["fidelity"] == "not_run"
    assert outcomes(report, 1)["integrity"] == "pass"


def test_a_truncated_package_is_a_fault_and_no_crash(tmp_path):
    config = CONFIG.replace("{factory: model.py:build, example: model.py:example}", "{converter: model.py:convert}")
    run(tmp_path, config)
    package = shutil.copytree(tmp_path / "out" / "packages" / "tiny" / "as-is.mlpackage", tmp_path / "Cut.mlpackage")
    model = next(package.rglob("*.mlmodel"))
    model.write_bytes(model.read_bytes()[:1_000])

    report = run(tmp_path, config.replace("{converter: model.py:convert}", "{coreml: Cut.mlpackage}"))

    assert outcomes(report) == {"feasibility": "fail"}
    assert "Cut.mlpackage: Data/com.apple.CoreML/model.mlmodel" in report.models[0].shipped.results[0].message


TWO_FUNCTIONS = """
def convert():
    import coremltools as ct
    both = ct.utils.MultiFunctionDescriptor()
    for name, width in (("coarse", 4), ("fine", 8)):
        traced = torch.jit.trace(build(width), example())
        inputs = [ct.TensorType(name="x", shape=(1, 1, 8, 8))]
        ct.convert(traced, inputs=inputs, minimum_deployment_target=ct.target.iOS18).save(f"{name}.mlpackage")
        both.add_function(f"{name}.mlpackage", "main", name)
    both.default_function_name = "fine"
    ct.utils.save_multifunction(both, "Both.mlpackage")

convert()
"""


def test_of_several_functions_the_default_is_judged_and_the_others_are_named(tmp_path):
    subprocess.run([sys.executable, "-c", MODEL + TWO_FUNCTIONS], cwd=tmp_path, check=True, capture_output=True)
    config = CONFIG.replace("{factory: model.py:build, example: model.py:example}", "{coreml: Both.mlpackage}")

    report = run(tmp_path, config.replace("iOS17", "iOS18") + "    explore: [palette-4bit]\n")

    assert outcomes(report)["float16"] == "pass"
    assert outcomes(report, 1)["accuracy"] == "pass"
    (told,) = [f for f in report.models[0].shipped.results[0].findings if f.rule == "feasibility.functions"]
    assert "the default function, fine; not for coarse" in told.message


def test_items_of_another_shape_are_refused(tmp_path):
    np.savez(tmp_path / "eval.npz", input=np.zeros((8, 5), np.float32), label=np.zeros(8))

    with pytest.raises(UsageError, match=r"dataset eval.npz: an item of input has shape \(5,\), the model takes"):
        run(tmp_path, CONFIG + "    dataset: eval.npz\n")


def test_a_part_of_a_run_does_not_judge_the_app(tmp_path):
    config = CONFIG.replace("iOS17}", "iOS17, budgets: {app_size: {total: 1 MB}}}") + "    explore: [int8]\n"

    report = run(tmp_path, config, shard="2/2")

    assert report.outcome is Outcome.PASS
    assert report.app.results[0].outcome is Outcome.NOT_RUN
    assert not report.app.results[0].required


@pytest.mark.slow
def test_a_filter_leaves_the_shipped_row(tmp_path):
    report = run(tmp_path, CONFIG + "    explore: [int8, palette-4bit]\n", policies=("int8",))

    assert [c.policy for c in report.models[0].candidates] == ["float16", "int8"]


def test_growth_is_judged_against_a_baseline(tmp_path):
    run(tmp_path)
    before = tmp_path / "before.json"
    (tmp_path / "out" / "report.json").rename(before)
    wider = (
        CONFIG.replace("model.py:example}", "model.py:example, args: {width: 16}}")
        + "    budgets: {size: {growth: 5 %}}\n"
    )

    report = run(tmp_path, wider, baseline=before)

    size = next(r for r in report.models[0].shipped.results if r.check is CheckName.SIZE)
    assert size.outcome is Outcome.FAIL
    assert size.measurements[0].baseline < size.measurements[0].value


@pytest.mark.parametrize(
    ("more", "used"),
    [
        pytest.param("limit: 50 %, expires: 2999-12-31", 320, id="goes by the figure"),
        pytest.param("limit: 50 %, expires: 2020-12-31", 32, id="has ended"),
        pytest.param("expires: 2999-12-31", 32, id="goes by no figure"),
    ],
)
def test_where_a_waiver_goes_by_the_figure_no_evaluation_stops_early(tmp_path, more, used):
    rng = np.random.default_rng(0)
    items = rng.random((320, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "eval.npz", x=items, label=rng.integers(0, 4, 320))
    (tmp_path / "w.yml").write_text(f"waivers: [{{check: accuracy, model: tiny, reason: r, owner: o, {more}}}]\n")
    config = CONFIG.replace("version: 1", "version: 1\nwaivers: w.yml").replace(
        "{factory: model.py:build, example: model.py:example}", "{converter: model.py:convert}"
    )

    report = run(
        tmp_path, config + "    dataset: eval.npz\n    metric: accuracy\n    budgets: {accuracy: {at_least: 99 %}}\n"
    )

    floor = next(r for r in report.models[0].shipped.results if r.check is CheckName.ACCURACY)
    assert floor.measurements[0].n == used


def test_the_teams_own_policy_is_read_by_path(tmp_path):
    (tmp_path / "own.yaml").write_text(
        "name: own\nsummary: head in 8 bits\nrequires: {deployment_target: iOS16}\nprecision: float16\n"
        "steps:\n  - palettize: {bits: 4}\noverrides:\n  - {ops: [linear], bits: 8}\n"
    )

    report = run(tmp_path, CONFIG + "    ship: own.yaml\n")

    assert report.models[0].shipped.policy == "own"
    assert outcomes(report)["integrity"] == "pass"


def test_interrupting_leaves_nothing_half_written(tmp_path):
    config = project(tmp_path, CONFIG.replace("model.py:build", "model.py:hang"))
    out = tmp_path / "out"
    gate = subprocess.Popen(
        [sys.executable, "-m", "gate", "check", "--config", str(config), "--out", str(out)],
        cwd=Path(__file__).parent.parent,
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert gate.stderr
    gate.stderr.readline()  # "tiny: reading the source"
    time.sleep(3)
    gate.send_signal(signal.SIGINT)

    assert gate.wait(30) == 130
    assert list(out.iterdir()) == []
    assert {p.name for p in tmp_path.iterdir()} == {"model.py", "gate.yml", "out"}


def test_two_runs_give_the_same_digests(tmp_path):
    first, second = (run(tmp_path).models[0].shipped for _ in range(2))

    assert first.package_digest == second.package_digest
    assert json.loads((tmp_path / "out" / "report.json").read_text())["outcome"] == "pass"


LABELLED = """
    dataset: eval.npz
    budgets: {accuracy: {drop: 60 points}}
"""


def labelled(tmp_path: Path, **arrays: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((40, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "eval.npz", **({"input": images, "label": np.arange(40) % 10} | arrays))


def accuracy(report: Report) -> list[Result]:
    return [r for r in report.models[0].shipped.results if r.check is CheckName.ACCURACY]


def test_labels_that_are_classes_are_judged_by_accuracy_without_naming_it(tmp_path):
    labelled(tmp_path)

    (row,) = accuracy(run(tmp_path, CONFIG + "    inputs: [{name: input}]" + LABELLED))

    assert row.measurements[0].name == "accuracy_drop"
    assert row.outcome is Outcome.PASS


def test_a_classifier_is_judged_by_the_scores_beside_its_label(tmp_path):
    labelled(tmp_path)
    (tmp_path / "labels.txt").write_text("\n".join(f"class {i}" for i in range(10)))

    more = "    inputs: [{name: input}]\n    outputs: [{name: probs, classes: labels.txt}]\n    metric: accuracy"
    (row,) = accuracy(run(tmp_path, CONFIG + more + LABELLED))

    assert row.outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("arrays", "config", "told"),
    [
        pytest.param(
            {"label": np.linspace(0, 1, 40)},
            LABELLED,
            "its labels are no classes; name a metric",
            id="no classes",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"label": np.zeros(40, dtype=np.int64)},
            LABELLED,
            "every label is 0",
            id="one class",
            marks=pytest.mark.slow,
        ),
        pytest.param({"label": np.full(40, 11)}, LABELLED, "11", id="more classes than logits"),
    ],
)
def test_labels_that_the_metric_cannot_read_are_wrong_usage(tmp_path, arrays, config, told):
    labelled(tmp_path, **arrays)

    with pytest.raises(UsageError, match=told):
        run(tmp_path, CONFIG + "    inputs: [{name: input}]" + config)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        pytest.param({"label": np.arange(40) % 10 - 1}, r"eval\.npz: metric accuracy: found label -1", id="negative"),
        pytest.param({"label": np.full(40, 3)}, "every label is 3", id="constant"),
        pytest.param({"label": np.eye(10)[np.arange(40) % 10]}, "label has shape .40, 10., expected one", id="one-hot"),
        pytest.param({"label": np.arange(40) % 10 + 0.5}, "found label 0.5, expected whole classes", id="half"),
        pytest.param({"input": np.full((40, 1, 8, 8), 1e300)}, "input of item 0 is 1e.300; the model takes", id="huge"),
    ],
)
def test_data_that_nothing_can_be_measured_on_are_told_before_the_conversion(tmp_path, monkeypatch, arrays, told):
    labelled(tmp_path, **arrays)
    monkeypatch.setattr(Source, "convert", lambda *_, **__: pytest.fail("converted"))

    with pytest.raises(UsageError, match=told):
        run(tmp_path, CONFIG + "    inputs: [{name: input}]\n    metric: accuracy" + LABELLED)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("    metric: acuracy\n", 'gate.yml: models.tiny.metric: unknown name .* mean "accuracy"'),
        (
            "    metric: accuracy\n    budgets: {accuracy: {drop: 1 %}}\n",
            "gate.yml: models.tiny.budgets.accuracy.drop: ",
        ),
    ],
)
def test_a_metric_or_budget_that_does_not_fit_is_told_with_file_and_model(tmp_path, more, told):
    with pytest.raises(ConfigError, match=told):
        run(tmp_path, CONFIG + "    dataset: model.py\n" + more)


def test_items_of_which_none_certifies_are_wrong_usage(tmp_path):
    labelled(tmp_path, split=np.array(["search"] * 40))

    with pytest.raises(UsageError, match=r"none of the 40 items of eval\.npz is kept to certify"):
        run(tmp_path, CONFIG + "    inputs: [{name: input}]" + LABELLED)


def test_a_drop_needs_labels(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "eval.npz", input=rng.standard_normal((4, 1, 8, 8)).astype(np.float32))

    with pytest.raises(UsageError, match="at_least and drop need labels"):
        run(tmp_path, CONFIG + "    inputs: [{name: input}]" + LABELLED)


def test_the_base_branchs_answers_are_a_yardstick_and_its_package_a_reference(tmp_path):
    labelled(tmp_path)
    config = (
        CONFIG + "    inputs: [{name: input}]" + LABELLED.replace("60 points", "60 points, against: [source, base]")
    )
    run(tmp_path, config)
    (tmp_path / "out").rename(tmp_path / "base")
    wider = config.replace("model.py:example}", "model.py:example, args: {width: 9}}\n    reference: base")

    report = run(tmp_path, wider, baseline=tmp_path / "base" / "report.json")

    assert report.models[0].reference == "base"
    assert {row.against for row in accuracy(report)} == {"source", "base"}
    assert outcomes(report)["fidelity"] == "fail", "another width is another model"


def test_without_a_base_the_source_stands_in_and_the_report_says_so(tmp_path):
    report = run(tmp_path, CONFIG + "    reference: base\n")

    assert report.models[0].reference == "source, for want of a base package"
    assert outcomes(report)["fidelity"] == "pass"


@pytest.mark.slow
def test_growth_without_a_baseline_is_a_warning_and_no_silence(tmp_path):
    report = run(tmp_path, CONFIG + "    budgets: {size: {growth: 5 %}}\n")

    size = next(r for r in report.models[0].shipped.results if r.check is CheckName.SIZE)
    assert [f.rule for f in size.findings] == ["size.not_judged"]


def test_two_policies_of_one_name_are_refused(tmp_path):
    (tmp_path / "int8.yaml").write_text("name: int8\nsummary: mine\nprecision: float16\n")

    with pytest.raises(UsageError, match="two of its policies are called int8"):
        run(tmp_path, CONFIG + "    ship: int8\n    explore: [int8.yaml]\n")


def test_a_pattern_that_keeps_nothing_in_float32_is_a_warning(tmp_path):
    report = run(tmp_path, CONFIG + "    keep_float32: ['heads.*']\n")

    findings = report.models[0].shipped.results[0].findings
    assert any("'heads.*' matches no layer" in f.message for f in findings)


@pytest.mark.parametrize(
    "pattern", ["3/linear:1", *(pytest.param(one, marks=pytest.mark.slow) for one in ("0", "0/conv", "[03]"))]
)
def test_a_pattern_that_keeps_something_is_no_warning(tmp_path, pattern):
    report = run(tmp_path, CONFIG + f"    keep_float32: ['{pattern}']\n")

    assert not any(f.rule == "convert.keep_float32" for f in report.models[0].shipped.results[0].findings)


@pytest.mark.parametrize("out", ["model.py", "model.py/deep"])
def test_an_output_folder_that_cannot_be_is_wrong_usage(tmp_path, out):
    with pytest.raises(UsageError, match="--out"):
        pipeline.check(Options(config=project(tmp_path), out=tmp_path / out))


@pytest.mark.slow
def test_results_of_an_earlier_run_do_not_stay_beside_the_new_ones(tmp_path):
    (tmp_path / "out" / "per_item").mkdir(parents=True)
    (tmp_path / "out" / "per_item" / "old.jsonl").write_text("{}")

    run(tmp_path)

    assert not (tmp_path / "out" / "per_item" / "old.jsonl").exists()


SCORE = """
import os

def per_item(outputs, label, weight=1.0):
    assert not any(name.startswith(("GITHUB_", "ACTIONS_")) for name in os.environ)
    (scores,) = outputs.values()
    return weight * float(scores.ravel()[label]), float(abs(scores).max())

def aggregate(items):
    return sum(hit for hit, _ in items) / sum(scale for _, scale in items)
"""
OWN = """
    inputs: [{name: input}]
    dataset: eval.npz
    metric: {name: score.py, weight: 2.0}
    budgets: {accuracy: {drop: 0.5}}
"""


def test_the_teams_own_metric_and_its_aggregate_run_in_the_worker(tmp_path, monkeypatch):
    monkeypatch.setenv(
        "GITHUB_TOKEN", "secret"
    )  # the judge's own environment; the metric asserts that it has none of it
    labelled(tmp_path)
    (tmp_path / "score.py").write_text(SCORE)

    (row,) = accuracy(run(tmp_path, CONFIG + OWN))

    figure = next(m for m in row.measurements if m.name == "score.py")
    items = [json.loads(line) for line in (tmp_path / "out/per_item/tiny/float16.jsonl").read_text().splitlines()[1:]]
    now = [item["candidate"] for item in items]
    assert figure.value == pytest.approx(sum(hit for hit, _ in now) / sum(scale for _, scale in now))
    assert row.outcome is Outcome.PASS
    assert row.basis is Basis.REPORTED, "only the pull request's own code says so"
    assert "bootstrap" in row.measurements[0].method


@pytest.mark.parametrize(
    ("code", "metric", "told"),
    [
        ("def per_item(outputs, label):\n    raise RuntimeError('boom')\n", "score.py", "boom"),
        pytest.param(
            "def per_item(outputs, label):\n    return 1, 2\n", "score.py", "expected a number", marks=pytest.mark.slow
        ),
        pytest.param(SCORE.replace("sum(hit", "'x' or sum(hit"), "score.py", "aggregate", marks=pytest.mark.slow),
    ],
)
def test_a_metric_file_that_fails_is_no_answer(tmp_path, code, metric, told):
    labelled(tmp_path)
    (tmp_path / "score.py").write_text(code)

    (row,) = accuracy(run(tmp_path, CONFIG + OWN.replace("{name: score.py, weight: 2.0}", metric)))

    assert row.outcome is Outcome.ERROR
    assert told in row.message


@pytest.mark.slow
def test_a_metric_function_of_another_name_is_found(tmp_path):
    labelled(tmp_path)
    (tmp_path / "score.py").write_text(
        "def right(outputs, label):\n    return outputs.popitem()[1].argmax() == label\n"
    )
    named = OWN.replace("{name: score.py, weight: 2.0}", "{name: 'score.py:right', binary: true}")

    (row,) = accuracy(run(tmp_path, CONFIG + named.replace("0.5", "60 points")))

    assert row.outcome is Outcome.PASS
    assert row.measurements[0].method.startswith("Tango")


def test_named_metrics_judge_agreement_where_there_are_no_labels(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "eval.npz", input=rng.standard_normal((40, 1, 8, 8)).astype(np.float32))
    config = CONFIG + "    inputs: [{name: input}]\n    metric: accuracy" + LABELLED.replace("60", "20")

    (row,) = accuracy(run(tmp_path, config))

    assert {m.name for m in row.measurements} >= {"accuracy_drop", "agreement (accuracy)"}
    assert row.outcome is Outcome.PASS


def test_code_that_hangs_is_named(tmp_path):
    (tmp_path / "hangs.py").write_text("def build():\n    while True: pass\n")
    config = CONFIG.replace("model.py:build", "hangs.py:build").replace("120 s", "4 s")

    (row,) = run(tmp_path, config).models[0].shipped.results

    assert row.outcome is Outcome.ERROR
    assert re.search(r"describe of \w+ \(hangs.py:build\): no answer within the time limit", row.message)
    assert row.remedy == "raise limits.time in gate.yml if that is expected, else mend what hangs"


def test_a_search_that_ran_out_of_time_asks_for_more_before_anything_else():
    stopped = Finding(rule=search.STOPPED, severity=Severity.WARNING, message="its time was used up")
    told = Result(
        check=CheckName.ACCURACY, outcome=Outcome.PASS, slice=search.SLICE, message="found", findings=(stopped,)
    )
    large = Result(check=CheckName.SIZE, outcome=Outcome.FAIL, message="too large", remedy="compress more")
    broken = Result(check=CheckName.INTEGRITY, outcome=Outcome.FAIL, message="broken", remedy="skip it")
    record = Candidate(role=Role.SHIP, policy="auto", results=(broken, large))

    by_check = {r.check: r.remedy for r in pipeline._with(record, (told,)).results}
    assert by_check[CheckName.SIZE] == f"{search.MORE_TIME}; else compress more"
    assert by_check[CheckName.INTEGRITY] == "skip it"
    quiet = told.model_copy(update={"findings": ()})
    assert pipeline._with(record, (quiet,)).results[1].remedy == "compress more"
