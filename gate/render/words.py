# SPDX-License-Identifier: Apache-2.0
"""What does a report say, in words that a reviewer who is no ML engineer understands?

Sentences and marks are made here, once for all views; strings that came from outside are passed through unescaped, and every
view escapes them for itself.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gate.render.figures import NONE, Figures, figures, is_size, write
from gate.report import (
    Basis,
    Bound,
    Candidate,
    CheckName,
    Environment,
    Measurement,
    Model,
    Outcome,
    Report,
    Result,
    Role,
    Unit,
    verdict,
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
    CheckName.FEASIBILITY: "Does it convert to Core ML?",
    CheckName.FIDELITY: "Does the converted model compute the same?",
    CheckName.INTEGRITY: "Are its stored weights as promised?",
    CheckName.INTERFACE: "Does it still fit the app's code?",
    CheckName.FLOAT16: "Do 16-bit numbers suffice?",
    CheckName.SIZE: "Is it small enough?",
    CheckName.MEMORY: "Does it fit in memory?",
    CheckName.ACCURACY: "Is it accurate enough?",
    CheckName.LATENCY: "Is it fast enough?",
    CheckName.APP_SIZE: "Are all models together small enough?",
}
FAILURES = {
    CheckName.FEASIBILITY: "cannot be converted to Core ML",
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
TROUBLES = (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE)


class Headline(NamedTuple):
    """The first three lines of every view."""

    verdict: str
    cause: str
    remedy: str


class Answer(NamedTuple):
    """One deciding result and whose it is; without a model it is the app's."""

    model: Model | None
    result: Result

    @property
    def subject(self) -> str:
        """Who the sentence is about."""
        return self.model.name if self.model else "the app's models"


def mark(outcome: Outcome, *, waived: bool = False) -> str:
    """Write an outcome with its mark: ✓ pass."""
    return "✓ accepted" if waived else f"{MARKS[outcome]} {OUTCOMES[outcome]}"


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


def headline(report: Report) -> Headline:
    """Return verdict, cause and remedy: three sentences for someone who reads nothing else."""
    if not report.models and not report.app.results:
        return Headline("✓ No model is concerned by this change", "Nothing was judged.", "Nothing to do.")
    if report.outcome is Outcome.PASS:
        return Headline(_passed(report), _key_figures(report), _after_a_pass(report))
    worst, *others = unsettled(report)
    sentence = f"{MARKS[report.outcome]} {_trouble(worst)}{_and_more(others)}"
    remedy = f"{_sentence(_remedy(report, worst))}{_blocking(report)}"
    return Headline(_capital_after_mark(sentence), _cause(worst), remedy)


def _passed(report: Report) -> str:
    if len(report.models) == 1:
        return f"✓ {report.models[0].name} passes every check that was run"
    return f"✓ All {len(report.models)} models pass every check that was run" if report.models else "✓ The app passes"


def _key_figures(report: Report) -> str:
    """Size and accuracy of what ships, in one line."""
    if len(report.models) == 1:
        return _sentence(", ".join(_merits(report.models[0].shipped)) or "No figures were asked for")
    total = next((r.measurements[0] for r in report.app.results if r.measurements), None)
    if total is None:
        return "No budget of the app as a whole."
    return _sentence(f"Together they take {_against_limit(total)}")


def _after_a_pass(report: Report) -> str:
    waived = sum(a.result.waiver is not None for a in answers(report))
    warnings = sum(f.severity == "warning" for a in answers(report) for f in a.result.findings)
    remarks = [
        f"{_counted(waived, 'accepted exception')} in force" if waived else "",
        f"{_counted(warnings, 'warning')} below" if warnings else "",
    ]
    said = "; ".join(remark for remark in remarks if remark)
    return f"Nothing to do; {said}." if said else "Nothing to do."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _trouble(answer: Answer) -> str:
    """Say what is wrong: tagger is too large: 6.41 MB of 6 MB allowed."""
    result, question = answer.result, QUESTIONS[answer.result.check]
    match effective(result):
        case Outcome.FAIL:
            figure = _deciding(result)
            detail = f": {_against_limit(figure)}" if figure and figure.limit is not None else ""
            return f"{answer.subject} {FAILURES[result.check]}{detail}"
        case Outcome.INCONCLUSIVE:
            return f"not certain yet for {answer.subject}: {question}"
        case _:
            return f"no answer for {answer.subject}: {question}"


def _deciding(result: Result) -> Measurement | None:
    """Return the number that a reader understands: the first, unless it is in decibels and another is not."""
    plain = [m for m in result.measurements if m.unit is not Unit.DECIBEL]
    return plain[0] if plain else None


def _against_limit(m: Measurement) -> str:
    """Write a number against its limit: 6.41 MB of 6 MB allowed."""
    shown = figures(m)
    if m.limit is None:
        return shown.value
    if is_size(m) and m.bound is Bound.AT_MOST:
        return f"{shown.value} of {shown.limit} allowed"
    side = f"at least {shown.limit} needed" if m.bound is Bound.AT_LEAST else f"at most {shown.limit} allowed"
    return f"{m.name.replace('_', ' ')} {shown.value}, {side}"


def _and_more(others: Sequence[Answer]) -> str:
    return f" (and {_counted(len(others), 'more problem')} below)" if others else ""


def _cause(answer: Answer) -> str:
    """Say why, in the check's own sentence, and for a size by how much it changed."""
    figure = _deciding(answer.result)
    if figure and is_size(figure) and figure.baseline is not None and figure.value != figure.baseline:
        return f"{_sentence(answer.result.message)} {_growth(figure)}"
    return _sentence(answer.result.message)


def _growth(m: Measurement) -> str:
    assert m.baseline is not None
    verb = "grows" if m.value > m.baseline else "shrinks"
    return f"This change {verb} it by {write(abs(m.value - m.baseline), m.unit)}, from {write(m.baseline, m.unit)}."


def _remedy(report: Report, answer: Answer) -> str:
    return (
        _explored_cure(report, answer) or answer.result.remedy or _advice(answer) or REMEDIES[effective(answer.result)]
    )


def _advice(answer: Answer) -> str:
    return next((f.advice for f in answer.result.findings if f.advice), "")


def _explored_cure(report: Report, answer: Answer) -> str:
    """Name explored candidates that were judged here and pass everything."""
    if answer.model is None:
        return _smaller_app(report, answer.result)
    cures = [c for c in answer.model.candidates[1:] if _cures(c, answer.result.check)]
    if not cures:
        return ""
    merits = _merits(cures[0])
    more = f"; so would {', '.join(c.policy for c in cures[1:])}" if cures[1:] else ""
    return f"{cures[0].policy} was tried and would pass ({', '.join(merits)}){more}"


def _cures(candidate: Candidate, check: CheckName) -> bool:
    answered = any(r.check is check and r.outcome is Outcome.PASS for r in candidate.results)
    return answered and verdict(candidate.results) is Outcome.PASS


def _smaller_app(report: Report, result: Result) -> str:
    """Name one explored candidate that alone would bring the app under its limit."""
    total = _deciding(result)
    if result.check is not CheckName.APP_SIZE or total is None or total.limit is None or not is_size(total):
        return ""
    for model in report.models:
        for candidate in model.candidates[1:]:
            ours, theirs = package_bytes(model.shipped), package_bytes(candidate)
            if ours and theirs and _cures(candidate, CheckName.SIZE) and total.value - (ours - theirs) <= total.limit:
                saving = write(ours - theirs, Unit.BYTES)
                return f"shipping {model.name} as {candidate.policy} was tried, would pass and saves {saving}"
    return ""


def _merits(candidate: Candidate) -> list[str]:
    """Size and accuracy of a candidate: 4.10 MB, accuracy 97.2 %."""
    bytes_ = package_bytes(candidate)
    return [text for text in (write(bytes_, Unit.BYTES) if bytes_ else "", accuracy_words(candidate)) if text]


def package_bytes(candidate: Candidate) -> float | None:
    """Return the size of a candidate's package, as the `size` check measured it."""
    return next(
        (m.value for r in candidate.results if r.check is CheckName.SIZE for m in r.measurements if is_size(m)), None
    )


def accuracy_words(candidate: Candidate) -> str:
    """Write the deciding number of a candidate's accuracy, over all items: accuracy 97.2 %."""
    figure = next(
        (f for r in candidate.results if r.check is CheckName.ACCURACY and not r.slice and (f := _deciding(r))), None
    )
    return f"{figure.name.replace('_', ' ')} {figures(figure).value}" if figure else ""


def _blocking(report: Report) -> str:
    """Say whether it blocks, where a reader could be wrong about it."""
    if report.run.fail_on == "never":
        return " Nothing blocks (--fail-on never)."
    if report.outcome is Outcome.INCONCLUSIVE:
        return " It blocks, as configured." if report.run.fail_on == "inconclusive" else " It does not block."
    return ""


def _sentence(text: str) -> str:
    text = text.strip()
    if not text:
        return ""
    return text if text[-1] in ".!?…" else f"{text}."


def _capital_after_mark(sentence: str) -> str:
    """Begin with a capital, unless a model's name comes first."""
    for start in ("not certain", "no answer", "the app"):
        if sentence[2:].startswith(start):
            return f"{sentence[:2]}{sentence[2].upper()}{sentence[3:]}"
    return sentence


class Row(NamedTuple):
    """One question, answered."""

    question: str
    before: str
    now: str
    limit: str
    outcome: Outcome
    mark: str

    @property
    def loud(self) -> bool:
        """Does it want the reader's eye?"""
        return self.outcome in TROUBLES


def row(result: Result, *, several_environments: bool = False) -> Row:
    """Put one result in a row of the table."""
    figure = _deciding(result)
    shown = figures(figure) if figure else None
    return Row(
        question=f"{QUESTIONS[result.check]}{_circumstances(result, several_environments)}",
        before=shown.before if shown else NONE,
        now=_now(result, figure, shown),
        limit=shown.bound if shown else NONE,
        outcome=effective(result),
        mark=mark(effective(result), waived=result.waiver is not None),
    )


def _circumstances(result: Result, several_environments: bool) -> str:
    parts = [
        f"against {result.against}" if result.against else "",
        result.slice or "",
        environment_words(result.environment) if several_environments else "",
    ]
    said = ", ".join(part for part in parts if part)
    return f" ({said})" if said else ""


def _now(result: Result, figure: Measurement | None, shown: Figures | None) -> str:
    if figure is None or shown is None:
        return "identical" if result.identical else NONE
    value = "identical" if result.identical and figure.value == 0 else shown.value
    interval = f" ({shown.interval})" if shown.interval and _needs_interval(result, figure) else ""
    basis = f" ({BASES[result.basis]})" if result.basis in BASES else ""
    label = "" if result.check.value in figure.name or is_size(figure) else f"{figure.name.replace('_', ' ')} "
    return f"{label}{value}{interval}{basis}"


def _needs_interval(result: Result, m: Measurement) -> bool:
    """The interval belongs above the fold only where the number alone would seem to contradict the mark."""
    if m.limit is None:
        return False
    keeps = m.value >= m.limit if m.bound is Bound.AT_LEAST else m.value <= m.limit
    return result.outcome is Outcome.INCONCLUSIVE or keeps is not (result.outcome is Outcome.PASS)


def rows(results: Sequence[Result]) -> tuple[Row, ...]:
    """Return the rows of one candidate or the app; a slice has its own row only where it does not pass."""
    shown = [r for r in results if not r.slice or effective(r) in TROUBLES]
    keys = [(r.check, r.against, r.slice) for r in shown]
    return tuple(row(r, several_environments=keys.count(key) > 1) for r, key in zip(shown, keys, strict=True))


def environment_words(environment: Environment) -> str:
    """Say where a number was got."""
    engine = ENGINES.get(environment.engine, environment.engine)
    return ", ".join(part for part in (engine, environment.os, environment.device, environment.compute_units) if part)


def environments(report: Report) -> tuple[Environment, ...]:
    """Return where the numbers of what ships were got, each once."""
    ran = (a.result.environment for a in answers(report) if a.result.outcome is not Outcome.NOT_RUN)
    return tuple(dict.fromkeys(ran))


def unproven(report: Report) -> tuple[str, ...]:
    """Name what this report does not show, derived from where its numbers were got."""
    return tuple(_unproven(report)) if report.models else ()


def _unproven(report: Report) -> Iterator[str]:
    engines = {environment.engine for environment in environments(report)}
    apple = [environment for environment in environments(report) if environment.engine == "coreml"]
    if not engines - {"static"}:
        yield "The model was not run at all: no numbers were compared."
    if not apple:
        yield "Not run on Apple's runtime; GPU, Neural Engine and speed are not tested."
    elif not any(_uses_neural_engine(environment) for environment in apple):
        yield "Run on Apple's runtime, but the Neural Engine is not tested."
    if not any("iphone" in e.device.lower() or "ipad" in e.device.lower() for e in apple):
        yield "Not run on an iPhone or iPad."
    if any(a.result.basis is Basis.REPORTED for a in answers(report)):
        yield "“Reported” numbers come from the code of this pull request, which the gate cannot verify."
    if declared := [model.name for model in report.models if model.self_declared]:
        yield f"First run, judged under limits that this pull request declares itself: {', '.join(declared)}."
    if unlabelled := [model.name for model in report.models if model.data and not model.data.labelled]:
        yield f"No labels, so accuracy means agreement with the reference: {', '.join(unlabelled)}."
    if report.run.sandbox == "none":
        yield "The model's code ran without a sandbox."


def _uses_neural_engine(environment: Environment) -> bool:
    """Was Core ML told to use the Neural Engine? (coremltools' names: ALL, CPU_AND_NE)"""
    return environment.compute_units.upper() in ("ALL", "CPU_AND_NE")


class Note(NamedTuple):
    """One sentence about an answer that the table cannot hold."""

    mark: str
    about: str
    text: str


def problems(report: Report) -> tuple[Note, ...]:
    """Return a note for each answer that is not a pass, worst first; the first one is told by the headline already."""
    return tuple(
        Note(
            mark(effective(a.result)),
            f"{a.model.name if a.model else 'app'} · {QUESTIONS[a.result.check]}",
            " ".join(part for part in (_sentence(a.result.message), _sentence(_remedy(report, a))) if part),
        )
        for a in unsettled(report)[1:]
    )


def waivers(report: Report) -> tuple[Note, ...]:
    """Return a note for each accepted exception."""
    return tuple(
        Note(
            mark(Outcome.PASS, waived=True),
            f"{a.model.name if a.model else 'app'} · {QUESTIONS[a.result.check]}",
            f"{_sentence(a.result.message)} Accepted by {w.owner} until {w.expires}: {_sentence(w.reason)}",
        )
        for a in answers(report)
        if (w := a.result.waiver)
    )


def not_run(report: Report) -> tuple[Note, ...]:
    """Return what was not asked or not possible, by question and reason, with the models it is about."""
    found: dict[tuple[CheckName, str], list[str]] = {}
    for a in answers(report):
        if effective(a.result) is Outcome.NOT_RUN:
            found.setdefault((a.result.check, a.result.message), []).append(a.model.name if a.model else "app")
    everyone = len(report.models)
    return tuple(
        Note(
            mark(Outcome.NOT_RUN),
            QUESTIONS[check] if len(names) == everyone > 1 else f"{', '.join(names)} · {QUESTIONS[check]}",
            _sentence(reason),
        )
        for (check, reason), names in found.items()
    )


class Option(NamedTuple):
    """One candidate among those that were tried."""

    policy: str
    ships: bool
    summary: str
    size: str
    bytes: float | None
    accuracy: str
    outcome: Outcome
    mark: str
    why: str


def options(model: Model) -> tuple[Option, ...]:
    """Return every candidate of a model, the shipped one first."""
    return tuple(_option(candidate) for candidate in model.candidates)


def _option(candidate: Candidate) -> Option:
    outcome = verdict(candidate.results)
    bytes_ = package_bytes(candidate)
    worst = (
        next((r for r in candidate.results if effective(r) is outcome), None) if outcome is not Outcome.PASS else None
    )
    return Option(
        policy=candidate.policy,
        ships=candidate.role is Role.SHIP,
        summary=candidate.summary,
        size=write(bytes_, Unit.BYTES) if bytes_ is not None else NONE,
        bytes=bytes_,
        accuracy=accuracy_words(candidate) or NONE,
        outcome=outcome,
        mark=mark(outcome),
        why=_sentence(worst.message) if worst else "",
    )
