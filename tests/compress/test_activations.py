# SPDX-License-Identifier: Apache-2.0
"""8-bit activations: ranges from all items, coremltools' own passes, and pairs that are held to what was measured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gate import mil
from gate.checks.integrity import judge, measure
from gate.compress import Calibration, compress
from gate.compress.calibration import BINS, Range, calibrate
from gate.errors import NoAnswer, PolicyError
from gate.policy import QuantizeActivations, Target, load
from gate.report import Outcome, Severity
from tests.compress.packages import Recurrent, by_reader, convert, policy
from tests.resnet import small_resnet

W8A8 = load("w8a8", Path())
INT8 = {"quantize": {"dtype": "int8"}}
SETTINGS = {
    "symmetric": {},
    "offset": {"mode": "linear"},
    "uint8 offset": {"dtype": "uint8", "mode": "linear", "observer": "percentile", "percentile": 99},
    "uint8 symmetric": {"dtype": "uint8", "observer": "moving_average"},
}


class Joined(nn.Module):
    """Two branches that meet in a concat, a pooling, an add, and activations beyond 257."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 8, 3, padding=1)
        self.right = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(16, 8, 3)
        self.head = nn.Linear(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([torch.relu(self.left(x)), torch.sigmoid(self.right(x))], 1)
        y = self.conv(y) * 300
        y = y + nn.functional.avg_pool2d(y, 3, 1, 1)
        return self.head(y.mean((2, 3)))


def items(shape: tuple[int, ...], count: int = 4, scale: float = 3) -> Calibration:
    """Normal values, each item wider than the one before."""
    rng = np.random.default_rng(0)
    samples = [{"x": (rng.normal(size=shape) * scale * (n + 1)).astype(np.float32)} for n in range(count)]
    return Calibration(samples, f"{count} random items")


@pytest.fixture(scope="module")
def joined(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    return convert(Joined(), (1, 3, 16, 16), "iOS17", tmp_path_factory.mktemp("joined") / "in.mlpackage")


@pytest.fixture(scope="module")
def residual(tmp_path_factory) -> Path:
    return convert(small_resnet(), (1, 3, 32, 32), "iOS17", tmp_path_factory.mktemp("residual") / "in.mlpackage")


@pytest.fixture
def apply(workers, tmp_path):
    """Compress a package; return how it came about, and what integrity says."""

    def done(package: Path, recipe=W8A8, calibration=None, **settings):
        calibration = calibration or items((1, 3, 16, 16))
        out = tmp_path / "out.mlpackage"
        where = {"target": Target.IOS17, "workers": workers} | settings
        made = compress(package, recipe, out, calibration=calibration, **where)
        return made, judge(measure(package, out, made))

    return done


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_pair_is_what_calibration_measured(settings, joined, apply):
    recipe = policy({"quantize_activations": settings}, INT8, target=Target.IOS17)
    made, result = apply(joined, recipe)
    assert result.outcome is Outcome.PASS, result.findings
    assert {m.name: m.value for m in result.measurements}["quantized_activations"] >= 7
    assert {weight.bits for weight in by_reader(made.path).values() if len(weight.shape) > 1} == {8}


def test_residual_adds_keep_their_meaning_though_coremltools_divides_their_scales(residual, apply):
    calibration = items((1, 3, 32, 32))
    made, result = apply(residual, calibration=calibration)
    assert result.outcome is Outcome.PASS, result.findings
    x = calibration.samples[0]
    (exact,), (rounded,) = (mil.load(path).predict(x).values() for path in (residual, made.path))
    assert 0 < np.abs(rounded - exact).max() < 0.2 * np.abs(exact).max()


def test_all_items_set_the_range_and_not_the_last_one(joined):
    small, large = ({"x": np.full((1, 3, 16, 16), value, np.float32)} for value in (1, 5))
    found = calibrate(joined, Calibration([large, small], ""), QuantizeActivations())
    assert found["x"] == Range(1, 5)
    assert calibrate(joined, Calibration([small], ""), QuantizeActivations())["x"] == Range(1, 1)


def test_a_moving_average_forgets(joined):
    samples = [{"x": np.full((1, 3, 16, 16), value, np.float32)} for value in (1, 11)]
    step = QuantizeActivations(observer="moving_average", momentum=0.9)
    assert calibrate(joined, Calibration(samples, ""), step)["x"] == pytest.approx((2, 2))


def test_a_percentile_leaves_out_the_same_part_at_both_ends(joined):
    values = np.linspace(-1, 1, 768, dtype=np.float32).reshape(1, 3, 16, 16)
    step = QuantizeActivations(observer="percentile", percentile=90)
    low, high = calibrate(joined, Calibration([{"x": values}], ""), step)["x"]
    assert (low, high) == pytest.approx((-0.9, 0.9), abs=2 * 2 / BINS + 2 / 768)


def test_what_enters_and_leaves_a_concat_has_one_range(joined, apply):
    made, _ = apply(joined)
    program = mil.load_program(joined)
    (concat,) = (op for op in program.function().body.ops if op.type == "concat")
    names = [value.name for value in (*concat.inputs["values"], *concat.outputs)]
    assert len({made.activations.ranges[name] for name in names}) == 1


def test_an_activation_that_is_always_zero_has_a_scale(tmp_path, apply):
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8))
    nn.init.constant_(model[0].bias, -1e3)
    package = convert(model, (1, 8), "iOS17", tmp_path / "in.mlpackage")
    made, result = apply(package, calibration=items((1, 8), scale=1))
    assert result.outcome is Outcome.PASS, result.findings
    (answer,) = mil.load(made.path).predict({"x": np.ones((1, 8), np.float32)}).values()
    assert np.isfinite(answer).all()


# What is left alone


@pytest.mark.parametrize(
    ("override", "bits"),
    [({"ops": ["linear"], "skip": True}, 16), ({"layers": ["head"], "activations": False}, 8)],
    ids=["skip", "activations"],
)
def test_an_override_keeps_the_inputs_of_an_op(override, bits, joined, apply):
    recipe = policy({"quantize_activations": {}}, INT8, overrides=[override], target=Target.IOS17)
    (linear,) = (op.name for op in mil.load_program(joined).function().body.ops if op.type == "linear")
    made, result = apply(joined, recipe, layers={linear: "head"})
    assert result.outcome is Outcome.PASS, result.findings
    program = mil.load_program(made.path)
    makers = {value: op.type for op in program.function().body.ops for value in op.outputs}
    (kept,) = (op for op in program.function().body.ops if op.type == "linear")
    assert makers[kept.inputs["x"][0]] != "dequantize"
    assert by_reader(made.path)[linear, "weight"].bits == bits
    assert "quantize_activations left 1 ops alone: the policy's overrides say so" in [
        f.message for f in result.findings
    ]


def test_an_override_about_activations_needs_a_step(tmp_path):
    with pytest.raises(ValueError, match=r"overrides\[0\].activations: no step of this policy quantizes activations"):
        policy(INT8, overrides=[{"ops": ["linear"], "activations": False}])


# Order


def test_ranges_are_those_of_the_weights_that_were_there_before(joined, apply):
    first = {"palettize": {"bits": 1}}
    after, _ = apply(joined, policy(first, {"quantize_activations": {}}, target=Target.IOS17))
    before, _ = apply(joined, policy({"quantize_activations": {}}, first, target=Target.IOS17))
    assert after.activations.ranges["x"] == before.activations.ranges["x"]
    differing = [n for n, r in after.activations.ranges.items() if r != before.activations.ranges[n]]
    assert differing


# What breaks is told


def test_a_range_that_the_package_does_not_use_fails(joined, apply):
    made, _ = apply(joined)
    ranges = {name: Range(low, high * 1.5) for name, (low, high) in made.activations.ranges.items()}
    result = judge(measure(joined, made.path, replace(made, activations=replace(made.activations, ranges=ranges))))
    assert result.outcome is Outcome.FAIL
    assert "scale, against that of its range" in result.message
    assert result.findings[0].rule == "integrity.activation"


def test_ops_that_stayed_float_are_a_warning(joined, apply):
    made, _ = apply(joined)
    weights_only = policy(INT8, target=Target.IOS17)
    bare, _ = apply(joined, weights_only)
    result = judge(measure(joined, bare.path, replace(bare, activations=made.activations)))
    warnings = [f for f in result.findings if f.severity is Severity.WARNING]
    assert "its inputs stay in float" in warnings[0].message


# What is refused


def test_without_items_it_is_refused_with_what_to_add(joined, workers, tmp_path):
    with pytest.raises(PolicyError, match=r"needs items to calibrate on: add `calibration: items.npz`"):
        compress(joined, W8A8, tmp_path / "out.mlpackage", target=Target.IOS17, workers=workers)


def test_an_older_target_is_refused(joined, apply):
    with pytest.raises(PolicyError, match="policy w8a8 needs deployment target iOS17, found iOS16"):
        apply(joined, target=Target.IOS16)


def test_a_float32_program_is_refused(tmp_path, apply):
    package = convert(nn.Linear(8, 8), (1, 8), "iOS17", tmp_path / "in.mlpackage", float16=False)
    with pytest.raises(PolicyError, match="computes in float32, and scales are float16; use precision: float16"):
        apply(package, calibration=items((1, 8)))


def test_a_program_without_such_ops_is_refused(tmp_path, apply):
    package = convert(Recurrent(nn.LSTM), (5, 1, 16), "iOS17", tmp_path / "in.mlpackage")
    with pytest.raises(PolicyError, match="it has no conv, linear, pooling or add of activations"):
        apply(package, calibration=items((5, 1, 16)))


def test_an_item_that_overflows_is_no_range(joined, apply):
    huge = Calibration([{"x": np.full((1, 3, 16, 16), 6e4, np.float32)}], "items.npz")
    with pytest.raises(NoAnswer, match=r"calibration: .* has infinite or NaN values for an item of items.npz"):
        apply(joined, calibration=huge)
