# SPDX-License-Identifier: Apache-2.0
"""`app_size`: are the shipped packages of all models small enough together?

The sum over the shipped candidate of every model entry. Entries that have no package make the sum unknown, which is no pass
where a total is set. Judged on reports alone, so that `gate merge` can do it where no engine is installed.
"""

from collections.abc import Iterable
from datetime import date

from gate import waivers
from gate.app_memory import judge_together
from gate.config import AppSizeBudget, Config, Waiver
from gate.growth import allowed, ungrown
from gate.quantity import size, sizes
from gate.report import App, CheckName, Measurement, Model, Outcome, Result, Unit


def judge_app(config: Config, models: Iterable[Model], before: int | None, accepted: tuple[Waiver, ...]) -> App:
    """Sum the shipped packages. A run over some of the entries says nothing about the app."""
    by_name = {model.name: model for model in models}
    if any(entry.name not in by_name for entry in config.models):
        return unjudged("Only some of the app's models were judged.")
    sizes = {name: sum(f.bytes for f in m.shipped.files) if m.shipped.files else None for name, m in by_name.items()}
    found = (judge(sizes, config.app.budgets.app_size, before), *judge_together(config, by_name.values()))
    return App(results=tuple(waivers.waive(result, waivers.APP, accepted, date.today()) for result in found))


def unjudged(why: str) -> App:
    """Say why this run has no answer about the app, and need none."""
    return App(results=(Result(check=CheckName.APP_SIZE, outcome=Outcome.NOT_RUN, message=why),))


def judge(package_bytes: dict[str, int | None], budget: AppSizeBudget, baseline: int | None = None) -> Result:
    """Compare the sum with the total and with the growth over the baseline."""
    missing = [name for name, count in package_bytes.items() if count is None]
    grown = allowed(baseline, budget.growth)
    limits = [limit for limit in (budget.total, grown) if limit is not None]
    if missing:
        message = f"The total is unknown: no package of {', '.join(missing)}."
        remedy = f"see why {missing[0]} has no package; the total follows from it"
        return Result(
            check=CheckName.APP_SIZE, outcome=Outcome.NOT_RUN, required=bool(limits), message=message, remedy=remedy
        )
    total = sum(count for count in package_bytes.values() if count is not None)
    limit = min(limits, default=None)
    over = limit is not None and not total <= limit
    measurement = Measurement(name="app_bytes", value=total, unit=Unit.BYTES, limit=limit, baseline=baseline)
    return Result(
        check=CheckName.APP_SIZE,
        outcome=Outcome.FAIL if over else Outcome.PASS,
        measurements=(measurement,),
        findings=ungrown(CheckName.APP_SIZE, budget.growth, baseline),
        message=f"The shipped models take {_told(total, limit, grew=grown is not None and limit == grown)}.",
        remedy="ship a smaller policy for the largest model, or raise app.budgets.app_size" if over else None,
    )


def _told(total: int, limit: float | None, *, grew: bool) -> str:
    if limit is None:
        return f"{size(total)} together; no limit is set"
    found, most = sizes(total, limit)
    return f"{found} together; {'the growth over the baseline allows' if grew else 'the limit is'} {most}"
