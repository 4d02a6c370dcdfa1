# SPDX-License-Identifier: Apache-2.0
"""A choice for each weight, as the policy file that a team commits."""

import pytest
import yaml

from gate import policy as policies
from gate.compress import compress
from gate.errors import PolicyError
from gate.policy import Palettize, Policy, Precision, Prune, Quantize, Target
from gate.search.options import GROUPED, INT4, INT8, OPTIONS, carried, mixed_policy, write_policy

BY_NAME = {option.name: option for option in (*OPTIONS, *GROUPED)}
PALETTE4, PALETTE2, JOINT, PRUNED = (
    BY_NAME[name] for name in ("palette-4bit", "palette-2bit", "prune-50+palette-4bit", "prune-75")
)


def treatment(made: Policy, name: str, layer: str | None = None) -> list[object]:
    asked = {"op_type": "conv", "name": name, "layer": layer, "elements": 1000}
    return [a for step in made.steps if (a := made.action_for(step, **asked)) is not None]


def test_every_weight_gets_its_own_option():
    made = mixed_policy(
        {"a": PALETTE4, "b": INT8, "c": JOINT, "d": None, "e": PRUNED, "f": INT4, "g": PALETTE2}, Precision.FLOAT16
    )
    assert treatment(made, "a") == [Palettize(bits=4)]
    assert treatment(made, "b") == [Quantize(dtype="int8")]
    assert treatment(made, "c") == [Prune(sparsity="50 %"), Palettize(bits=4)]
    assert treatment(made, "d") == []
    assert treatment(made, "e") == [Prune(sparsity="75 %")]
    assert treatment(made, "f") == [Quantize(dtype="int4", granularity="per_block", block_size=32)]
    assert treatment(made, "g") == [Palettize(bits=2)]


def test_a_grouped_table_and_a_single_one_do_not_mix():
    grouped = BY_NAME["palette-4bit-group16"]
    for chosen in ({"a": grouped, "b": grouped, "c": PALETTE2}, {"a": PALETTE2, "b": PALETTE2, "c": grouped}):
        made = mixed_policy(chosen, Precision.FLOAT16)
        assert treatment(made, next(name for name, o in chosen.items() if o is PALETTE2)) == [
            Palettize(bits=2, group_size=made.steps[0].action.group_size)
        ]
        asked = treatment(made, next(name for name, o in chosen.items() if o is grouped))
        assert asked == [Palettize(bits=4, granularity="per_grouped_channel", group_size=16)]


def test_a_weight_that_is_not_named_gets_the_commonest_option():
    made = mixed_policy({"a": PALETTE4, "b": PALETTE4, "c": INT8}, Precision.FLOAT16)
    assert treatment(made, "new") == [Palettize(bits=4)]


def test_a_weight_is_called_by_its_layer_where_that_is_its_own():
    made = mixed_policy({"const_0": PALETTE2, "x": PALETTE4, "y": PALETTE4}, Precision.FLOAT16, {"const_0": "head[0]"})
    assert treatment(made, "anything", layer="head[0]") == [Palettize(bits=2)]
    assert treatment(made, "anything", layer="head0") == [Palettize(bits=4)]


@pytest.mark.parametrize(
    ("chosen", "target"),
    [
        ({"a": PALETTE4, "b": INT8}, "iOS16"),
        ({"a": PALETTE4, "b": JOINT}, "iOS18"),
        ({"a": INT4}, "iOS18"),
        ({}, "iOS15"),
    ],
    ids=["plain", "joint", "int4", "nothing"],
)
def test_a_policy_claims_the_target_that_it_needs(chosen, target):
    assert mixed_policy(chosen, Precision.FLOAT16).requires.deployment_target == target


def test_a_target_limits_the_options():
    names = {option.name for option in carried(OPTIONS, Target.IOS17)}
    assert {"palette-4bit", "int8", "prune-50"} <= names
    assert not names & {"int4-block32", "palette-3bit", "prune-50+palette-4bit"}


def test_the_file_reads_back_as_the_policy(tmp_path):
    made = mixed_policy({"a": PALETTE4, "b": INT8, "c": JOINT, "d*": None, "e": PRUNED}, Precision.FLOAT16)
    (tmp_path / "found.yaml").write_text(write_policy(made, "Found by a search.\nTwo lines."))
    assert policies.load("found.yaml", tmp_path) == made
    assert yaml.safe_load((tmp_path / "found.yaml").read_text())["name"] == "auto"


def test_steps_without_a_common_form_are_refused_where_a_weight_would_take_both(packages, tmp_path):
    both = {"name": "both", "summary": "", "requires": {"deployment_target": "iOS18"}, "precision": "float16",
            "steps": [{"quantize": {"dtype": "int8"}}, {"palettize": {"bits": 4}}]}  # fmt: skip
    with pytest.raises(PolicyError, match="quantize, then palettize cannot be stored together"):
        compress(packages["iOS18"], Policy.model_validate(both), tmp_path / "out.mlpackage", target=Target.IOS18)
    either = both | {"overrides": [{"names": ["stem*"], "skip": ["quantize"]}, {"names": ["*"], "skip": ["palettize"]}]}
    made = compress(packages["iOS18"], Policy.model_validate(either), tmp_path / "out.mlpackage", target=Target.IOS18)
    kinds = {promise.weight: [type(action).__name__ for action in promise.applied] for promise in made.promises}
    assert kinds["stem_weight_to_fp16"] == ["Palettize"]
    assert kinds["head_weight_to_fp16"] == ["Quantize"]
