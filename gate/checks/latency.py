# SPDX-License-Identifier: Apache-2.0
"""`latency`: is it fast enough?

Only a Mac or a phone can say; the time of our evaluator on Linux never gates. This version measures nothing yet: where a budget
is set, the report says that it was not judged.
"""

from gate.checks.base import Check, Subject, not_judged, not_run
from gate.report import CheckName, Result


def _answer(subject: Subject) -> tuple[Result, ...]:
    if subject.entry.budgets.latency is None:
        return ()
    why = "A latency budget is set, but this version of the gate does not measure latency."
    row = not_run(CheckName.LATENCY, why)
    return (row.model_copy(update={"findings": (not_judged(CheckName.LATENCY, why),)}),)


CHECK = Check(CheckName.LATENCY, "Is it fast enough?", _answer)
