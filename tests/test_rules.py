# SPDX-License-Identifier: Apache-2.0
"""Pitfall rules: each on a program where it must speak and one where it must not; the cases from the field; the controls."""

import inspect
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch

from gate.checks import feasibility
from gate.conversion import Conversion
from gate.mil.program import Op, Program, load_program
from gate.report import Finding, Outcome, Severity
from gate.rules import RULES, Unit, eligible, examine
from gate.shapes import default_sizes
from tests.case_source import Case, load_case
from tests.mil.models import convert
from tests.records import function, op, program, sizes, value, weight

ROOT = Path(__file__).parent
X = value("x", 1, 8, 16, 16)
Y = value("y", 1, 8, 16, 16)
WIDE = value("w", 1, 8, 16, 16, dtype="float32")
IDS = value("i", 1, 4, dtype="int32")
LINE = value("line", 1, 1, 4_000)


def conv(x=X, y=Y, shape=(8, 8, 3, 3), **more: Any) -> Op:
    return op("conv", y, x=x, weight=weight(*shape), **more)


def found(*ops: Op, inputs=(X,)) -> dict[str, Finding]:
    """The findings on a program of a few ops, by rule."""
    main = function(inputs, *ops, outputs=(Y,))
    given = program(main)
    return {f.rule: f for f in examine(given, sizes(main))}


NARROW = value("n", 1, 4, dtype="int16")
SHAPE = value("s", 4, dtype="int32")
SPEAKS = [
    pytest.param("placement.dilated", conv(dilations=[2, 2]), conv(dilations=[1, 1]), id="dilated"),
    pytest.param(
        "placement.framing",
        conv(LINE, Y, (64, 1, 400), strides=[160]),
        conv(value("x", 1, 64, 4_000), Y, (64, 1, 400), groups=64),
        id="framing",
    ),
    pytest.param("placement.rank", op("reshape", value("y", 1, 2, 4, 2, 8, 16), x=X), op("relu", Y, x=X), id="rank"),
    pytest.param(
        "placement.dimension", op("linear", value("y", 1, 16_385), x=X), op("linear", value("y", 1, 16_384), x=X), id="size"
    ),
    pytest.param("placement.recurrent", op("gru", Y, x=X), op("relu", Y, x=X), id="recurrent"),
    pytest.param("placement.selection", op("topk", Y, x=X), op("reduce_max", Y, x=X), id="selection"),
    pytest.param("placement.lookup", op("gather", Y, x=weight(9, 9), indices=IDS), op("concat", Y, values=(X, X)), id="lookup"),
    pytest.param(
        "placement.pool", op("max_pool", Y, x=X, kernel_sizes=[14, 14]), op("max_pool", Y, x=X, kernel_sizes=[13, 13]), id="pool"
    ),
    pytest.param(
        "placement.last-axis",
        op("relu", value("y", 1, 512, 64, 1), x=X),
        op("relu", value("y", 1, 512, 1, 64), x=X),
        id="last axis",
    ),
    pytest.param(
        "runtime.instance-norm-rank-5",
        op("instance_norm", value("y", 1, 2, 4, 4, 4), x=X),
        op("instance_norm", Y, x=X),
        id="instance norm",
    ),
    pytest.param("runtime.pow-base-2", op("pow", Y, x=np.float16(2), y=X), op("pow", Y, x=X, y=np.float16(2)), id="pow"),
    pytest.param("runtime.cliff", op("softplus", Y, x=X), op("softmax", Y, x=X), id="cliff"),
    pytest.param("runtime.random", op("random_normal", Y, shape=[1]), op("fill", Y, shape=[1]), id="random"),
    pytest.param(
        "runtime.saturated",
        op("mul", value("y", 1, 4, dtype="int32"), x=IDS, y=np.int32(2**31 - 1)),
        op("mul", value("y", 1, 4, dtype="int32"), x=IDS, y=np.int32(2**31 - 2)),
        id="saturated",
    ),
    pytest.param(
        "runtime.dilated-grouped-conv1d",
        conv(LINE, value("y", 1, 4, 3_998), (4, 1, 3), dilations=[2], groups=4),
        conv(LINE, value("y", 1, 4, 3_998), (4, 1, 3), dilations=[1], groups=4),
        id="dilated and grouped",
    ),
    pytest.param(
        "placement.upsample",
        op("upsample_nearest_neighbor", value("y", 1, 8, 64, 64), x=X),
        op("upsample_nearest_neighbor", value("y", 1, 8, 32, 32), x=X),
        id="upsample",
    ),
    pytest.param(
        "placement.dimension",
        op("linear", value("y", 1, 4), x=value("wide", 1, 16_385), weight=weight(4, 16_385)),
        op("gather", value("y", 1, 4), x=weight(16_385, 4), indices=IDS),
        id="summed over, and looked up in",
    ),
    pytest.param(
        "placement.state", op("read_state", Y, input=X), op("identity", Y, x=X), id="state"
    ),
    pytest.param(
        "runtime.data-dependent-shape",
        op("reshape", Y, x=X, shape=IDS),
        op("reshape", Y, x=X, shape=np.array([1, 8, 16, 16], np.int32)),
        id="a size from data",
    ),
    pytest.param(
        "converter.inverse",
        op("inverse", Y, x=X, epsilon=np.float32(1e-4)),
        op("inverse", Y, x=X, epsilon=np.float32(0)),
        id="inverse",
    ),
    pytest.param(
        "runtime.borders",
        conv(shape=(8, 8, 3, 2), strides=[2, 2], pad=[1, 1, 1, 1]),
        conv(shape=(8, 8, 3, 3), strides=[2, 2], pad=[1, 1, 1, 1]),
        id="even kernel",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "bad", "good"), SPEAKS)
def test_a_rule_speaks_where_it_must_and_nowhere_else(rule, bad, good):
    spoken = found(bad, inputs=(X, IDS, LINE))

    assert rule in spoken
    assert (spoken[rule].op or bad.type).startswith(bad.type)
    assert rule not in found(good, inputs=(X, IDS, LINE))


def test_narrowed_data_are_told_apart_from_narrowed_shapes():
    gather = op("gather", Y, x=NARROW, indices=IDS)

    assert "runtime.narrowed-data" in found(op("cast", NARROW, x=IDS, dtype="int16"), gather, inputs=(X, IDS))
    shape, cast = op("shape", SHAPE, x=X), op("cast", NARROW, x=SHAPE, dtype="int16")
    assert "runtime.narrowed-data" not in found(shape, cast, gather, inputs=(X, IDS))
    place, cast = op("reduce_argmax", SHAPE, x=X), op("cast", NARROW, x=SHAPE, dtype="int16")
    assert "runtime.narrowed-data" not in found(place, cast, gather, inputs=(X, IDS))
    assert "runtime.narrowed-data" in found(op("reduce_argmax", SHAPE, x=value("long", 1, 40_000)), cast, gather)


def test_a_float32_op_among_float16_ones_is_an_island_and_a_float32_program_is_not():
    half, wide = op("relu", Y, x=X), op("exp", WIDE, x=X)

    assert found(half, wide)["placement.float32"].op == "exp w"
    assert found(op("cast", WIDE, x=X, dtype="fp32"), half).keys().isdisjoint({"placement.float32"})
    alone = found(wide)
    assert "placement.all-float32" in alone
    assert "placement.float32" not in alone


def test_eligible_is_what_no_rule_speaks_against():
    main = function((X,), op("gru", Y, x=X), op("topk", WIDE, x=Y), op("relu", value("r", 4), x=Y), outputs=(Y,))

    units = {one.type: found for one, found in eligible(program(main), sizes(main)).items()}

    assert units == {"gru": (Unit.CPU,), "topk": (Unit.CPU, Unit.GPU), "relu": tuple(Unit)}


def test_an_error_fails_feasibility_and_a_warning_does_not():
    error = tuple(found(op("pow", Y, x=np.float16(2), y=X)).values())
    warning = tuple(found(conv(dilations=[2, 2])).values())

    failed = feasibility.judge(Conversion(route="trace"), error)
    passed = feasibility.judge(Conversion(route="trace"), warning)

    assert (failed.outcome, failed.remedy) == (Outcome.FAIL, "write exp(y · ln 2), or torch.exp2")
    assert passed.outcome is Outcome.PASS
    assert passed.findings == warning


def test_what_helps_points_at_findings_only_where_there_are_some():
    blocking = Finding(rule="convert.failed", severity=Severity.ERROR, message="m")

    alone = feasibility.judge(Conversion(fault="model.py:build: KeyError"))
    routes = feasibility.judge(Conversion(fault="no route works", findings=(blocking,)))

    assert "mend the error that the message names" in alone.remedy
    assert routes.remedy == "see the findings for each route"


def test_every_rule_has_evidence_advice_and_a_line_in_the_docs():
    page = (ROOT.parent / "docs" / "checks.md").read_text()
    assert len({rule.id for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.evidence.startswith("https://")
        assert rule.advice
        assert f"`{rule.id}`" in page


def chain(*steps: tuple[str, Any, dict[str, Any]]) -> tuple[Op, ...]:
    return tuple(op(kind, out, **inputs) for kind, out, inputs in steps)


HALF, BACK, ROW = value("h", 1, 4), value("b", 1, 4, dtype="int32"), value("r", 1, 4)


def test_integers_that_pass_through_float16_are_told_and_those_that_do_not_are_not():
    there = op("cast", HALF, x=IDS, dtype="fp16")
    divided = op("mul", ROW, x=HALF, y=np.float16(0.5))

    assert "runtime.rounded-integers" in found(there, divided, op("cast", BACK, x=ROW, dtype="int32"), inputs=(IDS,))
    assert "runtime.rounded-integers" not in found(op("floor_div", BACK, x=IDS, y=np.int32(2)), inputs=(IDS,))
    # a float that becomes an integer does harm where it selects a row
    cast = op("cast", BACK, x=HALF, dtype="int32")
    assert "runtime.rounded-integers" in found(cast, op("gather", Y, x=weight(9, 9), indices=BACK), inputs=(HALF,))
    assert "runtime.rounded-integers" not in found(cast, inputs=(HALF,))


def test_rms_norm_as_coremltools_writes_it_is_told_and_the_norm_by_hand_is_not():
    peak, scaled, squares, mean = (value(name, 1, 8) for name in ("peak", "scaled", "squares", "mean"))
    by_peak = chain(
        ("reduce_max", peak, {"x": X}),
        ("real_div", scaled, {"x": X, "y": peak}),
        ("square", squares, {"x": scaled}),
        ("reduce_mean", mean, {"x": squares}),
        ("add", Y, {"x": mean, "y": np.float16(1e-5)}),
    )

    assert found(*by_peak)["converter.rms-norm"].op == "add y"
    assert "converter.rms-norm" not in found(op("square", squares, x=X), *by_peak[3:])


def test_triu_and_atan2_as_coremltools_writes_them_are_told():
    band, quotient, angle = value("band", 1, 8), value("q", 1, 8), value("a", 1, 8)

    assert "converter.triu" in found(op("band_part", band, x=X), op("sub", Y, x=X, y=band))
    assert "converter.triu" not in found(op("band_part", band, x=X), op("sub", Y, x=angle, y=band), inputs=(X, angle))
    atan2 = (op("real_div", quotient, x=X, y=WIDE), op("atan", angle, x=quotient), op("add", Y, x=angle, y=X))
    assert "converter.atan2" in found(*atan2, inputs=(X, WIDE))
    assert "converter.atan2" not in found(*atan2[:2], inputs=(X, WIDE))


FIELD = {
    "conv_616_lstm_export_path": ("placement.recurrent", "while_loop"),
    "conv_617_rmsnorm_export_path": ("converter.rms-norm", "add"),
    "dyn_701_boolean_index": ("runtime.data-dependent-shape", "non_zero"),
    "pit_807_topk_gather": ("placement.selection", "topk"),
    "pit_808_int64_constant_clip": ("runtime.saturated", "mul"),
    "pit_809_gather_int16_data": ("runtime.narrowed-data", "gather_along_axis"),
    "pit_812_rangedim_ane": ("placement.range", None),
    "pit_813_singleton_last_axis": ("placement.last-axis", None),
    "pit_814_dim_over_16384": ("placement.dimension", "linear"),
    "pit_815_instancenorm3d_gpu": ("runtime.instance-norm-rank-5", "instance_norm"),
    "pit_817_even_kernel_conv": ("runtime.borders", "conv"),
    "pit_820_pow_base2": ("runtime.pow-base-2", "pow"),
    "pit_826_random_in_forward": ("runtime.random", "random_normal"),
    "pit_828_layernorm_enumerated": ("placement.enumerated-layer-norm", "layer_norm"),
    "pit_829_stft_frontend_conv": ("placement.framing", "conv"),
    "fp16_101_softplus_ane": ("runtime.cliff", "softplus"),
}
ERRORS = {"pit_815_instancenorm3d_gpu", "pit_820_pow_base2"}


@pytest.mark.parametrize("name", FIELD)
def test_a_case_from_the_field_is_named(name):
    rule, kind = FIELD[name]

    spoken = {f.rule: f for f in _examined(load_case(ROOT / "cases" / f"{name}.py"))}

    assert rule in spoken
    assert kind is None or (spoken[rule].op or "").startswith(f"{kind} ")
    assert any(f.severity is Severity.ERROR for f in spoken.values()) == (name in ERRORS)


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "cases").glob("*_ok_*.py")), ids=lambda path: path.stem)
def test_no_control_has_an_error(path):
    case = load_case(path)
    assert not [f for f in _examined(case) if f.severity is Severity.ERROR]


def _examined(case: Case) -> tuple[Finding, ...]:
    given = _converted(case)
    return examine(given, default_sizes(given))


def _converted(case: Case) -> Program:
    module, example = case.module.build(), case.module.inputs()
    names = list(inspect.signature(module.forward).parameters)
    inputs = [
        ct.TensorType(name, shape=_shape(case, index, tensor), dtype=_dtype(tensor))
        for index, (name, tensor) in enumerate(zip(names, example, strict=False))
    ]
    return load_program(convert(module, example, inputs))


def _shape(case: Case, index: int, tensor: torch.Tensor) -> Any:
    if case.facts.get("enumerated"):
        return ct.EnumeratedShapes(case.facts["enumerated"])
    flexible = case.facts.get("dynamic", {}).get(index, {})
    return ct.Shape([ct.RangeDim(*flexible[axis]) if axis in flexible else n for axis, n in enumerate(tensor.shape)])


def _dtype(tensor: torch.Tensor) -> type:
    return np.int32 if not tensor.is_floating_point() else np.float32
