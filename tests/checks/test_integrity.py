# SPDX-License-Identifier: Apache-2.0
"""`integrity`: real packages, some of them doctored; every doctored one must fail and be named."""

from dataclasses import replace
from pathlib import Path

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch

from gate.checks.integrity import Facts, WeightFacts, judge, measure
from gate.compress import Compressed, Skip, Workers, compress
from gate.compress.invariants import Bound
from gate.policy import Policy, Target, load
from gate.report import Outcome, Severity
from tests.compress.packages import Recurrent, convert, head, net, plain_coremltools, policy

TABLE = {"quantize": {"dtype": "int8", "granularity": "per_tensor"}}
PRUNE = {"prune": {"sparsity": "50 %"}}
SCALED = {"palettize": {"bits": 4, "granularity": "per_grouped_channel", "group_size": 16, "per_channel_scale": True}}


@pytest.fixture(scope="module")
def workers():
    with Workers(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path:
    return convert(net(), (1, 4, 8, 8), "iOS18", tmp_path_factory.mktemp("before") / "net.mlpackage")


@pytest.fixture
def apply(before, workers, tmp_path):
    """Compress the net under a policy."""

    def done(recipe: Policy) -> Compressed:
        return compress(before, recipe, tmp_path / "out.mlpackage", target=Target.IOS18, workers=workers)

    return done


@pytest.mark.parametrize(
    "name",
    ["int8", "int4-block32", "palette-2bit", "palette-8bit", "prune-75", "prune-50+int8", "prune-50+palette-4bit"],
)
def test_what_a_shipped_policy_makes_holds(name, apply, before):
    compressed = apply(load(name, Path()))
    facts = measure(before, compressed.path, compressed)
    result = judge(facts)
    assert result.outcome is Outcome.PASS, result.findings
    assert any(weight.applied for weight in facts.weights)
    assert result.measurements[0].value == 0


@pytest.mark.parametrize(
    "steps",
    [
        [{"palettize": {"bits": 6, "mode": "uniform"}}],
        [{"palettize": {"bits": 8, "mode": "uniform"}}],
        [{"palettize": {"bits": 4, "cluster_dim": 2}}],
        [{"palettize": {"bits": 4, "per_channel_scale": True}}],
        [{"quantize": {"dtype": "uint4", "mode": "linear"}}],
        [{"quantize": {"dtype": "int4", "granularity": "per_block", "block_size": 8}}],
        [{"prune": {"sparsity": "50 %", "n_m": [2, 4]}}],
        [{"palettize": {"bits": 4}}, TABLE],
        [{"prune": {"sparsity": "50 %"}}, {"palettize": {"bits": 4}}, TABLE],
        [{"prune": {"sparsity": "10 %"}}, {"quantize": {"dtype": "uint8", "mode": "linear"}}],
    ],
    ids=str,
)
def test_what_further_settings_make_holds(steps, apply, before):
    compressed = apply(policy(*steps))
    result = judge(measure(before, compressed.path, compressed))
    assert result.outcome is Outcome.PASS, result.findings


@pytest.mark.parametrize("name", ["int8", "int8-per-tensor", "palette-6bit", "prune-50"])
def test_the_forms_before_ios18_hold(name, workers, tmp_path):
    package = convert(net(), (1, 4, 8, 8), "iOS16", tmp_path / "net.mlpackage")
    recipe = load(name, Path())
    compressed = compress(package, recipe, tmp_path / "out.mlpackage", target=Target.IOS16, workers=workers)
    result = judge(measure(package, compressed.path, compressed))
    assert result.outcome is Outcome.PASS, result.findings
    assert result.measurements[1].value == 6


def test_bits_and_zeros_are_counted(apply, before):
    compressed = apply(policy(PRUNE, {"palettize": {"bits": 4}}))
    figures = {m.name: m.value for m in judge(measure(before, compressed.path, compressed)).measurements}
    assert 0.5 <= figures["sparsity"] < 0.51
    assert 3 <= figures["stored_bits_per_value"] < 3.5  # a mask bit and four bits for half of the values, and tables


# Doctored: what another tool would have to do for the gate to be needed


def test_a_skipped_weight_that_was_rescaled_is_caught(workers, tmp_path):
    """apple/coremltools#2777: 120 channels, groups of 16; coremltools logs a warning and leaves the weight divided."""
    package = convert(head(), (1, 64), "iOS18", tmp_path / "head.mlpackage")
    compressed = compress(package, policy(SCALED), tmp_path / "out.mlpackage", target=Target.IOS18, workers=workers)
    ours = judge(measure(package, compressed.path, compressed))
    assert ours.outcome is Outcome.FAIL  # untouched, but the policy's settings fit no weight of this model
    assert [f.rule for f in ours.findings if f.severity is Severity.ERROR] == ["integrity.nothing"]
    assert "not divisible" in ours.message
    (compressed_weights,) = ours.measurements  # nothing was promised, so nothing is broken
    assert (compressed_weights.name, compressed_weights.value, compressed_weights.limit) == ("compressed_weights", 0, 1)
    scaled = cto.OpPalettizerConfig(
        nbits=4, granularity="per_grouped_channel", group_size=16, enable_per_channel_scale=True, weight_threshold=0
    )
    model = ct.models.MLModel(str(package), skip_model_load=True)
    cto.palettize_weights(model, cto.OptimizationConfig(global_config=scaled)).save(str(tmp_path / "theirs.mlpackage"))
    result = judge(measure(package, tmp_path / "theirs.mlpackage", compressed))
    assert result.outcome is Outcome.FAIL
    (breach,) = (finding for finding in result.findings if finding.rule == "integrity.changed")
    assert "fc_weight" in breach.message
    assert "values that changed: 7680, promised at most 0" in breach.message


@pytest.mark.parametrize(
    ("promised", "made", "said"),
    [
        ([PRUNE], [{"prune": {"sparsity": "40 %"}}], "values that are zero"),
        ([{"palettize": {"bits": 2}}], [{"palettize": {"bits": 4}}], "entries per table: 16, promised at most 4"),
        ([{"palettize": {"bits": 4}}], [{"quantize": {"dtype": "int8"}}], "tables: 0, promised at least 1"),
        ([{"quantize": {"dtype": "int4"}}], [{"quantize": {"dtype": "int8"}}], "bits per value: 8, promised at most 4"),
        ([{"quantize": {"dtype": "int8"}}], [PRUNE], "scales: 0, promised at least 1"),
    ],
    ids=["sparsity", "entries", "form", "bits", "nothing"],
)
def test_another_result_than_promised_fails(promised, made, said, apply, before, tmp_path):
    compressed = apply(policy(*promised))
    other = plain_coremltools(before, policy(*made), tmp_path / "other.mlpackage")
    result = judge(measure(before, other, compressed))
    assert result.outcome is Outcome.FAIL
    assert said in " ".join(finding.message for finding in result.findings)


def test_a_pruning_that_prunes_nothing_fails(apply, before):
    """numpy 2.0 to 2.3: the percentile of a large float16 weight is NaN, and coremltools prunes 0 % without a word."""
    compressed = apply(policy(PRUNE))
    result = judge(measure(before, before, compressed))
    assert result.outcome is Outcome.FAIL
    assert "values that are zero: 0, promised at least" in result.message
    assert {finding.rule for finding in result.findings} >= {"integrity.promise", "integrity.nothing"}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_offset_that_overflowed_in_float16_is_caught(workers, tmp_path):
    """coremltools computes the offset in float16: from a range of about 500 on it is infinite, and the weight is destroyed."""
    model = torch.nn.Linear(64, 32)
    with torch.no_grad():
        model.weight *= 10_000
    package = convert(model, (1, 64), "iOS16", tmp_path / "large.mlpackage")
    recipe = policy({"quantize": {"dtype": "int8", "mode": "linear"}}, target=Target.IOS16)
    compressed = compress(package, recipe, tmp_path / "out.mlpackage", target=Target.IOS16, workers=workers)
    assert judge(measure(package, compressed.path, compressed)).outcome is Outcome.PASS
    theirs = plain_coremltools(package, recipe, tmp_path / "theirs.mlpackage")
    result = judge(measure(package, theirs, compressed))
    assert result.outcome is Outcome.FAIL
    assert "largest error, in half scales and rounding" in result.message


@pytest.mark.parametrize("kind", ["int8", "palette-4bit", "prune-50"])
def test_one_damaged_byte_of_a_weight_fails(kind, apply, before):
    """The byte lies inside the largest blob of the weight file."""
    compressed = apply(load(kind, Path()))
    weights = compressed.path / "Data/com.apple.CoreML/weights/weight.bin"
    data = bytearray(weights.read_bytes())
    data[_largest_blob(data) + 101] ^= 0x70
    weights.write_bytes(data)
    result = judge(measure(before, compressed.path, compressed))
    assert result.outcome is Outcome.FAIL
    assert len([finding for finding in result.findings if finding.severity is Severity.ERROR]) == 1


def _largest_blob(data: bytes) -> int:
    """Start of the data of the largest blob: records of sentinel, type, size and start, at multiples of 64."""
    found = [
        (int.from_bytes(data[at + 8 : at + 16], "little"), int.from_bytes(data[at + 16 : at + 24], "little"))
        for at in range(64, len(data), 64)
        if data[at : at + 4] == b"\xef\xbe\xad\xde"
    ]
    return max(found)[1]


# Findings


def test_a_step_that_was_skipped_says_so(apply, before):
    compressed = apply(policy({"palettize": {"bits": 4, "granularity": "per_grouped_channel", "group_size": 16}}))
    result = judge(measure(before, compressed.path, compressed))
    assert result.outcome is Outcome.PASS
    warnings = [finding for finding in result.findings if finding.severity is Severity.WARNING]
    assert [finding.op.split()[0] for finding in warnings] == ["linear"]
    assert "its 40 output channels are not divisible by groups of 16" in warnings[0].message
    told = [finding.message for finding in result.findings if finding.severity is Severity.INFO]
    assert any("alone: a single axis, as biases and norms have" in message for message in told)


def test_a_compression_that_does_nothing_is_a_warning(apply, before):
    compressed = apply(policy({"palettize": {"bits": 4, "weight_threshold": 1_000_000}}))
    result = judge(measure(before, compressed.path, compressed))
    assert result.outcome is Outcome.PASS
    assert "integrity.nothing" in {finding.rule for finding in result.findings if finding.severity is Severity.WARNING}


# The judge alone


def facts(**changes) -> Facts:
    weight = WeightFacts("w", "conv c", "stem", (), (), (Bound("error", 1.0, 1.0),), 100, 400, 0.0, 0.1, True)
    return Facts("mine", ("palettize",), (replace(weight, **changes),))


@pytest.mark.parametrize(
    ("bound", "outcome"),
    [
        (Bound("error", 0.99, 1), Outcome.PASS),
        (Bound("error", 1, 1), Outcome.PASS),
        (Bound("error", np.nextafter(1, 2), 1), Outcome.FAIL),
        (Bound("error", float("nan"), 1), Outcome.FAIL),
        (Bound("zeros", 49, 50, at_least=True), Outcome.FAIL),
        (Bound("zeros", 50, 50, at_least=True), Outcome.PASS),
        (Bound("zeros", float("nan"), 50, at_least=True), Outcome.FAIL),
    ],
    ids=str,
)
def test_a_bound_is_kept_up_to_its_limit(bound, outcome):
    assert judge(facts(bounds=(bound,))).outcome is outcome


def test_equal_weights_that_a_tool_merged_are_found(workers, tmp_path):
    """coremltools stores the two zero states of an LSTM once when it rewrites a program."""
    lstm = convert(Recurrent(torch.nn.LSTM), (3, 1, 16), "iOS18", tmp_path / "lstm.mlpackage")
    recipe = policy({"palettize": {"bits": 4}})
    compressed = compress(lstm, recipe, tmp_path / "out.mlpackage", target=Target.IOS18, workers=workers)
    theirs = plain_coremltools(lstm, recipe, tmp_path / "theirs.mlpackage")
    assert judge(measure(lstm, theirs, compressed)).outcome is Outcome.PASS


def test_a_lost_weight_fails():
    result = judge(replace(facts(), lost=("gone",)))
    assert result.outcome is Outcome.FAIL
    assert "gone" in result.message


def test_a_finding_names_weight_op_and_layer():
    (finding,) = judge(facts(bounds=(Bound("error", 2, 1),))).findings
    assert (finding.op, finding.layer) == ("conv c", "stem")
    assert "weight w" in finding.message
    assert "error: 2, promised at most 1" in finding.message


def test_a_refused_cache_entry_is_told():
    result = judge(replace(facts(), refused=("cache entry 0123 was refused: it has shape (1,)",)))
    assert result.outcome is Outcome.PASS
    assert [finding.rule for finding in result.findings] == ["integrity.cache"]


def test_expected_skips_are_counted_together():
    weight = facts().weights[0]
    skip = Skip("a single axis, as biases and norms have", expected=True)
    left = replace(weight, skipped=(("palettize", skip),))
    result = judge(Facts("mine", ("palettize",), (weight, left, left)))
    assert [f.message for f in result.findings] == [f"palettize left 2 weights alone: {skip.why}"]
