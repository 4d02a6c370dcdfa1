# SPDX-License-Identifier: Apache-2.0
"""What is judged of a model whose program is not read: a neural network, a compiled model, a pipeline?

Its size, and with it the app's, and whether the deployment target loads it; every other check is `not_run` and says why. `gate inspect` describes such a model, and nothing here
guesses about its answers.
"""

from gate.checks import CHECKS, base, feasibility
from gate.errors import SourceFault
from gate.policy import Policy, Precision
from gate.report import CheckName, Result


def refuse_policy(policy: Policy, why: str) -> None:
    """Raise SourceFault for a policy that would change what cannot be read."""
    if policy.precision is not Precision.AS_IS or policy.steps:
        raise SourceFault(f"policy {policy.name} cannot be applied: {why}. Its size can be judged with ship: as-is")


def results(subject: base.Subject, why: str) -> tuple[Result, ...]:
    """Judge the size; a budget of any other check wants an answer that nobody has."""
    asked = subject.entry.budgets.model_fields_set
    answers: list[Result] = []
    late = feasibility.too_new(subject)
    for check in CHECKS:
        if check.name is CheckName.SIZE:
            answers += base.run(check, subject)
        elif check.name is CheckName.FEASIBILITY and late:
            answers.append(feasibility.judge(subject.conversion, late))
        else:
            message = f"Only the size is judged: {why}."
            answers.append(base.not_run(check.name, message[:4_000], required=str(check.name) in asked))
    return tuple(answers)
