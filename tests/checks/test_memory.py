# SPDX-License-Identifier: Apache-2.0
"""`memory`: limits below, at and above the range of the estimate; devices, known and unknown."""

from pathlib import Path

import pytest

from gate import config
from gate.checks.memory import judge, refuse_impossible
from gate.config import MemoryBudget
from gate.devices import Device, find, table
from gate.errors import ConfigError
from gate.memory import Estimate, Range
from gate.report import Basis

PHONE = Device(name="Phone", ram=1_000, app_limit=500, entitled_limit=700)


def need(low: int, high: int, **more) -> Estimate:
    """An estimate whose activations are half of it."""
    half = Range(low // 2, high // 2)
    facts = {"function": "main", "states": 0, "interface": 0, "peak_op": "conv y", "ops": ("x", "y"), "inputs": {}}
    curve = (Range(1, 1), half)
    return Estimate(**(facts | {"activations": half, "weights": half, "alive": curve} | more))


@pytest.mark.parametrize(
    ("low", "high", "budget", "outcome"),
    [
        pytest.param(100, 400, {"limit": 400}, "pass", id="the upper end is at the limit"),
        pytest.param(100, 402, {"limit": 400}, "inconclusive", id="the limit lies inside"),
        pytest.param(400, 900, {"limit": 400}, "inconclusive", id="the lower end is at the limit"),
        pytest.param(402, 900, {"limit": 400}, "fail", id="the lower end is above"),
        pytest.param(100, 400, {"share": "40 %"}, "pass", id="share, at"),
        pytest.param(402, 900, {"share": "40 %"}, "fail", id="share, above"),
        pytest.param(10**12, 10**12, None, "pass", id="no budget, no verdict"),
    ],
)
def test_the_range_is_compared_with_the_limit(low, high, budget, outcome):
    judged = judge(need(low, high), MemoryBudget(**budget) if budget else None, PHONE)

    assert judged.outcome == outcome
    assert judged.basis is Basis.ESTIMATED
    assert (judged.remedy is None) == (outcome == "pass")
    first = judged.measurements[0]
    assert (first.low, first.high) == (low, high)


def test_what_a_phone_gives_an_app_is_a_warning_with_the_entitlement_named():
    (finding,) = judge(need(100, 502), None, PHONE).findings

    assert finding.rule == "memory.app_limit"
    assert "increased-memory-limit" in finding.advice
    assert "700 B" in finding.advice
    assert not judge(need(100, 500), None, PHONE).findings


def test_an_app_with_the_entitlement_is_held_to_the_higher_limit():
    assert not judge(need(100, 502), None, PHONE, entitled=True).findings
    (finding,) = judge(need(100, 702), None, PHONE, entitled=True).findings

    assert "with the entitlement" in finding.message


def test_the_curve_follows_the_program_and_keeps_its_peak():
    many = tuple(Range(0, 1_000 if i == 777 else i % 10) for i in range(1_001))

    (series,) = judge(need(2, 2, ops=("op",) * 1_001, alive=many), None, None).series

    assert len(series.x) <= 400
    assert max(series.y) == 1_000


@pytest.mark.parametrize(
    ("app", "budget", "told"),
    [
        pytest.param("{minimum_device: iphone-21}", "{limit: 6 MB}", "did you mean", id="unknown device"),
        pytest.param("{}", "{share: 50 %}", "expected one such as iphone-12", id="a share of nothing"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_any_work(tmp_path: Path, app, budget, told):
    path = tmp_path / "gate.yml"
    path.write_text(
        f"version: 1\napp: {app}\nmodels:\n  - name: m\n    source: {{coreml: m.mlpackage}}\n    budgets: {{memory: {budget}}}\n"
    )

    with pytest.raises(ConfigError, match=told):
        refuse_impossible(config.load(path))


def test_every_phone_gives_an_app_less_than_its_memory_and_more_with_the_entitlement():
    for device in table().devices.values():
        default, entitled = table().app_bytes(device), table().app_bytes(device, entitled=True)
        assert 0 < default <= entitled < device.ram
    assert find("iphone-12", "here").ram == 4 * 2**30
