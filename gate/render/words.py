# SPDX-License-Identifier: Apache-2.0
"""What does a report say, in words that a reviewer who is no ML engineer understands?

Sentences and marks are made here, once for all views; strings that came from outside are passed through unescaped, and every
view escapes them for itself.
"""

import re
from typing import NamedTuple

from gate.render.escape import clip
from gate.report import (
    Basis,
    CheckName,
    Environment,
    Model,
    Outcome,
    Report,
    Result,
    Severity,
)

# Marks differ in shape, not in colour alone.
MARKS = {
    Outcome.PASS: "✓",
    Outcome.FAIL: "✗",
    Outcome.INCONCLUSIVE: "?",
    Outcome.NOT_RUN: "–",
    Outcome.ERROR: "!",
}
OUTCOMES = {
    Outcome.PASS: "pass",
    Outcome.FAIL: "fail",
    Outcome.INCONCLUSIVE: "not certain yet",
    Outcome.NOT_RUN: "not run",
    Outcome.ERROR: "no answer",
}
QUESTIONS = {
    CheckName.FEASIBILITY: "Does it convert?",
    CheckName.FIDELITY: "Does it compute the same?",
    CheckName.INTEGRITY: "Are its weights as promised?",
    CheckName.INTERFACE: "Does it still fit the app's code?",
    CheckName.FLOAT16: "Do 16-bit numbers suffice?",
    CheckName.SIZE: "Is it small enough?",
    CheckName.MEMORY: "Does it fit in memory?",
    CheckName.ACCURACY: "Is it accurate enough?",
    CheckName.LATENCY: "Is it fast enough?",
    CheckName.APP_SIZE: "Are all models together small enough?",
}
TOPICS = {
    CheckName.FEASIBILITY: "conversion",
    CheckName.FIDELITY: "same answers after conversion",
    CheckName.INTEGRITY: "stored weights",
    CheckName.INTERFACE: "fit to the app's code",
    CheckName.FLOAT16: "16-bit numbers",
    CheckName.SIZE: "size",
    CheckName.MEMORY: "memory",
    CheckName.ACCURACY: "accuracy",
    CheckName.LATENCY: "speed",
    CheckName.APP_SIZE: "size of the app's models",
}
SAID = {Outcome.PASS: "yes", Outcome.FAIL: "no"}  # where an answer has no number
FAILURES = {
    CheckName.FEASIBILITY: "cannot become a working Core ML model",
    CheckName.FIDELITY: "computes something else once it is converted",
    CheckName.INTEGRITY: "stores weights that are not what its compression promised",
    CheckName.INTERFACE: "no longer fits the app's code",
    CheckName.FLOAT16: "loses too much in 16-bit numbers",
    CheckName.SIZE: "is too large",
    CheckName.MEMORY: "needs too much memory",
    CheckName.ACCURACY: "is less accurate than allowed",
    CheckName.LATENCY: "is too slow",
    CheckName.APP_SIZE: "are too large together",
}
FAILURES_OF_RULES = {  # where one rule alone says more closely what is wrong
    "feasibility.target": "needs a later iOS than its deployment target",
    "integrity.nothing": "has a policy that compressed nothing",
}
REMEDIES = {
    Outcome.FAIL: "see the details below.",
    Outcome.ERROR: "run the check again; if it stays so, the log beside the report says what the tools printed.",
    Outcome.INCONCLUSIVE: "more labelled items would settle it.",
}
ENGINES = {
    "static": "read from the package",
    "mil": "computed by the gate's own evaluator",
    "coreml": "run by Apple's runtime",
}
BASES = {
    Basis.ESTIMATED: "estimated",
    Basis.ELIGIBLE: "eligible",
    Basis.PLANNED: "planned",
    Basis.REPORTED: "reported",
}
SEVERITY_MARKS = {"error": "✗", "warning": "⚠", "info": "i"}
MAX_NAME = 80  # as in gate.yml; a report that was not made by us may hold more
TROUBLES = (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE)  # worst first
YARDSTICKS = {"source": "the original", "base": "the base branch", "release": "the last release"}
NUMERIC = (CheckName.FIDELITY, CheckName.FLOAT16, CheckName.ACCURACY)  # they run the model
WEIGHED = (CheckName.SIZE, CheckName.ACCURACY)  # a cure must have been asked these, too
OPTIONAL = (CheckName.SIZE, CheckName.MEMORY, CheckName.LATENCY, CheckName.APP_SIZE)  # no verdict without a budget
ENGINES_SHORT = {"static": "from the package", "mil": "our evaluator", "coreml": "Apple's runtime"}


class Answer(NamedTuple):
    """One deciding result and whose it is; without a model it is the app's."""

    model: Model | None
    result: Result

    @property
    def subject(self) -> str:
        """Who the sentence is about."""
        return clip(self.model.name, MAX_NAME) if self.model else "the app's models"

    @property
    def about(self) -> str:
        """Who and what a note is about."""
        return f"{self.model.name if self.model else 'app'}: {question(self.result)}"


def mark(outcome: Outcome, *, waived: bool = False) -> str:
    """Write an outcome with its mark: ✓ pass."""
    return "✓ accepted" if waived else f"{MARKS[outcome]} {OUTCOMES[outcome]}"


def question(result: Result, where: str = "") -> str:
    """Ask what a result answers; `where` tells environments apart."""
    same = result.check is CheckName.ACCURACY and YARDSTICKS.get(result.against or "")
    asked = f"Is it as accurate as {same}?" if same else QUESTIONS[result.check]
    against = "" if same or not result.against else f"compared with {YARDSTICKS.get(result.against, result.against)}"
    circumstances = ", ".join(part for part in (against, result.slice, where) if part)
    return f"{asked} ({circumstances})" if circumstances else asked


def failure(result: Result) -> str:
    """Say what a failure means."""
    rules = {finding.rule for finding in result.findings if finding.severity is Severity.ERROR}
    known = FAILURES_OF_RULES.get(rules.pop()) if len(rules) == 1 else None
    return known or FAILURES[result.check]


def effective(result: Result) -> Outcome:
    """Return the outcome as it counts: an answer that was required and not given is no answer."""
    return Outcome.ERROR if result.outcome is Outcome.NOT_RUN and result.required else result.outcome


def answers(report: Report) -> tuple[Answer, ...]:
    """Return every result that counts, models first, as a reader meets them."""
    of_models = tuple(Answer(model, result) for model in report.models for result in model.shipped.results)
    return of_models + tuple(Answer(None, result) for result in report.app.results)


def unsettled(report: Report) -> tuple[Answer, ...]:
    """Return the answers that are not a pass, worst first, root causes before what follows from them."""
    order = list(CheckName)
    found = [a for a in answers(report) if effective(a.result) in TROUBLES]
    return tuple(sorted(found, key=lambda a: (TROUBLES.index(effective(a.result)), order.index(a.result.check))))


def counted(number: int, noun: str) -> str:
    """Write 1 warning, 2 warnings."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def sentence(text: str) -> str:
    """End with a full stop, and begin with a capital where a plain word comes first."""
    text = _capital(text.strip())
    return text if not text or text[-1] in ".!?…" else f"{text}."


def _capital(sentence: str) -> str:
    """Begin with a capital where a plain word comes first; a file or policy keeps its letters."""
    first = sentence.split(" ", 1)[0]
    return f"{first.capitalize()}{sentence[len(first) :]}" if re.fullmatch("[a-z]+", first) else sentence


def environment_words(environment: Environment) -> str:
    """Say where a number was got."""
    engine = ENGINES.get(environment.engine, environment.engine)
    return ", ".join(part for part in (engine, environment.os, environment.device, environment.compute_units) if part)
