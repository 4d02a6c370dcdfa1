# SPDX-License-Identifier: Apache-2.0
"""`memory`: does the model fit into the memory that a phone gives an app?

This version estimates nothing yet: where a budget is set, the report says that it was not judged.
"""

from gate.checks.base import Check, Subject, not_run
from gate.report import CheckName, Result


def _answer(subject: Subject) -> tuple[Result, ...]:
    if subject.entry.budgets.memory is None:
        return ()
    return (
        not_run(CheckName.MEMORY, "A memory budget is set, but this version of the gate does not estimate memory."),
    )


CHECK = Check(CheckName.MEMORY, "Does it fit into memory?", _answer)
