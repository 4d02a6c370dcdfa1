# SPDX-License-Identifier: Apache-2.0
"""Which rows answer the questions, and how do the candidates compare?"""

from collections.abc import Sequence
from typing import NamedTuple

from gate.render import words
from gate.render.figures import (
    NONE,
    Figures,
    accuracy_value,
    deciding,
    figures,
    is_drop,
    is_size,
    keeps,
    level,
    package_bytes,
    title,
    write,
)
from gate.report import Candidate, CheckName, Measurement, Model, Outcome, Result, Role, Unit, verdict


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
        return self.outcome in words.TROUBLES


def row(result: Result, where: str = "") -> Row:
    """Put one result in a row of the table; `where` tells environments apart."""
    figure = deciding(result)
    shown = figures(figure) if figure else None
    return Row(
        question=words.question(result, where),
        before=_before(result, figure),
        now=_now(result, figure, shown),
        limit=_bound(result, figure),
        outcome=Outcome.NOT_RUN if _is_unlimited(result) else words.effective(result),
        mark="– no limit set"
        if _is_unlimited(result)
        else words.mark(words.effective(result), waived=result.waiver is not None),
    )


def rows(results: Sequence[Result]) -> tuple[Row, ...]:
    """Return the rows of one candidate or the app; a slice has its own row only where it does not pass."""
    shown = [r for r in results if not r.slice or words.effective(r) in words.TROUBLES]
    return tuple(row(result, _where(result, shown)) for result in shown)


def _where(result: Result, others: Sequence[Result]) -> str:
    """Tell apart environments that answer the same question: by engine, or in full where the engine is the same."""
    key = (result.check, result.against, result.slice)
    same = [r.environment for r in others if (r.check, r.against, r.slice) == key]
    if len(same) == 1:
        return ""
    engine = result.environment.engine
    if sum(environment.engine == engine for environment in same) > 1:
        return words.environment_words(result.environment)
    return words.ENGINES_SHORT.get(engine, engine)


def _is_unlimited(result: Result) -> bool:
    """Is it shown only, without a verdict?"""
    limits = [m.limit for m in result.measurements if m.limit is not None]
    return result.check in words.OPTIONAL and result.outcome is Outcome.PASS and not limits and result.waiver is None


def _now(result: Result, figure: Measurement | None, shown: Figures | None) -> str:
    if result.identical and (figure is None or figure.value == 0):
        return "identical"
    if figure is None or shown is None:
        return words.SAID.get(words.effective(result), NONE)
    interval = f" ({shown.interval})" if shown.interval and _needs_interval(result, figure) else ""
    if is_drop(figure) and shown.interval:  # better, worse or equal is a claim, and carries its interval
        interval = f" ({_sure(figure)})"
    basis = f" ({words.BASES[result.basis]})" if result.basis in words.BASES else ""
    metric = level(result)
    if is_drop(figure) and metric is not None:
        return f"{figures(metric).value}, {_worse(figure)}{interval}{basis}"
    return f"{_label(result, figure)}{shown.value}{interval}{basis}"


def _sure(drop: Measurement) -> str:
    """Write between what the true drop lies: 95 % sure of each end: −0.4 to 1.2 points."""
    first, last = (write(end, drop.unit, 2) for end in (drop.low or 0.0, drop.high or 0.0))
    unit = last.partition(" ")[2]
    first = first.removesuffix("s").removesuffix(f" {unit.removesuffix('s')}") if unit.startswith("point") else first
    sure = f"{write(drop.confidence, Unit.FRACTION)} sure of each end: " if drop.confidence else ""
    return f"{sure}{first} to {last}"


def _worse(drop: Measurement) -> str:
    """Say a drop in words: 0.3 points worse. A drop counts towards worse, whatever the metric's direction."""
    if drop.value == 0:
        return "no worse"
    return f"{write(abs(drop.value), drop.unit)} {'worse' if drop.value > 0 else 'better'}"


def _before(result: Result, figure: Measurement | None) -> str:
    """Return what it was: the baseline of the number, or of the metric whose drop it is."""
    number = level(result) if figure and is_drop(figure) else figure
    return figures(number).before if number else NONE


def _bound(result: Result, figure: Measurement | None) -> str:
    if figure is None or figure.limit is None:
        return NONE
    return f"{'drop ' if is_drop(figure) else ''}{figures(figure).bound}"


def _label(result: Result, m: Measurement) -> str:
    """Name a number unless the question has named it: `fidelity_error` of `fidelity` is an error."""
    name = title(m).removeprefix(result.check.value).strip()
    return f"{name} " if name and not is_size(m) else ""


def _needs_interval(result: Result, m: Measurement) -> bool:
    """The interval belongs above the fold only where the number alone would seem to contradict the mark."""
    contradicts = keeps(m) is not (result.outcome is Outcome.PASS)
    return m.limit is not None and (result.outcome is Outcome.INCONCLUSIVE or contradicts)


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
        next((r for r in candidate.results if words.effective(r) is outcome), None)
        if outcome is not Outcome.PASS
        else None
    )
    return Option(
        policy=candidate.policy,
        ships=candidate.role is Role.SHIP,
        summary=candidate.summary,
        size=write(bytes_, Unit.BYTES) if bytes_ is not None else NONE,
        bytes=bytes_,
        accuracy=_accuracy(candidate),
        outcome=outcome,
        mark=words.mark(outcome),
        why=words.sentence(worst.message) if worst else "",
    )


def _accuracy(candidate: Candidate) -> str:
    """Write how good a candidate is and, where it was compared, how much worse it is; either with its interval."""
    asked = [r for r in candidate.results if r.check is CheckName.ACCURACY and not r.slice]
    for result in asked:
        if (drop := next(filter(is_drop, result.measurements), None)) is not None:
            return _now(result, drop, figures(drop))
    figure = next((m for result in asked if (m := level(result))), None)
    sure = f" ({_sure(figure)})" if figure and figures(figure).interval else ""
    return f"{accuracy_value(candidate)}{sure}" or NONE
