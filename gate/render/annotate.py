# SPDX-License-Identifier: Apache-2.0
"""What is said on which line of the model's source? At most ten of each level, most severe first, as GitHub shows them."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from gate.render import words
from gate.render.escape import clip
from gate.report import Finding, Outcome, Report, Severity

MOST_OF_A_LEVEL = 10  # GitHub drops the rest of a step without a word
LEVELS = {
    Outcome.FAIL: "error",
    Outcome.ERROR: "error",
    Outcome.INCONCLUSIVE: "notice",
}
_PLACE = re.compile(r"^(?P<file>[^:\\/][^:\\]{0,300}):(?P<line>[1-9]\d{0,6})$")


class Annotation(NamedTuple):
    """One message on one line; the caller escapes it for the workflow command."""

    level: str
    file: str
    line: int
    title: str
    message: str


def annotations(report: Report) -> list[Annotation]:
    """Return annotations for what ships: errors, warnings, notices, ten of each at most."""
    found = list(dict.fromkeys(_all(report)))
    return [
        annotation
        for level in ("error", "warning", "notice")
        for annotation in islice((a for a in found if a.level == level), MOST_OF_A_LEVEL)
    ]


def _all(report: Report) -> Iterator[Annotation]:
    """Yield one for each answer that is not a pass and has no line of its own, and one for each finding that has."""
    for answer in words.unsettled(report):
        if not any(_place(finding) for finding in answer.result.findings if finding.severity is Severity.ERROR):
            level = LEVELS[words.effective(answer.result)]
            title = f"{answer.subject}: {words.question(answer.result)}"
            yield Annotation(level, clip(report.run.config), 1, clip(title), clip(answer.result.message))
    for answer in words.answers(report):
        for finding in answer.result.findings:
            place = _place(finding)
            if place and finding.severity is not Severity.INFO:
                message = " ".join(part for part in (finding.message, finding.advice) if part)
                title = f"{answer.subject}: {finding.rule}"
                yield Annotation(finding.severity.value, *place, clip(title), clip(message, 2_000))


def _place(finding: Finding) -> tuple[str, int] | None:
    """Read file.py:41; a path that leaves the repository is no place."""
    match = _PLACE.match(finding.source or "")
    if not match or ".." in match["file"].split("/"):
        return None
    return clip(match["file"]), int(match["line"])
