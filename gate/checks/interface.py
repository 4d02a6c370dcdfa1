# SPDX-License-Identifier: Apache-2.0
"""`interface`: will code that was written for the last model still work with this one?

Names, kinds, types, shapes and order of inputs, outputs and states, and the labels of a classifier, are compared with what the baseline
recorded. It says nothing about what the numbers mean: a changed normalisation of the input is `accuracy`'s to find.
"""

from gate.checks.base import Check, Subject, not_run
from gate.interface import Change, changes, read_interface
from gate.mil import MilError
from gate.mil.program import load_program
from gate.report import CheckName, Finding, Interface, Outcome, Result, Severity

ADVICE = {
    "added": "make it optional, or change the app in the same pull request",
    "removed": "keep it, or change the app in the same pull request",
    "renamed": "give it its old name: inputs and outputs of gate.yml name the features",
    "order": "keep the order: Xcode's generated class takes its arguments in it",
    "type": "keep the type: the app's arrays and images are made for it",
    "shape": "accept the old shape too, by a range or enumerated shapes",
    "labels": "keep labels and their order, or ship the new list with the app",
}


def judge(now: Interface, before: Interface) -> Result:
    """Fail on what breaks the app's code; tell the rest."""
    found = changes(before, now)
    breaking = [change for change in found if change.breaking]
    return Result(
        check=CheckName.INTERFACE,
        outcome=Outcome.FAIL if breaking else Outcome.PASS,
        message=_message(found, breaking),
        remedy=ADVICE[breaking[0].rule] if breaking else None,
        findings=tuple(map(_finding, found)),
    )


def _message(found: tuple[Change, ...], breaking: list[Change]) -> str:
    if breaking:
        more = f" (and {len(breaking) - 1} more)" if len(breaking) > 1 else ""
        return f"Code written for the last model breaks: {breaking[0].what}{more}."[:4_000]
    if found:
        return f"Code written for the last model still works; {len(found)} difference(s), such as: {found[0].what}."[
            :4_000
        ]
    return "Names, shapes, types, order and labels are those of the baseline."


def _finding(change: Change) -> Finding:
    severity = Severity.ERROR if change.breaking else Severity.INFO
    advice = ADVICE[change.rule] if change.breaking else ""
    return Finding(rule=f"interface.{change.rule}", severity=severity, message=change.what[:4_000], advice=advice)


def _answer(subject: Subject) -> tuple[Result, ...]:
    try:
        now = read_interface(load_program(subject.candidate.package.path))
    except MilError as error:
        return (not_run(CheckName.INTERFACE, f"The interface cannot be read: {error}"[:4_000]),)
    if subject.baseline is None:
        return (not_run(CheckName.INTERFACE, "No baseline to compare with; this report records the interface."),)
    shipped = subject.baseline.shipped(subject.entry.name)
    if shipped is None or shipped.interface is None:
        return (not_run(CheckName.INTERFACE, "First run: the baseline records no interface of this model."),)
    return (judge(now, shipped.interface),)


CHECK = Check(CheckName.INTERFACE, "Does it still fit the app's code?", _answer)
