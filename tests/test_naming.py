# SPDX-License-Identifier: Apache-2.0
"""One name for a weight in every drawing of a report."""

from gate.naming import apart, weight_label


def test_a_weight_is_called_by_its_layer_and_else_by_its_op():
    assert weight_label("encoder.fc1", "linear_0", "weight") == "encoder.fc1.weight"
    assert weight_label(None, "linear_0", "weight") == "linear_0.weight"


def test_weights_of_one_name_are_told_apart():
    assert apart(["a.y", "b.y", "a.y"], ["k", "l", "m"]) == ("a.y (k)", "b.y", "a.y (m)")
