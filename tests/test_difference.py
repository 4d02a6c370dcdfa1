# SPDX-License-Identifier: Apache-2.0
"""Differences of outputs: numbers that a reader can check by hand."""

import numpy as np
import pytest

from gate.difference import compare


def one(want, have):
    return compare([{"y": np.array(want)}], [{"y": np.array(have)}])[0]


def test_error_is_a_fraction_of_the_largest_reference():
    d = one([0.0, 10.0], [0.5, 10.0])

    assert (d.max_error, d.range, d.error) == (0.5, 10.0, 0.05)
    assert d.snr_db == pytest.approx(10 * np.log10(100 / 0.25))


def test_the_range_is_taken_over_all_samples():
    d = compare([{"y": np.array([1.0])}, {"y": np.array([100.0])}], [{"y": np.array([2.0])}, {"y": np.array([100.0])}])[
        0
    ]

    assert d.error == 0.01


def test_identical_outputs_have_no_noise_and_say_so():
    d = one([1.0, np.nan], [1.0, np.nan])

    assert d.identical
    assert d.snr_db is None
    assert d.error == 0


def test_only_new_infinities_count():
    d = one([np.inf, 1.0, 2.0], [np.inf, np.inf, np.nan])

    assert d.new_nonfinite == 2
    assert not d.sound


def test_integers_are_compared_exactly():
    d = one(np.array([5999, 1], dtype=np.int32), np.array([6000, 1], dtype=np.int32))

    assert d.wrong_integers == 1
    assert not d.sound


def test_a_moved_largest_element_is_a_changed_decision():
    assert one([1.0, 2.0], [2.0, 1.0]).decisions == 1
    assert one([1.0, 2.0], [1.5, 1.9]).decisions == 0


def test_a_missing_output_and_a_wrong_shape_are_problems():
    missing = compare([{"y": np.ones(2), "z": np.ones(2)}], [{"y": np.ones(2)}])[1]
    shape = one(np.ones(2), np.ones(3))

    assert "'z' is missing" in missing.problem
    assert "shape (3,), expected (2,)" in shape.problem


def test_outputs_that_the_converter_renamed_are_matched_by_order():
    d = compare([{"a": np.ones(1), "b": np.zeros(1)}], [{"var_9": np.ones(1), "var_10": np.zeros(1)}])

    assert all(row.identical for row in d)


def test_an_all_zero_reference_has_a_range_floor():
    assert one([0.0], [1e-6]).error == pytest.approx(1.0)
