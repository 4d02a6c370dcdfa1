# SPDX-License-Identifier: Apache-2.0
"""`memory` of models that are resident at once: what adds up, what may not, and which limit holds."""

import pytest

from gate.app_memory import judge, judge_together
from gate.config import Config
from gate.report import Candidate, CheckName, Measurement, Model, Outcome, Result, Role, Unit

# activations (at least, at most), weights, states: small 40…60, 100…200, 10; large 90…100, 300…300, 0
SMALL = {"activations": (40, 60), "weights": (100, 200), "states": (10, 10)}
LARGE = {"activations": (90, 100), "weights": (300, 300), "states": (0, 0)}
LOW = 100 + 300 + 10 + 90  # all weights and states, and the larger prediction alone
HIGH = 200 + 300 + 60 + 100  # everything at once


@pytest.mark.parametrize(
    ("limit", "outcome"),
    [
        pytest.param(None, "pass", id="no limit, no verdict"),
        pytest.param(HIGH, "pass", id="at the upper end"),
        pytest.param(HIGH - 1, "inconclusive", id="inside"),
        pytest.param(LOW, "inconclusive", id="at the lower end"),
        pytest.param(LOW - 1, "fail", id="below"),
    ],
)
def test_weights_and_states_add_up_and_activations_perhaps(limit, outcome):
    found = judge({"small": SMALL, "large": LARGE}, limit)

    assert (found.measurements[0].low, found.measurements[0].high) == (LOW, HIGH)
    assert found.outcome == outcome
    assert (found.remedy is None) == (outcome == "pass")


def config(**budgets) -> Config:
    models = [{"name": n, "source": {"coreml": f"{n}.mlpackage"}, "budgets": {"memory": b}} for n, b in budgets.items()]
    return Config.model_validate({"version": 1, "app": {"minimum_device": "iphone-12"}, "models": models})


def model(name: str, need: dict | None) -> Model:
    parts = {"activations": "activation_bytes", "weights": "weight_bytes", "states": "state_bytes"}
    rows = [
        Measurement(name=parts[part], value=high, low=low, high=high, unit=Unit.BYTES)
        for part, (low, high) in (need or {}).items()
    ]
    result = Result(check=CheckName.MEMORY, outcome=Outcome.PASS, measurements=tuple(rows), message="m")
    return Model(name=name, source="s", candidates=(Candidate(role=Role.SHIP, policy="as-is", results=(result,)),))


def test_only_models_that_say_so_are_summed_and_the_smallest_limit_holds():
    alone = config(small={"limit": "900 B", "together": True}, large={"limit": "700 B"})
    both = config(small={"limit": "900 B", "together": True}, large={"limit": "400 B", "together": True})
    models = [model("small", SMALL), model("large", LARGE)]

    assert not list(judge_together(alone, models))
    (found,) = judge_together(both, models)
    assert found.outcome is Outcome.FAIL
    assert found.measurements[0].limit == 400


def test_a_model_whose_memory_is_not_known_makes_the_sum_unknown():
    both = config(small={"share": "50 %", "together": True}, large={"share": "50 %", "together": True})

    (found,) = judge_together(both, [model("small", SMALL), model("large", None)])

    assert found.outcome is Outcome.NOT_RUN
    assert found.required
    assert "large" in found.message
    assert "see why large" in found.remedy
