# SPDX-License-Identifier: Apache-2.0
"""What was there before: which earlier reports are compared with, and which model entries need no new answer?

Fetched with the token, in the step that runs nothing of the pull request; the evaluation sees the files, read-only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gate import contents, github, history
from gate.action.inputs import Inputs
from gate.action.runner import Surroundings, command, say
from gate.baseline import load_baseline
from gate.config import Config
from gate.report import Report

BASE, RELEASE = "base", "release"
FOLDER = "baseline"
MATRIX = "plan.json"  # what `gate plan` printed, beside the earlier reports


@dataclass(frozen=True)
class Before:
    """What the change starts from."""

    fetched: tuple[str, ...] = ()  # `base`, `release`
    contents: Mapping[str, str] | None = None
    base: Report | None = None

    def needed(self, concerned: tuple[str, ...]) -> tuple[str, ...]:
        """Of the entries that a change touches, those whose content differs from what base's report judged."""
        same = contents.unchanged(self.contents or {}, self.base)
        return tuple(name for name in concerned if name not in same)

    def carried(self, names: list[str], judged: tuple[str, ...]) -> tuple[str, ...]:
        """The other entries, where base's report has an answer about them."""
        known = {model.name for model in self.base.models} if self.base else set()
        return tuple(name for name in names if name in known and name not in judged)


def look(inputs: Inputs, around: Surroundings, event: github.Event, config: Config, file: Path, work: Path) -> Before:
    """Fetch what there is. What cannot be had is said, and is no failure."""
    now = contents.digests(config, file, around.workspace)
    if not around.token:
        return Before(contents=now)
    fork = event.pull_request is not None and event.pull_request.from_fork
    seeker = history.Seeker(around.client(), event.repository, around.workflow, packages=not fork)
    base, said = history.sought("baseline", lambda: seeker.base(event, work / FOLDER / BASE, inputs.baseline))
    say(command("notice", said))
    fetched = [BASE] if base else []
    if any("release" in entry.budgets.accuracy.against for entry in config.models if entry.budgets.accuracy):
        release, said = history.sought("release", lambda: seeker.release(work / FOLDER / RELEASE))
        say(command("notice", said))
        fetched += [RELEASE] if release else []
    usable = load_baseline(base.file)[0] if base else None
    return Before(tuple(fetched), now, usable.report if usable else None)
