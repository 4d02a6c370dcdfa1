# SPDX-License-Identifier: Apache-2.0
"""Curves that are drawn together: sensitivity with shades, trade-offs with their marks."""

from gate.render.chart import charts
from gate.render.compared import grouped
from gate.report import Candidate, CheckName, Model, Outcome, Result, Role, Series, Unit


def candidate(*series: Series) -> Candidate:
    result = Result(check=CheckName.ACCURACY, outcome=Outcome.PASS, message="", series=series)
    return Candidate(role=Role.SHIP, policy="auto", results=(result,))


def labelled(name: str, **values: float) -> Series:
    return Series(name=name, x=tuple(values), y=tuple(values.values()), unit=Unit.FRACTION)


def curve(name: str, *points: tuple[float, float]) -> Series:
    x, y = zip(*points, strict=True)
    return Series(name=name, x=x, y=y, unit=Unit.POINTS, x_name="size", x_unit=Unit.BYTES)


def test_sensitivity_is_one_table_with_the_most_sensitive_weight_first():
    shown = grouped(
        candidate(
            labelled("sensitivity · 4bit", stem=0.001, head=0.5), labelled("sensitivity · 2bit", stem=0.1, head=1.0)
        )
    )
    assert len(shown) == 1
    drawing = str(shown[0].drawing)
    assert drawing.index(">head<") < drawing.index(">stem<")
    assert "var(--fail) 60%" in drawing, "the largest is the darkest"
    assert dict(shown[0].numbers)["stem, 2bit"] == "10 %"


def test_a_tradeoff_is_one_plane_with_its_marks():
    shown = grouped(
        candidate(
            curve("trade-off · bits", (100.0, 0.0), (50.0, 0.01), (25.0, 0.3)),
            curve("trade-off · bits · it breaks: palette-1bit", (25.0, 0.3)),
            curve("trade-off · sparsity (smaller, not faster)", (80.0, 0.0), (40.0, 0.1)),
        )
    )
    assert len(shown) == 1
    drawing = str(shown[0].drawing)
    assert drawing.count('class="curve"') == 2
    assert drawing.count('class="mark"') == 1
    assert "bits: it breaks: palette-1bit" in drawing
    assert "sparsity (smaller, not faster)" in shown[0].title


def test_names_from_outside_are_escaped():
    shown = grouped(candidate(labelled("sensitivity · <b>", **{"<script>": 1.0})))
    assert "<script>" not in str(shown[0].drawing)
    assert "<b>" not in str(shown[0].drawing)


def test_what_is_drawn_together_is_not_drawn_alone():
    model = Model(name="m", candidates=(candidate(labelled("sensitivity · 4bit", a=1.0), labelled("error", a=1.0)),))
    assert [chart.title for chart in charts(model)] == ["Error"]
