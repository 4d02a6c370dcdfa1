# SPDX-License-Identifier: Apache-2.0
"""`feasibility`: does the model convert to an ML program at all, and to one that phones run?

Says every unsupported op in one go, with the source line, and what each conversion route had to say; then what the pitfall rules know
about the converted program. Says nothing about whether it is right: that is `fidelity`.
"""

from gate.checks.base import Check, Subject
from gate.conversion import Conversion
from gate.mil import MilError
from gate.mil.program import load_program
from gate.patterns import unmatched_by_policy
from gate.report import Basis, CheckName, Finding, Outcome, Result, Severity
from gate.rules import examine
from gate.shapes import default_sizes

SEE_FINDINGS = "see the findings for each route"
MEND = (
    "mend the error that the message names; where the model's code ran, logs/ beside the report has the whole traceback"
)


def judge(conversion: Conversion, pitfalls: tuple[Finding, ...] = ()) -> Result:
    """A model that no route converts fails, and one that a rule proves broken; a route that failed while another works is a finding."""
    if conversion.no_answer is not None:
        return Result(
            check=CheckName.FEASIBILITY,
            outcome=Outcome.ERROR,
            message=conversion.no_answer[:4_000],
            remedy=conversion.remedy,
            findings=conversion.findings,
        )
    if conversion.fault is not None:
        blocking = [f for f in conversion.findings if f.severity is Severity.ERROR]
        advice = next((f.advice for f in blocking if f.advice), SEE_FINDINGS if blocking else conversion.remedy or MEND)
        return Result(
            check=CheckName.FEASIBILITY,
            outcome=Outcome.FAIL,
            message=conversion.fault[:4_000],
            remedy=advice,
            findings=conversion.findings,
        )
    broken = [f for f in pitfalls if f.severity is Severity.ERROR]
    if broken:
        return Result(
            check=CheckName.FEASIBILITY,
            outcome=Outcome.FAIL,
            message=broken[0].message,
            remedy=broken[0].advice,
            findings=(*conversion.findings, *pitfalls),
        )
    how = f"converts by the {conversion.route} route" if conversion.route else "is an ML program"
    return Result(
        check=CheckName.FEASIBILITY,
        outcome=Outcome.PASS,
        basis=Basis.REPORTED if conversion.route else Basis.MEASURED,
        message=f"The model {how}.",
        findings=(*conversion.findings, *pitfalls),
    )


def measure(subject: Subject) -> tuple[Finding, ...]:
    """Apply the pitfall rules to the candidate, and the policy's patterns; what cannot be read, other checks say."""
    return (*_patterns(subject), *_pitfalls(subject))


def _patterns(subject: Subject) -> tuple[Finding, ...]:
    conversion = subject.conversion
    packages = [p for p in (conversion.float32, conversion.float16, conversion.finished, subject.before) if p]
    try:
        return tuple(unmatched_by_policy(subject.candidate.policy, packages, conversion.layers))
    except MilError:
        return ()


def _pitfalls(subject: Subject) -> tuple[Finding, ...]:
    try:
        program = load_program(subject.candidate.package.path)
        found = [f for name in program.functions for f in examine(program, default_sizes(program, name))]
    except MilError:
        return ()
    return tuple(_located(finding, subject.conversion) for finding in found)


def _located(finding: Finding, conversion: Conversion) -> Finding:
    """Add the layer, the source line and the torch op that the op was made from."""
    kind, _, name = (finding.op or "").partition(" ")
    place = {"layer": conversion.layers.get(name), "source": conversion.lines.get(name)}
    origin = conversion.origins.get(name)
    if origin and origin != kind:
        place["message"] = f"{finding.message} It comes from torch's {origin}."[:4_000]
    return finding.model_copy(update={key: text for key, text in place.items() if text})


def _answer(subject: Subject) -> tuple[Result, ...]:
    return (judge(subject.conversion, measure(subject)),)


CHECK = Check(CheckName.FEASIBILITY, "Does it convert?", _answer)
