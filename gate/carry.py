# SPDX-License-Identifier: Apache-2.0
"""What stands in a report for model entries that were not judged again?

Their last result, marked with its day and commit, so that nobody takes it for new, and with its packages where the baseline brings
them. The app's total then is about the whole app although one model ran.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from gate.baseline import Baseline
from gate.config import Config
from gate.errors import UsageError
from gate.report import Model


def carried(config: Config, names: Sequence[str], baseline: Baseline | None) -> tuple[Model, ...]:
    """Return the last results of the named entries; one that the baseline does not know has none."""
    known = {entry.name for entry in config.models}
    for name in names:
        if name not in known:
            raise UsageError(f"--carry {name}: no such entry; known: {', '.join(sorted(known))}")
    found = baseline.report.models if baseline else ()
    return tuple(_marked(model, baseline) for model in found if model.name in names and baseline is not None)


def _marked(model: Model, baseline: Baseline) -> Model:
    run = baseline.report.run
    commit = f" ({run.commit[:12]})" if run.commit else ""
    return model.model_copy(update={"carried": model.carried or f"{run.started[:10] or 'an earlier run'}{commit}"})


def in_order(config: Config, models: Sequence[Model], contents: Mapping[str, str]) -> tuple[Model, ...]:
    """Put models in the order of the configuration, each with the digest of what it rests on; others come last."""
    order = {entry.name: number for number, entry in enumerate(config.models)}
    marked = (m.model_copy(update={"content_digest": contents.get(m.name, m.content_digest)}) for m in models)
    return tuple(sorted(marked, key=lambda model: order.get(model.name, len(order))))


def copy_files(models: Sequence[Model], baseline: Baseline, out: Path) -> None:
    """Bring the packages and per-item values of carried entries along: the next report may be compared with this one."""
    for model in models:
        for part in (f"packages/{model.name}", f"per_item/{model.name}"):
            source = baseline.folder / part
            if source.is_dir() and not source.is_symlink() and not (out / part).exists():
                shutil.copytree(source, out / part, symlinks=True)
