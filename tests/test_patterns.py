# SPDX-License-Identifier: Apache-2.0
"""Patterns: what names nothing is told, and what cannot be honoured is refused with the reason."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gate import policy
from gate.errors import UsageError
from gate.mil.program import load_program
from gate.patterns import by_own_layer, names_of, unmatched, unmatched_by_policy
from gate.pipeline import Options, make_plan
from gate.policy import Policy
from tests.case_source import make_config, make_trial

ROOT = Path(__file__).parents[1]
KINDS = {"y": "softmax", "z": "linear"}
LAYERS = {"y": "encoder.0.attention", "z": "head"}


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("head", True),
        ("encoder", True),
        ("encoder.*", True),
        ("encoder.0.attention/softmax", True),
        ("encoder.0.attention/softmax:2", True),
        ("y", True),
        ("encoder.0.attention/linear", False),
        ("heads", False),
        ("/softmax", False),
    ],
)
def test_a_pattern_names_layers_kinds_and_operations(pattern, matches):
    told = list(unmatched([pattern], names_of(KINDS, LAYERS), LAYERS.values()))

    assert bool(told) is not matches
    assert all(f"{pattern!r} matches no layer" in f.message for f in told)


def test_an_override_for_a_layer_that_is_not_there_is_told_with_the_nearest():
    ours = Policy.model_validate(
        {
            "name": "ours",
            "summary": "s",
            "precision": "float16",
            "requires": {"deployment_target": "iOS16"},
            "steps": [{"palettize": {"bits": 4, "mode": "kmeans", "granularity": "per_tensor", "weight_threshold": 0}}],
            "overrides": [{"layers": ["head"], "bits": 8}, {"layers": ["haed"], "skip": True}],
        }
    )
    (told,) = unmatched_by_policy(ours, (), LAYERS)

    assert told.message == "policy ours: overrides[1].layers: 'haed' matches no layer"
    assert "nearest: head" in told.advice


def test_a_folded_norm_may_still_be_named_and_means_the_layer_it_went_into():
    ours = Policy.model_validate(
        {
            "name": "ours",
            "summary": "s",
            "precision": "float16",
            "requires": {"deployment_target": "iOS16"},
            "keep_float32": ["head.1", "head.1/linear"],
            "steps": [{"palettize": {"bits": 4, "mode": "kmeans", "granularity": "per_tensor", "weight_threshold": 0}}],
            "overrides": [{"layers": ["head.1"], "skip": True}, {"layers": ["encoder.*"], "bits": 8}],
        }
    )
    layers, folded = {"y": "encoder.0.attention", "z": "head.0"}, {"z": "head.1"}
    meant = by_own_layer(ours, layers, folded)

    assert meant.overrides[0].matches(op_type="linear", name="z", layer="head.0", elements=1)
    assert not meant.overrides[0].matches(op_type="softmax", name="y", layer="encoder.0.attention", elements=1)
    assert meant.overrides[1] == ours.overrides[1]
    assert not list(unmatched_by_policy(ours.model_copy(update={"keep_float32": ()}), (), layers, folded))
    assert {"head.1", "head.1/linear"} <= names_of(KINDS, layers, folded)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ({"ops": ["muls"]}, "overrides[0].ops: 'muls' matches no op"),
        ({"ops": ["mul*"]}, "overrides[0].ops: 'mul*' matches no op"),
        ({"names": ["zzz*"]}, "overrides[0].names: 'zzz*' matches no name"),
        ({"ops": ["mul"], "names": ["*"]}, None),
    ],
)
def test_an_override_for_an_op_or_a_name_that_is_not_there_is_told(tmp_path, override, told):
    ours = Policy.model_validate(
        {"name": "ours", "summary": "s", "precision": "float16", "overrides": [override | {"skip": True}]}
    )
    found = list(unmatched_by_policy(ours, [write_package(tmp_path / "m.mlpackage", "float16")], {}))

    assert [f.message for f in found] == ([f"policy ours: {told}"] if told else [])
    assert all("mul" in f.advice for f in found if "ops" in f.message)


class Squares(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sqrt((x * x).sum(-1))


def write_package(out: Path, precision: str) -> Path:
    import coremltools as ct

    example = torch.ones(1, 4)
    model = ct.convert(
        torch.jit.trace(Squares(), example, check_trace=False),
        inputs=[ct.TensorType(name="x", shape=(1, 4))],
        compute_precision=ct.precision(precision),
        minimum_deployment_target=ct.target.iOS17,
        skip_model_load=True,
    )
    model.save(str(out))
    return out


def finished_trial(folder: Path, precision: str, **entry):
    write_package(folder / "m.mlpackage", precision)
    return make_trial(make_config(folder, name="m", source={"coreml": "m.mlpackage"}, **entry), folder / "work")


def test_a_finished_float32_package_keeps_the_ops_that_are_named(tmp_path):
    trial = finished_trial(tmp_path, "float32", keep_float32=["/mul", "/muls"], ship="float16")
    ops = load_program(trial.before(policy.load("float16", ROOT))).function().body.ops

    assert {op.type: op.outputs[0].type.dtype for op in ops if op.type in ("mul", "reduce_sum")} == {
        "mul": "float32",
        "reduce_sum": "float16",
    }
    assert [f.message for f in trial.conversion.findings] == ["keep_float32: '/muls' matches no layer"]


def test_a_package_in_float16_already_is_refused_with_the_reason(tmp_path):
    trial = finished_trial(tmp_path, "float16", keep_float32=["/mul"], ship="float16")

    with pytest.raises(UsageError, match="m.mlpackage in float16 already, expected a float32 package"):
        trial.before(policy.load("float16", ROOT))


def test_an_override_by_a_folded_layer_reaches_the_compression(tmp_path):
    trial = finished_trial(tmp_path, "float32", ship="as-is")
    trial.conversion = replace(trial.conversion, layers={"y": "conv"}, folded={"y": "norm"})
    quantized = policy.load("int8", ROOT)
    ours = quantized.model_copy(update={"overrides": (policy.Override(layers=("norm",), skip=True),)})
    compression = trial._compression(ours, tmp_path / "m.mlpackage", tmp_path / "out.mlpackage")

    assert compression.args[1].overrides[0].layers == ("norm", "conv")


def test_what_no_policy_casts_cannot_be_kept(tmp_path):
    (tmp_path / "gate.yml").write_text(
        "version: 1\nmodels:\n  - name: m\n    source: {coreml: m.mlpackage}\n    keep_float32: [/mul]\n"
    )

    with pytest.raises(UsageError, match="keeps nothing under as-is .*only a float16 policy casts it"):
        make_plan(Options(config=tmp_path / "gate.yml", out=tmp_path / "out"))
