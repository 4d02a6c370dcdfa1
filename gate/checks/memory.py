# SPDX-License-Identifier: Apache-2.0
"""`memory`: does the model fit into the memory that a phone gives an app?

The peak of a prediction is estimated from the program, as a range (see `gate.memory`). A limit above the range passes, one below it
fails; a limit inside it is inconclusive, since only a device can say how the runtime shares buffers and expands weights.
"""

from gate.checks.base import Check, Subject, not_run
from gate.config import Config, MemoryBudget, ModelEntry
from gate.devices import Device, find, table
from gate.errors import ConfigError
from gate.memory import Estimate, Range, estimate
from gate.mil import MilError
from gate.mil.program import load_program
from gate.quantity import percent, size, sizes
from gate.report import Basis, CheckName, Finding, Measurement, Outcome, Result, Series, Severity, Unit

MOST_POINTS = 400  # of the curve; more cannot be told apart on a page
METHOD = "liveness in the declared types; weights as stored or expanded"


def refuse_impossible(config: Config) -> None:
    """Raise ConfigError for an unknown device, or a share of a device that is not named."""
    if config.app.minimum_device is not None:
        find(config.app.minimum_device, "app.minimum_device")
    for entry in config.models:
        if entry.budgets.memory and entry.budgets.memory.share is not None and config.app.minimum_device is None:
            raise ConfigError(
                f"models.{entry.name}.budgets.memory.share: found no app.minimum_device, expected one such as iphone-12; "
                "name the device whose memory this is a share of, or set limit instead"
            )


def measure(subject: Subject) -> Estimate:
    """Estimate the candidate under the entry's deployment target."""
    ios = subject.config.target(subject.entry).version
    return estimate(load_program(subject.candidate.package.path), ios)


def judge(found: Estimate, budget: MemoryBudget | None, device: Device | None, *, entitled: bool = False) -> Result:
    """Compare the range with the limit; without one it is shown only."""
    limit = _limit(budget, device)
    outcome = _outcome(found.total, limit)
    return Result(
        check=CheckName.MEMORY,
        outcome=outcome,
        basis=Basis.ESTIMATED,
        measurements=_measurements(found, limit),
        series=_series(found),
        message=_message(found.total, limit, outcome),
        remedy=_remedy(found, outcome),
        findings=(*_app_limit(found.total, device, entitled), *_notes(found)),
    )


def _limit(budget: MemoryBudget | None, device: Device | None) -> int | None:
    if budget is None:
        return None
    if budget.share is not None and device is not None:
        return int(budget.share * device.ram)
    return budget.limit


def _outcome(need: Range, limit: int | None) -> Outcome:
    if limit is None or need.high <= limit:
        return Outcome.PASS
    return Outcome.INCONCLUSIVE if need.low <= limit else Outcome.FAIL


def _message(need: Range, limit: int | None, outcome: Outcome) -> str:
    if limit is None:
        return f"A prediction needs {_range(need)} at its peak, as estimated; no limit is set."
    match outcome:
        case Outcome.PASS:
            return f"A prediction needs {_range(need)} at its peak, as estimated; the limit is {size(limit)}."
        case Outcome.FAIL:
            low, most = sizes(need.low, limit)
            return f"A prediction needs at least {low} at its peak, as estimated; the limit is {most}."
        case _:
            return f"The limit of {size(limit)} lies inside the estimate, {_range(need)}: only a device can decide."


def _range(need: Range) -> str:
    low, high = size(need.low), size(need.high)
    return low if low == high else f"{low} to {high}"


def _remedy(found: Estimate, outcome: Outcome) -> str | None:
    if outcome is Outcome.PASS:
        return None
    if found.weights.high > found.activations.high:
        return (
            "compress the weights; below iOS17 they are expanded at load, so raise deployment_target or shrink layers"
        )
    return f"shrink what is alive around {found.peak_op}: smaller inputs, earlier strides, fewer channels"


def _measurements(found: Estimate, limit: int | None) -> tuple[Measurement, ...]:
    parts = {"activation_bytes": found.activations, "weight_bytes": found.weights}
    return (
        Measurement(
            name="peak_bytes",
            value=found.total.high,
            unit=Unit.BYTES,
            limit=limit,
            low=found.total.low,
            high=found.total.high,
            method=METHOD,
        ),
        *(
            Measurement(name=name, value=part.high, unit=Unit.BYTES, low=part.low, high=part.high)
            for name, part in parts.items()
        ),
        Measurement(name="state_bytes", value=found.states, unit=Unit.BYTES),
    )


def _series(found: Estimate) -> tuple[Series, ...]:
    """Draw the upper end along the program; of many ops the worst of each stretch."""
    step = -(-len(found.alive) // MOST_POINTS) or 1
    stretches = [found.alive[i : i + step] for i in range(0, len(found.alive), step)]
    if not stretches or not found.ops:
        return ()
    x = tuple(float(i * step) for i in range(len(stretches)))
    y = tuple(float(max(r.high for r in stretch)) for stretch in stretches)
    return (Series(name="memory", x=x, y=y, unit=Unit.BYTES, x_name="op", x_unit=Unit.COUNT),)


def _app_limit(need: Range, device: Device | None, entitled: bool) -> tuple[Finding, ...]:
    """Warn where the model alone takes all that the phone gives an app."""
    if device is None or need.high <= (allowed := table().app_bytes(device, entitled=entitled)):
        return ()
    having = ", with the entitlement," if entitled else ""
    message = f"{device.name} gives an app{having} about {size(allowed)}; the model needs up to {size(need.high)} of it"
    source = (
        device.source or f"rule of thumb: {percent(table().entitled_share if entitled else table().app_share)} of RAM"
    )
    return (
        Finding(
            rule="memory.app_limit",
            severity=Severity.WARNING,
            message=message,
            advice="ship a smaller model to this phone, or none" if entitled else _with_entitlement(device),
            evidence=source,
        ),
    )


def _with_entitlement(device: Device) -> str:
    more = table().app_bytes(device, entitled=True)
    return f"with the entitlement {table().entitlement} it is about {size(more)}: say app.increased_memory_limit"


def _notes(found: Estimate) -> tuple[Finding, ...]:
    return tuple(Finding(rule="memory.assumed", severity=Severity.INFO, message=note) for note in found.notes)


def _device(config: Config) -> Device | None:
    name = config.app.minimum_device
    return find(name, "app.minimum_device") if name is not None else None


def _answer(subject: Subject) -> tuple[Result, ...]:
    return (_judged(subject, subject.entry),)


def _judged(subject: Subject, entry: ModelEntry) -> Result:
    try:
        found = measure(subject)
    except MilError as error:
        asked = entry.budgets.memory is not None
        return not_run(CheckName.MEMORY, f"Memory cannot be estimated: {error}"[:4_000], required=asked)
    entitled = subject.config.app.increased_memory_limit
    return judge(found, entry.budgets.memory, _device(subject.config), entitled=entitled)


CHECK = Check(CheckName.MEMORY, "Does it fit into memory?", _answer)
