# SPDX-License-Identifier: Apache-2.0
"""`latency`: is it fast enough?

Only Apple's runtime can say: on a Mac each compute unit setting is timed, interleaved with what the budget compares with, and so on a
device that is connected to it, where one is named. The time of our evaluator on Linux never gates. Where Core ML plans to run each op is shown beside it, as planned.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from gate import timing
from gate.bench import Sample
from gate.checks.base import Check, Subject, no_answer, not_judged, not_run
from gate.config import LatencyBudget
from gate.engine.apple import PlacedOp
from gate.engine.coreml import CoreMLEngine, NoDevice
from gate.engine.stopwatch import Timings
from gate.errors import NoAnswer
from gate.macs import count, moved_bytes
from gate.mil import MilError
from gate.mil.program import load_program
from gate.quantity import percent, significant
from gate.report import (
    Basis,
    Bound,
    CheckName,
    Environment,
    Finding,
    Measurement,
    Outcome,
    Result,
    Series,
    Severity,
    Unit,
)
from gate.shapes import default_sizes
from gate.stats import Interval, decide, decide_floor

CANDIDATE = "candidate"
FLOAT32, FLOAT16, BASELINE = "float32", "float16", "baseline"
NEURAL_ENGINE = "Neural Engine"
P95 = 0.95


@runtime_checkable
class TimesPackages(Protocol):
    """An engine whose times mean something for an app."""

    def time(self, packages: Mapping[str, Path], inputs: Sample) -> Timings:
        """Time packages against one another, the candidate first."""
        ...


@dataclass(frozen=True)
class Comparison:
    """The candidate's time against that of another package."""

    other: str  # float32, float16 or baseline
    own: float  # median seconds of the candidate
    theirs: float
    interval: Interval  # of the ratio

    @property
    def ratio(self) -> float:
        """Of the medians: 2 is twice as fast."""
        return self.theirs / self.own

    def late(self, speedup: float) -> float:
        """Seconds by which a prediction takes longer than that speed-up allows."""
        return self.own - self.theirs / speedup


def measure(subject: Subject, engine: TimesPackages) -> Timings:
    """Time the candidate, its float32 conversion and the baseline's package in one run."""
    return engine.time(contenders(subject), subject.bench.example)


def contenders(subject: Subject) -> dict[str, Path]:
    """The packages that are timed against one another, the candidate first."""
    others = {FLOAT32: subject.conversion.float32, BASELINE: subject.base_package}
    budget = subject.entry.budgets.latency
    if budget is not None and budget.over == FLOAT16:
        others[FLOAT16] = subject.conversion.float16
    return {CANDIDATE: subject.candidate.package.path} | {name: path for name, path in others.items() if path}


def judge(found: Timings, budget: LatencyBudget | None, environment: Environment) -> Result:
    """Hold the times against the budget; without one they are shown only."""
    budget = budget or LatencyBudget()
    compared = tuple(_compare(found, name, budget.confidence) for name in found.contenders if name != CANDIDATE)
    asked = next((c for c in compared if c.other == budget.over), None)
    outcomes = [*_speed_outcome(asked, budget), *_p95_outcome(found, budget, environment)]
    outcome = next((o for o in (Outcome.FAIL, Outcome.INCONCLUSIVE) if o in outcomes), Outcome.PASS)
    return Result(
        check=CheckName.LATENCY,
        outcome=outcome,
        environment=environment,
        measurements=tuple(_measurements(found, compared, budget, environment)),
        series=_series(found.placement),
        message=_message(found, compared, budget, environment, outcome),
        remedy=_remedy(outcome),
        findings=tuple(_findings(found, asked, budget, environment)),
    )


def _compare(found: Timings, other: str, confidence: float) -> Comparison:
    own, theirs = (found.contenders[name].steady for name in (CANDIDATE, other))
    interval = timing.speedup(own, theirs, confidence)
    return Comparison(other, float(np.median(own)), float(np.median(theirs)), interval)


def _speed_outcome(asked: Comparison | None, budget: LatencyBudget) -> Iterator[Outcome]:
    """Fail only where both the ratio and the absolute difference from what was allowed matter."""
    if budget.speedup is None or asked is None:
        return
    outcome = decide_floor(asked.interval, budget.speedup)
    yield Outcome.PASS if outcome is Outcome.FAIL and asked.late(budget.speedup) < budget.floor else outcome


def _is_the_device(budget: LatencyBudget, environment: Environment) -> bool:
    return budget.device is None or budget.device.lower() == environment.device.lower()


def _p95_outcome(found: Timings, budget: LatencyBudget, environment: Environment) -> Iterator[Outcome]:
    if budget.p95 is not None and _is_the_device(budget, environment):
        _, interval = timing.upper_quantile(found.contenders[CANDIDATE].steady, P95, budget.confidence)
        yield decide(interval, budget.p95)


def _measurements(
    found: Timings, compared: tuple[Comparison, ...], budget: LatencyBudget, environment: Environment
) -> Iterator[Measurement]:
    own = found.contenders[CANDIDATE]
    for one in sorted(compared, key=lambda c: c.other != budget.over):
        yield Measurement(
            name=f"speedup_over_{one.other}",
            value=one.ratio,
            unit=Unit.RATIO,
            limit=budget.speedup if one.other == budget.over else None,
            bound=Bound.AT_LEAST,
            low=one.interval.low,
            high=one.interval.high,
            n=len(own.steady),
            confidence=one.interval.confidence,
            method=one.interval.method,
        )
    value, interval = timing.upper_quantile(own.steady, P95, budget.confidence)
    yield Measurement(
        name="p95",
        value=_ms(value),
        unit=Unit.MILLISECONDS,
        limit=_ms(budget.p95) if budget.p95 is not None and _is_the_device(budget, environment) else None,
        low=_ms(interval.low),
        high=_ms(interval.high),
        n=len(own.steady),
        confidence=interval.confidence,
        method=interval.method,
    )
    for name, seconds in (("median", float(np.median(own.steady))), ("first", own.first), ("load", own.load)):
        yield Measurement(name=name, value=_ms(seconds), unit=Unit.MILLISECONDS)
    yield Measurement(name="compiled_bytes", value=own.compiled_bytes, unit=Unit.BYTES, method="files of the .mlmodelc")
    for device, share in planned_shares(found.placement).items():
        name = f"planned_on_{device.lower().replace(' ', '_')}"
        yield Measurement(name=name, value=share, unit=Unit.FRACTION, method="ops, by Core ML's compute plan")


def planned_shares(placement: tuple[PlacedOp, ...]) -> dict[str, float]:
    """Return the share of ops that Core ML plans to run on each device."""
    devices = [op.device for op in placement]
    return {device: devices.count(device) / len(devices) for device in dict.fromkeys(devices)}


def _series(placement: tuple[PlacedOp, ...]) -> tuple[Series, ...]:
    costly = [op for op in placement if op.cost is not None]
    if not costly:
        return ()
    names, costs = tuple(f"{op.op} {op.name}" for op in costly), tuple(op.cost for op in costly)
    return (Series(name="planned_cost", x=names, y=costs, unit=Unit.FRACTION, x_name="op"),)


def _message(
    found: Timings, compared: tuple[Comparison, ...], budget: LatencyBudget, environment: Environment, outcome: Outcome
) -> str:
    own = float(np.median(found.contenders[CANDIDATE].steady))
    text = f"A prediction takes {_shown(own)} on {environment.compute_units} ({environment.device})"
    told = ", ".join(map(_claim, compared))
    wanted = f"; wanted: {significant(budget.speedup)} × {budget.over}" if budget.speedup is not None else ""
    if outcome is Outcome.INCONCLUSIVE:
        wanted += ", which lies inside the interval"
    return f"{text}{', ' + told if told else ''}{wanted}."


def _claim(one: Comparison) -> str:
    """Say faster or slower only where the whole interval says so."""
    low, high = one.interval.low, one.interval.high
    how = "faster" if low > 1 else "slower" if high < 1 else "not told apart"
    return f"{significant(one.ratio)} × the speed of {one.other} ({significant(low)} to {significant(high)}: {how})"


def _remedy(outcome: Outcome) -> str | None:
    match outcome:
        case Outcome.FAIL:
            return "see which layers cost most (`gate inspect`) and which are planned off the Neural Engine"
        case Outcome.INCONCLUSIVE:
            return "run again on a quiet machine; noise is wider than the distance from the limit"
        case _:
            return None


def _findings(
    found: Timings, asked: Comparison | None, budget: LatencyBudget, environment: Environment
) -> Iterator[Finding]:
    if found.devices and NEURAL_ENGINE not in found.devices:
        seen = ", ".join(found.devices)
        yield _finding(
            "latency.no_neural_engine",
            Severity.INFO,
            f"Core ML sees {seen} on {environment.device}, and no Neural Engine: these times say little about a phone.",
            "use a Mac of your own with a Neural Engine, or a device, for times that a user will feel",
        )
    yield from _about_the_speedup(asked, budget)
    if budget.p95 is not None and not _is_the_device(budget, environment):
        why = f"The 95th percentile is about {budget.device}; this is {environment.device}."
        yield not_judged(CheckName.LATENCY, why)
    yield from _off_the_neural_engine(found)


def _about_the_speedup(asked: Comparison | None, budget: LatencyBudget) -> Iterator[Finding]:
    if budget.speedup is None:
        return
    if asked is None:
        why = f"There is no {budget.over} package here to be {significant(budget.speedup)} × as fast as."
        yield not_judged(CheckName.LATENCY, why)
    elif asked.interval.high < budget.speedup and (late := asked.late(budget.speedup)) < budget.floor:
        message = f"Later than asked by {_shown(late)} only, which is under the floor of {_shown(budget.floor)}."
        yield _finding("latency.under_floor", Severity.INFO, message)


def _off_the_neural_engine(found: Timings) -> Iterator[Finding]:
    """Name the costliest ops that are planned elsewhere although most of the program is on the Neural Engine."""
    elsewhere = [op for op in found.placement if op.device != NEURAL_ENGINE]
    if not elsewhere or len(elsewhere) * 2 > len(found.placement):
        return
    for op in sorted(elsewhere, key=lambda op: -(op.cost or 0.0))[:5]:
        why = "which cannot run it" if NEURAL_ENGINE not in op.supported else "though it could run there"
        cost = f", {percent(op.cost)} of the estimated cost" if op.cost else ""
        yield _finding(
            "latency.off_neural_engine",
            Severity.INFO,
            f"Planned on the {op.device}, not on the Neural Engine, {why}{cost}.",
            evidence="Core ML's compute plan: planned, not observed",
            op=f"{op.op} {op.name}",
        )


def _finding(
    rule: str, severity: Severity, message: str, advice: str = "", evidence: str | None = None, op: str | None = None
) -> Finding:
    return Finding(rule=rule, severity=severity, message=message, advice=advice, evidence=evidence, op=op)


def _ms(seconds: float) -> float:
    return seconds * 1_000


def _shown(seconds: float) -> str:
    return f"{significant(_ms(seconds))} ms"


def _answer(subject: Subject) -> tuple[Result, ...]:
    if isinstance(subject.engine, TimesPackages):
        here = (_on(units, subject) for units in subject.entry.compute_units)
        there = (_on_device(units, subject) for units in subject.entry.compute_units)
        return (*here, *filter(None, there))
    if subject.entry.budgets.latency is None:
        return ()
    why = (
        "Needs a device: only Apple's runtime on a Mac or phone can tell how long a prediction takes (--engine coreml); "
        "multiply-accumulates and bytes moved stand in here."
    )
    row = not_run(CheckName.LATENCY, why)
    findings = (not_judged(CheckName.LATENCY, why),)
    return (row.model_copy(update={"findings": findings, "measurements": _proxies(subject), "basis": Basis.ESTIMATED}),)


def _proxies(subject: Subject) -> tuple[Measurement, ...]:
    """What time and power grow with, where neither can be measured: work, and bytes moved."""
    try:
        program = load_program(subject.candidate.package.path)
        sizes = default_sizes(program)
    except MilError:
        return ()
    ops = [op for op in sizes.function.body.walk() if not op.type.startswith("constexpr_")]
    return (
        Measurement(name="macs", value=sum(count(op, sizes) or 0 for op in ops), unit=Unit.COUNT),
        Measurement(name="moved_bytes", value=sum(moved_bytes(op, sizes) for op in ops), unit=Unit.BYTES),
    )


def _on(units: str, subject: Subject) -> Result:
    """One setting of compute units: a crash there is the answer of that row alone."""
    engine = subject.engine.on(units)
    assert isinstance(engine, TimesPackages)
    try:
        return judge(measure(subject, engine), subject.entry.budgets.latency, engine.environment)
    except NoAnswer as error:
        advice = "run it again; a crash that repeats is a bug of the runtime to report to Apple"
        return no_answer(CheckName.LATENCY, str(error), engine.environment, advice)


def _on_device(units: str, subject: Subject) -> Result | None:
    """One setting of compute units on the connected device, where one was named."""
    engine = subject.engine.on(units)
    if not isinstance(engine, CoreMLEngine) or engine.connected is None:
        return None
    budget, where = subject.entry.budgets.latency, engine.device_environment()
    try:
        found = engine.time_on_device(contenders(subject), subject.bench.example)
    except NoDevice as why:
        asked = budget is not None and budget.p95 is not None and _is_the_device(budget, where)
        return not_run(CheckName.LATENCY, f"Not timed on {where.device}: {why}.", required=asked, environment=where)
    except NoAnswer as error:
        advice = "run it again, with the device unlocked and awake; a crash that repeats is the runtime's"
        return no_answer(CheckName.LATENCY, str(error), where, advice)
    timings, environment = found
    return judge(timings, budget, environment).model_copy(update={"basis": Basis.REPORTED})


CHECK = Check(CheckName.LATENCY, "Is it fast enough?", _answer)
