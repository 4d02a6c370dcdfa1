# SPDX-License-Identifier: Apache-2.0
"""What has to be said beside the table: problems, exceptions, what was not run, what is not proven?"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gate.render import words
from gate.render.opening import remedy_for
from gate.report import Basis, CheckName, Environment, Outcome, Report, Result


class Note(NamedTuple):
    """One sentence about an answer that the table cannot hold."""

    mark: str
    about: str
    text: str


def problems(report: Report) -> tuple[Note, ...]:
    """Return a note for each answer that is not a pass, worst first; the first one is told by the headline already."""
    return tuple(
        Note(
            words.mark(words.effective(a.result)),
            a.about,
            " ".join(
                part for part in (words.sentence(a.result.message), words.sentence(remedy_for(report, a))) if part
            ),
        )
        for a in words.unsettled(report)[1:]
    )


def waivers(report: Report) -> tuple[Note, ...]:
    """Return a note for each accepted exception."""
    return tuple(
        Note(
            words.mark(Outcome.PASS, waived=True),
            a.about,
            f"{words.sentence(a.result.message)} Accepted by {w.owner} until {w.expires}: {words.sentence(w.reason)}",
        )
        for a in words.answers(report)
        if (w := a.result.waiver)
    )


def not_run(report: Report) -> tuple[Note, ...]:
    """Return what was not asked or not possible, by reason, with the models and questions that it is about."""
    by_model: dict[tuple[str, str], list[CheckName]] = {}
    for a in words.answers(report):
        if words.effective(a.result) is Outcome.NOT_RUN:
            by_model.setdefault((a.result.message, a.model.name if a.model else "app"), []).append(a.result.check)
    by_reason: dict[tuple[str, tuple[CheckName, ...]], list[str]] = {}
    for (reason, name), checks in by_model.items():
        by_reason.setdefault((reason, tuple(dict.fromkeys(checks))), []).append(name)
    return tuple(
        Note(
            words.mark(Outcome.NOT_RUN),
            f"{_names(names, len(report.models))}: {_asked(checks)}",
            words.sentence(reason),
        )
        for (reason, checks), names in by_reason.items()
    )


def _names(names: Sequence[str], of: int) -> str:
    return "all models" if len(names) == of > 1 else ", ".join(names)


def _asked(checks: Sequence[CheckName]) -> str:
    return words.QUESTIONS[checks[0]] if len(checks) == 1 else f"{', '.join(words.TOPICS[check] for check in checks)}."


def unproven(report: Report) -> tuple[str, ...]:
    """Name what this report does not show, derived from where its numbers were got."""
    return tuple(_unproven(report)) if report.models else ()


def _unproven(report: Report) -> Iterator[str]:
    apple = [a.result for a in words.answers(report) if a.result.environment.engine == "coreml" and _ran(a.result)]
    compared = [result for result in apple if result.check in words.NUMERIC]
    if not any(a.result.check in words.NUMERIC and _ran(a.result) for a in words.answers(report)):
        yield "The model was not run: its answers were compared with nothing."
    if not apple:
        yield "Not run on Apple's runtime; GPU, Neural Engine and speed are not tested."
    elif not compared:
        yield "Apple's runtime did not compute the answers; GPU and Neural Engine are not tested."
    elif not any(_uses_neural_engine(result.environment) for result in compared):
        yield "Apple's runtime computed the answers, but not on the Neural Engine."
    if not any(name in result.environment.device.lower() for result in compared for name in ("iphone", "ipad")):
        yield "Its answers were not tested on an iPhone or iPad."
    if any(a.result.basis is Basis.REPORTED for a in words.answers(report)):
        yield "“Reported” numbers come from the model's own code; the gate cannot verify them."
    if declared := [model.name for model in report.models if model.self_declared]:
        yield f"First run, judged under limits that this pull request declares itself: {', '.join(declared)}."
    if unlabelled := [model.name for model in report.models if model.data and not model.data.labelled]:
        yield f"No labels, so accuracy means agreement with the reference: {', '.join(unlabelled)}."
    yield from _unguarded(report)


def _unguarded(report: Report) -> Iterator[str]:
    """Say that the model's code ran without a sandbox, or that none of it ran: a finished package needs none."""
    if "process" in report.run.sandbox:
        yield "The model's code ran as an ordinary process: it could read files and reach the network."
    if report.run.sandbox != "none":
        return
    finished = all(model.source.partition(" ")[0] == "coreml" for model in report.models)
    yield "None of the model's code was run." if finished else "The model's code ran without a sandbox."


def _ran(result: Result) -> bool:
    return result.outcome not in (Outcome.NOT_RUN, Outcome.ERROR)


def _uses_neural_engine(environment: Environment) -> bool:
    """Was Core ML told to use the Neural Engine? (coremltools' names: ALL, CPU_AND_NE)"""
    return environment.compute_units.upper() in ("ALL", "CPU_AND_NE")


def environments(report: Report) -> tuple[Environment, ...]:
    """Return where the numbers of what ships were got, each once."""
    ran = (a.result.environment for a in words.answers(report) if a.result.outcome is not Outcome.NOT_RUN)
    return tuple(dict.fromkeys(ran))
