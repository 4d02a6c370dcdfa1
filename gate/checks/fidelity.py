# SPDX-License-Identifier: Apache-2.0
"""`fidelity`: does the converted float32 program compute what the reference computes?

Runs the float32 program without any rounding, so that what remains is the converter's own wrong code (or a branch that
tracing dropped). Healthy noise is about 1e-7 of the range, at worst 2e-4 (measured over the cases); the default limit is 0.1 %.
"""

from gate.checks.base import Check, Subject, not_run
from gate.difference import OutputDifference, compare
from gate.quantity import percent
from gate.report import CheckName, Environment, Finding, Measurement, Outcome, Result, Severity, Unit


def judge(differences: tuple[OutputDifference, ...], limit: float, reference: str, environment: Environment) -> Result:
    """Fail where an output is wrong in shape, newly non-finite, an integer differs, or the error exceeds the limit."""
    wrong = [d for d in differences if not (d.sound and d.error <= limit)]
    worst = max(differences, key=lambda d: (not d.sound, d.error))
    identical = all(d.identical for d in differences)
    message = (
        f"The converted program answers as {reference} does (largest error {percent(worst.error)} of the output's range)."
        if not wrong
        else f"The converted program does not compute what {reference} computes: {describe(worst)}."
    )
    return Result(
        check=CheckName.FIDELITY,
        outcome=Outcome.FAIL if wrong else Outcome.PASS,
        environment=environment,
        identical=identical,
        measurements=measurements(differences, limit),
        message=message,
        remedy="try another conversion route, or rewrite the op that the finding names" if wrong else None,
        findings=tuple(finding(d, "fidelity.wrong", Severity.ERROR) for d in wrong),
    )


def describe(difference: OutputDifference) -> str:
    """Say in words what is wrong with one output."""
    if difference.problem:
        return difference.problem
    if difference.new_nonfinite:
        return f"output {difference.name!r} has {difference.new_nonfinite} values that are infinite or not a number"
    if difference.wrong_integers:
        return f"output {difference.name!r} has {difference.wrong_integers} wrong integers"
    return f"output {difference.name!r} is off by up to {percent(difference.error)} of its range"


def finding(difference: OutputDifference, rule: str, severity: Severity, advice: str = "") -> Finding:
    """One output's difference as a finding."""
    text = describe(difference)
    return Finding(rule=rule, severity=severity, message=text[:1].upper() + text[1:], advice=advice)


def measurements(differences: tuple[OutputDifference, ...], limit: float | None) -> tuple[Measurement, ...]:
    """Error per output, the worst first; then what else was counted."""
    rows = []
    for d in sorted(differences, key=lambda d: -d.error):
        rows.append(Measurement(name=f"error:{d.name}", value=d.error, unit=Unit.FRACTION, limit=limit, n=d.samples))
        counts = (
            ("new_nonfinite", d.new_nonfinite),
            ("wrong_integers", d.wrong_integers),
            ("decisions_changed", d.decisions),
        )
        rows += [Measurement(name=f"{name}:{d.name}", value=count, unit=Unit.COUNT) for name, count in counts if count]
        if d.snr_db is not None:
            rows.append(Measurement(name=f"snr:{d.name}", value=d.snr_db, unit=Unit.DECIBEL))
    return tuple(rows)


def _answer(subject: Subject) -> tuple[Result, ...]:
    bench, conversion = subject.bench, subject.conversion
    package = conversion.float32 or conversion.finished
    if package is None:
        return (not_run(CheckName.FIDELITY, "The model did not convert."),)
    if bench.reference is None:
        return (not_run(CheckName.FIDELITY, bench.no_reference),)
    differences = compare(bench.reference, bench.answers(subject.engine, package, "float32"))
    limit = subject.entry.budgets.fidelity.error
    return (judge(differences, limit, bench.reference_name, subject.engine.environment),)


CHECK = Check(CheckName.FIDELITY, "Does it compute the same?", _answer)
