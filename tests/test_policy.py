# SPDX-License-Identifier: Apache-2.0
"""Policies: shipped ones load, targets are refused before any work, overrides say what is different for which op."""

from pathlib import Path

import pytest

from gate import policy
from gate.errors import PolicyError
from gate.policy import Target

SHIPPED = {
    "as-is", "float32", "float16", "int8", "int8-per-tensor", "int4-block32", "palette-8bit", "palette-6bit", "palette-4bit",
    "palette-2bit", "palette-4bit-group16", "w8a8", "prune-50", "prune-75", "prune-50+palette-4bit", "prune-50+int8",
}  # fmt: skip


def write(tmp_path: Path, text: str) -> policy.Policy:
    (tmp_path / "own.yaml").write_text(text)
    return policy.load("own.yaml", tmp_path)


OWN = """
name: own
summary: four bits, but not in the head
requires: {deployment_target: iOS16}
precision: float16
steps:
  - palettize: {bits: 4}
overrides:
  - {layers: ["head.*"], skip: true}
  - {ops: [linear], bits: 8}
"""


def test_every_policy_of_the_contract_is_shipped():
    assert set(policy.shipped_policies()) == SHIPPED


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_policy_loads_and_states_its_threshold(name):
    loaded = policy.load(name, Path())

    assert loaded.name == name
    assert all("weight_threshold" in step.action.model_fields_set for step in loaded.weight_steps)
    assert loaded.requires.deployment_target is loaded.needed_target


def test_a_target_that_cannot_carry_a_policy_is_refused_with_the_one_that_could():
    with pytest.raises(PolicyError, match="policy int4-block32 needs deployment target iOS18, found iOS17; raise"):
        policy.load("int4-block32", Path()).refuse_unless_carried_by(Target.IOS17, "tagger")


def test_a_policy_that_claims_less_than_its_steps_need_is_refused(tmp_path):
    with pytest.raises(PolicyError, match="deployment_target is iOS16, but its steps need iOS18"):
        write(tmp_path, OWN.replace("{bits: 4}", "{bits: 4, granularity: per_grouped_channel}"))


def test_an_override_is_the_first_that_matches(tmp_path):
    own = write(tmp_path, OWN)
    step = own.steps[0]

    assert own.action_for(step, op_type="linear", name="w", layer="head.fc", elements=9) is None
    assert own.action_for(step, op_type="linear", name="w", layer="body.fc", elements=9).bits == 8
    assert own.action_for(step, op_type="conv", name="w", layer="body.conv", elements=9).bits == 4


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        pytest.param("bits: 8}", "bots: 8}", 'overrides[1].bots: unknown key (did you mean "bits"?)', id="key"),
        pytest.param(
            "{ops: [linear], bits: 8}", "{ops: [linear]}", "either skip: true or fields of a step", id="nothing"
        ),
        pytest.param("{ops: [linear], bits: 8}", "{bits: 8}", "an override names", id="no op named"),
        pytest.param(
            "{ops: [linear], bits: 8}",
            "{ops: [linear], sparsity: 50 %}",
            "no step of this policy has that field",
            id="foreign",
        ),
        pytest.param("palettize: {bits: 4}", "palettize: {bits: 5}", "steps[0].palettize.bits", id="bits"),
        pytest.param("palettize: {bits: 4}", "squash: {bits: 4}", "steps[0].squash: unknown key", id="step"),
    ],
)
def test_a_mistake_in_a_policy_is_told_by_path(tmp_path, old, new, told):
    with pytest.raises(PolicyError) as caught:
        write(tmp_path, OWN.replace(old, new, 1))

    assert told in str(caught.value)


def test_an_unknown_policy_names_the_known_ones(tmp_path):
    with pytest.raises(PolicyError, match=r"known: as-is, float16.*path ending in \.yaml"):
        policy.load("pallete-4bit", tmp_path)


def test_the_override_of_one_field_keeps_the_others(tmp_path):
    own = write(
        tmp_path,
        OWN.replace("palettize: {bits: 4}", "prune: {sparsity: 40 %, weight_threshold: 7}").replace(
            "bits: 8", "sparsity: 20 %"
        ),
    )

    changed = own.action_for(own.steps[0], op_type="linear", name="w", layer=None, elements=9)

    assert changed.sparsity == pytest.approx(0.2)
    assert changed.weight_threshold == 7
