# SPDX-License-Identifier: Apache-2.0
"""Our side of the worker: every kind of source and reference, the choice of a route, and a worker that lies."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gate import protocol, source
from gate.checks import feasibility
from gate.conversion import failed
from gate.errors import DamagedPackage, NoAnswer, SourceFault, ToolchainError, UsageError
from gate.policy import Precision, Target
from gate.protocol import Description, Failure, FaultKind, Port, SourceMap
from gate.report import Finding, Severity
from gate.source import Arrays, ConversionFailed, Converted, choose_route, reference_for
from tests.project import TINY, Project

FACTORY = "source: {factory: model.py:build, example: model.py:example}"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.write("model.py", TINY)
    return made


def tiny() -> tuple[Any, torch.Tensor]:
    names: dict[str, Any] = {}
    exec(compile(TINY, "tiny", "exec"), names)
    return names["build"]().eval(), torch.linspace(-1, 1, 4).reshape(1, 4)


# ------------------------------------------------------------------------------------------------- kinds of sources


def test_a_factory_is_described_run_and_converted(project: Project) -> None:
    module, x = tiny()
    with project.open(f"{FACTORY}\ninputs: [{{name: x, shape: [1, 4]}}]") as opened:
        told = opened.describe()
        assert told.inputs == (Port(name="x", shape=(1, 4), dtype="float32"),)
        assert told.outputs == (Port(name="output", shape=(1, 4), dtype="float32"),)
        assert (told.parameters, told.parameter_bytes, told.nodes) == (40, 160, 5)
        outputs = opened.references([{"x": x.numpy()}, {"x": 2 * x.numpy()}])
        np.testing.assert_array_equal(outputs[0]["output"], module(x).detach().numpy())
        np.testing.assert_array_equal(outputs[1]["output"], module(2 * x).detach().numpy())
        trail = opened.steps({"x": x.numpy()})
        assert "_softmax" in [step.what for step in trail.steps]
        np.testing.assert_allclose(trail.values[trail.outputs[0]].placed, module(x).detach().numpy()[0], rtol=1e-6)
        made = opened.convert("trace", Precision.FLOAT16, target=Target.IOS16)
        assert made.package.is_relative_to(project.out)
        assert source.operation_count(made.package) == len(made.source_map.ops)
        assert opened.example_inputs()["x"].shape == (1, 4)


def test_arguments_reach_the_factory_and_change_the_digest(project: Project) -> None:
    digests = []
    for depth in (2, 3):
        entry = f"source: {{factory: model.py:build, example: model.py:example, args: {{depth: {depth}}}}}"
        with project.open(entry) as opened:
            digests.append((opened.describe().parameters, opened.describe().digest))
    assert [parameters for parameters, _ in digests] == [40, 60]
    assert digests[0][1] != digests[1][1]


@pytest.mark.parametrize("kind", ["torchscript", pytest.param("scripted", marks=pytest.mark.slow), "exported_program"])
def test_saved_programs_are_run_and_converted(project: Project, kind: str) -> None:
    module, x = tiny()
    (project.folder / "net.py").write_text(TINY)
    if kind == "exported_program":
        torch.export.save(torch.export.export(module, (x,)), project.folder / "m.pt2")
        entry, routes = "source: {exported_program: m.pt2}", ["trace", "export"]
    else:
        torch.jit.save(torch.jit.trace(module, x) if kind == "torchscript" else scripted(), project.folder / "m.pt")
        entry, routes = "source: {torchscript: m.pt}\ninputs: [{name: x, shape: [1, 4]}]", ["trace"]
    with project.open(entry) as opened:
        (name,) = opened.example_inputs()
        expected = (scripted() if kind == "scripted" else module)(x).detach().numpy()
        np.testing.assert_allclose(opened.reference({name: x.numpy()})["output"], expected, rtol=1e-6)
        for route in routes:
            assert source.operation_count(opened.convert(route, Precision.FLOAT32).package) >= 2
        if kind == "torchscript":
            with pytest.raises(ConversionFailed, match="cannot be exported"):
                opened.convert("export", Precision.FLOAT32)


class Scripted(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) + 1


def scripted() -> Any:
    return torch.jit.script(Scripted())


CONVERTER = (
    TINY
    + """
import coremltools as ct

def export(depth=2):
    traced = torch.jit.trace(build(depth).eval(), example()[0])
    return ct.convert(traced, inputs=[ct.TensorType(name="x", shape=(1, 4))], minimum_deployment_target=ct.target.iOS16)

def old():
    traced = torch.jit.trace(build().eval(), example()[0])
    return ct.convert(traced, inputs=[ct.TensorType(name="x", shape=(1, 4))], convert_to="neuralnetwork")

def path():
    return "out/Model.mlpackage"

def saves():
    export().save("Model.mlpackage")
"""
)


def test_a_converter_script_gives_its_package_and_source_map(project: Project) -> None:
    project.write("export.py", CONVERTER)
    with project.open("source: {converter: export.py:export, args: {depth: 3}}") as opened:
        made = opened.convert(None, Precision.AS_IS)
        assert opened.convert(None, Precision.AS_IS) is made
        assert {line.layer for line in made.source_map.ops.values()} >= {"layers.2.fc"}
        assert opened.describe().inputs == (Port(name="x", shape=(1, 4), dtype="float16"),)  # coremltools' default
        with pytest.raises(NoAnswer, match="no float32 program of its own"):
            opened.reference(opened.example_inputs())


@pytest.mark.parametrize(
    ("function", "error", "says"),
    [
        ("old", SourceFault, "made a neuralNetwork, expected an ML program"),
        pytest.param("path", SourceFault, "returned str, expected a coremltools MLModel", marks=pytest.mark.slow),
        pytest.param("none", UsageError, "has no function none", marks=pytest.mark.slow),
        ("saves", SourceFault, r"checkout is read-only for the model's code|returned NoneType"),
    ],
)
def test_a_converter_that_returns_something_else(
    project: Project, function: str, error: type[Exception], says: str
) -> None:
    project.write("export.py", CONVERTER)
    with project.open(f"source: {{converter: export.py:{function}}}") as opened, pytest.raises(error, match=says):
        opened.convert(None, Precision.AS_IS)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished package, made once."""
    made = Project(tmp_path_factory.mktemp("package"))
    made.write("model.py", TINY)
    with made.open(f"{FACTORY}\ninputs: [{{name: x, shape: [1, 4]}}]") as opened:
        return opened.convert("trace", Precision.FLOAT16).package


def test_a_finished_package_needs_no_worker(project: Project, package: Path) -> None:
    package_copy(package, project.folder / "M.mlpackage")
    with project.open("source: {coreml: M.mlpackage}\ninputs: [{name: x, shape: [1, 4], values: [5, 6]}]") as opened:
        told = opened.describe()
        assert [port.name for port in told.inputs + told.outputs] == ["x", "output"]
        assert 5 <= opened.example_inputs()["x"].min() <= 6
        assert opened.convert(None, Precision.AS_IS).package == project.folder / "M.mlpackage"
        assert opened.sandbox == "none"
        assert not opened.log.exists()


def package_copy(package: Path, target: Path) -> None:
    protocol.receive_package(package, target)


def test_a_package_with_pointers_instead_of_files_says_so(project: Project, package: Path) -> None:
    package_copy(package, project.folder / "M.mlpackage")
    weights = next((project.folder / "M.mlpackage").rglob("weight.bin"))
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with (
        project.open("source: {coreml: M.mlpackage}") as opened,
        pytest.raises(UsageError, match=r"weight\.bin is a Git LFS"),
    ):
        opened.describe()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda p: (p / "Manifest.json").unlink(), "Manifest.json is missing"),
        (lambda p: (p / "Manifest.json").write_text("[]"), "Manifest.json is missing or not well-formed"),
        (lambda p: repoint(p, "../../../../etc/passwd"), "which is not a file in the package"),
        (lambda p: next(p.rglob("*.mlmodel")).write_bytes(b"\xff\xff\xff"), "cannot be read"),
        (lambda p: next(p.rglob("*.mlmodel")).write_bytes(b""), "model without a type, expected an ML program"),
        (lambda p: (p / "link").symlink_to("/etc/passwd"), "holds a link, link"),
    ],
)
def test_a_damaged_package_is_refused(project: Project, package: Path, damage: Any, says: str) -> None:
    package_copy(package, project.folder / "M.mlpackage")
    damage(project.folder / "M.mlpackage")
    with project.open("source: {coreml: M.mlpackage}") as opened, pytest.raises((UsageError, SourceFault), match=says):
        opened.describe()


def test_a_damaged_package_says_what_to_do(project: Project, package: Path) -> None:
    package_copy(package, project.folder / "M.mlpackage")
    (project.folder / "M.mlpackage" / "Manifest.json").unlink()
    with project.open("source: {coreml: M.mlpackage}") as opened, pytest.raises(DamagedPackage) as caught:
        opened.describe()

    judged = feasibility.judge(failed(caught.value))
    assert judged.outcome == "fail"
    assert "save the package again" in judged.remedy


def test_a_time_out_repeats_what_its_message_says_is_to_be_done() -> None:
    judged = feasibility.judge(failed(NoAnswer("convert of m: 600 s are used up; raise limits.time in gate.yml")))

    assert judged.remedy == "raise limits.time in gate.yml"
    assert feasibility.judge(failed(NoAnswer("the worker is gone"))).remedy is None


def repoint(package: Path, where: str) -> None:
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = where
    (package / "Manifest.json").write_text(json.dumps(manifest))


def test_a_fault_of_the_factory_names_their_line(project: Project) -> None:
    project.write("model.py", "import nowhere\n" + TINY)
    with project.open(FACTORY) as opened, pytest.raises(SourceFault, match=r"No module named 'nowhere' \(model.py:1\)"):
        opened.describe()
    assert "Traceback" in opened.log.read_text()  # what the message leaves out


def test_pythonpath_and_own_folder_are_importable_and_the_folder_is_the_working_directory(project: Project) -> None:
    project.write("lib/deep.py", TINY)
    project.write("ml/near.py", "SCALE = 1")
    project.write("weights.txt", "2")
    code = "from deep import *\nfrom near import SCALE\ndef sized(): return build(int(open('weights.txt').read()))\n"
    project.write("ml/model.py", code)
    project.config("source: {factory: ml/model.py:sized, example: ml/model.py:example}")
    text = (project.folder / "gate.yml").read_text()
    (project.folder / "gate.yml").write_text(text + "setup: {pythonpath: [lib]}\n")
    loaded = source_config(project)
    with source.open_source(
        loaded.models[0], loaded, workdir=project.out, time_limit=60, memory_limit=8 * 10**9
    ) as opened:
        assert opened.describe().parameters == 40


def source_config(project: Project) -> Any:
    from gate import config

    return config.load(project.folder / "gate.yml")


# ------------------------------------------------------------------------------------------ data sets and metrics

DATA = """
import numpy as np

def items():
    for i in range(3):
        yield {"x": np.full((1, 4), i, np.float32)}, i % 2, {"id": f"n{i}", "slice": "even" if i % 2 == 0 else "odd"}

def ragged():
    for i in range(1, 3):
        yield {"x": np.zeros((1, i))}, ["a"] * i
"""
METRIC = """
higher_is_better = False
unit = "px"

def per_item(outputs, label, power=1):
    return abs(outputs["output"].sum() - label) ** power

def aggregate(items):
    return max(items)
"""


def test_items_come_with_labels_ids_and_slices(project: Project) -> None:
    project.write("data.py", DATA)
    with project.open(f"{FACTORY}\ndataset: data.py:items") as opened:
        got = opened.items()
    assert [float(item["x"][0, 0]) for item in got.inputs] == [0, 1, 2]
    assert (got.labels, got.ids, got.slices, got.clusters) == (
        (0, 1, 0),
        ("n0", "n1", "n2"),
        ("even", "odd", "even"),
        (),
    )


def test_items_of_different_shapes_and_list_labels(project: Project) -> None:
    project.write("data.py", DATA)
    with project.open(f"{FACTORY}\ndataset: data.py:ragged") as opened:
        got = opened.items()
    assert [item["x"].shape for item in got.inputs] == [(1, 1), (1, 2)]
    assert got.labels == (["a"], ["a", "a"])


def test_a_metric_file_judges_outputs(project: Project) -> None:
    project.write("metric.py", METRIC)
    project.write("data.py", DATA)
    with project.open(f"{FACTORY}\ndataset: data.py:items\nmetric: {{name: metric.py, power: 2}}") as opened:
        got = opened.metric([{"output": np.ones(4)}, {"output": np.zeros(4)}], [1, 1])
        figures = opened.aggregate(got.per_item, np.array([[1, 1], [0, 2]]))
    assert (got.per_item, got.aggregates, got.higher_is_better, got.unit) == ((9.0, 1.0), True, False, "px")
    assert figures.tolist() == [9.0, 1.0]  # the largest, with every item once, and with the second alone


@pytest.mark.parametrize("value", ["None", "'good'", "float('nan')", "outputs['output']"])
def test_a_metric_must_be_a_number(project: Project, value: str) -> None:
    project.write("metric.py", f"def per_item(outputs, label):\n    return {value}\n")
    project.write("data.py", DATA)
    entry = f"{FACTORY}\ndataset: data.py:items\nmetric: metric.py"
    with project.open(entry) as opened, pytest.raises(SourceFault, match=r"item 0: found .*, expected a number"):
        opened.metric([{"output": np.ones(4)}], [1])


# ------------------------------------------------------------------------------------------------------ references


def no_engine(package: Path, items: Sequence[Any]) -> list[Arrays]:
    raise AssertionError("no package is run here")


def reference(opened: source.Source, **options: Any) -> source.Reference | None:
    return reference_for(opened.entry, opened.config, opened, run_package=options.pop("run", no_engine), **options)


def test_stored_outputs_row_by_row(project: Project) -> None:
    np.savez(project.folder / "t.npz", output=np.arange(12.0).reshape(3, 4))
    with project.open(f"{FACTORY}\nreference: {{outputs: t.npz}}") as opened:
        stored = reference(opened)
        assert stored is not None
        assert stored.kind == "outputs t.npz"
        rows = stored.references([{}, {}])
        assert [row["output"].tolist() for row in rows] == [[0, 1, 2, 3], [4, 5, 6, 7]]
        with pytest.raises(UsageError, match="holds 3, expected 4 items"):
            stored.references([{}] * 4)


def test_stored_outputs_with_pickles_are_refused(project: Project) -> None:
    np.savez(project.folder / "t.npz", output=np.array([{}], dtype=object))
    with project.open(f"{FACTORY}\nreference: {{outputs: t.npz}}") as opened:
        stored = reference(opened)
        assert stored is not None
        with pytest.raises(UsageError, match="without pickles"):
            stored.references([{}])


def test_base_is_run_by_the_callers_engine(project: Project, package: Path) -> None:
    ran: list[Path] = []

    def run(path: Path, items: Sequence[Any]) -> list[Arrays]:
        ran.append(path)
        return [{} for _ in items]

    with project.open(f"{FACTORY}\nreference: base") as opened:
        stand_in = reference(opened)
        assert stand_in is not None
        assert stand_in.kind == "source, for want of a base package"
        base = reference(opened, run=run, base=package)
        assert base is not None
        assert len(base.references([{}, {}])) == 2
    assert ran == [package]


def test_a_package_alone_has_no_reference_and_cannot_be_its_own(project: Project, package: Path) -> None:
    package_copy(package, project.folder / "M.mlpackage")
    with project.open("source: {coreml: M.mlpackage}") as opened:
        assert reference(opened) is None
    entry = "source: {coreml: M.mlpackage}\nreference: source"
    with project.open(entry) as opened, pytest.raises(UsageError, match="use base, onnx or outputs"):
        reference(opened)


PORTS = (Port(name="a", shape=(1, 2), dtype="float32"), Port(name="b", shape=(1, 3), dtype="float32"))


@pytest.mark.parametrize(
    ("answer", "pairs"),
    [
        ({"b": (1, 3), "a": (1, 2)}, {"a": "a", "b": "b"}),
        ({"p": (1, 3), "q": (1, 2)}, {"a": "q", "b": "p"}),
        ({"p": (1, 3), "q": (1, 3)}, None),
        ({"p": (1, 3)}, None),
    ],
)
def test_outputs_of_a_twin_are_paired_by_name_or_by_an_unambiguous_shape(
    answer: dict[str, tuple[int, ...]], pairs: dict[str, str] | None
) -> None:
    arrays = {name: np.zeros(shape) for name, shape in answer.items()}
    if pairs is None:
        with pytest.raises(UsageError, match="cannot tell which is which"):
            source._pair_outputs(PORTS, arrays, "t.onnx", {})
    else:
        assert source._pair_outputs(PORTS, arrays, "t.onnx", {}) == pairs


def test_outputs_of_a_twin_are_paired_as_gate_yml_says() -> None:
    arrays = {"p": np.zeros((1, 3)), "b": np.zeros((1, 3))}
    assert source._pair_outputs(PORTS, arrays, "t.onnx", {"a": "p"}) == {"a": "p", "b": "b"}
    with pytest.raises(UsageError, match=r"has no output q \(for a\); found p, b"):
        source._pair_outputs(PORTS, arrays, "t.onnx", {"a": "q"})


# ----------------------------------------------------------------------------------------------------------- routes


@dataclass
class FakeSource:
    """Routes with a size and an error each, or an exception."""

    routes: dict[str, tuple[int, float | None] | Exception]
    package: Path
    asked: list[str] = field(default_factory=list)
    is_torch: bool = True
    entry: Any = None

    def describe(self) -> Description:
        port = Port(name="x", shape=(1,), dtype="float32")
        return Description(
            inputs=(port,), outputs=(port,), parameters=0, parameter_bytes=100_000, nodes=0, digest="0" * 64
        )

    def convert(self, route: str, precision: Precision, *, target: Any = None) -> Converted:
        self.asked.append(route)
        made = self.routes[route]
        if isinstance(made, Exception):
            raise made
        folder = self.package.parent / f"{route}.mlpackage"
        package_copy(self.package, folder)
        weights = folder / "Data/com.apple.CoreML/weights/weight.bin"
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.write_bytes(b"\0" * made[0])
        return Converted(folder, SourceMap(ops={}), precision, route)

    def matches(self, package: Path) -> float | None:
        made = self.routes[package.stem]
        assert isinstance(made, tuple)
        return made[1]


def unsupported(op: str) -> ConversionFailed:
    finding = Finding(rule="convert.unsupported_op", severity=Severity.ERROR, message=f"cannot convert {op}", op=op)
    return ConversionFailed(op, (finding,))


SMALL, LARGE = 100_000, 3_000_000
BROKEN = ToolchainError("numpy")


@pytest.mark.parametrize(
    ("routes", "chosen", "asked", "rules"),
    [
        ([(SMALL, 0.0), None, None, None], "trace", 1, []),
        ([(SMALL, 0.0009), None, None, None], "trace", 1, []),
        ([(SMALL, 0.0011), (SMALL, 0.0), None, None], "export", 2, ["convert.wrong"]),
        ([(SMALL, math.nan), (SMALL, 0.0), None, None], "export", 2, ["convert.wrong"]),
        ([unsupported("erfinv"), (SMALL, 0.0), None, None], "export", 2, ["convert.unsupported_op"]),
        ([(LARGE, 0.0), (SMALL, 0.0), None, None], "export", 2, ["convert.large"]),
        ([(LARGE, 0.0), (2 * LARGE, 0.0), unsupported("x"), (SMALL, 0.5)], "trace", 4,
         ["convert.large", "convert.large", "convert.unsupported_op", "convert.wrong"]),
        ([(SMALL, 0.9), (SMALL, 0.2), (SMALL, math.nan), (LARGE, 0.3)], "export", 4, ["convert.wrong"] * 4),
        ([(SMALL, None), None, None, None], "trace", 1, []),
        ([BROKEN, (SMALL, 0.0), None, None], "export", 2, ["convert.toolchain"]),
    ],
)  # fmt: skip
def test_the_first_right_and_not_needlessly_large_route_is_taken(
    tmp_path: Path, project: Project, package: Path, routes: list[Any], chosen: str, asked: int, rules: list[str]
) -> None:
    local = tmp_path / "seed.mlpackage"
    package_copy(package, local)
    fake = FakeSource(dict(zip(source.ROUTES, routes, strict=True)), local, entry=project.config(FACTORY).models[0])
    choice = choose_route(fake, matches=fake.matches)  # type: ignore[arg-type]
    assert (choice.converted.route, len(fake.asked)) == (chosen, asked)
    assert [finding.rule for finding in choice.findings] == rules
    assert all(finding.severity is Severity.INFO for finding in choice.findings)


def test_when_no_route_converts_every_operation_is_named(tmp_path: Path, project: Project, package: Path) -> None:
    routes = dict(zip(source.ROUTES, map(unsupported, ("erfinv", "lgamma", "erfinv", "lgamma")), strict=True))
    fake = FakeSource(dict(routes), package, entry=project.config(FACTORY).models[0])
    with pytest.raises(ConversionFailed, match="cannot convert erfinv, lgamma") as caught:
        choose_route(fake, matches=fake.matches)  # type: ignore[arg-type]
    assert {finding.severity for finding in caught.value.findings} == {Severity.ERROR}


def test_an_operation_of_several_names_is_told_once_and_line_by_line(project: Project, package: Path) -> None:
    def route(name: str, *ops: tuple[str, str]) -> ConversionFailed:
        said = [
            Finding(
                rule="convert.unsupported_op",
                severity=Severity.ERROR,
                message=f"route {name}: cannot convert {op}",
                op=op,
                source=line,
            )
            for op, line in ops
        ]
        return ConversionFailed(name, tuple(said))

    routes = {
        "trace": route(
            "trace", ("linalg_svd", "m.py:1"), ("i0", "m.py:2"), ("lstm", "m.py:2"), ("lstm_cell", "m.py:2")
        ),
        "export": route("export", ("linalg_svd", "m.py:1"), ("special_i0", "m.py:2")),
        "export-default": route("export-default", ("_linalg_svd", "m.py:1"), ("erfinv", "m.py:1")),
        "trace-no-mha": route("trace-no-mha", ("linalg_svd", "m.py:3")),
    }
    fake = FakeSource(dict(routes), package, entry=project.config(FACTORY).models[0])
    with pytest.raises(ConversionFailed, match="convert linalg_svd, erfinv, i0, lstm, lstm_cell$") as caught:
        choose_route(fake, matches=fake.matches)  # type: ignore[arg-type]
    assert [(f.op, f.source) for f in caught.value.findings] == [
        ("linalg_svd", "m.py:1"),
        ("erfinv", "m.py:1"),
        ("i0", "m.py:2"),
        ("lstm", "m.py:2"),
        ("lstm_cell", "m.py:2"),
        ("linalg_svd", "m.py:3"),
    ]
    told = "routes trace, export, export-default: cannot convert linalg_svd, which other routes call _linalg_svd"
    assert caught.value.findings[0].message == told


def test_a_toolchain_fault_among_failed_routes_is_no_answer_about_the_model(project: Project, package: Path) -> None:
    routes = dict(zip(source.ROUTES, (unsupported("a"), BROKEN, unsupported("a"), unsupported("a")), strict=True))
    fake = FakeSource(dict(routes), package, entry=project.config(FACTORY).models[0])
    with pytest.raises(ToolchainError):
        choose_route(fake, matches=fake.matches)  # type: ignore[arg-type]


def test_a_route_of_gate_yml_is_the_only_one(tmp_path: Path, project: Project, package: Path) -> None:
    local = tmp_path / "seed.mlpackage"
    package_copy(package, local)
    entry = project.config(f"{FACTORY}\nconvert: {{route: export}}").models[0]
    fake = FakeSource({"export": (LARGE, 0.5)}, local, entry=entry)
    assert choose_route(fake, matches=fake.matches).converted.route == "export"  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------- a worker that lies


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("p.write_message = lambda path, m, a: path.write_text('not json')", "not well-formed"),
        ("p.write_message = lambda path, m, a: path.symlink_to('/etc/passwd')", "not well-formed"),
        ("p.write_message = lambda path, m, a: os.mkfifo(path)", "not well-formed"),
        ("p.write_message = lambda path, m, a: None", "not well-formed"),
        ("p.write_message = lambda path, m, a: path.write_text(json.dumps({'number': 9}))", "answers request 9"),
        ("p.write_message = lambda path, m, a: path.write_text(json.dumps({'number': 1, 'extra': 1}))", "not well-formed"),
        ("p.write_message = lambda path, m, a: path.write_text('[' * 100_000)", "not well-formed"),
        ("p.write_message = lambda path, m, a: os.truncate(path.open('w').name, 10**9)", "at most"),
        ("p.encode = lambda v, a: {'inputs': {'x': {'$array': 'zz'}}}", "not well-formed"),
        ("p.encode = lambda v, a: {'inputs': {'x': [1]}, 'labels': [1], 'extras': {}}", "not a set of arrays"),
        ("p.encode = lambda v, a: {'inputs': {'x': []}, 'labels': [1], 'extras': {}}", "labels: found 1, expected 0"),
        ("p.encode = lambda v, a: 5", "not well-formed"),
        ("p.np.savez = lambda path, **a: np.save(path.open('wb'), np.array([{}]), allow_pickle=True)", "not well-formed"),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_what_it_should_be_is_the_sources_fault(project: Project, body: str, says: str) -> None:
    code = f"import json, os\nimport numpy as np\nimport gate.protocol as p\n\ndef items():\n    {body}\n    yield {{'x': np.zeros(1)}}, 1\n"
    project.write("data.py", code)
    with project.open(f"{FACTORY}\ndataset: data.py:items") as opened, pytest.raises(SourceFault, match=says):
        opened.items()


HANDED = [
    (lambda p: (p / "link").symlink_to("/etc/passwd"), "holds a link, link"),
    (lambda p: (p / "Data").symlink_to("/etc"), "holds a link, Data"),
    (lambda p: os.mkfifo(p / "pipe"), "holds a special file, pipe"),
    (lambda p: (p / "/".join("d" * 20)).mkdir(parents=True), "nested deeper than 16"),
    (lambda p: [(p / f"f{i}").write_text("") for i in range(11)], "more than 10 files"),
    (lambda p: (p / "big").write_bytes(b"x" * 1001), "larger than 1000 bytes"),
]


@pytest.mark.parametrize(("spoil", "says"), HANDED)
def test_a_package_with_anything_but_plain_files_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, says: str
) -> None:
    monkeypatch.setattr(protocol, "MAX_PACKAGE_BYTES", 1000)
    monkeypatch.setattr(protocol, "MAX_PACKAGE_FILES", 10 if "files" in says else 1000)
    (tmp_path / "p").mkdir()
    spoil(tmp_path / "p")
    with pytest.raises(SourceFault, match=says):
        protocol.receive_package(tmp_path / "p", tmp_path / "taken")


def test_a_package_that_is_a_link_itself_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "p").symlink_to("/etc")
    with pytest.raises(SourceFault, match="no package was handed over"):
        protocol.receive_package(tmp_path / "p", tmp_path / "taken")


def test_values_survive_the_crossing() -> None:
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    value = {
        "a": [np.ones(2), np.zeros(2)],
        "b": [np.ones(1), np.ones(3)],
        "c": (1, "x", None, np.float32(2.5)),
        "d": np.array("é"),
    }
    back = protocol.decode(json.loads(json.dumps(protocol.encode(value, arrays))), arrays)
    assert len(arrays) == 4  # equal shapes travel as one
    assert [item.tolist() for item in back["a"] + back["b"]] == [[1, 1], [0, 0], [1], [1, 1, 1]]
    assert (back["c"], str(back["d"])) == ([1, "x", None, 2.5], "é")


def test_each_kind_of_failure_has_its_exit_code() -> None:
    assert {kind: error.exit_code for kind, error in source.ERRORS.items()} == {
        FaultKind.SOURCE: 1,
        FaultKind.USAGE: 2,
        FaultKind.TOOLCHAIN: 3,
        FaultKind.NO_ANSWER: 3,
        FaultKind.OURS: 70,
    }
    assert Failure(kind=FaultKind.SOURCE, message="x").findings == ()
