# SPDX-License-Identifier: Apache-2.0
"""`feasibility`: does the model convert to an ML program at all?

Says every unsupported op in one go, with the source line, and what each conversion route had to say. Says nothing about
whether the converted program is right: that is `fidelity`.
"""

from gate.checks.base import Check, Subject
from gate.conversion import Conversion
from gate.report import Basis, CheckName, Outcome, Result, Severity


def judge(conversion: Conversion) -> Result:
    """A model that no route converts fails; a route that failed while another works is a finding."""
    if conversion.no_answer is not None:
        return Result(
            check=CheckName.FEASIBILITY,
            outcome=Outcome.ERROR,
            message=conversion.no_answer[:4_000],
            findings=conversion.findings,
        )
    if conversion.fault is not None:
        blocking = [f for f in conversion.findings if f.severity is Severity.ERROR]
        advice = next((f.advice for f in blocking if f.advice), "see the findings for each route")
        return Result(
            check=CheckName.FEASIBILITY,
            outcome=Outcome.FAIL,
            message=conversion.fault[:4_000],
            remedy=advice,
            findings=conversion.findings,
        )
    how = f"converts by the {conversion.route} route" if conversion.route else "is an ML program"
    return Result(
        check=CheckName.FEASIBILITY,
        outcome=Outcome.PASS,
        basis=Basis.REPORTED if conversion.route else Basis.MEASURED,
        message=f"The model {how}.",
        findings=conversion.findings,
    )


def _answer(subject: Subject) -> tuple[Result, ...]:
    return (judge(subject.conversion),)


CHECK = Check(CheckName.FEASIBILITY, "Does it convert?", _answer)
