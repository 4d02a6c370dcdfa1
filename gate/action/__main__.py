# SPDX-License-Identifier: Apache-2.0
"""Which step of action.yml is this? Run it; a mistake of the user is an annotation, never a traceback."""

import os
import sys
from collections.abc import Sequence

from gate.action import answer
from gate.action.decide import run_prepare
from gate.action.evaluate import run_evaluate
from gate.action.inputs import Inputs
from gate.action.posting import report_other_run
from gate.action.runner import Surroundings, command, say
from gate.errors import Exit, GateError


def run_report(around: Surroundings) -> Exit:
    """Tell about this run, or, in a workflow_run, about the one that has ended."""
    run = around.event().workflow_run
    return report_other_run(Inputs.read(around.environ), around, run) if run else answer.run_report(around)


STEPS = {"prepare": run_prepare, "evaluate": run_evaluate, "report": run_report}


def main(arguments: Sequence[str]) -> int:
    """Run one step and return its exit code."""
    if len(arguments) != 1 or arguments[0] not in STEPS:
        say(f"usage: python -P -m gate.action {'|'.join(STEPS)}")
        return Exit.USAGE
    try:
        return STEPS[arguments[0]](Surroundings(os.environ))
    except GateError as error:
        say(command("error", str(error), title="Core ML gate"))
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
