# SPDX-License-Identifier: Apache-2.0
"""What a size means to users: sums that must agree, and an estimate held to the archive itself."""

import io
import zipfile

import numpy as np
import pytest

from gate.checks.size import judge, tell
from gate.compress import compress
from gate.config import SizeBudget
from gate.footprint import Footprint, download_bytes, measure
from gate.mil.program import load_program
from gate.mil.weights import weights
from gate.policy import Target, load
from tests.compress.packages import convert, net


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return convert(net(), (1, 4, 8, 8), "iOS18", tmp_path_factory.mktemp("footprint") / "net.mlpackage")


def total(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_the_download_of_a_small_package_is_that_of_its_archive(package):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        for file in sorted(package.rglob("*")):
            made.write(file, file.name)
    assert download_bytes(package) == pytest.approx(len(archive.getvalue()), rel=0.05)


def test_a_large_file_is_sampled_evenly(tmp_path):
    random = np.random.default_rng(0).integers(0, 256, 12 << 20, dtype=np.uint8)
    random[6 << 20 :] = 0  # half of it deflates to nothing
    (tmp_path / "weight.bin").write_bytes(random.tobytes())
    assert download_bytes(tmp_path) == pytest.approx(6 << 20, rel=0.1)


def test_the_bytes_of_the_weights_are_those_in_the_package(package):
    found = measure(package, {}, None, None)
    assert sum(found.by_weight.values()) == sum(weight.package_bytes for weight in weights(load_program(package)))
    assert found.by_layer == {}, "no layer is known"
    assert found.compiled < total(package)


def test_weights_are_summed_by_layer_where_layers_are_known(package):
    readers = {name: "trunk.0" for w in weights(load_program(package)) for _, name, _ in w.consumers}
    found = measure(package, readers, None, None)
    assert found.by_layer == {"trunk.0": sum(found.by_weight.values())}


def test_each_step_of_a_joint_policy_has_its_size(package, tmp_path):
    policy = load("prune-50+palette-4bit", tmp_path)
    made = compress(package, policy, tmp_path / "out.mlpackage", target=Target.IOS18)
    steps = measure(made.path, {}, package, made).by_step
    assert list(steps) == ["before", "after prune (estimated)", "after palettize"]
    assert steps["before"] == total(package)
    assert steps["after palettize"] == total(made.path)
    pruned = compress(package, load("prune-50", tmp_path), tmp_path / "pruned.mlpackage", target=Target.IOS18)
    assert steps["after prune (estimated)"] == pytest.approx(total(pruned.path), rel=0.1)


def test_the_size_check_tells_what_users_download():
    told = tell(judge(6_400_000, SizeBudget()), Footprint(5_900_000, 6_300_000, {"a": 6_000_000}, {}, {}))
    assert told.message == "The package is 6.40 MB; no limit is set; about 5.90 MB to download."
    assert [m.name for m in told.measurements] == ["package_bytes", "download_bytes", "compiled_bytes"]
    assert all("estimated" in m.method for m in told.measurements[1:])
    assert [series.name for series in told.series] == ["bytes by weight"]
