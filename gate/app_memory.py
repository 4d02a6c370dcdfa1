# SPDX-License-Identifier: Apache-2.0
"""Do the models that are resident at once fit into memory together? The app's row of `memory`.

Models marked `together: true` are loaded at the same time. Their weights and states add up in any case; whether their predictions
overlap only the app knows, so the range goes from the largest activations alone to the sum of all. Judged on reports alone, as
`app_size`, so that `gate merge` can do it where no engine is installed.
"""

from collections.abc import Iterable, Iterator, Mapping

from gate.config import Config, ModelEntry
from gate.devices import find
from gate.quantity import size
from gate.report import Basis, CheckName, Measurement, Model, Outcome, Result, Unit

METHOD = "sum of weights and states; activations of the largest alone, or of all at once"
Ends = tuple[float, float]


def judge_together(config: Config, models: Iterable[Model]) -> Iterator[Result]:
    """Yield one result where models are said to be resident at once."""
    by_name = {model.name: model for model in models}
    entries = [e for e in config.models if e.budgets.memory is not None and e.budgets.memory.together]
    if len(entries) < 2:
        return
    limit = min((bound for e in entries if (bound := allowed(e, config)) is not None), default=None)
    needs = {e.name: _need(by_name.get(e.name)) for e in entries}
    unknown = [name for name, need in needs.items() if need is None]
    if unknown:
        why = f"The memory of {', '.join(unknown)} is not known, and so the sum is not."
        remedy = f"see why {unknown[0]} has no answer about memory; the sum follows from it"
        required = limit is not None
        yield Result(check=CheckName.MEMORY, outcome=Outcome.NOT_RUN, required=required, message=why, remedy=remedy)
        return
    yield judge({name: need for name, need in needs.items() if need}, limit)


def allowed(entry: ModelEntry, config: Config) -> int | None:
    """Return the bytes that an entry's budget allows: a limit, or a share of the smallest device's RAM."""
    budget = entry.budgets.memory
    if budget is None or budget.share is None:
        return budget.limit if budget else None
    assert config.app.minimum_device is not None  # refused before any work
    return int(budget.share * find(config.app.minimum_device, "app.minimum_device").ram)


Need = Mapping[str, Ends]  # of activations, weights and states: at least, at most


def _need(model: Model | None) -> Need | None:
    result = next((r for r in model.shipped.results if r.check is CheckName.MEMORY), None) if model else None
    found = {m.name: (m.value if m.low is None else m.low, m.value) for m in result.measurements} if result else {}
    names = {"activations": "activation_bytes", "weights": "weight_bytes", "states": "state_bytes"}
    return {part: found[name] for part, name in names.items()} if {*names.values()} <= found.keys() else None


def judge(needs: Mapping[str, Need], limit: int | None) -> Result:
    """Compare the sum with the smallest of the limits. States are part of the activations."""
    held = [need["weights"] for need in needs.values()]
    alive = [need["activations"] for need in needs.values()]
    kept = sum(need["states"][0] for need in needs.values())
    apart = [low - need["states"][0] for need in needs.values() for low in need["activations"][:1]]
    low = sum(one for one, _ in held) + kept + max(apart, default=0)
    high = sum(most for _, most in (*held, *alive))
    outcome = _outcome(low, high, limit)
    told = f"{', '.join(needs)} need {size(int(low))} to {size(int(high))} together, as estimated"
    return Result(
        check=CheckName.MEMORY,
        outcome=outcome,
        basis=Basis.ESTIMATED,
        measurements=(
            Measurement(
                name="together_bytes", value=high, unit=Unit.BYTES, limit=limit, low=low, high=high, method=METHOD
            ),
        ),
        message=f"{told}; {'no limit is set' if limit is None else f'the limit is {size(limit)}'}.",
        remedy=None if outcome is Outcome.PASS else "load a model only while it is needed, or compress the largest",
    )


def _outcome(low: float, high: float, limit: int | None) -> Outcome:
    if limit is None or high <= limit:
        return Outcome.PASS
    return Outcome.INCONCLUSIVE if low <= limit else Outcome.FAIL
