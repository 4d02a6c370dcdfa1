# SPDX-License-Identifier: Apache-2.0
"""Which failures has the team accepted, by whom, and until when?

A waiver turns a failure into a pass that says so; it never turns a missing answer into one, and it ends by itself.
"""

from collections.abc import Iterable
from datetime import date

from gate.config import Waiver
from gate.errors import ConfigError
from gate.quantity import parse_level, parse_size
from gate.report import CheckName, Finding, Outcome, Result, Severity, Unit, WaiverNote

APP = "app"


def waive(result: Result, model: str, waivers: Iterable[Waiver], today: date) -> Result:
    """Return the result as it is, or as a pass under the first waiver that covers it."""
    if result.outcome is not Outcome.FAIL:
        return result
    for waiver in waivers:
        if (
            waiver.check is result.check
            and waiver.model == model
            and today <= waiver.expires
            and _covers(waiver, result)
        ):
            note = WaiverNote(reason=waiver.reason, owner=waiver.owner, expires=waiver.expires.isoformat())
            return result.model_copy(update={"outcome": Outcome.PASS, "waiver": note})
    return result


def _covers(waiver: Waiver, result: Result) -> bool:
    """Within the accepted value, and failing for the accepted rule alone."""
    blocking = {f.rule for f in result.findings if f.severity is Severity.ERROR}
    if waiver.rule is not None and blocking != {waiver.rule}:
        return False
    if waiver.limit is None:
        return True
    return bool(result.measurements) and result.measurements[0].value <= _limit(waiver, result.measurements[0].unit)


def _limit(waiver: Waiver, unit: Unit) -> float:
    try:
        return parse_size(waiver.limit) if unit is Unit.BYTES else parse_level(waiver.limit)
    except ValueError as error:
        raise ConfigError(f"waivers.yml: waiver of {waiver.check} for {waiver.model}: limit: {error}") from None


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


def unknown(waivers: Iterable[Waiver], models: Iterable[str]) -> None:
    """Refuse a waiver for a model entry that does not exist."""
    known = {*models, APP}
    for waiver in waivers:
        if waiver.model not in known:
            raise ConfigError(f"waivers.yml: model {waiver.model!r}: no such entry; known: {', '.join(sorted(known))}")
        if (waiver.model == APP) != (waiver.check is CheckName.APP_SIZE):
            raise ConfigError(
                f"waivers.yml: check {waiver.check} does not belong to model {waiver.model!r}; app_size belongs to app"
            )
