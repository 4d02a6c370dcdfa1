# SPDX-License-Identifier: Apache-2.0
"""How does a report look in a terminal? The table first, the verdict last, where the eye is."""

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from gate.render import page as pages
from gate.render.escape import clip, console
from gate.render.table import Row
from gate.report import Outcome, Report

STYLES = {
    Outcome.PASS: "green",
    Outcome.FAIL: "bold red",
    Outcome.INCONCLUSIVE: "yellow",
    Outcome.NOT_RUN: "dim",
    Outcome.ERROR: "bold magenta",
}
NOTES = 20
REASON = 120  # characters; the whole sentence is in the page


def terminal(report: Report) -> RenderableType:
    """Return what `console.print` shows: questions, candidates, what is not proven, verdict."""
    page = pages.build(report, pages.Room(notes=NOTES))
    notes = (*page.problems, *page.waivers, *page.not_run)
    blocks: list[list[RenderableType]] = [
        [_questions(page)] if page.groups or page.app_rows else [],
        _spaced([_candidates(explored) for explored in page.explored]),
        [_text(f"{remark.mark} {remark.message} {remark.advice}", "yellow") for remark in page.run_remarks],
        [_text(f"{note.mark} · {note.about} {note.text}") for note in notes],
        [_text(f"· {line}", "dim") for line in page.unproven],
        [_verdict(page)],
    ]
    return Group(*(part for block in blocks if block for part in (*block, Text())))


def _spaced(tables: list[Table]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for table in tables:
        parts += [table, Text()]
    return parts[:-1]


def _text(text: str, style: str | Style = "") -> Text:
    """Text that rich takes literally: no markup of its own, no control sequences, no workflow commands."""
    return Text(console(clip(text)), style=style)


def _questions(page: pages.Page) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for name in ("before", "this change", "limit"):
        table.add_column(name, justify="right")
    table.add_column("")
    for group in page.groups:
        name = " · ".join(part for part in (group.name, group.policy, group.badge) if part)
        table.add_row(_text(name, "bold"), *(_cells(group.whole) if group.whole else ()))
        _add(table, group.rows)
    if page.app_rows:
        table.add_row(_text("app", "bold"))
        _add(table, page.app_rows)
    return table


def _add(table: Table, rows: tuple[Row, ...]) -> None:
    for row in rows:
        table.add_row(_indented(row.question), *_cells(row))


def _cells(row: Row) -> tuple[Text, ...]:
    return (*map(_text, (row.before, row.now, row.limit)), _text(row.mark, STYLES[row.outcome]))


def _indented(text: str) -> Padding:
    return Padding(_text(text), (0, 0, 0, 2))


def _candidates(explored: pages.Explored) -> Table:
    table = Table(
        title=_text(f"{explored.name}: {explored.said}", "bold"),
        title_justify="left", box=None, pad_edge=False, header_style="dim",
    )  # fmt: skip
    table.add_column("candidate")
    table.add_column("size", justify="right")
    table.add_column("accuracy", justify="right")
    table.add_column("")
    table.add_column("", overflow="fold")
    for option in explored.options:
        name = f"{option.policy}{' (ships)' if option.ships else ''}"
        verdict = _text(option.mark, STYLES[option.outcome])
        table.add_row(
            _indented(name), *map(_text, (option.size, option.accuracy)), verdict, _text(clip(option.why, REASON))
        )
    return table


def _verdict(page: pages.Page) -> Text:
    style = STYLES[page.outcome]
    why, helps = page.labels
    return Text("\n").join(
        [
            _text(page.headline.verdict, style),
            _text(f"{why} {page.headline.cause}"),
            _text(f"{helps} {page.headline.remedy}"),
        ]
    )
