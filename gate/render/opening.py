# SPDX-License-Identifier: Apache-2.0
"""What are verdict, cause and remedy, for someone who reads nothing else?"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from gate.render import words
from gate.render.escape import clip
from gate.render.figures import accuracy_words, against_limit, deciding, is_size, keeps, merits, package_bytes, write
from gate.report import Candidate, CheckName, Measurement, Model, Outcome, Report, Result, Severity, Unit, verdict

PART = "This is no verdict on the whole; `gate merge` joins the parts."


class Headline(NamedTuple):
    """The first three lines of every view."""

    verdict: str
    cause: str
    remedy: str


def headline(report: Report) -> Headline:
    """Return verdict, cause and remedy: three sentences for someone who reads nothing else."""
    told = _of_the_whole(report)
    if report.run.part is None:
        return told
    part = f"part {report.run.part.index} of {len(report.run.part.units)}: "
    return _clipped(f"{told.verdict[:2]}{part.capitalize()}{told.verdict[2:]}", told.cause, f"{told.remedy} {PART}")


def _of_the_whole(report: Report) -> Headline:
    if not report.models and not report.app.results:
        return _clipped("✓ No model is concerned by this change", "Nothing was judged.", "Nothing to do.")
    if report.outcome is Outcome.PASS:
        return _clipped(_passed(report), _key_figures(report), _after_a_pass(report))
    worst, *others = words.unsettled(report)
    trouble = f"{words.MARKS[report.outcome]} {_trouble(worst)}{_and_more(others)}"
    remedy = f"{words.sentence(remedy_for(report, worst))}{_blocking(report)}"
    return _clipped(_capital_after_mark(trouble), _cause(worst), remedy)


def _clipped(*lines: str) -> Headline:
    """A headline is three short lines of visible characters, whatever the names in it."""
    return Headline(*map(clip, lines))


def _passed(report: Report) -> str:
    number = len(report.models)
    who = (
        f"All {number} models pass" if number > 1 else f"{report.models[0].name} passes" if number else "The app passes"
    )
    waived = sum(answer.result.waiver is not None for answer in words.answers(report))
    return (
        f"✓ {who}, with {words.counted(waived, 'accepted exception')}"
        if waived
        else f"✓ {who} every check that was run"
    )


def _key_figures(report: Report) -> str:
    """Size and accuracy of what ships, in one line."""
    if len(report.models) == 1:
        return words.sentence(", ".join(_shipped_merits(report.models[0])) or "No figure was asked for")
    total = next((r.measurements[0] for r in report.app.results if r.measurements), None)
    if total is None:
        return "No budget of the app as a whole."
    return words.sentence(f"Together they take {against_limit(total)}")


def _shipped_merits(model: Model) -> list[str]:
    """Size against its limit, and accuracy: 5.62 MB of 6 MB allowed, accuracy 97.2 %."""
    size = next((deciding(r) for r in model.shipped.results if r.check is CheckName.SIZE), None)
    return [text for text in (against_limit(size) if size else "", accuracy_words(model.shipped)) if text]


def _after_a_pass(report: Report) -> str:
    findings = [*report.findings, *(finding for a in words.answers(report) for finding in a.result.findings)]
    warnings = sum(finding.severity is Severity.WARNING for finding in findings)
    return f"Nothing to do; {words.counted(warnings, 'warning')} below." if warnings else "Nothing to do."


def _trouble(answer: words.Answer) -> str:
    """Say what is wrong: tagger is too large: 6.41 MB of 6 MB allowed."""
    result, asked = answer.result, words.question(answer.result)
    match words.effective(result):
        case Outcome.FAIL:
            figure = deciding(result)
            detail = f": {against_limit(figure)}" if figure and not keeps(figure) else ""
            return f"{answer.subject} {words.failure(result)}{detail}"
        case Outcome.INCONCLUSIVE:
            return f"not certain yet for {answer.subject}: {asked}"
        case _:
            return f"no answer for {answer.subject}: {asked}"


def _and_more(others: Sequence[words.Answer]) -> str:
    return f" (and {words.counted(len(others), 'more problem')} below)" if others else ""


def _capital_after_mark(sentence: str) -> str:
    """Begin with a capital, unless a model's name comes first."""
    for start in ("not certain", "no answer", "the app"):
        if sentence[2:].startswith(start):
            return f"{sentence[:2]}{sentence[2].upper()}{sentence[3:]}"
    return sentence


def _cause(answer: words.Answer) -> str:
    """Say why, in the check's own sentence; of a size that changed, by how much."""
    figure = deciding(answer.result)
    if figure and is_size(figure) and figure.baseline is not None and figure.value != figure.baseline:
        return _growth(figure)
    return words.sentence(answer.result.message)


def _growth(m: Measurement) -> str:
    assert m.baseline is not None
    verb = "grows" if m.value > m.baseline else "shrinks"
    return f"This change {verb} it by {write(abs(m.value - m.baseline), m.unit)}, from {write(m.baseline, m.unit)}."


def remedy_for(report: Report, answer: words.Answer) -> str:
    said = answer.result.remedy or _advice(answer) or words.REMEDIES[words.effective(answer.result)]
    return _explored_cure(report, answer) or said


def _advice(answer: words.Answer) -> str:
    return next((f.advice for f in answer.result.findings if f.advice), "")


def _explored_cure(report: Report, answer: words.Answer) -> str:
    """Name explored candidates that were judged here: one that passes everything, or else one that settles this answer."""
    if answer.model is None:
        return _smaller_app(report, answer.result)
    cures = _cures(answer.model)
    if cures:
        more = f"; so would {', '.join(c.policy for c in cures[1:])}" if cures[1:] else ""
        return f"{cures[0].policy} was tried and would pass{_with_merits(cures[0])}{more}"
    partial = next((candidate for candidate in _passing(answer.model) if _passes(candidate, answer.result)), None)
    return f"{partial.policy} was tried and would settle this{_with_merits(partial)}" if partial else ""


def _cures(model: Model) -> list[Candidate]:
    """Return explored candidates that pass what the shipped one does not, and size and accuracy where it was asked them."""
    asked = [
        result
        for result in model.shipped.results
        if words.effective(result) in words.TROUBLES
        or (result.check in words.WEIGHED and result.outcome is Outcome.PASS)
    ]
    return [candidate for candidate in _passing(model) if all(_passes(candidate, result) for result in asked)]


def _passing(model: Model) -> list[Candidate]:
    return [candidate for candidate in model.candidates[1:] if verdict(candidate.results) is Outcome.PASS]


def _passes(candidate: Candidate, asked: Result) -> bool:
    """Has the candidate passed the same question? (In any environment: explored ones are not run on every machine.)"""
    key = (asked.check, asked.against, asked.slice)
    return any((r.check, r.against, r.slice) == key and r.outcome is Outcome.PASS for r in candidate.results)


def _with_merits(candidate: Candidate) -> str:
    said = ", ".join(merits(candidate))
    return f" ({said})" if said else ""


def _smaller_app(report: Report, result: Result) -> str:
    """Name one explored candidate that alone would bring the app under its limit."""
    total = deciding(result)
    if result.check is not CheckName.APP_SIZE or total is None or total.limit is None or not is_size(total):
        return ""
    for model in report.models:
        for candidate in _cures(model):
            saving = (package_bytes(model.shipped) or 0.0) - (package_bytes(candidate) or math.inf)
            if saving >= total.value - total.limit:
                return (
                    f"{candidate.policy} for {model.name} was tried, would pass and saves {write(saving, Unit.BYTES)}"
                )
    return ""


def _blocking(report: Report) -> str:
    """Say whether it blocks, where a reader could be wrong about it."""
    if report.run.fail_on == "never":
        return " Nothing blocks (--fail-on never)."
    if report.outcome is Outcome.INCONCLUSIVE:
        return " It blocks, as configured." if report.run.fail_on == "inconclusive" else " It does not block."
    return ""
