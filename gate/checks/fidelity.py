# SPDX-License-Identifier: Apache-2.0
"""`fidelity`: does the converted float32 program compute what the reference computes?

Runs the float32 program without any rounding, so that what remains is the converter's own wrong code (or a branch that
tracing dropped). Healthy noise is about 1e-7 of the range, at worst 2e-4 (measured over the cases); the default limit is 0.1 %.
Names the op: by a pattern that the converter's wrong code is known to leave, and by where the program leaves the source.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gate.bench import Sample, probes
from gate.checks.base import Check, Subject, not_run
from gate.choices import choices
from gate.difference import OutputDifference, Outputs, Ranges, compare, find_ranges
from gate.errors import NoAnswer, SourceFault
from gate.mil import MilError
from gate.quantity import percent
from gate.report import Bound, CheckName, Environment, Finding, Measurement, Outcome, Result, Severity, Unit
from gate.rules import random_ops
from gate.suspects import suspects


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
    if difference.turned is not None:
        return (
            f"output {difference.name!r} chooses otherwise in {difference.turned:,} of {difference.integers:,} places"
        )
    return f"output {difference.name!r} is off by up to {percent(difference.error)} of its range"


def finding(difference: OutputDifference, rule: str, severity: Severity, advice: str = "") -> Finding:
    """One output's difference as a finding."""
    text = describe(difference)
    return Finding(rule=rule, severity=severity, message=text[:1].upper() + text[1:], advice=advice)


def measurements(
    differences: tuple[OutputDifference, ...], limit: float | None, snr: float | None = None
) -> tuple[Measurement, ...]:
    """Error per output, the worst first; then what else was counted. A limit in dB comes first: it decides, and is a floor."""
    rows = [
        _snr(d, d.snr_db, snr) for d in sorted(differences, key=_snr_db) if snr is not None and d.snr_db is not None
    ]
    for d in sorted(differences, key=lambda d: -d.error):
        rows.append(Measurement(name=f"error:{d.name}", value=d.error, unit=Unit.FRACTION, limit=limit, n=d.samples))
        counts = (
            ("new_nonfinite", d.new_nonfinite),
            ("wrong_integers", d.wrong_integers),
            ("choices_changed", d.turned),
            ("decisions_changed", d.decisions),
        )
        rows += [Measurement(name=f"{name}:{d.name}", value=count, unit=Unit.COUNT) for name, count in counts if count]
        if snr is None and d.snr_db is not None:
            rows.append(_snr(d, d.snr_db))
    return tuple(rows)


def _snr_db(d: OutputDifference) -> float:
    return d.snr_db if d.snr_db is not None else float("inf")


def _snr(d: OutputDifference, value: float, limit: float | None = None) -> Measurement:
    return Measurement(name=f"snr:{d.name}", value=value, unit=Unit.DECIBEL, limit=limit, bound=Bound.AT_LEAST)


def _answer(subject: Subject) -> tuple[Result, ...]:
    bench, conversion = subject.bench, subject.conversion
    package = conversion.float32 or conversion.finished
    if package is None:
        return (not_run(CheckName.FIDELITY, "The model did not convert."),)
    if bench.reference is None:
        return (not_run(CheckName.FIDELITY, bench.no_reference),)
    if random := random_ops(package):
        return (_incomparable(random, subject),)
    if not bench.steady:
        return (_unsteady(),)
    try:
        answers = bench.answers(subject.engine, package, "float32")
    except MilError as error:
        return (_broken(subject, package, error),)
    limit = subject.entry.budgets.fidelity.error
    differences = compare(bench.reference, answers, bench.ranges(bench.reference), choices(package))
    result = judge(differences, limit, bench.reference_name, subject.engine.environment)
    if result.outcome is Outcome.PASS:
        return (_probed(subject, package) or result,)
    worst = _worst(bench.reference, answers, bench.ranges(bench.reference), choices(package))
    named = tuple(_blamed(subject, package, bench.samples[worst]))
    return (result.model_copy(update={"findings": result.findings + named}),)


def _worst(reference: Sequence[Outputs], answers: Sequence[Outputs], ranges: Ranges, choosing: frozenset[str]) -> int:
    """Position of the sample that comes out furthest off."""
    rows = [compare([a], [b], [r], choosing) for a, b, r in zip(reference, answers, ranges, strict=True)]
    errors = [max((not d.sound, d.error) for d in row) for row in rows]
    return errors.index(max(errors))


def _blamed(subject: Subject, package: Path, sample: Sample) -> Iterator[Finding]:
    """Name the op: by a pattern that is known, and by where the program leaves the source; else say that it is not known."""
    conversion = subject.conversion
    known = tuple(suspects(package, conversion.layers, conversion.lines, subject.config.folder))
    yield from known
    found = _departure(subject, package, sample)
    if not known or (found.op and not any(_same_place(found, one) for one in known)):
        yield found


def _same_place(one: Finding, other: Finding) -> bool:
    return one.op == other.op or (one.source is not None and one.source == other.source)


def _departure(subject: Subject, package: Path, sample: Sample) -> Finding:
    """Watch the source run, and find where the program leaves it."""
    bench = subject.bench
    if bench.steps is None:
        return _no_blame(f"what {bench.reference_name} computes inside cannot be seen")
    from gate.divergence import leave  # loads torch, which a Mac that answers for handed packages may lack

    try:
        found = leave(package, bench.steps(sample), sample, subject.conversion.origins)
    except (SourceFault, NoAnswer) as error:
        return _no_blame(f"the source cannot be watched ({error})")
    if found is None:
        return _no_blame("each value on the way to the wrong output is one that the source computes too")
    name = (found.op or "").split()[-1]
    layer, line = subject.conversion.layers.get(name), subject.conversion.lines.get(name)
    return found.model_copy(update={"layer": layer, "source": line or found.source})


def _no_blame(why: str) -> Finding:
    advice = "compare the layers one by one: shorten the model until its answers are right"
    return Finding(
        rule="fidelity.no_blame", severity=Severity.INFO, message=f"No op is named: {why}."[:4_000], advice=advice
    )


def _probed(subject: Subject, package: Path) -> Result | None:
    """Where tracing baked something, try inputs that the author did not show; None where they come out right too."""
    bench, limit = subject.bench, subject.entry.budgets.fidelity.error
    baked = tuple(f for f in subject.conversion.findings if f.rule == "convert.baked")
    if not baked or bench.references is None:
        return None
    samples = probes(bench.example)
    try:
        wanted = bench.references(samples)
        answers = subject.engine.load(package, "float32").predict(samples)
    except (SourceFault, MilError):
        return None  # inputs that the source does not take say nothing
    differences = compare(wanted, answers, find_ranges(wanted, [str(i) for i in range(len(samples))]), choices(package))
    result = judge(differences, limit, bench.reference_name, subject.engine.environment)
    if result.outcome is Outcome.PASS:
        return None
    what = f"The package answers the example as {bench.reference_name} does, and other values differently: {baked[0].message}."
    blamed = tuple(f.model_copy(update={"rule": "fidelity.baked", "severity": Severity.ERROR}) for f in baked)
    changes = {"message": what[:4_000], "remedy": baked[0].advice, "findings": (*result.findings, *blamed)}
    return result.model_copy(update=changes)


def _unsteady() -> Result:
    """The source itself draws random numbers: nothing can be held against the package."""
    why = "The source gives another answer to the same input each time (dropout, noise), so the package cannot be compared with it."
    advice = "put the model into evaluation mode, or make the noise an input"
    told = Finding(rule="fidelity.random", severity=Severity.WARNING, message=why, advice=advice)
    return not_run(CheckName.FIDELITY, why).model_copy(update={"findings": (told,)})


def _incomparable(ops: tuple[str, ...], subject: Subject) -> Result:
    """Two runs of a random model differ whatever the converter did."""
    finding_ = Finding(
        rule="fidelity.random",
        severity=Severity.WARNING,
        op=ops[0],
        message="The program draws random numbers, so its answers cannot be compared with the source's.",
        advice="make the noise an input of the model, or leave training mode (dropout)",
    )
    result = not_run(CheckName.FIDELITY, "The model draws random numbers; make the noise an input to compare answers.")
    layer = subject.conversion.layers.get(ops[0].split()[-1])
    source = subject.conversion.lines.get(ops[0].split()[-1])
    return result.model_copy(update={"findings": (finding_.model_copy(update={"layer": layer, "source": source}),)})


def _broken(subject: Subject, package: Path, error: MilError) -> Result:
    """The program runs on the example but not on another shape that gate.yml allows: a size was baked while tracing."""
    bench = subject.bench
    session = subject.engine.load(package, "float32")
    session.predict(bench.samples[:1])  # where even that fails, the error is the evaluator's to explain
    shapes = next(_failing_shapes(session, bench.samples), "another input")
    return Result(
        check=CheckName.FIDELITY,
        outcome=Outcome.FAIL,
        environment=subject.engine.environment,
        message=f"The converted program runs on the example but not on {shapes}.",
        remedy="take sizes from x.shape without int(), declare the size fixed, or use the export route",
        findings=(
            Finding(
                rule="fidelity.shape",
                severity=Severity.ERROR,
                message=str(error)[:4_000],
                op=str(error).split(":")[0].split("(")[0].replace("'", ""),
            ),
        ),
    )


def _failing_shapes(session: Any, samples: tuple[Mapping[str, Any], ...]) -> Iterator[str]:
    for sample in samples:
        try:
            session.predict([sample])
        except MilError:
            yield ", ".join(f"{name} of shape {list(value.shape)}" for name, value in sample.items())


CHECK = Check(CheckName.FIDELITY, "Does it compute the same?", _answer)
