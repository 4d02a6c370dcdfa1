# SPDX-License-Identifier: Apache-2.0
"""How are curves shown that mean something only beside each other? Sensitivity as a table with shades, trade-offs on one plane.

Series whose names share what stands before ` · ` belong together; a third part names a mark on the second part's curve.
"""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from gate.render.chart import LABEL, TOGETHER, Chart, Scale, dots, grid, path
from gate.render.escape import clip
from gate.render.figures import write
from gate.report import Candidate, Series, Unit

MOST_ROWS = 40  # weights; those that matter most
DECADES = 3.0  # of a value that the shades tell apart


def is_grouped(series: Series) -> bool:
    """Is it drawn together with others?"""
    return TOGETHER in series.name


def grouped(candidate: Candidate) -> tuple[Chart, ...]:
    """Return a figure for each group of series, in the order of the report."""
    groups: dict[str, dict[str, Series]] = {}
    for result in candidate.results:
        for series in filter(is_grouped, result.series):
            name, part = series.name.split(TOGETHER, 1)
            groups.setdefault(name, {})[part] = series
    return tuple(_figure(_title(name), parts) for name, parts in groups.items())


def _title(name: str) -> str:
    return f"{name[0].upper()}{name[1:]}"


def _figure(title: str, parts: Mapping[str, Series]) -> Chart:
    labelled = all(isinstance(x, str) for series in parts.values() for x in series.x)
    return _table(title, parts) if labelled else _plane(title, parts)


# --- a table -----------------------------------------------------------------------------------------------------------


def _table(title: str, parts: Mapping[str, Series]) -> Chart:
    """Lay out labels by parts; the more, the darker."""
    cells = {(str(x), part): y for part, series in parts.items() for x, y in zip(series.x, series.y, strict=True)}
    unit = next(iter(parts.values())).unit
    labels = list(dict.fromkeys(label for label, _ in cells))
    worst = {label: max((cells.get((label, p)) or 0.0 for p in parts), default=0.0) for label in labels}
    shown = sorted(labels, key=lambda label: -worst[label])[:MOST_ROWS]
    largest = max(worst.values(), default=0.0)
    rows = Markup("").join(_row(label, [cells.get((label, p)) for p in parts], largest, unit) for label in shown)
    head = Markup("").join(Markup('<th scope="col" class="n">{}</th>').format(part) for part in parts)
    drawing = Markup(
        '<div class="wide"><table class="shades"><thead><tr><th scope="col">weight</th>{}</tr></thead>'
        "<tbody>{}</tbody></table></div>"
    ).format(head, rows)
    more = f"; the {len(shown)} that matter most of {len(labels)}" if len(shown) < len(labels) else ""
    numbers = tuple((f"{label}, {part}", write(y, unit)) for (label, part), y in cells.items() if y is not None)
    return Chart(f"{title}{more}", title, drawing, (), (), "", numbers)


def _row(label: str, values: Sequence[float | None], largest: float, unit: Unit) -> Markup:
    cells = Markup("").join(
        Markup('<td class="n" style="background: color-mix(in srgb, var(--fail) {}%, transparent)">{}</td>').format(
            round(60 * _shade(value, largest)), "" if value is None else write(value, unit)
        )
        for value in values
    )
    return Markup('<tr><th scope="row">{}</th>{}</tr>').format(clip(label, LABEL), cells)


def _shade(value: float | None, largest: float) -> float:
    """Place a value between 0 and 1, by its logarithm."""
    if value is None or value <= 0 or largest <= 0:
        return 0.0
    return max(0.0, 1.0 + math.log10(value / largest) / DECADES)


# --- a plane -----------------------------------------------------------------------------------------------------------


def _plane(title: str, parts: Mapping[str, Series]) -> Chart:
    """Draw curves on one plane, each mark as a dot with its name."""
    points = {
        name: [(float(x), y) for x, y in zip(s.x, s.y, strict=True) if y is not None] for name, s in parts.items()
    }
    first = next(iter(parts.values()))
    every = [point for some in points.values() for point in some]
    across = Scale(min(x for x, _ in every), max(x for x, _ in every), False)
    upward = Scale.of([y for _, y in every])

    def placed(some: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(100 * across(x), 100 - 100 * upward(y)) for x, y in some]

    curves = {name: some for name, some in points.items() if TOGETHER not in name}
    marks = {name: placed(some)[0] for name, some in points.items() if TOGETHER in name}
    drawn = Markup("").join(
        Markup('<g class="series-{}">{}{}</g>').format(index, path(placed(some)), dots(placed(some)))
        for index, some in enumerate(curves.values())
    )
    sentence = "; ".join((title, *(f"{name}: {len(some)} settings" for name, some in curves.items()), *marks))
    drawing = Markup(
        '<div class="marked"><svg role="img" aria-label="{}" viewBox="0 0 100 100" preserveAspectRatio="none">{}{}{}</svg>{}</div>'
    ).format(clip(sentence, 1_000), grid(), drawn, _lines(marks), _labels(marks))
    numbers = tuple(
        (clip(f"{name}: {_x(first, x)}", 2 * LABEL), write(y, first.unit))
        for name, some in points.items()
        for x, y in some
    )
    legend = ", ".join(f"{'solid' if index == 0 else 'dashed'}: {name}" for index, name in enumerate(curves))
    return Chart(
        title=f"{title} ({legend})",
        sentence=sentence,
        drawing=drawing,
        y_labels=tuple(write(upward.at(part), first.unit) for part in (1.0, 0.5, 0.0)),
        x_labels=(_x(first, across.low), _x(first, across.high)),
        x_name=first.x_name,
        numbers=numbers,
    )


def _lines(marks: Mapping[str, tuple[float, float]]) -> Markup:
    line = Markup('<path class="mark" d="M{0:.2f} 0V100"/>')
    return Markup("").join(line.format(x) for x, _ in marks.values())


def _labels(marks: Mapping[str, tuple[float, float]]) -> Markup:
    """Name each mark beside its line, below the one before, so that no two share a line of text."""
    label = Markup('<span style="{}: {:.2f}%; top: {}px">{}</span>')
    return Markup("").join(
        label.format(
            "right" if x > 50 else "left", 100 - x if x > 50 else x, 4 + 18 * index, name.replace(TOGETHER, ": ")
        )
        for index, (name, (x, _)) in enumerate(marks.items())
    )


def _x(series: Series, x: float) -> str:
    return write(x, series.x_unit) if series.x_unit else f"{x:g}"
