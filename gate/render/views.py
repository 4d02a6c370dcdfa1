# SPDX-License-Identifier: Apache-2.0
"""How does a report look as a comment, a job summary or a file?

Both environments escape every expression; what a template writes itself is the only markup. `StrictUndefined` turns a
misspelt name in a template into an error.
"""

import functools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import jinja2
from markupsafe import Markup as SafeHtml

from gate.errors import UsageError
from gate.files import shipped, write_text
from gate.render import page as pages
from gate.render.chart import charts, explored_charts
from gate.render.compared import grouped
from gate.render.escape import Markup, clip, code, markdown, utf16_units, visible
from gate.report import Model, Report

COMMENT_UNITS = 65_000  # GitHub refuses a body of more than 65,536
SUMMARY_BYTES = 1_000_000  # and drops a summary of more than 1 MiB (2**20) altogether
SPARE = 2_000  # empty lines that are tidied away at the end
MARKER_ID = re.compile(r"^[A-Za-z0-9._-]{1,80}$")
FILE_ROOM = pages.Room(measurements=10_000, remarks=10_000, notes=10_000)


def comment(report: Report, *, report_url: str | None = None, marker_id: str = "default") -> str:
    """Return Markdown for the pull request, at most 65,000 UTF-16 units: detail is given up, the headline never."""
    if not MARKER_ID.match(marker_id):
        raise UsageError(f"comment id {marker_id!r}: expected letters, digits, dots, dashes, underscores, at most 80")
    given = {"url": _url(report_url), "unfolded": Markup(), "marker": Markup(marker_id)}
    return _fitted("comment.md.j2", report, given, utf16_units, COMMENT_UNITS, pages.Room(times=False))


def summary(report: Report, *, report_url: str | None = None) -> str:
    """Return Markdown for the job summary, at most 1 MB."""
    given = {"url": _url(report_url), "unfolded": Markup(" open")}
    return _fitted("summary.md.j2", report, given, lambda text: len(text.encode()), SUMMARY_BYTES)


def _fitted(
    name: str,
    report: Report,
    given: dict[str, Any],
    measure: Callable[[str], int],
    limit: int,
    most: pages.Room = pages.Room(),  # noqa: B008
) -> str:
    """Render with ever less room until it fits; the least room always does."""
    template = _markdown().get_template(name)
    for room, given_up in pages.rooms(most):
        text = _rendered(template.generate(page=pages.build(report, room, given_up), **given), measure, limit)
        if text is not None:
            return text
    raise AssertionError("a headline, a footer and the names of what was left out are far below any limit")


def _rendered(parts: Iterable[str], measure: Callable[[str], int], limit: int) -> str | None:
    """Join what a template yields; None as soon as it is too long."""
    text, length = [], 0
    for part in parts:
        text.append(part)
        length += measure(part)
        if length > limit + SPARE:
            return None
    tidy = _tidy("".join(text))
    return tidy if measure(tidy) <= limit else None


def html(report: Report) -> str:
    """Return one self-contained page: no script, nothing fetched, readable in light and dark and without colour."""
    template = _html().get_template("report.html.j2")
    return template.render(page=pages.build(report, FILE_ROOM), cards=[_card(model) for model in report.models]) + "\n"


def write_views(report: Report, folder: Path) -> None:
    """Write report.json and every view of it."""
    for name, view in (("comment.md", comment), ("summary.md", summary), ("report.html", html)):
        write_text(folder / name, view(report))
    write_text(folder / "report.json", report.model_dump_json(indent=1) + "\n")


def _card(model: Model) -> dict[str, Any]:
    """Gather what the file shows about one model: everything."""
    return {
        "group": pages.group(model, brief=False),
        "explored": pages.explored(model) if len(model.candidates) > 1 else None,
        "dossier": pages.Dossier(model, FILE_ROOM),
        "numbers": [(c.policy, found) for c in model.candidates if (found := tuple(pages.numbers(c.results)))],
        "charts": (*charts(model), *grouped(model.shipped)),
        "explored_charts": explored_charts(model),
    }


def _url(url: str | None) -> Markup | None:
    """Return a link target that cannot leave its parentheses; anything but http(s) is dropped."""
    if not url or urlsplit(url).scheme not in ("http", "https"):
        return None
    return Markup(quote(url, safe=":/?#@!$&*+,;=%~"))


def _tidy(text: str) -> str:
    """Leave one empty line where a template left several: paragraphs end at the first."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@functools.cache
def _markdown() -> jinja2.Environment:
    environment = jinja2.Environment(finalize=_markdown_text, autoescape=False, **_OPTIONS)
    environment.filters["code"] = lambda text: code(clip(text))
    return environment


def _markdown_text(value: Any) -> Markup:
    return value if isinstance(value, Markup) else markdown(clip(str(value)))


@functools.cache
def _html() -> jinja2.Environment:
    return jinja2.Environment(
        finalize=_html_text, autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)), **_OPTIONS
    )


def _html_text(value: Any) -> Any:
    """Make hidden characters seen; escaping is Jinja's."""
    return value if isinstance(value, SafeHtml) else visible(str(value))


_OPTIONS: dict[str, Any] = {
    "loader": jinja2.FileSystemLoader(shipped("templates")),
    "undefined": jinja2.StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
}
