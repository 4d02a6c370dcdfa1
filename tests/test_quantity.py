# SPDX-License-Identifier: Apache-2.0
"""Quantities are read with their unit, and shown so that a reader gets the same number back."""

import pytest

from gate import quantity
from gate.quantity import Change, ChangeKind


@pytest.mark.parametrize(
    ("text", "count"),
    [
        pytest.param("6 MB", 6_000_000, id="decimal"),
        pytest.param("6 MiB", 6 * 2**20, id="binary when written so"),
        pytest.param("6.5MB", 6_500_000, id="without a space"),
        pytest.param("200 kB", 200_000, id="lower-case k"),
        pytest.param(10_485_760, 10_485_760, id="bytes as an integer"),
    ],
)
def test_a_size_is_read_in_bytes(text, count):
    assert quantity.parse_size(text) == count


@pytest.mark.parametrize("text", ["6", "six MB", "6 XB", "-1 MB", "", None, True, "1e400 MB", 6.5])
def test_a_size_that_is_not_one_says_what_was_expected(text):
    with pytest.raises(ValueError, match="expected a size such as 6 MB"):
        quantity.parse_size(text)


@pytest.mark.parametrize(("text", "meant"), [("6 Mb", "MB"), ("6 Gb", "GB"), ("6 Mib", "MiB")])
def test_bits_are_no_size(text, meant):
    with pytest.raises(ValueError, match=rf"did you mean {meant}\?"):
        quantity.parse_size(text)


def test_no_more_than_all_can_be_lost():
    assert quantity.parse_drop("100 points") == Change(1.0, ChangeKind.POINTS)
    with pytest.raises(ValueError, match="found '200 points', expected at most 100 points"):
        quantity.parse_drop("200 points")


@pytest.mark.parametrize("text", ["1e32 GB", "1000001 GB", 10**15 + 1, 10**400])
def test_a_size_that_no_disk_has_is_refused(text):
    with pytest.raises(ValueError, match=r"expected a size such as 6 MB .* at most 1 PB"):
        quantity.parse_size(text)
    with pytest.raises(ValueError, match="at most 1 PB"):
        quantity.parse_growth(text)


@pytest.mark.parametrize("text", ["1e47 h", "169 h", "0 s", "-1 s", "1 day", "1e400 s"])
def test_a_duration_that_no_job_has_is_refused(text):
    with pytest.raises(ValueError, match=r"expected a duration such as 10 min .* at most 7 days"):
        quantity.parse_duration(text)


def test_the_largest_quantities_are_read():
    assert quantity.parse_size("1000000 GB") == 10**15
    assert quantity.parse_duration("168 h") == 7 * 24 * 3600


def test_a_bare_number_is_no_percentage_because_it_could_mean_two_things():
    with pytest.raises(ValueError, match="write the % sign"):
        quantity.parse_fraction(2)


def test_percentages_points_and_decibels():
    assert quantity.parse_fraction("0.1 %") == pytest.approx(0.001)
    assert quantity.parse_drop("1 point") == Change(0.01, ChangeKind.POINTS)
    assert quantity.parse_drop("0.5 points") == Change(0.005, ChangeKind.POINTS)
    assert quantity.parse_drop("5 %") == Change(0.05, ChangeKind.RELATIVE)
    assert quantity.parse_drop(0.3) == Change(0.3, ChangeKind.OWN_UNIT)
    assert quantity.parse_growth("2 MB") == Change(2e6, ChangeKind.BYTES)
    assert quantity.parse_decibel("40 dB") == 40.0
    assert quantity.parse_duration("10 min") == 600.0


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (12, "12 B"), (790_000, "790 kB"), (5_998_000, "6.00 MB"), (51_100_000, "51.1 MB")]
)
def test_a_size_is_shown_in_decimal_units(count, text):
    assert quantity.size(count) == text


def test_points_know_their_singular():
    assert quantity.points(0.01) == "1 point"
    assert quantity.points(0.025) == "2.5 points"
