# SPDX-License-Identifier: Apache-2.0
"""What is on the page, before it is Markdown, HTML or a terminal's table? Frozen records; strings are not escaped yet.

`Room` says how much of it may be shown. A comment has a hard limit, so detail is given up in the order of `SACRIFICES`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from gate.quantity import duration
from gate.render import notes, table, words
from gate.render.figures import NONE, figures, write
from gate.render.opening import Headline, headline
from gate.report import Candidate, CheckName, Finding, Model, Outcome, Report, Result, Severity, Unit, verdict

SEVERE_FIRST = (Severity.ERROR, Severity.WARNING, Severity.INFO)
MANY_MODELS = 4  # a guess: above this, models that pass take one row each
SHORT_DIGEST = 12


@dataclass(frozen=True)
class Room:
    """How much may be shown."""

    measurements: int = 60  # of each model
    remarks: int = 40  # findings of each model, and of the run
    engineers: bool = True
    explored: bool = True
    notes: int = 40
    models: int = 1_000
    times: bool = True  # when and how long; a comment leaves them out, so that nothing new is nothing to write


# What a comment gives up, in this order, until it fits. The headline is not among it.
SACRIFICES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("measurements", {"measurements": 0}),
    ("all but five findings of each model", {"remarks": 5}),
    ("engineers' details", {"engineers": False}),
    ("explored candidates", {"explored": False}),
    ("all but ten notes", {"notes": 10}),
    ("all but thirty models", {"models": 30}),
    ("all but five models and notes", {"models": 5, "notes": 5, "remarks": 1}),
    ("the table", {"models": 0, "notes": 0, "remarks": 0}),
)


def rooms(room: Room) -> Iterator[tuple[Room, tuple[str, ...]]]:
    """Yield ever less room, each with the names of what was given up."""
    given_up: tuple[str, ...] = ()
    yield room, given_up
    for name, change in SACRIFICES:
        room, given_up = replace(room, **change), (*given_up, name)
        yield room, given_up


@dataclass(frozen=True)
class Remark:
    """A finding as it is shown."""

    mark: str
    severity: str
    rule: str
    where: tuple[str, ...]  # op, layer, file and line
    message: str
    advice: str
    evidence: str


@dataclass(frozen=True)
class Number:
    """A measurement as engineers see it."""

    about: str
    name: str
    value: str
    limit: str
    before: str
    how: str


@dataclass(frozen=True)
class Group:
    """A model in the main table: in full, or in brief where there are many."""

    name: str
    policy: str
    badge: str
    whole: table.Row | None  # instead of rows, for one that passes among many
    rows: tuple[table.Row, ...]


@dataclass(frozen=True)
class Explored:
    """What was tried for a model, with what ships on top."""

    name: str
    said: str
    options: tuple[table.Option, ...]


@dataclass(frozen=True)
class Dossier:
    """What engineers want to know about a model. Computed when it is laid out: a comment that is full asks no more."""

    model: Model
    room: Room

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.model.name

    @cached_property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """Where it comes from and what became of it."""
        return tuple(facts(self.model, times=self.room.times))

    @property
    def said(self) -> tuple[tuple[str, str], ...]:
        """What each check said in its own sentence."""
        return tuple((words.question(result), words.sentence(result.message)) for result in self.model.shipped.results)

    @cached_property
    def _found(self) -> tuple[Remark, ...]:
        return remarks(tuple(finding for result in self.model.shipped.results for finding in result.findings))

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """Findings, most severe first."""
        return self._found[: self.room.remarks]

    @property
    def more_remarks(self) -> str:
        """How many findings there is no room for."""
        return _more(len(self._found) - self.room.remarks, "finding")

    @cached_property
    def _counted(self) -> tuple[Number, ...]:
        return tuple(numbers(self.model.shipped.results)) if self.room.measurements else ()

    @property
    def numbers(self) -> tuple[Number, ...]:
        """Measurements of what ships."""
        return self._counted[: self.room.measurements]

    @property
    def more_numbers(self) -> str:
        """How many measurements there is no room for."""
        return _more(len(self._counted) - self.room.measurements, "measurement")


@dataclass(frozen=True)
class Page:
    """Everything that a view lays out."""

    headline: Headline
    mark: str
    verdict: str  # without its mark
    labels: tuple[str, str]
    outcome: Outcome
    run_remarks: tuple[Remark, ...]
    groups: tuple[Group, ...]
    app_rows: tuple[table.Row, ...]
    more_models: str
    problems: tuple[notes.Note, ...]
    waivers: tuple[notes.Note, ...]
    not_run: tuple[notes.Note, ...]
    more_notes: str
    unproven: tuple[str, ...]
    explored: tuple[Explored, ...]
    dossiers: tuple[Dossier, ...]
    commit: str
    base_commit: str
    footer: tuple[str, ...]
    left_out: str


def build(report: Report, room: Room = Room(), given_up: tuple[str, ...] = ()) -> Page:
    """Put a report in words, in the room there is."""
    opening = headline(report)
    problems, waivers, not_run = notes.problems(report), notes.waivers(report), notes.not_run(report)
    models = sorted(report.models, key=lambda model: verdict(model.shipped.results) is Outcome.PASS)[: room.models]
    return Page(
        headline=opening,
        mark=opening.verdict[0],
        verdict=opening.verdict[2:],
        labels=("", "") if report.outcome is Outcome.PASS else ("Why:", "What helps:"),
        outcome=report.outcome,
        run_remarks=remarks(report.findings)[: room.remarks],
        groups=tuple(group(model, brief=len(report.models) > MANY_MODELS) for model in models),
        app_rows=table.rows(report.app.results) if room.models else (),
        more_models=_more(len(report.models) - len(models), "model"),
        problems=problems[: room.notes],
        waivers=waivers[: room.notes],
        not_run=not_run[: room.notes],
        more_notes=_more(sum(max(0, len(notes) - room.notes) for notes in (problems, waivers, not_run)), "note"),
        unproven=notes.unproven(report),
        explored=tuple(explored(model) for model in models if len(model.candidates) > 1) if room.explored else (),
        dossiers=tuple(Dossier(model, room) for model in models) if room.engineers else (),
        commit=(report.run.commit or "")[:SHORT_DIGEST],
        base_commit=(report.run.base_commit or "")[:SHORT_DIGEST],
        footer=tuple(footer(report, times=room.times)),
        left_out=f"Left out, to fit GitHub's limit: {'; '.join(given_up)}." if given_up else "",
    )


def _more(number: int, noun: str) -> str:
    return f"… and {words.counted(number, f'more {noun}')}" if number > 0 else ""


def group(model: Model, *, brief: bool) -> Group:
    """Put a model in the main table."""
    rows = table.rows(model.shipped.results)
    whole = None
    if brief:
        loud = tuple(row for row in rows if row.loud)
        whole, rows = (None, (*loud, *_rest(len(rows) - len(loud)))) if loud else (_one_row(model.shipped, rows), ())
    badge = "first run, self-declared" if model.self_declared else carried_words(model)
    return Group(model.name, model.shipped.policy, badge, whole, rows)


def carried_words(model: Model) -> str:
    """Say of an entry that was not judged again when it was."""
    return f"unchanged since {model.carried}" if model.carried else ""


def _rest(number: int) -> tuple[table.Row, ...]:
    said = words.counted(number, "other question")
    return (table.Row(said, NONE, NONE, NONE, Outcome.PASS, words.mark(Outcome.PASS)),) if number else ()


def _one_row(candidate: Candidate, rows: tuple[table.Row, ...]) -> table.Row:
    size = next((row for row in rows if row.question == words.QUESTIONS[CheckName.SIZE]), None)
    waived = any(result.waiver for result in candidate.results)
    before, now, limit = (size.before, size.now, size.limit) if size else (NONE, NONE, NONE)
    return table.Row("", before, now, limit, Outcome.PASS, words.mark(Outcome.PASS, waived=waived))


def explored(model: Model) -> Explored:
    """Put the candidates of a model side by side."""
    options = table.options(model)
    tried = options[1:]
    passing = sum(option.outcome is Outcome.PASS for option in tried)
    return Explored(model.name, f"{len(tried)} tried, {passing} would pass", options)


def remarks(findings: tuple[Finding, ...]) -> tuple[Remark, ...]:
    """Put findings in order, most severe first."""
    ordered = sorted(findings, key=lambda finding: SEVERE_FIRST.index(finding.severity))
    return tuple(
        Remark(
            mark=words.SEVERITY_MARKS[finding.severity],
            severity=finding.severity.value,
            rule=finding.rule,
            where=tuple(part for part in (finding.op, finding.layer, finding.source) if part),
            message=finding.message,
            advice=finding.advice,
            evidence=finding.evidence or "",
        )
        for finding in ordered
    )


def facts(model: Model, *, times: bool = True) -> Iterator[tuple[str, str]]:
    """Name where a model comes from and what became of it."""
    pairs = (
        ("source", model.source),
        ("source digest", (model.source_digest or "")[:SHORT_DIGEST]),
        ("compared with", model.reference),
        ("conversion route", model.route or ""),
        ("deployment target", model.deployment_target),
        ("data", _data(model)),
        ("package", model.shipped.package or ""),
        ("package digest", (model.shipped.package_digest or "")[:SHORT_DIGEST]),
        ("tools' own output", model.log or ""),
        ("time", duration(model.seconds) if model.seconds and times else ""),
    )
    return ((name, value) for name, value in pairs if value)


def _data(model: Model) -> str:
    if model.data is None:
        return ""
    kind = "labelled" if model.data.labelled else "unlabelled"
    return f"{write(model.data.items, Unit.COUNT)} {kind} items, {model.data.dataset[:SHORT_DIGEST]}"


def numbers(results: tuple[Result, ...]) -> Iterator[Number]:
    """Put every measurement in words."""
    for result in results:
        about = " · ".join(part for part in (result.check.value, result.against, result.slice) if part)
        for m in result.measurements:
            shown = figures(m)
            how = (
                "" if not shown.interval else f"{shown.interval}, each end at {write(m.confidence, Unit.FRACTION)}"
                if m.confidence else shown.interval,
                f"n = {m.n}" if m.n is not None else "",
                m.method or "",
                words.BASES.get(result.basis, ""),
                words.ENGINES_SHORT.get(result.environment.engine, result.environment.engine),
            )  # fmt: skip
            name = m.name.replace("_", " ")
            yield Number(about, name, shown.value, shown.bound, shown.before, "; ".join(part for part in how if part))


def footer(report: Report, *, times: bool = True) -> Iterator[str]:
    """Name the circumstances: configuration, time, sandbox, versions, machines."""
    run = report.run
    yield f"{run.config} from {run.config_from}"
    if run.approved_by:
        yield f"change of limits approved: {run.approved_by}"
    if run.started and times:
        took = f", {duration(run.seconds)}" if run.seconds else ""
        yield f"{_moment(run.started)}{took}"
    yield f"sandbox: {run.sandbox}"
    if run.tools:
        yield ", ".join(f"{name} {version}" for name, version in sorted(run.tools.items()))
    yield from (words.environment_words(e) for e in notes.environments(report) if e.engine != "static")


def _moment(started: str) -> str:
    """Write an ISO 8601 time as a reader would: 2026-11-21 22:58 UTC; anything else as it is."""
    match = re.match(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d)", started)
    return f"{match[1]} {match[2]} UTC" if match else started
