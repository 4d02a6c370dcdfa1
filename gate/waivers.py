# SPDX-License-Identifier: Apache-2.0
"""Which failures has the team accepted, by whom, and until when?

A waiver turns a failure into a pass that says so, and a warning of its rule into a note; it never turns a missing answer into a pass, and it
ends by itself.
"""

from collections.abc import Iterable, Sequence
from datetime import date

from gate.config import Waiver
from gate.errors import ConfigError
from gate.quantity import parse_decibel, parse_drop, parse_level, parse_size
from gate.report import Bound, CheckName, Finding, Outcome, Result, Severity, Unit, WaiverNote

APP = "app"
OF_APP = (CheckName.APP_SIZE, CheckName.MEMORY)


def waive(result: Result, model: str, waivers: Iterable[Waiver], today: date) -> Result:
    """Return the result with its accepted warnings as notes; as a pass, where the first waiver that covers a failure makes it one."""
    valid = _valid(waivers, result.check, model, today)
    told = result.model_copy(update={"findings": tuple(_noted(finding, valid) for finding in result.findings)})
    if result.outcome is not Outcome.FAIL:
        return told
    for waiver in valid:
        if _covers(waiver, result):
            note = WaiverNote(reason=waiver.reason, owner=waiver.owner, expires=waiver.expires.isoformat())
            return told.model_copy(update={"outcome": Outcome.PASS, "waiver": note})
    return told


def accepts_a_value(waivers: Iterable[Waiver], check: CheckName, model: str, today: date) -> bool:
    """May a failure be accepted for the value that was found? Then that must not be the value of a part."""
    return any(waiver.limit is not None for waiver in _valid(waivers, check, model, today))


def _valid(waivers: Iterable[Waiver], check: CheckName, model: str, today: date) -> list[Waiver]:
    return [w for w in waivers if w.check is check and w.model == model and today <= w.expires]


def _noted(finding: Finding, valid: Sequence[Waiver]) -> Finding:
    """A warning of an accepted rule is a note that says who accepted it."""
    if finding.severity is not Severity.WARNING:
        return finding
    accepted = next((w for w in valid if w.rule == finding.rule and w.limit is None), None)
    if accepted is None:
        return finding
    advice = f"accepted by {accepted.owner} until {accepted.expires}: {accepted.reason}"
    return finding.model_copy(update={"severity": Severity.INFO, "advice": advice[:4_000]})


def _covers(waiver: Waiver, result: Result) -> bool:
    """On the accepted side of the accepted value, and failing for the accepted rule alone."""
    blocking = {f.rule for f in result.findings if f.severity is Severity.ERROR}
    if waiver.rule is not None and blocking != {waiver.rule}:
        return False
    if waiver.limit is None:
        return True
    first = next(iter(result.measurements), None)
    if first is None:
        return False
    accepted = _limit(waiver, first.unit)
    return first.value >= accepted if first.bound is Bound.AT_LEAST else first.value <= accepted


def _limit(waiver: Waiver, unit: Unit) -> float:
    """Read the accepted value in the unit of what was measured."""
    try:
        match unit:
            case Unit.BYTES:
                return parse_size(waiver.limit)
            case Unit.DECIBEL:
                return parse_decibel(waiver.limit)
            case Unit.POINTS:
                return parse_drop(waiver.limit).value
            case _:
                return parse_level(_as_number(waiver.limit))
    except ValueError as error:
        raise _bad_limit(waiver, str(error)) from None


def _as_number(text: str | None) -> str | float | None:
    try:
        return float(text or "")
    except ValueError:
        return text


def _bad_limit(waiver: Waiver, why: str, where: str = "waivers.yml") -> ConfigError:
    return ConfigError(f"{where}: waiver of {waiver.check} for {waiver.model}: limit: {why}")


def _is_a_quantity(text: str) -> bool:
    for parse in (parse_size, parse_decibel, parse_drop, parse_level):
        try:
            parse(text)
        except ValueError:
            continue
        return True
    return False


def expired(waivers: Iterable[Waiver], today: date) -> tuple[Finding, ...]:
    """Name the waivers that have ended."""
    return tuple(
        Finding(
            rule="waiver.expired",
            severity=Severity.WARNING,
            message=f"The waiver of {w.check} for {w.model} by {w.owner} ended on {w.expires}.",
            advice="remove it, or renew it with a reason",
        )
        for w in waivers
        if w.expires < today
    )


def refuse_impossible(waivers: Iterable[Waiver], models: Iterable[str], where: str = "waivers.yml") -> None:
    """Refuse a waiver for a model entry that does not exist, or with a limit that is no quantity; `where` is their file."""
    known = {*models, APP}
    for waiver in waivers:
        if waiver.model not in known:
            raise ConfigError(f"{where}: model {waiver.model!r}: no such entry; known: {', '.join(sorted(known))}")
        if waiver.check not in OF_APP if waiver.model == APP else waiver.check is CheckName.APP_SIZE:
            raise ConfigError(
                f"{where}: check {waiver.check} does not belong to model {waiver.model!r}; app_size belongs to app, "
                "and so does memory of models that are loaded together"
            )
        if waiver.limit is not None and not _is_a_quantity(waiver.limit):
            raise _bad_limit(
                waiver, f"found {waiver.limit!r}, expected a quantity such as 7 MB, 2 %, 2 points or 30 dB", where
            )
