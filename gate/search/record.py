# SPDX-License-Identifier: Apache-2.0
"""What does the report say of a search? One result about the search part of the data, without a verdict of its own.

The verdict is that of the checks on the policy that was found; here is how it was found, what else was tried, and why that fell.
"""

from collections.abc import Iterator

from gate.quantity import percent, points, size
from gate.report import CheckName, Environment, Finding, Measurement, Outcome, Result, Series, Severity, Unit
from gate.search.find import Found
from gate.search.options import LEAVE
from gate.search.sensitivity import Effect
from gate.search.tradeoff import Curve
from gate.search.verify import Verdict, drop_unit

SLICE = "search"
INTERRUPTED = "search.interrupted"
STOPPED = "search.stopped"
MORE_TIME = "give the search more time: --time of gate search, or limits.time where gate.yml says ship: auto"
MOST_FALLEN = 30  # that are told one by one


def result(found: Found, environment: Environment) -> Result:
    """Tell what was found, on which evidence, and what it cost."""
    return Result(
        check=CheckName.ACCURACY,
        outcome=Outcome.PASS,
        environment=environment,
        slice=SLICE,
        measurements=tuple(_measurements(found)),
        series=(*_sensitivities(found), *_front(found), *_tradeoffs(found)),
        message=_message(found),
        findings=tuple(_findings(found)),
    )


def _message(found: Found) -> str:
    tried = f"{len(found.tried):,} assignments were verified on the search items"
    evaluated = f"{sum(found.spent.values()):,} samples were evaluated"
    if found.best is None:
        return f"The search found nothing smaller that passes: {tried}, {evaluated}."
    return f"The search found {found.policy.summary.removeprefix('mixed: ')}: {tried}, {evaluated}."


def _measurements(found: Found) -> Iterator[Measurement]:
    spent = found.spent
    yield Measurement(
        name="evaluated_samples",
        value=sum(spent.values()),
        unit=Unit.COUNT,
        method=", ".join(f"{purpose} {count:,}" for purpose, count in spent.items()),
    )
    yield Measurement(name="verified_assignments", value=len(found.tried), unit=Unit.COUNT)
    if found.best is not None and found.goal is not None:
        unit = drop_unit(found.goal.metric)
        what = "on the search items, from which it was chosen: no certificate"
        yield Measurement(name="search_drop", value=found.best.drop, unit=unit, n=found.best.items, method=what)


# --- curves ------------------------------------------------------------------------------------------------------------


def _sensitivities(found: Found) -> Iterator[Series]:
    """Yield for each option what it does to the outputs, and to the metric, weight by weight."""
    if found.goal is None:
        return
    unit = drop_unit(found.goal.metric)
    for option in _mildest_first(found):
        effects = [effect for effect in found.effects if effect.option == option]
        labels = tuple(_label(found, effect) for effect in effects)
        distances = tuple(effect.distance for effect in effects)
        drops = tuple(effect.drop for effect in effects)
        yield Series(name=f"sensitivity of the outputs · {option}", x=labels, y=distances, unit=Unit.FRACTION)
        yield Series(name=f"sensitivity of the metric · {option}", x=labels, y=drops, unit=unit)


def _mildest_first(found: Found) -> list[str]:
    """Order the options by what they do on average."""
    losses: dict[str, list[float]] = {}
    for effect in found.effects:
        losses.setdefault(effect.option, []).append(effect.loss)
    return sorted(losses, key=lambda option: sum(losses[option]) / len(losses[option]))


def _label(found: Found, effect: Effect) -> str:
    label = found.labels.get(effect.weight, effect.weight)
    taken = [name for name, other in found.labels.items() if other == label]
    return label if len(taken) == 1 else f"{label} ({effect.weight})"


def _front(found: Found) -> Iterator[Series]:
    if found.front and found.goal is not None:
        yield _against_size("Pareto front", [(v.bytes, v.drop) for v in found.front], drop_unit(found.goal.metric))


def _against_size(name: str, pairs: list[tuple[int, float]], unit: Unit) -> Series:
    ordered = sorted(pairs)
    return Series(
        name=name,
        x=tuple(float(bytes_) for bytes_, _ in ordered),
        y=tuple(y for _, y in ordered),
        unit=unit,
        x_name="size of the package",
        x_unit=Unit.BYTES,
    )


def _tradeoffs(found: Found) -> Iterator[Series]:
    for curve in found.curves:
        if not curve.settings or found.goal is None:
            continue
        unit = drop_unit(found.goal.metric)
        name = _curve_name(curve)
        yield _against_size(f"trade-off · {name}", [(s.bytes, s.drop) for s in curve.settings], unit)
        outputs = [(s.bytes, s.distance) for s in curve.settings]
        yield _against_size(f"trade-off of the outputs · {name}", outputs, Unit.FRACTION)
        marks = {"artefacts begin": curve.artefacts, "it breaks": curve.breaks, "recommended": curve.recommended}
        for mark, setting in marks.items():
            if setting is not None:
                pair = [(setting.bytes, setting.drop)]
                yield _against_size(f"trade-off · {name} · {mark}: {setting.option}", pair, unit)


def _curve_name(curve: Curve) -> str:
    return f"{curve.name} (smaller, not faster)" if curve.pruned else curve.name


# --- findings ----------------------------------------------------------------------------------------------------------


def _findings(found: Found) -> Iterator[Finding]:
    if found.stopped:
        rule = INTERRUPTED if found.interrupted else STOPPED
        said = f"the search was stopped: {found.stopped}; this is the best so far"
        yield _note(rule, said, Severity.WARNING, "" if found.interrupted else MORE_TIME)
    if found.goal is not None:
        yield from _about_the_goal(found)
    if found.unkept:
        said = (
            "gate.yml keeps no items for a search: with the policy committed, those that chose it would also judge it"
        )
        yield _note("search.splits", said, Severity.WARNING, f"add `splits: {found.unkept}` to the model entry")
    for note in found.notes:
        yield _note("search.limits", note)
    for curve in found.curves:
        for mark in curve.marks():
            yield _note("search.tradeoff", mark)
    for verdict in found.fallen[:MOST_FALLEN]:
        yield _note("search.fell", f"{_words(found, verdict)} fell: {verdict.why}")
    if len(found.fallen) > MOST_FALLEN:
        yield _note("search.fell", f"{len(found.fallen) - MOST_FALLEN} more fell")


def _about_the_goal(found: Found) -> Iterator[Finding]:
    goal = found.goal
    assert goal is not None
    if goal.is_default:
        said = f"budgets.accuracy.drop is not set; the search held candidates to {goal.budget.drop}"
        yield _note("search.default_drop", said, Severity.WARNING, "set budgets.accuracy.drop")
    if not goal.is_provable:
        said = f"{goal.confirm_items:,} items cannot prove a drop of less than {points(float(goal.margin))}"
        advice = "evaluate more items, or allow more; half of the limit was sought instead"
        yield _note("search.unprovable", said, Severity.WARNING, advice)
    if found.best is None and not found.stopped:
        yield _nothing_passed(found)


def _nothing_passed(found: Found) -> Finding:
    """Say that nothing is compressed; of the uncompressed one, what was seen, since that is not lost by compression."""
    whole = next((v for v in found.tried if set(v.assignment.values()) <= {LEAVE}), None)
    seen = f", not even the uncompressed one ({whole.why})" if whole else ""
    said = f"no assignment passed on the search items{seen}; nothing is compressed"
    advice = "keep more items for the search, or allow a larger drop"
    if whole:
        advice = f"see accuracy for what the conversion itself loses; {advice}"
    return _note("search.nothing", said, Severity.WARNING, advice)


def _words(found: Found, verdict: Verdict) -> str:
    """Tell an assignment by what it differs in from the best."""
    best = found.best.assignment if found.best else {}
    differing = [
        f"{found.labels.get(name, name)} as {option}"
        for name, option in verdict.assignment.items()
        if option != best.get(name)
    ]
    shown = ", ".join(differing[:3]) + (f" and {len(differing) - 3} more" if len(differing) > 3 else "")
    return f"{size(verdict.bytes)} ({shown or 'the same'})"


def _note(rule: str, message: str, severity: Severity = Severity.INFO, advice: str = "") -> Finding:
    return Finding(rule=rule, severity=severity, message=message[:4_000], advice=advice)


def file_note(found: Found, command: str) -> str:
    """Say at the head of the policy file where it comes from."""
    loss = f"{percent(found.best.loss)} of the metric" if found.best else "nothing"
    return (
        f"Found by `{command}`: an ordinary policy, to be committed; name its path as `ship:` in gate.yml.\n"
        f"{len(found.tried)} assignments verified, {sum(found.spent.values()):,} samples evaluated, {loss} lost on the search items."
    )
