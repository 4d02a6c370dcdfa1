# SPDX-License-Identifier: Apache-2.0
"""`integrity` of what arrived compressed: counted in the package, and lost is a failure."""

from pathlib import Path

import pytest

from gate.checks.arrived import arrived_weights, judge
from gate.compress import compress
from gate.policy import Target
from gate.report import Outcome
from tests.compress.packages import convert, head, policy


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return convert(head(), (1, 64), "iOS18", tmp_path_factory.mktemp("head") / "plain.mlpackage")


@pytest.fixture(scope="module")
def sparse(plain) -> Path:
    steps = ({"prune": {"sparsity": "75 %"}}, {"palettize": {"bits": 4}})
    return compress(plain, policy(*steps), plain.with_name("sparse.mlpackage"), target=Target.IOS18).path


def test_bits_and_zeros_are_counted_in_the_package(sparse):
    result = judge(arrived_weights(sparse), declared=1)
    found = {m.name: m.value for m in result.measurements}
    assert result.outcome is Outcome.PASS
    assert result.message == "1 weights arrived compressed (lut_to_sparse, sparse_to_dense) and are stored so."
    assert found["compressed_weights"] == 1
    assert found["sparsity"] == pytest.approx(0.75, abs=0.01)
    assert 1 + 4 / 4 <= found["stored_bits_per_value"] < 2.1  # a mask, and four bits for each of a quarter


def test_compression_that_the_conversion_lost_fails(plain):
    result = judge(arrived_weights(plain), declared=3)
    assert result.outcome is Outcome.FAIL
    assert result.message == "The checkpoint says that 3 of its weights are compressed; in the package none is."


def test_fewer_than_declared_is_a_warning(sparse):
    (finding,) = judge(arrived_weights(sparse), declared=2).findings
    assert finding.message == "the checkpoint says that 2 weights are compressed; the package stores 1 so"
