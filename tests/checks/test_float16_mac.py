# SPDX-License-Identifier: Apache-2.0
"""Float16 on a Mac: one row per compute unit, and what the evaluator expected beside it. The Mac is a double of the engine protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from gate import policy, remedy
from gate.checks import base, float16
from gate.engine.mil import MilEngine
from gate.report import Environment, Outcome, Severity
from tests.case_source import load_cases, make_trial

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mac:
    """Rounds once per op on the CPU and inside ops on the Neural Engine; `off` is a bug of its own."""

    units: str = "CPU_ONLY"
    off: float = 1.0

    @property
    def environment(self) -> Environment:
        return Environment(engine="coreml", os="macOS 15.5", device="Mac15,12", compute_units=self.units)

    def on(self, compute_units: str) -> "Mac":
        return replace(self, units=compute_units)

    def load(self, package: Path, precision: str = "declared"):
        here = "narrow" if (self.units, precision) == ("CPU_AND_NE", "declared") else precision
        session = MilEngine().load(package, here)
        return session if precision != "declared" else Scaled(session, self.off)


@dataclass(frozen=True)
class Scaled:
    session: object
    factor: float

    def predict(self, samples: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        return [{k: v * np.float32(self.factor) for k, v in row.items()} for row in self.session.predict(samples)]


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    (case,) = load_cases("fp16_522_")  # a mean whose inside overflows, if it is a sum first
    return make_trial(case.config, tmp_path_factory.mktemp("mac"))


def rows(trial, mac: Mac):
    subject = remedy._subject(trial, policy.load("float16", ROOT), trial.conversion.float16)
    entry = subject.entry.model_copy(update={"compute_units": ("CPU_ONLY", "CPU_AND_NE")})
    return base.run(float16.CHECK, replace(subject, engine=mac, entry=entry))


def beside(row):
    return next(f for f in row.findings if f.rule == "float16.measured")


def test_each_compute_unit_has_its_row_and_what_was_expected_beside_it(trial):
    cpu, neural = rows(trial, Mac())

    assert (cpu.environment.compute_units, cpu.outcome) == ("CPU_ONLY", Outcome.PASS)
    assert (neural.environment.compute_units, neural.outcome) == ("CPU_AND_NE", Outcome.FAIL)
    assert beside(cpu).message == "CPU_ONLY loses 0.0187 % of the range; the evaluator expects 0.0187 % to all."
    assert beside(neural).severity is Severity.INFO


def test_a_device_that_loses_more_than_was_expected_is_a_warning(trial):
    (case,) = load_cases("fp16_501_")
    healthy = make_trial(case.config, trial.scratch.parent / "healthy")
    cpu, _ = rows(healthy, Mac(off=1.05))

    assert beside(cpu).severity is Severity.WARNING
    assert "the evaluator expects 0.0372 % to" in beside(cpu).message
