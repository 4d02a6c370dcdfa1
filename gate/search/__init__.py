# SPDX-License-Identifier: Apache-2.0
"""Which is the smallest candidate that meets every budget, and why did the rest fall?

A search looks at the search part of the data only. What it picks is an ordinary policy, which the checks then judge like any other,
once, on the confirmation part: whatever picks the best of many favours the lucky ones.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from gate.candidate import Candidate, read_package
from gate.checks.accuracy import load_metric
from gate.compress import raise_target
from gate.config import ModelEntry
from gate.data import Dataset
from gate.entry import SEARCH_SHARE, Trial
from gate.errors import ConfigError, UsageError
from gate.mil.program import load_program
from gate.policy import Policy, Precision, Target
from gate.quantity import parse_duration, parse_size
from gate.report import Role
from gate.search.find import Ask, Found, Progress, find
from gate.search.ground import Ground
from gate.search.options import AUTO, GROUPED, OPTIONS, carried, mixed_policy, write_policy
from gate.search.record import INTERRUPTED, MORE_TIME, SLICE, STOPPED, file_note, result
from gate.search.verify import Goal

__all__ = [
    "AUTO",
    "INTERRUPTED",
    "MORE_TIME",
    "SLICE",
    "STOPPED",
    "Ask",
    "Found",
    "ask",
    "file_note",
    "result",
    "search",
    "start_policy",
    "write_policy",
]


def ask(size: str, time: str, options: tuple[str, ...], tradeoff: bool) -> Ask:
    """Read what was asked for on the command line."""
    known = [option.name for option in (*OPTIONS, *GROUPED)]
    for name in options:
        if name not in known:
            raise UsageError(f"--option {name}: no such option; known: {', '.join(known)}")
    try:
        return Ask(parse_duration(time), parse_size(size) if size else None, options, tradeoff)
    except ValueError as error:
        raise UsageError(f"--{'time' if 'duration' in str(error) else 'size'}: {error}") from None


def search(trial: Trial, start: Policy, ask: Ask, progress: Progress = lambda text: None) -> Found:
    """Search for one model entry, beginning with what `start` says of precision."""
    ground, goal = prepare(trial, start, ask)
    found = find(ground, goal, ask, trial.target, start.precision, progress)
    if trial.splits != trial.entry.splits and ground.items.parts is None:
        found.unkept = f"{{seed: {trial.splits.seed}, search: {SEARCH_SHARE:.0%}, confirm: {trial.splits.confirm:.0%}}}"
    return found


def prepare(trial: Trial, start: Policy, ask: Ask) -> tuple[Ground, Goal]:
    """Gather what a search may look at, and what it is after."""
    if trial.search_items is None or trial.bench.dataset is None:
        raise UsageError(
            f"models.{trial.entry.name}.dataset: a search chooses by items; name a data set, best with labels"
        )
    before = trial.before(start)
    items = _shuffled(trial.search_items, trial.entry.splits.seed)
    bench = replace(trial.bench, dataset=items, _rows={}, _answers={})
    package = _modern(before, trial, ask)
    subject = trial.subject(Candidate(Role.SHIP, start, read_package(before)), None, before)
    metric = load_metric(subject, items)
    ground = Ground(
        package=package,
        package_bytes=read_package(package).bytes,
        layers=trial.conversion.layers,
        items=items,
        bench=bench,
        metric=metric,
        cache=trial.around.cache or trial.scratch / "entries",
        workers=trial.around.workers,
        reference=bench.reference_rows if bench.references is not None else None,
    )
    return ground, Goal.of(trial.entry.budgets.accuracy, metric, len(trial.bench.dataset))


def start_policy(entry: ModelEntry) -> Policy:
    """Return what stands for the policy until it is found: the entry's precision, and no steps."""
    if entry.dataset is None:
        raise ConfigError(
            f"models.{entry.name}: a search chooses by items; give it a dataset, best with labels and a metric"
        )
    precision = Precision.AS_IS if entry.source.kind in ("coreml", "converter") else Precision.FLOAT16
    return mixed_policy({}, precision)


def _shuffled(items: Dataset, seed: int) -> Dataset:
    return items.subset(np.random.default_rng(seed).permutation(len(items)))


def _modern(before: Path, trial: Trial, ask: Ask) -> Path:
    """Return the package in the opset that all options of the target can be stored in."""
    program = load_program(before)
    oldest = min(int(f.opset.removeprefix("CoreML")) for f in program.functions.values()) + 10
    options = carried((*OPTIONS, *GROUPED) if ask.options else OPTIONS, trial.target)
    wanted = [
        o.everywhere(Precision.FLOAT16).needed_target for o in options if not ask.options or o.name in ask.options
    ]
    need = max(wanted, key=lambda target: target.version, default=Target.IOS15)
    if need.version <= oldest:
        return before
    return raise_target(before, need, trial.scratch / "search.mlpackage")
