# SPDX-License-Identifier: Apache-2.0
"""How much does a model bear? Size against loss, with every weight treated alike, from 8 bits to 1 and from 10 % to 90 % zeros.

Two marks, as Apple shows them (WWDC23, session 10047): where artefacts begin, and where it breaks. They are properties of these
items and rules about them, not estimates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gate.policy import Policy, Target
from gate.quantity import percent, points, size
from gate.search.ground import Ground
from gate.search.options import BITS, LEAVE, SPARSITIES, Option, carried
from gate.search.sensitivity import distance
from gate.search.verify import Goal

ARTEFACTS = 0.05  # relative distance of the outputs; the same from which `accuracy` notes a disagreement
BREAKS = 0.5  # of the outputs' size, where no drop is allowed for: half of every answer is something else; a judgement
MOST_ITEMS = 128


@dataclass(frozen=True)
class Setting:
    """One point of a curve: every weight under one option."""

    option: str
    position: float  # bits, or the part that is zero
    bytes: int
    distance: float
    drop: float


@dataclass(frozen=True)
class Curve:
    """One kind of compression, mildest first."""

    name: str
    pruned: bool
    settings: tuple[Setting, ...]
    allowed: float | None  # drop

    @property
    def artefacts(self) -> Setting | None:
        """Where artefacts begin: the mildest setting whose outputs visibly differ, or that loses anything beyond a quarter of the limit."""
        quarter = None if self.allowed is None else self.allowed / 4
        return next((s for s in self.settings if s.distance > ARTEFACTS or _over(s.drop, quarter)), None)

    @property
    def breaks(self) -> Setting | None:
        """Where it breaks: the mildest setting from which on all lose more than is allowed."""
        broken: Setting | None = None
        for setting in reversed(self.settings):
            if not (_over(setting.drop, self.allowed) if self.allowed is not None else setting.distance > BREAKS):
                break
            broken = setting
        return broken

    @property
    def recommended(self) -> Setting | None:
        """The smallest setting before it breaks."""
        broken = self.breaks
        kept = self.settings if broken is None else self.settings[: self.settings.index(broken)]
        return min(kept, key=lambda s: s.bytes, default=None)

    def marks(self) -> tuple[str, ...]:
        """Name both marks and the recommended point, in a sentence each."""
        begin, broken, best = self.artefacts, self.breaks, self.recommended
        said = [
            f"{self.name}: artefacts begin at {begin.option} (outputs {percent(begin.distance)} away)"
            if begin
            else f"{self.name}: no artefacts at any setting",
            f"{self.name}: it breaks at {broken.option}" if broken else f"{self.name}: it breaks at no setting",
        ]
        if best:
            note = "; smaller, not faster" if self.pruned else ""
            why = f"the smallest before {broken.option}, where it breaks" if broken else "the smallest of all settings"
            said.append(f"{self.name}: recommended is {best.option}, {size(best.bytes)}: {why}{note}")
        return tuple(said)


def _over(drop: float, limit: float | None) -> bool:
    return limit is not None and drop > limit


def curves(
    ground: Ground, goal: Goal, policy: Callable[[Option], Policy], target: Target, go_on: Callable[[], bool]
) -> tuple[Curve, ...]:
    """Measure both curves on some of the search items while `go_on` says so."""
    allowed = float(goal.margin) if goal.budget.drop else None
    found = []
    for name, pruned, options in (
        ("bits", False, carried(BITS, target)),
        ("sparsity", True, carried(SPARSITIES, target)),
    ):
        settings = list(_settings(ground, policy, options, go_on))
        found.append(Curve(name, pruned, tuple(settings), allowed))
    return tuple(found)


def _settings(
    ground: Ground, policy: Callable[[Option], Policy], options: Sequence[Option], go_on: Callable[[], bool]
) -> list[Setting]:
    count = min(MOST_ITEMS, len(ground.items))
    batch = ground.items.batch(np.arange(count))
    exact = ground.predictor({}, "trade-off")(batch)
    labels = batch.labels if batch.labels is not None and not ground.metric.needs_reference else None
    labels = ground.metric.answer(ground.yardstick(batch)) if labels is None else labels
    sign = 1.0 if ground.metric.higher_is_better else -1.0
    before = ground.metric.total(ground.metric.per_item(exact, labels))
    settings: list[Setting] = []
    for option in options:
        if not go_on():
            break
        if not any(option.name in place.forms for place in ground.places.values()):
            ground.add(option, policy(option))
        everywhere = {name: option.name if option.name in p.forms else LEAVE for name, p in ground.places.items()}
        outputs = ground.predictor(everywhere, "trade-off")(batch)
        drop = sign * (before - ground.metric.total(np.nan_to_num(ground.metric.per_item(outputs, labels))))
        settings.append(
            Setting(option.name, _position(option), ground.bytes(everywhere), distance(exact, outputs), drop)
        )
    return settings


def _position(option: Option) -> float:
    if option.is_pruned:
        return float(str(option.steps["prune"]["sparsity"]).removesuffix("%")) / 100
    return float(option.steps["palettize"]["bits"])


def words(drop: float, proportion: bool) -> str:
    """Write a drop."""
    return points(drop) if proportion else f"{drop:.3g}"
