# SPDX-License-Identifier: Apache-2.0
"""How is a curve or a comparison drawn, without a script and without a library?

Inline SVG in the page's own colours. Text stays text of the page's size: bars use percentages, curves are stretched while
their labels stand outside. Each figure carries a sentence for those who do not see it, and its numbers in a table.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from gate.render.escape import clip
from gate.render.figures import plain, write
from gate.render.table import options
from gate.report import Candidate, CheckName, Model, Series, Unit

TOGETHER = " · "  # in the names of series that are drawn together, by compared.py
MOST_BARS = 40
MOST_POINTS = 800
MOST_DOTS = 60
MOST_NUMBERS = 200
LOGARITHMIC_FROM = 1_000  # times between smallest and largest
BAR = 44  # pixels from bar to bar
LABEL = 60  # characters of a label


class Chart(NamedTuple):
    """One figure."""

    title: str
    sentence: str
    drawing: Markup
    y_labels: tuple[str, ...]  # top to bottom; none for bars
    x_labels: tuple[str, ...]
    x_name: str
    numbers: tuple[tuple[str, str], ...]


class Bar(NamedTuple):
    """One bar."""

    label: str
    value: float
    mark: str = ""


def charts(model: Model) -> tuple[Chart, ...]:
    """Return the figures of what ships: sizes beside the other candidates', and the curves that its checks recorded."""
    sizes = _sizes(model)
    return (*((sizes,) if sizes else ()), *_curves(model.shipped))


def explored_charts(model: Model) -> tuple[Chart, ...]:
    """Return the curves of the other candidates, each with its policy's name."""
    return tuple(
        chart._replace(title=f"{chart.title} · {candidate.policy}")
        for candidate in model.candidates[1:]
        for chart in _curves(candidate)
    )


def _curves(candidate: Candidate) -> tuple[Chart, ...]:
    recorded = (series for result in candidate.results for series in result.series if TOGETHER not in series.name)
    return tuple(chart for chart in map(_series, recorded) if chart)


def _sizes(model: Model) -> Chart | None:
    """Draw the sizes of the candidates against the limit of the shipped one."""
    found = [option for option in options(model) if option.bytes is not None]
    if not found:
        return None
    measured = (m for r in model.shipped.results if r.check is CheckName.SIZE for m in r.measurements)
    limit = next((m.limit for m in measured if m.limit is not None), None)
    drawn = [
        Bar(f"{option.policy}{' (ships)' if option.ships else ''}", option.bytes or 0.0, option.mark)
        for option in found
    ]
    return _bars("Size of the candidates", drawn, Unit.BYTES, limit)


def _series(series: Series) -> Chart | None:
    points = [(x, y) for x, y in zip(series.x, series.y, strict=True) if y is not None]
    if not points:
        return None
    if any(isinstance(x, str) for x, _ in points) and len(points) <= MOST_BARS:
        return _bars(_title(series), [Bar(str(x), y) for x, y in points], series.unit)
    return _curve(series, points)


def _title(series: Series) -> str:
    name = series.name.replace("_", " ")
    return f"{name[0].upper()}{name[1:]}"


def _bars(title: str, bars: Sequence[Bar], unit: Unit, limit: float | None = None) -> Chart:
    """Draw horizontal bars, label above and value at the right, with a line where the limit is."""
    largest = max([abs(bar.value) for bar in bars] + ([limit] if limit else [])) or 1.0
    top = 22 if limit else 4
    parts = [_bar(bar, unit, largest, top + index * BAR) for index, bar in enumerate(bars)]
    height = top + len(bars) * BAR
    if limit:
        parts.append(_limit(limit, unit, largest, [top + index * BAR for index in range(len(bars))]))
    numbers = tuple((clip(bar.label, LABEL), write(bar.value, unit)) for bar in bars)
    held = f", limit {plain(write(limit, unit))}" if limit else ""
    sentence = f"{title}{held}: {'; '.join(f'{label} {value}' for label, value in numbers)}"
    drawing = Markup('<svg role="img" aria-label="{}" width="100%" height="{}">{}</svg>').format(
        clip(sentence, 1_000), height, Markup("").join(parts)
    )
    return Chart(title, sentence, drawing, (), (), "", numbers)


def _bar(bar: Bar, unit: Unit, largest: float, y: int) -> Markup:
    mark = f"  {bar.mark}" if bar.mark else ""
    return Markup(
        '<text x="0" y="{}">{}</text><text x="100%" y="{}" class="value">{}</text>'
        '<rect x="0" y="{}" width="100%" height="12" rx="3" class="track"/>'
        '<rect x="0" y="{}" width="{}%" height="12" rx="3" class="{}"/>'
    ).format(
        y + 14, clip(bar.label, LABEL), y + 14, f"{write(bar.value, unit)}{mark}",
        y + 21, y + 21, f"{100 * abs(bar.value) / largest:.2f}", "bar bad" if mark.strip().startswith("✗") else "bar",
    )  # fmt: skip


def _limit(limit: float, unit: Unit, largest: float, tops: Sequence[int]) -> Markup:
    """Mark the limit on each bar, not across the text between them."""
    place = 100 * limit / largest
    anchor = "end" if place > 50 else "start"
    line = Markup('<line x1="{0:.2f}%" x2="{0:.2f}%" y1="{1}" y2="{2}" class="limit"/>')
    return Markup("").join(line.format(place, y + 17, y + 37) for y in tops) + Markup(
        '<text x="{:.2f}%" y="13" class="limit-label" text-anchor="{}">limit {}</text>'
    ).format(place, anchor, plain(write(limit, unit)))


def _curve(series: Series, points: Sequence[tuple[float | str, float]]) -> Chart:
    """Draw a curve in a box of 100 × 100 that the page stretches."""
    title = _title(series)
    numeric = all(not isinstance(x, str) for x, _ in points)
    xs = [float(x) for x, _ in points] if numeric else [float(i) for i in range(len(points))]
    ys = [y for _, y in points]
    scale = Scale.of(ys)
    across = Scale(min(xs), max(xs), False)
    line = path([(100 * across(x), 100 - 100 * scale(y)) for x, y in _thinned(list(zip(xs, ys, strict=True)))])
    places = dots([(100 * across(x), 100 - 100 * scale(y)) for x, y in zip(xs, ys, strict=True)])
    peak = max(range(len(ys)), key=ys.__getitem__)
    sentence = (
        f"{title}: {len(ys)} points from {write(min(ys), series.unit)} to {write(max(ys), series.unit)}, "
        f"highest at {_x(series, points[peak][0])}"
    )
    drawing = Markup(
        '<svg role="img" aria-label="{}" viewBox="0 0 100 100" preserveAspectRatio="none">{}{}{}</svg>'
    ).format(clip(sentence, 1_000), grid(), line, places)
    return Chart(
        title=f"{title} (logarithmic)" if scale.logarithmic else title,
        sentence=sentence,
        drawing=drawing,
        y_labels=tuple(write(scale.at(part), series.unit) for part in (1.0, 0.5, 0.0)),
        x_labels=tuple(_x(series, points[index][0]) for index in (0, -1)),
        x_name=series.x_name,
        numbers=tuple((_x(series, x), write(y, series.unit)) for x, y in points[:MOST_NUMBERS]),
    )


def _x(series: Series, x: float | str) -> str:
    if isinstance(x, str):
        return clip(x, LABEL)
    return write(x, series.x_unit) if series.x_unit else f"{x:g}"


class Scale(NamedTuple):
    """From a value to its place between 0 and 1."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def of(cls, values: Sequence[float]) -> "Scale":
        low, high = min(values), max(values)
        if low > 0 and high / low >= LOGARITHMIC_FROM:
            return cls(low, high, True)
        return cls(min(low, 0.0), high if high > min(low, 0.0) else min(low, 0.0) + 1.0, False)

    def __call__(self, value: float) -> float:
        if self.high == self.low:
            return 0.5
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def at(self, part: float) -> float:
        """Return the value at a place between 0 and 1."""
        if self.logarithmic:
            return float(self.low * (self.high / self.low) ** part)
        return self.low + part * (self.high - self.low)


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep the lowest and the highest point of each stretch, so that no spike is lost."""
    if len(points) <= MOST_POINTS:
        return points
    stretch = math.ceil(2 * len(points) / MOST_POINTS)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        extremes = {min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
        kept += [point for point in part if point in extremes]
    return kept


def grid() -> Markup:
    """Draw three level lines."""
    return Markup("").join(Markup('<path class="grid" d="M0 {0}H100"/>').format(y) for y in (0, 50, 100))


def path(points: Sequence[tuple[float, float]]) -> Markup:
    """Draw a line through points of a box of 100 × 100."""
    return Markup('<path class="curve" d="M{}"/>').format("L".join(f"{x:.2f} {y:.2f}" for x, y in points))


def dots(points: Sequence[tuple[float, float]]) -> Markup:
    """Dots as strokes without length: they stay round when the box is stretched."""
    if len(points) > MOST_DOTS:
        return Markup("")
    return Markup('<path class="dots" d="{}"/>').format("".join(f"M{x:.2f} {y:.2f}h0" for x, y in points))
