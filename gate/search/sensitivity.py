# SPDX-License-Identifier: Apache-2.0
"""What does each option of each weight do to the outputs and to the metric, everything else being left as it is?

One weight is exchanged in the evaluator and only what comes after it is computed again. The loss of an option is the squared
distance of the outputs from those of the uncompressed package, as a part of their own square: unlike flips it does not need many
items, and to second order such losses add up over weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gate.engine import plain
from gate.metrics import batched
from gate.search.assignment import Point
from gate.search.ground import Array, Ground, Outputs
from gate.search.options import LEAVE

if TYPE_CHECKING:
    from gate.mil.variants import Variants

LEAST_ITEMS, MOST_ITEMS = 8, 64
TINY = 1e-12


@dataclass(frozen=True)
class Effect:
    """One weight under one option."""

    weight: str
    option: str
    bytes: int
    loss: float  # squared relative distance of the outputs
    drop: float  # of the metric, on as few items

    @property
    def distance(self) -> float:
        """Relative distance of the outputs: 0.05 is 5 % of their size."""
        return float(np.sqrt(self.loss))


@dataclass(frozen=True)
class Sensitivities:
    """The effects of all options of all weights."""

    effects: tuple[Effect, ...]
    items: int

    def points(self, ground: Ground) -> dict[str, list[Point]]:
        """Return the options of each weight that was measured, to choose from."""
        found = {name: [Point(LEAVE, place.forms[LEAVE].bytes, 0.0)] for name, place in ground.places.items()}
        for effect in self.effects:
            found[effect.weight].append(Point(effect.option, effect.bytes, effect.loss))
        return found


def items_for(ground: Ground) -> int:
    """Return how many items each exchange is tried on: all of them together cost about half a pass over the search part."""
    trials = sum(len(place.forms) - 1 for place in ground.places.values())
    wanted = len(ground.items) // (2 * max(trials, 1))
    return min(len(ground.items), max(LEAST_ITEMS, min(MOST_ITEMS, wanted)))


def measure(ground: Ground, variants: "Variants", count: int, go_on: Callable[[], bool]) -> Sensitivities:
    """Exchange one weight after the other, largest first, while `go_on` says so."""
    batch = ground.items.batch(np.arange(count))
    exact = _stacked(variants.answers)
    labels = batch.labels if batch.labels is not None and not ground.metric.needs_reference else None
    labels = ground.metric.answer(ground.yardstick(batch)) if labels is None else labels
    whole = _figure(ground, exact, labels)
    effects: list[Effect] = []
    for place in sorted(ground.places.values(), key=lambda place: -place.elements):
        for option, form in place.forms.items():
            values = form.decode()
            if values is None:
                continue
            if not go_on():
                return Sensitivities(tuple(effects), count)
            found = _stacked(variants.answer({place.name: values}))
            ground.spent["sensitivity"] += count
            drop = whole - _figure(ground, found, labels)
            effects.append(Effect(place.name, option, form.bytes, distance(exact, found) ** 2, _finite(drop)))
    return Sensitivities(tuple(effects), count)


def _stacked(answers: Sequence[Mapping[str, Any]]) -> Outputs:
    return batched([plain(answer) for answer in answers])


def _figure(ground: Ground, outputs: Outputs, labels: Any) -> float:
    """Return the metric of these items, the more the better."""
    value = ground.metric.total(ground.metric.per_item(outputs, labels))
    return value if ground.metric.higher_is_better else -value


def _finite(value: float) -> float:
    return value if np.isfinite(value) else 0.0


def distance(exact: Outputs, found: Outputs) -> float:
    """Return the relative L2 distance, root mean square over outputs; infinities count as far beyond any limit."""
    parts = [_relative(exact[name], found[name]) for name in exact if exact[name].dtype.kind == "f"]
    return float(np.sqrt(np.mean(np.square(parts)))) if parts else 0.0


def _relative(exact: Array, found: Array) -> float:
    if exact.shape != found.shape:
        return BEYOND
    with np.errstate(invalid="ignore", over="ignore"):
        size = float(np.sum(np.square(exact, dtype=np.float64)))
        off = float(np.sum(np.square(found.astype(np.float64) - exact)))
    return min(float(np.sqrt(off / max(size, TINY))), BEYOND) if np.isfinite(off) else BEYOND


BEYOND = 1e6
