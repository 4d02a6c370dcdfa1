# SPDX-License-Identifier: Apache-2.0
"""`float16`: does half precision damage what reaches the outputs?

Judged at the outputs only: magnitude or infinity inside a program is no failure (masks, an exp that overflows into 1/(1+inf)).
Blocks on new non-finite values, on wrong integers, and, where no labels vouch for the answers, on error above the limit.
With labels, drift is a note: large drift with equal accuracy is well documented (coremltools#2625).
"""

from gate.checks.base import Check, Subject, not_run
from gate.checks.fidelity import describe, finding, measurements
from gate.config import Float16Budget
from gate.difference import OutputDifference, compare
from gate.policy import Precision
from gate.quantity import percent
from gate.report import CheckName, Environment, Finding, Outcome, Result, Severity

FAIL_ERROR = 0.02  # of the output's range; calibrated on devices and 80 cases (docs/checks.md)
WARN_ERROR = 0.005


def judge(
    differences: tuple[OutputDifference, ...], budget: Float16Budget | None, *, labelled: bool, environment: Environment
) -> Result:
    """Compare what reaches the outputs with the budget, or with the defaults where there is none."""
    wrong = tuple(d for d in differences if _breaks(d, budget, labelled))
    drifted = tuple(d for d in differences if d not in wrong and d.error > WARN_ERROR)
    worst = max(differences, key=lambda d: (not d.sound, d.error))
    limit = budget.error if budget else None if labelled else FAIL_ERROR
    return Result(
        check=CheckName.FLOAT16,
        outcome=Outcome.FAIL if wrong else Outcome.PASS,
        environment=environment,
        identical=all(d.identical for d in differences),
        measurements=measurements(differences, limit),
        message=_message(worst, bool(wrong), labelled),
        remedy="keep the ops that lose precision in float32 (keep_float32), or rescale before them" if wrong else None,
        findings=tuple(finding(d, _rule(d), Severity.ERROR) for d in wrong)
        + tuple(_note(d, labelled) for d in drifted),
    )


def _breaks(d: OutputDifference, budget: Float16Budget | None, labelled: bool) -> bool:
    if not d.sound:
        return True
    if budget and budget.snr is not None:
        return not (d.identical or d.snr_db is None or d.snr_db >= budget.snr)
    if budget and budget.error is not None:
        return not d.error <= budget.error
    return not labelled and not d.error <= FAIL_ERROR


def _rule(d: OutputDifference) -> str:
    if d.new_nonfinite:
        return "float16.nonfinite"
    return "float16.integers" if d.wrong_integers else "float16.error"


def _note(d: OutputDifference, labelled: bool) -> Finding:
    severity = Severity.INFO if labelled else Severity.WARNING
    return finding(
        d, "float16.drift", severity, "labelled accuracy decides" if labelled else "measure accuracy on labelled data"
    )


def _message(worst: OutputDifference, wrong: bool, labelled: bool) -> str:
    if wrong:
        return f"Half precision damages the answers: {describe(worst)}."
    note = "; the labelled data decide whether that matters" if labelled and worst.error > WARN_ERROR else ""
    return f"Half precision moves the answers by at most {percent(worst.error)} of their range{note}."


def _answer(subject: Subject) -> tuple[Result, ...]:
    bench, conversion, engine = subject.bench, subject.conversion, subject.engine
    labelled = bench.dataset is not None and bench.dataset.labels is not None
    budget = subject.entry.budgets.float16
    if subject.candidate.policy.precision is Precision.FLOAT32:
        return (not_run(CheckName.FLOAT16, "This policy computes in float32."),)
    if conversion.float16 is not None and bench.reference is not None:
        reference, package = bench.reference, conversion.float16
    else:
        package = conversion.finished or subject.candidate.package.path
        reference = bench.answers(engine, package, "float32")
    differences = compare(reference, bench.answers(engine, package))
    return (judge(differences, budget, labelled=labelled, environment=engine.environment),)


CHECK = Check(CheckName.FLOAT16, "Does half precision hurt?", _answer)
