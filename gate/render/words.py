# SPDX-License-Identifier: Apache-2.0
"""What does a report say, in words that a reviewer who is no ML engineer understands?

Sentences and marks are made here, once for all views; strings that came from outside are passed through unescaped, and every
view escapes them for itself.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gate.render.escape import clip
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
    Severity,
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


YARDSTICKS = {"source": "the original", "base": "the base branch", "release": "the last release"}
NUMERIC = (CheckName.FIDELITY, CheckName.FLOAT16, CheckName.ACCURACY)  # they run the model
WEIGHED = (CheckName.SIZE, CheckName.ACCURACY)  # a cure must have been asked these, too
OPTIONAL = (CheckName.SIZE, CheckName.MEMORY, CheckName.LATENCY, CheckName.APP_SIZE)  # no verdict without a budget
ENGINES_SHORT = {"static": "from the package", "mil": "our evaluator", "coreml": "Apple's runtime"}


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


def question(result: Result, where: str = "") -> str:
    """Ask what a result answers; `where` tells environments apart."""
    same = result.check is CheckName.ACCURACY and YARDSTICKS.get(result.against or "")
    asked = f"Is it as accurate as {same}?" if same else QUESTIONS[result.check]
    against = "" if same or not result.against else f"compared with {YARDSTICKS.get(result.against, result.against)}"
    circumstances = ", ".join(part for part in (against, result.slice, where) if part)
    return f"{asked} ({circumstances})" if circumstances else asked


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
        return _clipped("✓ No model is concerned by this change", "Nothing was judged.", "Nothing to do.")
    if report.outcome is Outcome.PASS:
        return _clipped(_passed(report), _key_figures(report), _after_a_pass(report))
    worst, *others = unsettled(report)
    trouble = f"{MARKS[report.outcome]} {_trouble(worst)}{_and_more(others)}"
    remedy = f"{sentence(_remedy(report, worst))}{_blocking(report)}"
    return _clipped(_capital_after_mark(trouble), _cause(worst), remedy)


def _clipped(*lines: str) -> Headline:
    """A headline is three short lines of visible characters, whatever the names in it."""
    return Headline(*map(clip, lines))


def _passed(report: Report) -> str:
    number = len(report.models)
    who = (
        f"All {number} models pass" if number > 1 else f"{report.models[0].name} passes" if number else "The app passes"
    )
    waived = sum(answer.result.waiver is not None for answer in answers(report))
    return f"✓ {who}, with {counted(waived, 'accepted exception')}" if waived else f"✓ {who} every check that was run"


def _key_figures(report: Report) -> str:
    """Size and accuracy of what ships, in one line."""
    if len(report.models) == 1:
        return sentence(", ".join(_shipped_merits(report.models[0])) or "No figure was asked for")
    total = next((r.measurements[0] for r in report.app.results if r.measurements), None)
    if total is None:
        return "No budget of the app as a whole."
    return sentence(f"Together they take {_against_limit(total)}")


def _shipped_merits(model: Model) -> list[str]:
    """Size against its limit, and accuracy: 5.62 MB of 6 MB allowed, accuracy 97.2 %."""
    size = next((_deciding(r) for r in model.shipped.results if r.check is CheckName.SIZE), None)
    return [text for text in (_against_limit(size) if size else "", accuracy_words(model.shipped)) if text]


def _after_a_pass(report: Report) -> str:
    findings = [*report.findings, *(finding for a in answers(report) for finding in a.result.findings)]
    warnings = sum(finding.severity is Severity.WARNING for finding in findings)
    return f"Nothing to do; {counted(warnings, 'warning')} below." if warnings else "Nothing to do."


def counted(number: int, noun: str) -> str:
    """Write 1 warning, 2 warnings."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _trouble(answer: Answer) -> str:
    """Say what is wrong: tagger is too large: 6.41 MB of 6 MB allowed."""
    result, asked = answer.result, question(answer.result)
    match effective(result):
        case Outcome.FAIL:
            figure = _deciding(result)
            detail = f": {_against_limit(figure)}" if figure and figure.limit is not None else ""
            return f"{answer.subject} {FAILURES[result.check]}{detail}"
        case Outcome.INCONCLUSIVE:
            return f"not certain yet for {answer.subject}: {asked}"
        case _:
            return f"no answer for {answer.subject}: {asked}"


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
    return f"{_title(m)} {shown.value}, {side}"


def _and_more(others: Sequence[Answer]) -> str:
    return f" (and {counted(len(others), 'more problem')} below)" if others else ""


def _cause(answer: Answer) -> str:
    """Say why, in the check's own sentence; of a size that changed, by how much."""
    figure = _deciding(answer.result)
    if figure and is_size(figure) and figure.baseline is not None and figure.value != figure.baseline:
        return _growth(figure)
    return sentence(answer.result.message)


def _growth(m: Measurement) -> str:
    assert m.baseline is not None
    verb = "grows" if m.value > m.baseline else "shrinks"
    return f"This change {verb} it by {write(abs(m.value - m.baseline), m.unit)}, from {write(m.baseline, m.unit)}."


def _remedy(report: Report, answer: Answer) -> str:
    said = answer.result.remedy or _advice(answer) or REMEDIES[effective(answer.result)]
    return _explored_cure(report, answer) or said


def _capital(sentence: str) -> str:
    """Begin with a capital where a plain word comes first; a file or policy keeps its letters."""
    first = sentence.split(" ", 1)[0]
    return f"{first.capitalize()}{sentence[len(first) :]}" if re.fullmatch("[a-z]+", first) else sentence


def _advice(answer: Answer) -> str:
    return next((f.advice for f in answer.result.findings if f.advice), "")


def _explored_cure(report: Report, answer: Answer) -> str:
    """Name explored candidates that were judged here: one that passes everything, or else one that settles this answer."""
    if answer.model is None:
        return _smaller_app(report, answer.result)
    ship = answer.model.shipped
    tried = [candidate for candidate in answer.model.candidates[1:] if verdict(candidate.results) is Outcome.PASS]
    asked = [r for r in ship.results if effective(r) in TROUBLES or (r.check in WEIGHED and r.outcome is Outcome.PASS)]
    cures = [candidate for candidate in tried if all(_passes(candidate, result) for result in asked)]
    if cures:
        more = f"; so would {', '.join(c.policy for c in cures[1:])}" if cures[1:] else ""
        return f"{cures[0].policy} was tried and would pass ({', '.join(_merits(cures[0]))}){more}"
    partial = next((candidate for candidate in tried if _passes(candidate, answer.result)), None)
    return f"{partial.policy} was tried and would settle this ({', '.join(_merits(partial))})" if partial else ""


def _passes(candidate: Candidate, asked: Result) -> bool:
    """Has the candidate passed the same question? (In any environment: explored ones are not run on every machine.)"""
    key = (asked.check, asked.against, asked.slice)
    return any((r.check, r.against, r.slice) == key and r.outcome is Outcome.PASS for r in candidate.results)


def _smaller_app(report: Report, result: Result) -> str:
    """Name one explored candidate that alone would bring the app under its limit."""
    total = _deciding(result)
    if result.check is not CheckName.APP_SIZE or total is None or total.limit is None or not is_size(total):
        return ""
    for model in report.models:
        for candidate in model.candidates[1:]:
            ours, theirs = package_bytes(model.shipped), package_bytes(candidate)
            if (
                ours
                and theirs
                and verdict(candidate.results) is Outcome.PASS
                and total.value - (ours - theirs) <= total.limit
            ):
                saving = write(ours - theirs, Unit.BYTES)
                return f"{candidate.policy} for {model.name} was tried, would pass and saves {saving}"
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
    """Write how good a candidate's answers are, over all items: accuracy 97.2 %."""
    found = [r for r in candidate.results if r.check is CheckName.ACCURACY and not r.slice]
    level = next((m for result in found if (m := _level(result))), None)
    if level is not None:
        return f"{_title(level)} {figures(level).value}"
    return "answers identical" if any(result.identical for result in found) else ""


def accuracy_value(candidate: Candidate) -> str:
    """Write the same for a column that is called accuracy."""
    return accuracy_words(candidate).removeprefix("accuracy ").removeprefix("answers ")


def _level(result: Result) -> Measurement | None:
    """Return the metric itself, where the deciding number may be its drop."""
    return next((m for m in result.measurements if m.unit is not Unit.DECIBEL and not _is_drop(m)), None)


def _is_drop(m: Measurement) -> bool:
    return m.name.endswith("_drop") or m.name == "drop"


def _title(m: Measurement) -> str:
    """Name a number; what follows a colon is an output's name, which is for engineers."""
    return m.name.split(":")[0].replace("_", " ")


def _blocking(report: Report) -> str:
    """Say whether it blocks, where a reader could be wrong about it."""
    if report.run.fail_on == "never":
        return " Nothing blocks (--fail-on never)."
    if report.outcome is Outcome.INCONCLUSIVE:
        return " It blocks, as configured." if report.run.fail_on == "inconclusive" else " It does not block."
    return ""


def sentence(text: str) -> str:
    """End with a full stop, and begin with a capital where a plain word comes first."""
    text = _capital(text.strip())
    return text if not text or text[-1] in ".!?…" else f"{text}."


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


def row(result: Result, where: str = "") -> Row:
    """Put one result in a row of the table; `where` tells environments apart."""
    figure = _deciding(result)
    shown = figures(figure) if figure else None
    return Row(
        question=question(result, where),
        before=_before(result, figure),
        now=_now(result, figure, shown),
        limit=_bound(result, figure),
        outcome=Outcome.NOT_RUN if _is_unlimited(result) else effective(result),
        mark="– no limit set" if _is_unlimited(result) else mark(effective(result), waived=result.waiver is not None),
    )


def _is_unlimited(result: Result) -> bool:
    """Is it shown only, without a verdict?"""
    limits = [m.limit for m in result.measurements if m.limit is not None]
    return result.check in OPTIONAL and result.outcome is Outcome.PASS and not limits and result.waiver is None


def _now(result: Result, figure: Measurement | None, shown: Figures | None) -> str:
    if result.identical and (figure is None or figure.value == 0):
        return "identical"
    if figure is None or shown is None:
        return SAID.get(effective(result), NONE)
    interval = f" ({shown.interval})" if shown.interval and _needs_interval(result, figure) else ""
    basis = f" ({BASES[result.basis]})" if result.basis in BASES else ""
    level = _level(result)
    if _is_drop(figure) and level is not None:
        return f"{figures(level).value}, {_worse(figure)}{interval}{basis}"
    return f"{_label(result, figure)}{shown.value}{interval}{basis}"


def _worse(drop: Measurement) -> str:
    """Say a drop in words: 0.3 points worse. A drop counts towards worse, whatever the metric's direction."""
    if drop.value == 0:
        return "no worse"
    return f"{write(abs(drop.value), drop.unit)} {'worse' if drop.value > 0 else 'better'}"


def _before(result: Result, figure: Measurement | None) -> str:
    """Return what it was: the baseline of the number, or of the metric whose drop it is."""
    level = _level(result) if figure and _is_drop(figure) else figure
    return figures(level).before if level else NONE


def _bound(result: Result, figure: Measurement | None) -> str:
    if figure is None or figure.limit is None:
        return NONE
    return f"{'drop ' if _is_drop(figure) else ''}{figures(figure).bound}"


def _label(result: Result, m: Measurement) -> str:
    """Name a number unless the question has named it: `fidelity_error` of `fidelity` is an error."""
    name = _title(m).replace(result.check.value, "").strip()
    return f"{name} " if name and not is_size(m) else ""


def _needs_interval(result: Result, m: Measurement) -> bool:
    """The interval belongs above the fold only where the number alone would seem to contradict the mark."""
    if m.limit is None:
        return False
    keeps = m.value >= m.limit if m.bound is Bound.AT_LEAST else m.value <= m.limit
    return result.outcome is Outcome.INCONCLUSIVE or keeps is not (result.outcome is Outcome.PASS)


def rows(results: Sequence[Result]) -> tuple[Row, ...]:
    """Return the rows of one candidate or the app; a slice has its own row only where it does not pass."""
    shown = [r for r in results if not r.slice or effective(r) in TROUBLES]
    return tuple(row(result, _where(result, shown)) for result in shown)


def _where(result: Result, others: Sequence[Result]) -> str:
    """Tell apart environments that answer the same question: by engine, or in full where the engine is the same."""
    key = (result.check, result.against, result.slice)
    same = [r.environment for r in others if (r.check, r.against, r.slice) == key]
    if len(same) == 1:
        return ""
    engine = result.environment.engine
    if sum(environment.engine == engine for environment in same) > 1:
        return environment_words(result.environment)
    return ENGINES_SHORT.get(engine, engine)


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
    apple = [a.result for a in answers(report) if a.result.environment.engine == "coreml" and _ran(a.result)]
    compared = [result for result in apple if result.check in NUMERIC]
    if not any(a.result.check in NUMERIC and _ran(a.result) for a in answers(report)):
        yield "The model was not run: its answers were compared with nothing."
    if not apple:
        yield "Not run on Apple's runtime; GPU, Neural Engine and speed are not tested."
    elif not compared:
        yield "Apple's runtime did not compute the answers; GPU and Neural Engine are not tested."
    elif not any(_uses_neural_engine(result.environment) for result in compared):
        yield "Apple's runtime computed the answers, but not on the Neural Engine."
    if not any(name in result.environment.device.lower() for result in compared for name in ("iphone", "ipad")):
        yield "Its answers were not tested on an iPhone or iPad."
    if any(a.result.basis is Basis.REPORTED for a in answers(report)):
        yield "“Reported” numbers come from the model's own code; the gate cannot verify them."
    if declared := [model.name for model in report.models if model.self_declared]:
        yield f"First run, judged under limits that this pull request declares itself: {', '.join(declared)}."
    if unlabelled := [model.name for model in report.models if model.data and not model.data.labelled]:
        yield f"No labels, so accuracy means agreement with the reference: {', '.join(unlabelled)}."
    if report.run.sandbox == "none":
        yield "The model's code ran without a sandbox."


def _ran(result: Result) -> bool:
    return result.outcome not in (Outcome.NOT_RUN, Outcome.ERROR)


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
            f"{a.model.name if a.model else 'app'}: {question(a.result)}",
            " ".join(part for part in (sentence(a.result.message), sentence(_remedy(report, a))) if part),
        )
        for a in unsettled(report)[1:]
    )


def waivers(report: Report) -> tuple[Note, ...]:
    """Return a note for each accepted exception."""
    return tuple(
        Note(
            mark(Outcome.PASS, waived=True),
            f"{a.model.name if a.model else 'app'}: {question(a.result)}",
            f"{sentence(a.result.message)} Accepted by {w.owner} until {w.expires}: {sentence(w.reason)}",
        )
        for a in answers(report)
        if (w := a.result.waiver)
    )


def not_run(report: Report) -> tuple[Note, ...]:
    """Return what was not asked or not possible, by reason, with the models and questions that it is about."""
    by_model: dict[tuple[str, str], list[CheckName]] = {}
    for a in answers(report):
        if effective(a.result) is Outcome.NOT_RUN:
            by_model.setdefault((a.result.message, a.model.name if a.model else "app"), []).append(a.result.check)
    by_reason: dict[tuple[str, tuple[CheckName, ...]], list[str]] = {}
    for (reason, name), checks in by_model.items():
        by_reason.setdefault((reason, tuple(dict.fromkeys(checks))), []).append(name)
    return tuple(
        Note(mark(Outcome.NOT_RUN), f"{_names(names, len(report.models))}: {_asked(checks)}", sentence(reason))
        for (reason, checks), names in by_reason.items()
    )


def _names(names: Sequence[str], of: int) -> str:
    return "all models" if len(names) == of > 1 else ", ".join(names)


def _asked(checks: Sequence[CheckName]) -> str:
    return QUESTIONS[checks[0]] if len(checks) == 1 else f"{', '.join(TOPICS[check] for check in checks)}."


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
        accuracy=accuracy_value(candidate) or NONE,
        outcome=outcome,
        mark=mark(outcome),
        why=sentence(worst.message) if worst else "",
    )
