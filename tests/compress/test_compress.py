# SPDX-License-Identifier: Apache-2.0
"""`gate.compress`: the same numbers as coremltools, at the cost of what changed."""

import shutil
import subprocess
import sys
import time
from dataclasses import replace

import coremltools as ct
import numpy as np
import pytest
import torch

from gate import mil
from gate.compress import Workers, compress
from gate.compress.entry import Task
from gate.compress.workers import Job
from gate.errors import NoAnswer, PolicyError, ToolchainError
from gate.policy import Target, load, shipped_policies
from tests.compress.packages import Net, by_reader, convert, net, plain_coremltools, policy

COMPRESSING = [name for name in shipped_policies() if (one := load(name, None)).steps and not one.activations]
TABLE = {"quantize": {"dtype": "int8", "granularity": "per_tensor"}}
MORE = {
    "int8-asymmetric": ({"quantize": {"dtype": "int8", "mode": "linear"}},),
    "uint8": ({"quantize": {"dtype": "uint8", "granularity": "per_tensor"}},),
    "uint4-asymmetric": ({"quantize": {"dtype": "uint4", "mode": "linear"}},),
    "int4-block8": ({"quantize": {"dtype": "int4", "granularity": "per_block", "block_size": 8}},),
    "palette-1bit": ({"palettize": {"bits": 1}},),
    "palette-3bit": ({"palettize": {"bits": 3}},),
    "palette-uniform": ({"palettize": {"bits": 6, "mode": "uniform"}},),
    "palette-vector": ({"palettize": {"bits": 4, "cluster_dim": 2}},),
    "prune-2-of-4": ({"prune": {"sparsity": "50 %", "n_m": [2, 4]}},),
    "palette-4bit+table-int8": ({"palettize": {"bits": 4}}, TABLE),
    "palette-6bit-group8+table-uint8": (
        {"palettize": {"bits": 6, "granularity": "per_grouped_channel", "group_size": 8}},
        {"quantize": {"dtype": "uint8", "granularity": "per_tensor", "mode": "linear"}},
    ),
    "prune-50+palette-4bit+table-int8": ({"prune": {"sparsity": "50 %"}}, {"palettize": {"bits": 4}}, TABLE),
    "prune-30+uint4": ({"prune": {"sparsity": "30 %"}}, {"quantize": {"dtype": "uint4", "mode": "linear"}}),
}
PALETTE = policy({"palettize": {"bits": 4}})


def same_as_coremltools(package, recipe, target, workers, folder):
    """Compress by both; return our weights and theirs by reader."""
    made = compress(package, recipe, folder / "ours.mlpackage", target=target, workers=workers)
    theirs = plain_coremltools(package, recipe, folder / "theirs.mlpackage")
    return by_reader(made.path), by_reader(theirs)


@pytest.mark.parametrize(
    ("palette", "table", "message"),
    [
        ({"bits": 4}, {"dtype": "int8"}, "which have no channels; found granularity per_channel, expected per_tensor"),
        ({"bits": 4, "per_channel_scale": True}, TABLE["quantize"], "would both scale the table"),
    ],
    ids=["per channel", "two scales"],
)
def test_a_table_that_cannot_be_quantized_is_refused(palette, table, message, packages, tmp_path):
    recipe = policy({"palettize": palette}, {"quantize": table})
    with pytest.raises(PolicyError, match=message):
        compress(packages["iOS18"], recipe, tmp_path / "out.mlpackage", target=Target.IOS18)


@pytest.mark.parametrize("name", COMPRESSING)
def test_a_shipped_policy_decodes_to_what_coremltools_makes(name, packages, workers, tmp_path):
    recipe = load(name, tmp_path)
    target = max(Target.IOS16, recipe.requires.deployment_target, key=lambda t: t.version)
    ours, theirs = same_as_coremltools(packages[target.value], recipe, target, workers, tmp_path)
    assert ours.keys() == theirs.keys()
    assert any(weight.forms for weight in ours.values())
    for reader, weight in ours.items():
        np.testing.assert_array_equal(weight.decode(), theirs[reader].decode(), err_msg=str(reader))
        assert weight.forms == theirs[reader].forms, reader


@pytest.mark.parametrize("steps", MORE.values(), ids=MORE)
def test_further_settings_decode_to_what_coremltools_makes(steps, packages, workers, tmp_path):
    ours, theirs = same_as_coremltools(packages["iOS18"], policy(*steps), Target.IOS18, workers, tmp_path)
    assert any(weight.forms for weight in ours.values())
    for reader, weight in ours.items():
        np.testing.assert_array_equal(weight.decode(), theirs[reader].decode(), err_msg=str(reader))
        assert weight.forms == theirs[reader].forms, reader


@pytest.mark.parametrize("target", ["iOS16", "iOS18"])
@pytest.mark.parametrize("name", ["int8", "palette-2bit", "palette-6bit", "prune-50"])
def test_the_ops_are_those_that_coremltools_writes(name, target, packages, workers, tmp_path):
    """Apple's compiler reads the program; only coremltools' own output shows what it expects."""
    recipe = load(name, tmp_path)
    made = compress(packages[target], recipe, tmp_path / "ours.mlpackage", target=Target(target), workers=workers)
    theirs = plain_coremltools(packages[target], recipe, tmp_path / "theirs.mlpackage")
    assert constexprs(made.path) == constexprs(theirs)


def constexprs(path):
    """Type, parameters with type, shape and place of storage, and outputs of each constexpr op, in a fixed order."""
    (function,) = ct.models.MLModel(str(path), skip_model_load=True).get_spec().mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    return sorted(
        (op.type, parameters(op), [str(output.type) for output in op.outputs])
        for op in block.operations
        if op.type.startswith("constexpr_")
    )


def parameters(op):
    values = {name: value for name, value in op.attributes.items() if name != "name"}
    for name, argument in op.inputs.items():
        (binding,) = argument.arguments
        values[name] = binding.value
    return sorted((name, str(value.type), value.WhichOneof("value") or "") for name, value in values.items())


def test_a_compressed_package_predicts_and_loads_in_coremltools(packages, workers, tmp_path):
    made = compress(packages["iOS18"], PALETTE, tmp_path / "out.mlpackage", target=Target.IOS18, workers=workers)
    x = np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)
    (answer,) = mil.load(made.path).predict({"x": x}).values()
    with torch.no_grad():
        expected = net()(torch.from_numpy(x)).numpy()
    assert np.abs(answer - expected).max() < 0.5 * np.abs(expected).max()
    assert not np.array_equal(answer, expected)
    model = ct.models.MLModel(str(made.path), skip_model_load=True)
    assert not [
        op for op in ct.optimize.coreml.decompress_weights(model).get_spec().mlProgram.functions if op != "main"
    ]


def test_a_per_channel_scale_belongs_to_the_output_channels(packages, workers, tmp_path):
    """coremltools 9.0 takes the maximum along the wrong axis; ours fits each channel, with a smaller error."""
    recipe = policy({"palettize": {"bits": 4, "per_channel_scale": True}})
    made = compress(packages["iOS18"], recipe, tmp_path / "out.mlpackage", target=Target.IOS18, workers=workers)
    before, after = by_reader(packages["iOS18"]), by_reader(made.path)
    reader = next(reader for reader in before if before[reader].shape == (40, 96))
    assert after[reader].scale.shape == (40, 1, 1, 1)
    largest = np.abs(before[reader].decode()).max(axis=1)
    np.testing.assert_allclose(after[reader].scale.reshape(-1), largest, rtol=1e-3)


# Overrides


def promised(recipe, package, workers, tmp_path, layers=None):
    made = compress(package, recipe, tmp_path / "out.mlpackage", target=Target.IOS18, layers=layers, workers=workers)
    return {promise.consumers[0].op_type: promise for promise in made.promises if len(promise.shape) > 1}


@pytest.mark.parametrize(
    "override",
    [{"ops": ["linear"]}, {"layers": ["he*"]}, {"names": ["head_weight*"]}, {"larger_than": 3839}],
    ids=lambda override: next(iter(override)),
)
def test_an_override_leaves_the_ops_that_it_names_alone(override, packages, workers, tmp_path):
    linear = next(reader for reader, weight in by_reader(packages["iOS18"]).items() if weight.shape == (40, 96))
    recipe = policy({"palettize": {"bits": 1}}, overrides=[override | {"skip": True}])
    found = promised(recipe, packages["iOS18"], workers, tmp_path, layers={linear[0]: "head"})
    assert found["linear"].applied == ()
    assert found["linear"].skips[0].expected
    assert found["conv"].applied


def test_an_override_changes_a_field_for_some_ops(packages, workers, tmp_path):
    recipe = policy({"palettize": {"bits": 2}}, overrides=[{"ops": ["linear"], "bits": 8}])
    found = promised(recipe, packages["iOS18"], workers, tmp_path)
    assert found["linear"].applied[0].bits == 8
    assert found["conv_transpose"].applied[0].bits == 2
    found = by_reader(tmp_path / "out.mlpackage").values()
    bits = {weight.consumers[0][0]: weight.bits for weight in found if weight.forms}
    assert bits["linear"] == 8
    assert bits["conv_transpose"] == 2


def test_a_weight_that_does_not_fit_keeps_its_value_and_has_a_reason(packages, workers, tmp_path):
    recipe = policy({"palettize": {"bits": 4, "granularity": "per_grouped_channel", "group_size": 16}})
    found = promised(recipe, packages["iOS18"], workers, tmp_path)
    assert found["linear"].applied == ()
    assert found["linear"].skips[0].why == "its 40 output channels are not divisible by groups of 16"
    assert not found["linear"].skips[0].expected


def test_infinite_values_are_a_reason_and_not_a_crash(workers, tmp_path):
    model = torch.nn.Linear(16, 16)
    with torch.no_grad():
        model.weight[0, 0] = float("-inf")
    package = convert(model, (1, 16), "iOS18", tmp_path / "in.mlpackage")
    made = compress(package, PALETTE, tmp_path / "out.mlpackage", target=Target.IOS18, workers=workers)
    (promise,) = (promise for promise in made.promises if len(promise.shape) > 1)
    assert promise.skips[0].why == "it holds infinite or NaN values"


# What is refused


def test_a_target_that_cannot_carry_the_policy_is_refused_before_any_work(packages, tmp_path):
    recipe = policy({"quantize": {"dtype": "int4"}})
    with pytest.raises(PolicyError, match=r"needs deployment target iOS18, found iOS17"):
        compress(packages["iOS16"], recipe, tmp_path / "out.mlpackage", target=Target.IOS17)
    assert not (tmp_path / "out.mlpackage").exists()


def test_steps_that_have_no_common_form_are_refused(packages, tmp_path):
    recipe = policy({"palettize": {"bits": 4}}, {"prune": {"sparsity": "50 %"}})
    with pytest.raises(
        PolicyError,
        match=r"palettize, then prune cannot be stored together; known: palettize, then quantize; prune, then pal",
    ):
        compress(packages["iOS18"], recipe, tmp_path / "out.mlpackage", target=Target.IOS18)


def test_what_is_no_ml_program_is_refused(tmp_path):
    linear = torch.jit.trace(torch.nn.Linear(4, 4), torch.rand(1, 4))
    model = ct.convert(linear, inputs=[ct.TensorType(shape=(1, 4))], convert_to="neuralnetwork")
    model.save(str(tmp_path / "old.mlmodel"))
    with pytest.raises(
        PolicyError, match=r"old\.mlmodel: policy mine compresses \.mlpackage folders, found a single file"
    ):
        compress(tmp_path / "old.mlmodel", PALETTE, tmp_path / "out.mlpackage", target=Target.IOS18)
    model.save(str(tmp_path / "old.mlpackage"))
    with pytest.raises(
        PolicyError, match=r"old\.mlpackage: policy mine cannot compress it: the model is a neuralNetwork"
    ):
        compress(tmp_path / "old.mlpackage", PALETTE, tmp_path / "out.mlpackage", target=Target.IOS18)


def test_an_older_program_is_raised_to_what_the_policy_needs(packages, workers, tmp_path):
    recipe = policy({"quantize": {"dtype": "int4"}})
    made = compress(packages["iOS16"], recipe, tmp_path / "out.mlpackage", target=Target.IOS18, workers=workers)
    assert {weight.bits for weight in by_reader(made.path).values() if weight.forms} == {4}


def test_a_weight_that_cannot_be_read_is_a_toolchain_error(packages, tmp_path):
    missing = Task(tmp_path / "no.bin", 64, "float16", (4, 4), (PALETTE.steps[0].action,), axes=None)
    with Workers(1) as pool, pytest.raises(ToolchainError, match=r"weight w: compression failed"):
        pool.run([Job("w", replace(missing, axes=_axes()), tmp_path / "entry")])


def _axes():
    from gate.compress.encode import Axes

    return Axes(1, 0)


def test_a_worker_that_is_killed_is_a_toolchain_error(packages, tmp_path):
    task = Task(packages["iOS18"], 64, "float16", (4, 4), (PALETTE.steps[0].action,), _axes())
    with Workers(1) as pool:
        pool._start()
        pool._started[0].kill()
        with pytest.raises(
            ToolchainError, match=r"w: compression failed: its process ended with code -9; too little mem"
        ):
            pool.run([Job("w", task, tmp_path / "entry")])


def test_a_compression_that_takes_longer_than_the_run_may_is_killed(tmp_path):
    package = convert(torch.nn.Linear(1024, 2048), (1, 1024), "iOS18", tmp_path / "in.mlpackage")
    slow = policy({"palettize": {"bits": 8, "cluster_dim": 4}})  # k-means of half a million vectors: minutes
    started = time.monotonic()
    with Workers(1, remaining=lambda: 1.5) as pool:
        with pytest.raises(NoAnswer, match=r"weight weight.*: its compression was stopped: the run's time limit"):
            compress(package, slow, tmp_path / "out.mlpackage", target=Target.IOS18, workers=pool)
        assert all(process.poll() is not None for process in pool._started)
    assert time.monotonic() - started < 60
    assert not (tmp_path / "out.mlpackage").exists()


def test_a_worker_never_loads_torch():
    code = (
        "from gate.compress.worker import HEAVY, NEEDED; from gate.importing import import_without; "
        "import_without(NEEDED, HEAVY); "
        "import sklearn.cluster, sys; print([m for m in ('torch', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The cache


@pytest.fixture
def cached(packages, workers, tmp_path):
    """Compress once; return a function that does it again with the same cache."""
    cache = tmp_path / "cache"

    def again(package=packages["iOS18"], recipe=PALETTE):
        return compress(package, recipe, tmp_path / "out.mlpackage", target=Target.IOS18, workers=workers, cache=cache)

    first = again()
    assert first.reused == 0
    assert first.computed == 6
    return again


def entries(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.safetensors"))


def test_an_unchanged_package_computes_nothing(cached):
    second = cached()
    assert (second.computed, second.reused) == (0, 6)


def test_two_changed_layers_compute_two(cached, tmp_path):
    torch.manual_seed(0)
    changed = Net()
    with torch.no_grad():
        changed.head.weight += 1
        changed.stem.weight *= 2
    package = convert(changed, (1, 4, 8, 8), "iOS18", tmp_path / "changed.mlpackage")
    third = cached(package)
    assert (third.computed, third.reused) == (2, 4)


def test_another_parameter_computes_all(cached):
    assert cached(recipe=policy({"palettize": {"bits": 2}})).computed == 6


def test_an_entry_of_a_quantized_table_with_one_flipped_byte_is_refused(cached, tmp_path):
    recipe = policy({"palettize": {"bits": 4}}, TABLE)
    good = {reader: weight.decode() for reader, weight in by_reader(cached(recipe=recipe).path).items()}
    for path in entries(tmp_path):
        data = bytearray(path.read_bytes())
        data[-len(data) // 4] ^= 0x40
        path.write_bytes(data)
    repaired = cached(recipe=recipe)
    assert len(repaired.refused) == 6
    for reader, weight in by_reader(repaired.path).items():
        np.testing.assert_array_equal(weight.decode(), good[reader])


@pytest.mark.parametrize("recipe", ["palette-4bit", "int8", "prune-50", "prune-50+palette-4bit", "prune-50+int8"])
def test_an_entry_with_one_flipped_byte_is_refused_and_computed_again(recipe, cached, tmp_path):
    recipe = load(recipe, tmp_path)
    good = by_reader(cached(recipe=recipe).path)
    expected = {reader: weight.decode() for reader, weight in good.items()}
    for path in entries(tmp_path):
        data = bytearray(path.read_bytes())
        data[-len(data) // 4] ^= 0x40
        path.write_bytes(data)
    repaired = cached(recipe=recipe)
    assert repaired.computed == 6
    assert len(repaired.refused) == 6
    for reader, weight in by_reader(repaired.path).items():
        np.testing.assert_array_equal(weight.decode(), expected[reader])


def test_an_entry_of_another_weight_is_refused(cached, tmp_path):
    shapes = {}
    for path in entries(tmp_path):
        shapes.setdefault(path.stat().st_size, path)
    smallest, largest = (shapes[size] for size in (min(shapes), max(shapes)))
    shutil.copyfile(smallest, largest)
    second = cached()
    assert second.computed == 1
    assert "it has shape" in second.refused[0]


def test_an_entry_that_is_no_entry_is_refused(cached, tmp_path):
    entries(tmp_path)[0].write_bytes(b"\x80\x04cos\nsystem\n")
    second = cached()
    assert second.computed == 1
    assert "not a compressed weight" in second.refused[0]


def test_nothing_half_written_stays_beside_the_result(cached, tmp_path):
    cached()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "out.mlpackage"]
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".safetensors"]
