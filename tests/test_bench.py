# SPDX-License-Identifier: Apache-2.0
"""Samples: what programs are compared on is made of what the author showed and declared."""

import numpy as np

from gate.bench import make_samples
from gate.config import Input

EXAMPLE = {"x": np.stack([np.arange(16, dtype=np.float32), np.arange(16, dtype=np.float32)])}


def test_a_shuffle_makes_no_equal_values_in_a_row_that_had_none():
    """Between equal values topk and argmax may choose as they like: no program would be wrong."""
    drawn = make_samples(EXAMPLE, (), None)
    shuffled = [sample["x"] for sample, kind in zip(drawn.samples, drawn.kinds, strict=True) if kind == "shuffled"]

    assert len(shuffled) == 2
    for x in shuffled:
        assert [sorted(row) for row in x.tolist()] == EXAMPLE["x"].tolist()
        assert not np.array_equal(x, EXAMPLE["x"])


def test_declared_ranges_are_sampled_uniformly_and_at_both_ends():
    drawn = make_samples(EXAMPLE, (Input(name="x", values=(-3.0, 7.0)),), None)
    stressed = [sample["x"] for sample, kind in zip(drawn.samples, drawn.kinds, strict=True) if kind == "stressed"]
    uniform, low, high = stressed

    assert -3.0 <= uniform.min() < 0.0 < 5.0 < uniform.max() <= 7.0
    assert (np.unique(low).tolist(), np.unique(high).tolist()) == ([-3.0], [7.0])
