# SPDX-License-Identifier: Apache-2.0
"""What is judged of a compiled model, of an old one, of a pipeline?"""

from collections.abc import Callable
from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
from typer.testing import CliRunner

from gate import pipeline
from gate.cli import app
from gate.errors import Exit, UsageError
from gate.pipeline import Options
from gate.report import CheckName, Outcome, Report, exit_code

CONFIG = """
version: 1
app: {budgets: {app_size: {total: 1 MB}}}
models:
  - name: old
    source: {coreml: NAME}
"""
SMALL, LARGE = "    budgets: {size: 1 KB}\n", "    budgets: {size: 10 KB}\n"


def compiled(folder: Path) -> str:
    (folder / "Old.mlmodelc" / "weights").mkdir(parents=True)
    (folder / "Old.mlmodelc" / "coremldata.bin").write_bytes(bytes(1_000))
    (folder / "Old.mlmodelc" / "weights" / "weight.bin").write_bytes(bytes(2_000))
    return "Old.mlmodelc"


def network(folder: Path) -> str:
    spec = ct.proto.Model_pb2.Model(specificationVersion=4)
    spec.neuralNetwork.layers.add(name="relu").activation.ReLU.SetInParent()
    spec.description.metadata.shortDescription = "x" * 3_000
    (folder / "Old.mlmodel").write_bytes(spec.SerializeToString())
    return "Old.mlmodel"


OLD = pytest.mark.parametrize(("make", "word"), [(compiled, "is compiled"), (network, "neuralNetwork")])
Make = Callable[[Path], str]


def check(folder: Path, name: str, more: str = "") -> Report:
    (folder / "gate.yml").write_text(CONFIG.replace("NAME", name) + more)
    return pipeline.check(Options(config=folder / "gate.yml", out=folder / "out"))


@OLD
def test_size_and_app_size_are_judged_and_the_rest_says_why_not(tmp_path: Path, make: Make, word: str) -> None:
    report = check(tmp_path, make(tmp_path), LARGE)

    results = {result.check: result for result in report.models[0].candidates[0].results}
    assert report.outcome is Outcome.PASS
    assert results.pop(CheckName.SIZE).outcome is Outcome.PASS
    assert report.app.results[0].outcome is Outcome.PASS
    assert {result.outcome for result in results.values()} == {Outcome.NOT_RUN}
    assert all(word in result.message for result in results.values())
    assert CheckName.ACCURACY in results


@OLD
def test_one_that_is_too_large_fails(tmp_path: Path, make: Make, word: str) -> None:
    report = check(tmp_path, make(tmp_path), SMALL)

    size = next(r for r in report.models[0].candidates[0].results if r.check is CheckName.SIZE)
    assert exit_code(report.outcome, "fail") is Exit.FAIL
    assert size.measurements[0].value > 3_000 - 1


@OLD
def test_a_budget_that_nobody_can_answer_is_no_pass(tmp_path: Path, make: Make, word: str) -> None:
    report = check(tmp_path, make(tmp_path), "    budgets: {float16: {error: 2 %}}\n")

    assert exit_code(report.outcome, "fail") is Exit.NO_ANSWER


@OLD
def test_a_policy_that_would_change_it_is_refused(tmp_path: Path, make: Make, word: str) -> None:
    report = check(tmp_path, make(tmp_path), "    ship: int8\n")

    (answer,) = report.models[0].candidates[0].results
    assert (answer.check, answer.outcome) == (CheckName.FEASIBILITY, Outcome.FAIL)
    assert word in answer.message
    assert "ship: as-is" in answer.message


@OLD
def test_running_it_is_refused_in_a_sentence(tmp_path: Path, make: Make, word: str) -> None:
    model = tmp_path / make(tmp_path)
    np.savez(tmp_path / "in.npz", x=np.zeros(3))

    arguments = ["run", str(model), "--inputs", str(tmp_path / "in.npz"), "--out", str(tmp_path / "out.npz")]
    done = CliRunner().invoke(app, arguments)

    assert isinstance(done.exception, UsageError)
    assert word in str(done.exception)
    assert not (tmp_path / "out.npz").exists()


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Old.mlmodel").write_bytes(b"\xff" * 100)

    with pytest.raises(UsageError, match=r"found a file, expected an \.mlpackage folder"):
        check(tmp_path, "Old.mlmodel")
