# SPDX-License-Identifier: Apache-2.0
"""Conversion by each route, in this process, on modules of our own."""

from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch

from gate import convert, worker
from gate.errors import NoAnswer, SourceFault, ToolchainError, UsageError
from gate.policy import Precision, Target
from gate.source import ROUTES, _startup
from tests.project import TINY, Project

EITHER = ["trace", "export"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def open_worker(project: Project, code: str, entry: str) -> worker.Worker:
    worker._import.cache_clear()
    project.write("model.py", code)
    loaded = project.config(entry)
    private = project.folder.parent
    (private / "answers").mkdir(exist_ok=True)
    return worker.Worker(_startup(loaded.models[0], loaded, (), private))


def converted(
    at: worker.Worker, route: str, precision: str = "float32", target: str = "iOS17", keep: tuple[str, ...] = ()
) -> Any:
    """Convert and return (answer, specification)."""
    answer = worker.convert(at, route, precision, target, keep)
    return answer, ct.utils.load_spec(str(Path(at.startup.answers) / answer["package"]))


def operations(specification: Any) -> dict[str, str]:
    """Output name → op type, constants left out."""
    (block,) = specification.mlProgram.functions["main"].block_specializations.values()
    return {op.outputs[0].name: op.type for op in block.operations if op.type != "const"}


def dtypes(specification: Any) -> list[int]:
    ports = [*specification.description.input, *specification.description.output]
    return [port.type.multiArrayType.dataType for port in ports]


FACTORY = "source: {factory: model.py:build, example: model.py:example}"
F32, F16, I32 = 65568, 65552, 131104  # ArrayFeatureType.ArrayDataType


# ------------------------------------------------------------------------------------------------------- interface


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_every_route_keeps_names_and_dtypes_of_gate_yml(project: Project, route: str, precision: str) -> None:
    entry = f"{FACTORY}\ninputs: [{{name: features, shape: [1, 4]}}]\noutputs: [{{name: probabilities}}]"
    _, specification = converted(open_worker(project, TINY, entry), route, precision)
    assert [port.name for port in specification.description.input] == ["features"]
    assert [port.name for port in specification.description.output] == ["probabilities"]
    assert dtypes(specification) == [F32, F32]
    has_casts = "cast" in operations(specification).values()
    assert has_casts is (precision == "float16")


@pytest.mark.parametrize("route", EITHER)
def test_float16_at_the_border_only_where_it_is_asked_for(project: Project, route: str) -> None:
    entry = f"{FACTORY}\ninputs: [{{name: x, shape: [1, 4], dtype: float16}}]\noutputs: [{{name: y, dtype: float16}}]"
    _, specification = converted(open_worker(project, TINY, entry), route)
    assert dtypes(specification) == [F16, F16]


KEYWORDS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)

    def forward(self, ids, state=None, *, gain=2.0):
        hidden = self.embed(ids) * state.unsqueeze(-1) * gain
        return {"hidden": hidden, "best one": hidden.argmax(-1), "nothing": None, "positive": hidden > 0}

def build():
    return Net()

def example():
    return {"ids": torch.tensor([[1, 2, 3]]), "state": torch.tensor([[True, False, True]])}
"""


@pytest.mark.parametrize("route", EITHER)
def test_keyword_inputs_dict_outputs_and_reserved_names(project: Project, route: str) -> None:
    """`state` is a word of MIL: the package's name for it is told, not discovered by the app."""
    at = open_worker(project, KEYWORDS, FACTORY)
    told = worker.describe(at)
    assert [(p["name"], p["dtype"]) for p in told["inputs"]] == [("ids", "int32"), ("state_workaround", "int32")]
    assert [p["name"] for p in told["outputs"]] == ["hidden", "best_one", "positive"]
    _, specification = converted(at, route)
    assert [port.name for port in specification.description.input] == ["ids", "state_workaround"]
    assert [port.name for port in specification.description.output] == ["hidden", "best_one", "positive"]
    assert dtypes(specification) == [I32, I32, F32, I32, F32]


def test_a_reserved_name_in_gate_yml_is_refused(project: Project) -> None:
    at = open_worker(project, TINY, f"{FACTORY}\ninputs: [{{name: state, shape: [1, 4]}}]")
    with pytest.raises(UsageError, match="'state' cannot be a name in Core ML"):
        worker.describe(at)


FLEXIBLE = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv1d(8, 4, 3, padding=1), nn.ReLU())

def example():
    return torch.zeros(1, 8, 20)
"""


@pytest.mark.parametrize("route", EITHER)
def test_a_range_of_sizes(project: Project, route: str) -> None:
    at = open_worker(project, FLEXIBLE, f"{FACTORY}\ninputs: [{{name: mel, shape: [1, 8, {{range: [16, 300]}}]}}]")
    _, specification = converted(at, route)
    sizes = specification.description.input[0].type.multiArrayType.shapeRange.sizeRanges
    assert [(s.lowerBound, s.upperBound) for s in sizes] == [(1, 1), (8, 8), (16, 300)]


@pytest.mark.parametrize("route", EITHER)
def test_enumerated_sizes(project: Project, route: str) -> None:
    at = open_worker(project, FLEXIBLE, f"{FACTORY}\ninputs: [{{name: mel, shape: [1, 8, {{any_of: [20, 40]}}]}}]")
    _, specification = converted(at, route)
    shapes = specification.description.input[0].type.multiArrayType.enumeratedShapes.shapes
    assert sorted(tuple(shape.shape) for shape in shapes) == [(1, 8, 20), (1, 8, 40)]


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ("[{name: mel, shape: [1, 8, {range: [16, -1]}]}]", "needs an upper bound"),
        ("[{name: mel, shape: [1, {any_of: [8, 9]}, {range: [16, 30]}]}]", "range or any_of in one input, not both"),
        ("[{name: mel, shape: [1, 8, 21]}]", r"the example has shape \[1, 8, 20\], gate.yml says \[1, 8, 21\]"),
        ("[{name: mel, shape: [1, 8, {range: [30, 90]}]}]", r"gate.yml says \[1, 8, 30 to 90\]"),
        ("[{name: a, shape: [1]}, {name: b, shape: [1]}]", r"gate.yml has 2, the example has 1 \(input\)"),
        ("[{name: mel, image: [8, 20]}]", r"the example has shape \(1, 8, 20\), expected \(1, 3, 8, 20\)"),
    ],
)
def test_inputs_that_do_not_fit_are_wrong_usage(project: Project, inputs: str, says: str) -> None:
    at = open_worker(project, FLEXIBLE, f"{FACTORY}\ninputs: {inputs}")
    with pytest.raises(UsageError, match=says):
        converted(at, "trace")


# ---------------------------------------------------------------------------------------------------------- images

PICTURE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Conv2d(3, 2, 1)

def example():
    return torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)
"""
EQUAL_STD = "{name: image, image: [4, 4], mean: [0.5, 0.4, 0.3], std: [0.5, 0.5, 0.5]}"
UNEQUAL_STD = "{name: image, image: [4, 4], color: BGR, mean: [0.5, 0.4, 0.3], std: [0.5, 0.4, 0.3]}"
SCALED = "{name: image, image: [4, 4], scale: 0.01, bias: [-1.0, -1.1, -1.2]}"


def test_preprocessing_is_what_the_keys_say() -> None:
    """One pixel by hand: (200 / 255 - mean) / std for each channel, in the order that the input declares."""
    pixels = np.full((4, 4, 3), (200, 100, 50), dtype=np.uint8)
    spec = worker.Input.model_validate(
        {"name": "i", "image": [4, 4], "color": "BGR", "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.4, 0.3]}
    )
    plan = convert.InputPlan(spec, "i", torch.float32, pixels, np.dtype(np.uint8))
    seen = plan.to_native(plan.feed(pixels))[0, :, 0, 0].tolist()
    assert seen == pytest.approx([(50 / 255 - 0.5) / 0.5, (100 / 255 - 0.4) / 0.4, (200 / 255 - 0.3) / 0.3], abs=1e-6)


@pytest.mark.parametrize("inputs", [EQUAL_STD, UNEQUAL_STD, SCALED])
def test_the_example_of_an_image_is_the_picture_that_gives_the_modules_own_example(
    project: Project, inputs: str
) -> None:
    at = open_worker(project, PICTURE, f"{FACTORY}\ninputs: [{inputs}]")
    (plan,) = at.program.inputs
    assert plan.example.shape == (4, 4, 3)
    assert plan.example.dtype == np.uint8
    original = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)
    inside = (plan.example > 0) & (plan.example < 255)  # beyond, the picture is clipped
    order = slice(None, None, -1 if plan.spec.color == "BGR" else 1)
    close = (plan.to_native(plan.feed(plan.example)) - original)[0].numpy()[order].transpose(1, 2, 0)
    assert inside.sum() > 20
    assert np.abs(close[inside]).max() < 0.5 / 255 / 0.3 + 1e-6


@pytest.mark.parametrize("route", EITHER)
@pytest.mark.parametrize("inputs", [EQUAL_STD, UNEQUAL_STD, SCALED])
def test_an_image_package_computes_what_the_source_computes(project: Project, inputs: str, route: str) -> None:
    mil = pytest.importorskip("gate.mil")
    at = open_worker(project, PICTURE, f"{FACTORY}\ninputs: [{inputs}]\noutputs: [{{name: y}}]")
    answer, specification = converted(at, route)
    assert specification.description.input[0].type.WhichOneof("Type") == "imageType"
    example = worker.example(at)
    expected = worker.reference(at, {"image": [example["image"]]})["y"][0]
    got = mil.load(Path(at.startup.answers) / answer["package"]).predict(example)["y"]
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_classifier_has_labels_and_the_apps_own_name(project: Project) -> None:
    project.write("labels.txt", "cat\ndog\nnewt\neft\n")
    at = open_worker(project, TINY, f"{FACTORY}\noutputs: [{{name: probs, classes: labels.txt}}]")
    _, specification = converted(at, "trace")
    assert [port.name for port in specification.description.output] == ["classLabel", "probs"]
    assert specification.description.predictedProbabilitiesName == "probs"
    (block,) = specification.mlProgram.functions["main"].block_specializations.values()
    assert list(block.outputs) == ["classLabel", "probs"]


STATEFUL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros(1, 4))

    def forward(self, x):
        self.total.add_(x)
        return self.total * 2

def build():
    return Net()

def example():
    return torch.ones(1, 4)
"""


@pytest.mark.parametrize("route", EITHER)
def test_a_state_keeps_its_name_and_the_reference_starts_afresh(project: Project, route: str) -> None:
    at = open_worker(project, STATEFUL, f"{FACTORY}\ndeployment_target: iOS18\nstates: [{{name: total}}]")
    _, specification = converted(at, route, target="iOS18")
    assert [state.name for state in specification.description.state] == ["total"]
    ones = np.ones((1, 4), np.float32)
    outputs = worker.reference(at, {"x": [ones, ones]})["output"]
    assert [float(output[0, 0]) for output in outputs] == [2.0, 2.0]


def test_an_unknown_state_is_wrong_usage(project: Project) -> None:
    at = open_worker(project, STATEFUL, f"{FACTORY}\nstates: [{{name: sum}}]")
    with pytest.raises(UsageError, match="no buffer 'sum'; it has total"):
        worker.describe(at)


# ------------------------------------------------------------------------------------------------------ source map


@pytest.mark.parametrize("route", ROUTES)
def test_the_source_map_knows_layer_file_line_and_code(project: Project, route: str) -> None:
    answer, specification = converted(open_worker(project, TINY, FACTORY), route, "float16")
    origins = answer["source_map"]["ops"]
    assert set(origins) == set(operations(specification))
    linears = [origin for origin in origins.values() if origin["op_type"] == "linear"]
    line = TINY.splitlines().index("        return torch.relu(self.fc(x))") + 1
    assert [(o["layer"], o["file"], o["line"]) for o in linears] == [
        ("layers.0.fc", "model.py", line),
        ("layers.1.fc", "model.py", line),
    ]
    assert linears[0]["code"] == "return torch.relu(self.fc(x))"
    assert {o["layer"] for o in origins.values() if o["op_type"] == "relu"} == {"layers.0", "layers.1"}


@pytest.mark.parametrize("route", EITHER)
@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ((), []),
        (("layers.0",), ["layers.0.fc"]),
        (("layers.*.fc",), ["layers.0.fc", "layers.1.fc"]),
        (("layers.9",), []),
    ],
)
def test_layers_are_kept_in_float32_by_pattern(
    project: Project, route: str, keep: tuple[str, ...], kept: list[str]
) -> None:
    at = open_worker(project, TINY, FACTORY)
    answer, specification = converted(at, route, "float16", keep=keep)
    (block,) = specification.mlProgram.functions["main"].block_specializations.values()
    origins = answer["source_map"]["ops"]
    float32 = 11  # MIL's DataType.FLOAT32
    found = [
        origins[op.outputs[0].name]["layer"]
        for op in block.operations
        if op.type == "linear" and op.outputs[0].type.tensorType.dataType == float32
    ]
    assert found == kept


FOLDED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, dilation=2), nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 4, 1)
        self.scale = nn.Parameter(torch.full((1, 4, 1, 1), 3.0))

    def forward(self, x):
        x = self.conv(x)
        x = self.norm(x)
        return self.last(torch.relu(x)) * self.scale

def build():
    torch.manual_seed(0)
    return Net()

def example():
    return torch.rand(1, 3, 8, 8)
"""


@pytest.mark.parametrize("route", ROUTES)
def test_a_convolution_keeps_its_own_layer_and_line_when_a_norm_or_a_scale_is_folded_into_it(
    project: Project, route: str
) -> None:
    answer, _ = converted(open_worker(project, FOLDED, FACTORY), route)
    found = [o for o in answer["source_map"]["ops"].values() if o["op_type"] in ("conv", "batch_norm", "mul")]
    line = FOLDED.splitlines().index("        x = self.conv(x)") + 1
    assert [(o["op_type"], o["layer"], o["folded"]) for o in found] == [
        ("conv", "conv", "norm"),
        ("conv", "last", None),
    ]
    assert [o["line"] for o in found] == [line, line + 2]
    assert all("conv" in o["torch"] for o in found)


@pytest.mark.parametrize("route", EITHER)
@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("conv", ["conv"]),
        ("norm", ["conv"]),  # as it had to be called, and existing files call it
        ("norm/conv:1", ["conv"]),
        ("last/conv", ["last"]),
        ("norm/batch_norm", []),
    ],
)
def test_a_convolution_is_kept_by_its_layer_or_by_the_norm_folded_into_it(
    project: Project, route: str, pattern: str, kept: list[str]
) -> None:
    answer, specification = converted(open_worker(project, FOLDED, FACTORY), route, "float16", keep=(pattern,))
    (block,) = specification.mlProgram.functions["main"].block_specializations.values()
    float32 = 11  # MIL's DataType.FLOAT32
    convs = [op.outputs[0] for op in block.operations if op.type == "conv"]
    found = [answer["source_map"]["ops"][o.name]["layer"] for o in convs if o.type.tensorType.dataType == float32]
    assert found == kept


def test_an_operation_is_kept_by_its_own_name(project: Project) -> None:
    at = open_worker(project, TINY, FACTORY)
    name = next(n for n, kind in operations(converted(at, "trace")[1]).items() if kind == "softmax")
    answer, _ = converted(at, "trace", "float16", keep=(name,))
    assert name in answer["source_map"]["ops"]  # a cast one is called NAME_cast_fp16


def test_tracing_once_serves_both_precisions_alike(project: Project) -> None:
    """coremltools works on the traced graph in place; a second conversion of it must not differ from a first."""
    at = open_worker(project, TINY, FACTORY)
    first = operations(converted(at, "trace", "float16")[1])
    converted(at, "trace", "float32")
    assert operations(converted(at, "trace", "float16")[1]).values().__len__() == len(first)
    fresh = operations(converted(open_worker(project, TINY, FACTORY), "trace", "float16")[1])
    assert list(fresh.values()) == list(operations(converted(at, "trace", "float16")[1]).values())


# ------------------------------------------------------------------------------------------------------- failures

UNSUPPORTED = """
import torch
from torch import nn

class Head(nn.Module):
    def forward(self, x):
        return torch.erfinv(x * 0.1)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = Head()

    def forward(self, x):
        y = self.head(x)
        z = torch.lgamma(x.abs() + 1)
        return torch.erfinv(y * 0.1) + z

def build():
    return Net()

def example():
    return torch.rand(1, 4)
"""


@pytest.mark.parametrize("route", EITHER)
def test_all_unsupported_operations_are_listed_in_one_go_with_their_lines(project: Project, route: str) -> None:
    with pytest.raises(convert.ConversionError) as caught:
        converted(open_worker(project, UNSUPPORTED, FACTORY), route)
    found = {f.op: (f.layer, f.source) for f in caught.value.findings}
    lines = UNSUPPORTED.splitlines()
    erfinv, lgamma = (lines.index(next(line for line in lines if name in line)) + 1 for name in ("erfinv", "lgamma"))
    assert found == {"erfinv": ("head", f"model.py:{erfinv}"), "lgamma": (None, f"model.py:{lgamma}")}
    assert "erfinv" in str(caught.value)
    assert "(2 times)" in next(f.message for f in caught.value.findings if f.op == "erfinv")


def module_with(forward: str) -> str:
    return (
        "import torch\nfrom torch import nn\n\nclass Net(nn.Module):\n    def forward(self, x):\n"
        f"        return {forward}\n\ndef build():\n    return Net()\n\ndef example():\n    return torch.rand(1, 4) + 1\n"
    )


@pytest.mark.parametrize(
    ("forward", "route", "rule"),
    [
        ("torch.view_as_real(torch.complex(x, x) * torch.complex(x, x))", "trace", "convert.complex"),
        ("torch.asinh(x)", "trace", "convert.unsupported_op"),
        ("nn.functional.rms_norm(x, (4,))", "export", "convert.dropped_defaults"),
        ("x.reshape(1, 1, 1, 1, 2, 2) + x.reshape(1, 1, 1, 1, 2, 2)", "trace", "convert.rank"),
        ("x * 2 if x.sum() > 0 else x", "export", "convert.data_dependent"),
        ("torch.add(x, x, alpha=5)", "trace", "convert.alpha"),
    ],
)
def test_coremltools_failures_are_translated_and_placed(project: Project, forward: str, route: str, rule: str) -> None:
    with pytest.raises(convert.ConversionError) as caught:
        converted(open_worker(project, module_with(forward), FACTORY), route)
    (finding,) = caught.value.findings
    assert (finding.rule, finding.source) == (rule, "model.py:6")
    assert finding.advice


HIGH_RANK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        y = x.reshape(1, 1, 1, 1, 2, 2)
        y = y.softmax(3).reshape(1, 4)
        return self.head(y)

def build():
    return Net()

def example():
    return torch.rand(1, 4)
"""


@pytest.mark.parametrize("route", ROUTES)
def test_what_a_pass_refuses_is_not_blamed_on_the_last_torch_operation(project: Project, route: str) -> None:
    """By then every torch node is converted; the operations of too high a rank know their lines themselves."""
    with pytest.raises(convert.ConversionError) as caught:
        converted(open_worker(project, HIGH_RANK, FACTORY), route)
    first = HIGH_RANK.splitlines().index("        y = x.reshape(1, 1, 1, 1, 2, 2)") + 1
    assert [(f.rule, f.source) for f in caught.value.findings] == [
        ("convert.rank", f"model.py:{first}"),
        ("convert.rank", f"model.py:{first + 1}"),
    ]
    assert f"(model.py:{first})" in str(caught.value)


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        (TypeError("only 0-dimensional arrays can be converted to Python scalars"), ToolchainError),
        (AttributeError("module 'numpy' has no attribute 'float_'"), ToolchainError),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: not enough memory: you tried"),
            NoAnswer,
        ),
        (MemoryError(), NoAnswer),
        (ValueError("something new"), convert.ConversionError),
    ],
)
def test_a_toolchain_fault_is_never_the_models(problem: Exception, error: type[Exception]) -> None:
    found = convert._explained(problem, "trace", None, Path("/repository"))
    assert type(found) is error
    assert not isinstance(found, SourceFault) or error is convert.ConversionError


def test_a_branch_baked_in_by_the_trace_is_a_finding(project: Project) -> None:
    answer, _ = converted(open_worker(project, module_with("x * 2 if x.sum() > 0 else x"), FACTORY), "trace")
    assert [(f["rule"], f["source"]) for f in answer["findings"]] == [("convert.baked", "model.py:6")]


def test_branches_inside_torch_itself_are_no_finding(project: Project) -> None:
    code = TINY.replace("return Net(depth)", "return nn.GRU(4, 4, batch_first=True)").replace("(1, 4)", "(1, 3, 4)")
    answer, _ = converted(open_worker(project, code, FACTORY), "trace")
    assert answer["findings"] == []


@pytest.mark.parametrize(
    ("file", "theirs"),
    [("torch/nn/functional.py", False), ("torchvision/ops/boxes.py", True), ("timm/layers/drop.py", True)],
)
def test_a_library_whose_name_begins_like_torch_is_not_torch(file: str, theirs: bool) -> None:
    """A condition in torchvision is the model's, and is baked in like any other."""
    packages = Path(torch.__file__).parent.parent
    frame = (str(packages / file), 3)
    assert convert._users([frame], Path("/app")) == (frame if theirs else None)


def test_the_fast_path_of_attention_is_left_on_again(project: Project) -> None:
    converted(open_worker(project, TINY, FACTORY), "trace-no-mha")
    assert torch.backends.mha.get_fastpath_enabled()


def test_targets_and_routes_are_complete() -> None:
    assert set(convert.TARGETS) == set(Target)
    assert tuple(convert.CAPTURES) == ROUTES
    assert Precision("float16") in Precision
