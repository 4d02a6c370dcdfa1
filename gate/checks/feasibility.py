# SPDX-License-Identifier: Apache-2.0
"""`feasibility`: does the model convert to an ML program at all, and to one that phones run?

Says every unsupported op in one go, with the source line, and what each conversion route had to say; then what the pitfall rules know
about the converted program, and whether phones with the deployment target can load it. Says nothing about whether it is right: that is `fidelity`.
"""

from gate.checks.base import Check, Subject
from gate.conversion import Conversion
from gate.deployment import package_needs
from gate.mil import MilError
from gate.mil.program import load_program
from gate.patterns import unmatched_by_policy
from gate.policy import Target
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
    """Hold the candidate to its target and the pitfall rules, and the policy's patterns; what cannot be read, other checks say."""
    return (*too_new(subject), *_patterns(subject), *_pitfalls(subject), *_functions(subject))


def too_new(subject: Subject) -> tuple[Finding, ...]:
    """A package that needs a later system than the deployment target does not load on phones that have just that.

    Where nobody wrote a target, the one that is assumed fails nothing.
    """
    target, need = subject.config.target(subject.entry), package_needs(subject.candidate.package.path)
    if need is None or need <= target.version:
        return ()
    where = "app" if subject.entry.deployment_target is None else f"models.{subject.entry.name}"
    found = target_finding(target, need, f"{where}.deployment_target")
    written = subject.entry.deployment_target or "deployment_target" in subject.config.app.model_fields_set
    return (found if written else found.model_copy(update={"severity": Severity.WARNING}),)


def target_finding(target: Target, need: int, key: str) -> Finding:
    """Say what a package needs, and what may be done about it."""
    return Finding(
        rule="feasibility.target",
        severity=Severity.ERROR,
        message=f"The package needs iOS{need}, and the deployment target is {target}: a phone with {target} cannot load it.",
        advice=f"convert with minimum_deployment_target=ct.target.{target}, or raise {key} to iOS{need}",
    )


def _patterns(subject: Subject) -> tuple[Finding, ...]:
    conversion = subject.conversion
    packages = [p for p in (conversion.float32, conversion.float16, conversion.finished, subject.before) if p]
    try:
        return tuple(unmatched_by_policy(subject.candidate.policy, packages, conversion.layers, conversion.folded))
    except MilError:
        return ()


def _pitfalls(subject: Subject) -> tuple[Finding, ...]:
    try:
        program = load_program(subject.candidate.package.path)
        found = [f for name in program.functions for f in examine(program, default_sizes(program, name))]
    except MilError:
        return ()
    return tuple(_located(finding, subject.conversion) for finding in found)


def _functions(subject: Subject) -> tuple[Finding, ...]:
    """Of several functions one answers: say which, since the others are only converted, read and weighed."""
    try:
        program = load_program(subject.candidate.package.path)
    except MilError:
        return ()
    others = [name for name in program.functions if name != program.default_function]
    if not others:
        return ()
    what = f"Answers are judged for the default function, {program.default_function}; not for {', '.join(others)}."
    advice = "judge each function's own package before they are joined"
    return (Finding(rule="feasibility.functions", severity=Severity.WARNING, message=what[:4_000], advice=advice),)


def _located(finding: Finding, conversion: Conversion) -> Finding:
    """Add the layer, the source line and the torch op that the op was made from."""
    kind, _, name = (finding.op or "").partition(" ")
    place = {"layer": conversion.layers.get(name), "source": conversion.lines.get(name)}
    origin = conversion.origins.get(name)
    if origin and kind not in origin:  # `_convolution` says no more than conv
        place["message"] = f"{finding.message} It comes from torch's {origin}."[:4_000]
    return finding.model_copy(update={key: text for key, text in place.items() if text})


def _answer(subject: Subject) -> tuple[Result, ...]:
    return (judge(subject.conversion, measure(subject)),)


CHECK = Check(CheckName.FEASIBILITY, "Does it convert?", _answer)
