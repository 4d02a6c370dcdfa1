# SPDX-License-Identifier: Apache-2.0
"""How is text that came from outside shown, so that it is seen and does nothing?

Every string of a report may have been chosen by the author of a pull request. `visible` makes hidden characters seen,
`markdown` also takes every meaning away that CommonMark, GitHub's extensions or GitHub's own links would find. Both
outputs are one line. `markdown` uses character references, not backslashes: they hold inside our HTML tags and tables too.
"""

import functools
import re
import unicodedata

MAX_CLIP = 400  # a sentence in a comment; the whole text is in report.json
ZERO_WIDTH = "\u200b"  # ours alone: any other has been made visible before
INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {chr(c) for c in range(0xE0100, 0xE01F0)}
_INVISIBLE = re.compile(f"[{''.join(sorted(INVISIBLE))}]")
HIDDEN_CATEGORIES = frozenset(("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"))

# These are links whatever is escaped around them, so only a break in the middle helps (as Renovate does it).
_AUTOLINKED = (
    (re.compile(r"(?<=[@$])"), ZERO_WIDTH),  # mentions, e-mail addresses, mathematics
    (re.compile(r"(?<=:)(?=/)"), ZERO_WIDTH),  # https://
    (re.compile(r"(?<=www)(?=\.)", re.IGNORECASE), ZERO_WIDTH),
    (re.compile(r"(mailto|xmpp)(?=:)", re.IGNORECASE), rf"\1{ZERO_WIDTH}"),
)
# And these GitHub replaces everywhere but in code.
_REFERENCES = (
    (re.compile(r"(?<=#)(?=\d)"), ZERO_WIDTH),  # #12 and owner/repo#12
    (re.compile(r"(?<=\bGH-)(?=\d)", re.IGNORECASE), ZERO_WIDTH),
    (re.compile(r"(?<=:)(?=[\w+-]+:)"), ZERO_WIDTH),  # :emoji:
    (re.compile(r"([0-9a-f]{6})(?=[0-9a-f])", re.IGNORECASE), rf"\1{ZERO_WIDTH}"),  # a commit has seven digits or more
)
_SYNTAX = re.compile(r"[\\`*_\[\]<>#|~&$@]")
_LINE_START = re.compile(r"^([-+=]|\d{1,9}[.)](?=\s|$))")  # lists and underlines of headings: only where a line begins


def visible(text: str) -> str:
    """Return `text` as one line in which nothing is hidden: a right-to-left override becomes [U+202E]."""
    line = " ".join(text.split())
    plain = line.isprintable() and (line.isascii() or not _INVISIBLE.search(line))
    shown = line if plain else "".join(map(_shown, line))
    return shown if shown or not text else "[blank]"


def _shown(character: str) -> str:
    if unicodedata.category(character) in HIDDEN_CATEGORIES or character in INVISIBLE:
        return f"[U+{ord(character):04X}]"
    return " " if character.isspace() else character


def clip(text: str, limit: int = MAX_CLIP) -> str:
    """Return `text` as one visible line of at most `limit` characters."""
    text = visible(text)
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…"


class Markup(str):
    """Markdown that is ours, or has been escaped already."""

    __slots__ = ()


def markdown(text: object) -> Markup:
    """Return text that GitHub shows as it is: no mention, link, image, tag, table cell, emphasis or heading."""
    return text if isinstance(text, Markup) else Markup(_escaped(str(text), _AUTOLINKED + _REFERENCES))


def code(text: object) -> Markup:
    """Return an identifier in code type; a tag, since a back-tick span can neither hold every text nor stand in a tag."""
    return Markup(f"<code>{_escaped(str(text), _AUTOLINKED)}</code>")


@functools.lru_cache(maxsize=8_192)  # marks, questions and rules are the same in every row
def _escaped(text: str, linked: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    line = visible(text)
    start = _LINE_START.match(line)
    for pattern, replacement in linked:
        line = pattern.sub(replacement, line)
    line = _SYNTAX.sub(lambda found: _reference(found[0]), line)
    if start:  # nothing in it has been replaced: it is digits and one of - + = . )
        line = f"{start[0][:-1]}{_reference(start[0][-1])}{line[start.end() :]}"
    return line.replace(ZERO_WIDTH, _reference(ZERO_WIDTH))


def _reference(character: str) -> str:
    return f"&#{ord(character)};"


def console(text: str) -> str:
    """Return text for a terminal or log: no control sequence, and no command that a GitHub runner would obey."""
    return visible(text).replace("::", "∷").replace("##[", "#[")


def utf16_units(text: str) -> int:
    """Count as GitHub does for the length of a comment (the larger of the two ways to read its documentation)."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
