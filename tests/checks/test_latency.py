# SPDX-License-Identifier: Apache-2.0
"""`latency`: recorded times against budgets, and the whole way from a package to a row on a double of a Mac."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gate import timing
from gate.checks.latency import judge
from gate.config import LatencyBudget
from gate.engine import coreml
from gate.engine.apple import PlacedOp
from gate.engine.coreml import CoreMLEngine
from gate.engine.stopwatch import Times, Timings
from gate.errors import NoAnswer
from gate.pipeline import Options, check
from gate.report import Environment
from tests import apple_double
from tests.project import TINY, Project

MAC = Environment(engine="coreml", os="macOS 15.5", device="Mac15,12", compute_units="ALL")
RNG = np.random.default_rng(0)


def times(median_ms: float, noise: float = 0.02, rounds: int = 200) -> Times:
    spread = RNG.permutation(np.linspace(-1, 1, rounds))  # whose median is exactly zero
    steady = median_ms / 1_000 * (1 + noise * spread)
    return Times(compiled_bytes=1_000, load=0.1, first=0.01, steady=tuple(steady))


def timings(
    candidate: float, *, devices=("CPU", "Neural Engine"), placement=(), noise=0.02, **others: float
) -> Timings:
    contenders = {"candidate": times(candidate, noise)} | {name: times(ms, noise) for name, ms in others.items()}
    return Timings(contenders=contenders, devices=devices, placement=placement)


@pytest.mark.parametrize(
    ("found", "budget", "outcome"),
    [
        pytest.param(timings(1, float32=2), {"speedup": 1.5}, "pass", id="twice as fast"),
        pytest.param(timings(2, float32=2), {"speedup": 1.5}, "fail", id="equally fast"),
        pytest.param(timings(2, float32=3, noise=0.6), {"speedup": 1.5}, "inconclusive", id="too noisy at the limit"),
        pytest.param(timings(0.10, float32=0.12), {"speedup": 1.5}, "pass", id="late by less than the floor"),
        pytest.param(timings(0.10, float32=0.12), {"speedup": 1.5, "floor": "1 ms"}, "pass", id="own floor"),
        pytest.param(timings(2, baseline=2), {"speedup": 0.9, "over": "baseline"}, "pass", id="no slower than before"),
        pytest.param(timings(3, baseline=2), {"speedup": 0.9, "over": "baseline"}, "fail", id="slower than before"),
        pytest.param(timings(20), {"p95": "30 ms"}, "pass", id="p95 below"),
        pytest.param(timings(40), {"p95": "30 ms"}, "fail", id="p95 above"),
        pytest.param(timings(40), {"p95": "30 ms", "device": "iPhone14,2"}, "pass", id="p95 of another device"),
        pytest.param(timings(40), {"p95": "30 ms", "device": "mac15,12"}, "fail", id="p95 of this device"),
        pytest.param(timings(40, float32=1), None, "pass", id="no budget, no verdict"),
    ],
)
def test_times_are_held_against_the_budget(found, budget, outcome):
    assert judge(found, LatencyBudget(**budget) if budget else None, MAC).outcome == outcome


def test_what_could_not_be_compared_is_told():
    lonely = judge(timings(1), LatencyBudget(speedup=1.5, over="baseline"), MAC)
    assert "latency.not_judged" in {f.rule for f in lonely.findings}
    elsewhere = judge(timings(1), LatencyBudget(p95="30 ms", device="iPhone14,2"), MAC)
    assert any("iPhone14,2" in f.message for f in elsewhere.findings)
    assert all(m.limit is None for m in elsewhere.measurements)


def test_a_claim_needs_the_whole_interval():
    assert "faster" in judge(timings(1, float32=2), None, MAC).message
    assert "slower" in judge(timings(2, float32=1), None, MAC).message
    assert "not told apart" in judge(timings(2, float32=2, noise=0.3), None, MAC).message


def test_a_mac_without_a_neural_engine_says_so():
    rules = {f.rule for f in judge(timings(1, devices=("CPU",)), None, MAC).findings}
    assert "latency.no_neural_engine" in rules
    assert "latency.no_neural_engine" not in {f.rule for f in judge(timings(1), None, MAC).findings}


def test_ops_off_the_neural_engine_are_named_by_cost():
    placement = tuple(
        PlacedOp(op="conv", name=f"c{i}", device="Neural Engine", supported=("CPU", "Neural Engine"), cost=0.1)
        for i in range(6)
    )
    off = PlacedOp(op="topk", name="t", device="CPU", supported=("CPU",), cost=0.3)
    could = PlacedOp(op="add", name="a", device="GPU", supported=("GPU", "Neural Engine"), cost=0.1)
    judged = judge(timings(1, placement=(*placement, could, off)), None, MAC)
    named = [f for f in judged.findings if f.rule == "latency.off_neural_engine"]
    assert [f.op for f in named] == ["topk t", "add a"]
    assert "cannot run it" in named[0].message
    assert "though it could" in named[1].message
    shares = {m.name: m.value for m in judged.measurements if m.name.startswith("planned_on")}
    assert shares == {"planned_on_neural_engine": 0.75, "planned_on_gpu": 0.125, "planned_on_cpu": 0.125}


def test_the_interval_of_the_ratio_covers_the_truth(monkeypatch):
    """Autocorrelated times, as a machine that warms up gives them: the lower end is above the truth in about 5 of 100."""
    monkeypatch.setattr(timing, "RESAMPLES", 300)
    rng, misses, runs = np.random.default_rng(1), 0, 200
    for seed in range(runs):
        drift = np.cumsum(rng.standard_normal(120)) * 0.005
        own, other = (m * np.exp(drift + 0.03 * rng.standard_normal(120)) for m in (1.0, 1.5))
        misses += timing.speedup(own, other, 0.95, seed=seed).low > 1.5
    assert 0 < misses < 0.10 * runs


def test_an_upper_quantile_has_the_order_statistics_of_a_table():
    """Of 100 times, the lower 95 % bound of the 95th percentile is the 91st (binomial: P(X <= 90) = 0.028, of 91: 0.063)."""
    value, interval = timing.upper_quantile(list(range(1, 101)), 0.95, 0.95)
    assert (interval.low, interval.high) == (91, 99)
    assert value == pytest.approx(95.05)


# --- on a Mac that is not there ------------------------------------------------------------------------------------------


@pytest.fixture
def mac(monkeypatch):
    """A double of macOS: predictions here are answered in this process, times in the stopwatch's own."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setattr(coreml, "ROUNDS", 12)
    apple_double.install(monkeypatch.setattr)
    return CoreMLEngine(stopwatch=apple_double.STOPWATCH)


@pytest.fixture
def tiny(tmp_path):
    project = Project(tmp_path)
    project.write("net.py", TINY)
    project.write(
        "gate.yml",
        """
        version: 1
        models:
          - name: tiny
            source: {factory: net.py:build, example: net.py:example}
            compute_units: [ALL, CPU_ONLY]
            budgets: {latency: {speedup: 1.5}}
        """,
    )
    return project


def told(monkeypatch, **settings) -> None:
    monkeypatch.setenv("APPLE_DOUBLE", json.dumps(settings))


def rows(project, monkeypatch, engine):
    monkeypatch.setattr("gate.plan.make_engine", lambda *asked: engine)
    report = check(Options(project.folder / "gate.yml", project.out, engine="coreml"))
    return report, [r for r in report.models[0].shipped.results if r.check == "latency"]


def test_each_compute_unit_has_its_row_and_a_crash_is_the_answer_of_one(mac, tiny, monkeypatch):
    told(monkeypatch, seconds={"/float16.": 0.002, "float32": 0.006}, crashes_on=["CPU_ONLY"])
    report, found = rows(tiny, monkeypatch, mac)
    assert [(r.environment.compute_units, r.outcome) for r in found] == [("ALL", "pass"), ("CPU_ONLY", "error")]
    first = {m.name: m for m in found[0].measurements}
    assert first["speedup_over_float32"].value == pytest.approx(3)
    assert first["compiled_bytes"].value > 0
    assert first["planned_on_neural_engine"].value > 0
    assert "SIGABRT" in found[1].message
    assert {r.environment.engine for r in report.models[0].shipped.results if r.check == "float16"} == {"coreml"}


def test_a_hang_is_no_answer(mac, tmp_path, monkeypatch):
    told(monkeypatch, hangs=True)
    monkeypatch.setattr(coreml, "TIME_LIMIT", 1)
    monkeypatch.setattr(coreml, "image_modes", lambda package: {})
    with pytest.raises(NoAnswer, match="ALL: no times within 1 s"):
        mac.time({"candidate": tmp_path / "m.mlpackage"}, {"x": np.zeros(1)})


def test_a_package_that_does_not_compile_is_no_answer(tmp_path, monkeypatch):
    from gate.engine import apple

    monkeypatch.setattr(apple.shutil, "which", lambda name: "/usr/bin/xcrun")
    refusal = subprocess.CompletedProcess([], 1, "", "coremlcompiler: error: no model")
    monkeypatch.setattr(apple.subprocess, "run", lambda *a, **k: refusal)
    with pytest.raises(NoAnswer, match="coremlcompiler: error: no model"):
        apple.compile_package(tmp_path / "m.mlpackage", tmp_path / "out")


def test_images_are_given_as_pil():
    from gate.engine.apple import as_core_ml

    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    given = as_core_ml({"photo": pixels, "x": np.zeros(2)}, {"photo": "RGB"})
    assert given["photo"].mode == "RGB"
    assert given["photo"].size == (4, 2)
    assert np.array_equal(np.asarray(given["photo"]), pixels)


def test_the_stopwatch_needs_no_torch():
    code = "import sys, gate.engine.stopwatch, gate.engine.coreml; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
