# SPDX-License-Identifier: Apache-2.0
"""What the worker makes of the team's files, in this process: the code here is our own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gate import worker
from gate.errors import NoAnswer, SourceFault, ToolchainError, UsageError
from gate.protocol import FaultKind, Request, Verb
from gate.report import Finding, Severity
from gate.source import _startup
from tests.project import TINY, Project

FACTORY = "source: {factory: model.py:build, example: model.py:example}"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def open_worker(project: Project, code: str, entry: str) -> worker.Worker:
    worker._import.cache_clear()
    project.write("model.py", code)
    loaded = project.config(entry)
    (project.folder.parent / "answers").mkdir(exist_ok=True)
    return worker.Worker(_startup(loaded.models[0], loaded, (), project.folder.parent))


SEVEN = "def build(): return 7\n"


@pytest.mark.parametrize(
    ("code", "entry", "error", "says"),
    [
        (SEVEN, FACTORY, UsageError, "model.py has no function example"),
        (TINY.replace("(torch.randn(1, 4),)", "5"), FACTORY, SourceFault, "input x is int, expected a tensor"),
        (TINY.replace("torch.randn(1, 4)", "torch.randn(1, 4) * 1j"), FACTORY, SourceFault, "input x is complex"),
        (TINY.replace("torch.randn(1, 4)", "torch.full((1, 4), 2**40)"), FACTORY, SourceFault, "beyond int32"),
        (SEVEN, "source: {factory: model.py:build}", SourceFault, "returned int, expected a torch.nn.Module"),
        (TINY, "source: {factory: model.py:build}", UsageError, "give example: path.py:function, or inputs:"),
        (TINY, "source: {factory: model.py:build, args: {wide: 3}}", SourceFault, "unexpected keyword argument 'wide'"),
        (TINY, "source: {factory: gone.py:build}", UsageError, "gone.py: no such file"),
        (TINY, "source: {torchscript: gone.pt}", UsageError, "source.torchscript: gone.pt: no such file"),
        (TINY, "source: {exported_program: model.py}", SourceFault, "source.exported_program: model.py: "),
        (TINY.replace("4, 4", "5, 4"), FACTORY, SourceFault, r"mat1 and mat2 .*\(model.py:11\)"),
        ("x = = 1", FACTORY, SourceFault, "importing model.py: SyntaxError"),
        (TINY + "raise SystemExit(0)", FACTORY, SourceFault, r"called sys.exit\(0\); it must return instead"),
        (TINY.replace("torch.softmax(x, -1)", "'text'"), FACTORY, SourceFault, "forward returned str"),
        (TINY.replace("torch.softmax(x, -1)", "None"), FACTORY, SourceFault, "returned no tensor"),
        (TINY.replace("torch.softmax(x, -1)", "torch.fft.fft(x)"), FACTORY, SourceFault, "returns complex numbers"),
        (TINY, f"{FACTORY}\noutputs: [{{name: a}}, {{name: b}}]", UsageError, "gate.yml names 2, the model returns 1"),
        (TINY, f"{FACTORY}\noutputs: [{{name: a, classes: l.txt}}]", UsageError, "outputs.classes: l.txt: no such file"),
    ],
)  # fmt: skip
def test_faults_of_a_source_are_told_apart(
    project: Project, code: str, entry: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        worker.describe(open_worker(project, code, entry))
    assert type(caught.value) is error


def test_an_lfs_pointer_is_named(project: Project) -> None:
    project.write("m.pt", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    at = open_worker(project, TINY, "source: {torchscript: m.pt}\ninputs: [{name: x, shape: [1, 4]}]")
    with pytest.raises(UsageError, match=r"m\.pt is a Git LFS pointer"):
        worker.describe(at)


def test_half_precision_weights_are_widened_for_the_reference(project: Project) -> None:
    code = TINY + "\ndef half():\n    return build().half()\n"
    at = open_worker(project, code, "source: {factory: model.py:half}\ninputs: [{name: x, shape: [1, 4]}]")
    told = worker.describe(at)
    assert (told["parameters"], told["parameter_bytes"]) == (40, 160)
    assert worker.reference(at, {"x": [np.ones((1, 4), np.float32)]})["output"][0].dtype == np.float32


def test_the_module_is_in_evaluation_mode(project: Project) -> None:
    code = TINY.replace("torch.softmax(x, -1)", "nn.functional.dropout(x, 0.9, self.training) + 1")
    at = open_worker(project, code, FACTORY)
    ones = [np.ones((1, 4), np.float32)] * 2
    first, second = worker.reference(at, {"x": ones})["output"]
    np.testing.assert_array_equal(first, second)


def test_made_up_inputs_stay_within_values_and_are_the_same_each_time(project: Project) -> None:
    entry = "source: {factory: model.py:build}\ninputs: [{name: x, shape: [1, {range: [4, 9], default: 4}], values: [2, 3]}]"
    made = [worker.example(open_worker(project, TINY, entry))["x"] for _ in range(2)]
    assert made[0].shape == (1, 4)
    assert 2 <= made[0].min() <= made[0].max() <= 3
    np.testing.assert_array_equal(made[0], made[1])


def test_tied_parameters_count_once(project: Project) -> None:
    code = TINY.replace(
        "return Net(depth)", "net = Net(2); net.layers[1].fc.weight = net.layers[0].fc.weight; return net"
    )
    assert worker.describe(open_worker(project, code, FACTORY))["parameters"] == 16 + 4 + 4


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (SourceFault("x"), FaultKind.SOURCE),
        (UsageError("x"), FaultKind.USAGE),
        (ToolchainError("x"), FaultKind.TOOLCHAIN),
        (NoAnswer("x"), FaultKind.NO_ANSWER),
        (MemoryError(), FaultKind.NO_ANSWER),
        (KeyError("x"), FaultKind.OURS),
    ],
)
def test_failures_keep_their_kind(problem: Exception, kind: FaultKind) -> None:
    assert worker._failure(problem).kind is kind


def test_findings_travel_with_a_failure() -> None:
    problem = SourceFault("x")
    problem.findings = (Finding(rule="r", severity=Severity.ERROR, message="m"),)  # type: ignore[attr-defined]
    assert worker._failure(problem).findings[0].rule == "r"


def test_a_request_is_answered_whatever_happens(project: Project) -> None:
    at = open_worker(project, SEVEN, FACTORY)
    answer, arrays = worker.respond(at, Request(number=3, verb=Verb.DESCRIBE), {})
    assert (answer.number, answer.result, arrays) == (3, None, {})
    assert answer.failure is not None
    assert answer.failure.kind is FaultKind.USAGE


@pytest.fixture
def twin(project: Project) -> Path:
    """An ONNX file with one addition, written by hand: onnx itself is not a dependency."""
    path = project.folder / "t.onnx"
    path.write_bytes(onnx_addition())
    return path


def onnx_addition() -> bytes:
    """ModelProto of y = x + x for float32 [1, 2] (onnx.proto, fields by number)."""

    def field(number: int, value: bytes | str | int) -> bytes:
        if isinstance(value, int):
            return bytes([number << 3, value])
        data = value.encode() if isinstance(value, str) else value
        return bytes([number << 3 | 2, len(data)]) + data

    def port(name: str) -> bytes:
        shape = field(1, field(1, 1)) + field(1, field(1, 2))
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))

    node = field(1, "x") + field(1, "x") + field(2, "y") + field(4, "Add")
    graph = field(1, node) + field(2, "g") + field(11, port("x")) + field(12, port("y"))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def test_an_onnx_twin_is_run_by_name_or_by_position(project: Project, twin: Path) -> None:
    pytest.importorskip("onnxruntime")
    at = open_worker(project, TINY, FACTORY)
    ones: list[Any] = [np.ones((1, 2), np.float64)]
    assert worker.onnx(at, twin.name, {"x": ones})["y"][0].tolist() == [[2, 2]]
    assert worker.onnx(at, twin.name, {"other": ones})["y"][0].tolist() == [[2, 2]]
    with pytest.raises(UsageError, match=r"the twin takes \['x'\], the package takes \['a', 'b'\]"):
        worker.onnx(at, twin.name, {"a": ones, "b": ones})


def test_a_broken_onnx_twin_is_their_fault_and_a_missing_one_wrong_usage(project: Project) -> None:
    pytest.importorskip("onnxruntime")
    at = open_worker(project, TINY, FACTORY)
    project.write("t.onnx", "nothing")
    with pytest.raises(SourceFault, match=r"reference\.onnx: t\.onnx: "):
        worker.onnx(at, "t.onnx", {"x": []})
    with pytest.raises(UsageError, match="no such file"):
        worker.onnx(at, "gone.onnx", {"x": []})
