# SPDX-License-Identifier: Apache-2.0
"""What does a search look at? The uncompressed package, its weights in every form, and the items of the search part.

The items that certify are not here: a search cannot look at them. Every sample that a model is run on is counted.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gate import mil
from gate.bench import Bench
from gate.candidate import read_package
from gate.compress import Workers, encode_weights
from gate.compress.encoded import Encoded, decode
from gate.compress.package import Key, write_package
from gate.data import Batch, Dataset
from gate.engine import plain
from gate.metrics import Metric, batched
from gate.naming import weight_label
from gate.policy import Policy
from gate.search.options import LEAVE, Option

if TYPE_CHECKING:
    from gate.mil.variants import Variants

Array = npt.NDArray[Any]
Outputs = dict[str, Array]
BLOB = 64  # bytes of a blob's record in a weight file, and what its end is rounded up to
KEPT_BYTES = 2**30  # of intermediate values, while weights are exchanged
WITHIN_PROGRAM = 10  # elements; smaller parts lie in the model message


@dataclass(frozen=True, eq=False)
class Form:
    """One weight under one option."""

    bytes: int
    encoded: Encoded | None = None  # None: as it is

    def decode(self) -> Array | None:
        """Return the numbers that a runtime would compute with; None where nothing changes."""
        return None if self.encoded is None else decode(self.encoded)


@dataclass(eq=False)
class Place:
    """A weight that may be compressed."""

    key: Key
    layer: str | None
    elements: int
    forms: dict[str, Form]
    reader: tuple[str, str] = ("", "")  # the op that reads it first, and as which parameter

    @property
    def name(self) -> str:
        """Name of the constant."""
        return self.key[1]

    @property
    def label(self) -> str:
        """What a reader knows it by."""
        op, parameter = self.reader
        return weight_label(self.layer, op, parameter) if op else self.name


@dataclass(eq=False)
class Ground:
    """All that a search may use."""

    package: Path
    package_bytes: int
    layers: Mapping[str, str]
    items: Dataset  # of the search part, in a seeded random order
    bench: Bench  # about these items
    metric: Metric
    cache: Path
    workers: Workers
    reference: Callable[[Batch], Outputs] | None = None  # None: the package itself is the yardstick
    spent: Counter[str] = field(default_factory=Counter)  # samples that models were run on, by purpose
    places: dict[str, Place] = field(default_factory=dict)
    _known: dict[int, Mapping[str, Array]] = field(default_factory=dict)

    @cached_property
    def evaluator(self) -> Any:
        """The uncompressed program."""
        return mil.load(self.package)

    def add(self, option: Option, policy: Policy) -> None:
        """Compress every weight by an option."""
        found = encode_weights(
            self.package, policy, layers=self.layers, cache=self.cache, workers=self.workers, jobs=self.workers.jobs
        )
        for plan, encoded in found:
            weight = plan.weight
            if weight.function != self.evaluator.function.name or encoded is None:
                continue
            as_it_is = _blob(weight.constant.stored_bytes)
            place = self.places.setdefault(
                weight.name,
                Place(
                    (weight.function, weight.name),
                    weight.layer,
                    weight.elements,
                    {LEAVE: Form(as_it_is)},
                    (weight.consumers[0].op_name, weight.consumers[0].input),
                ),
            )
            place.forms[option.name] = Form(_stored_bytes(encoded), encoded)

    @property
    def own_layers(self) -> dict[str, str]:
        """The layer of each weight that is the only one of it."""
        count = Counter(place.layer for place in self.places.values())
        return {name: p.layer for name, p in self.places.items() if p.layer and count[p.layer] == 1}

    def values(self, assignment: Mapping[str, str]) -> dict[str, Array]:
        """Return the decoded weights of an assignment."""
        forms = ((name, self.places[name].forms[option].decode()) for name, option in assignment.items())
        return {name: values for name, values in forms if values is not None}

    def bytes(self, assignment: Mapping[str, str]) -> int:
        """Return about how large its package would be: what compressing adds to the program itself is not counted."""
        saved = (
            self.places[name].forms[LEAVE].bytes - self.places[name].forms[option].bytes
            for name, option in assignment.items()
        )
        return self.package_bytes - sum(saved)

    def exact_bytes(self, assignment: Mapping[str, str]) -> int:
        """Write the package of an assignment, and return its size."""
        places = ((self.places[name], option) for name, option in assignment.items())
        encoded = {place.key: form for place, option in places if (form := place.forms[option].encoded) is not None}
        if not encoded:
            return self.package_bytes
        with tempfile.TemporaryDirectory(prefix="gate-search-") as folder:
            out = Path(folder) / self.package.name
            write_package(self.package, encoded, out)
            return read_package(out).bytes

    def samples(self, count: int) -> list[Mapping[str, Array]]:
        """Return the first items as the model takes them."""
        return self.bench.inputs(self.items.batch(np.arange(min(count, len(self.items)))))

    def variants(self, count: int) -> "Variants":
        """Run the uncompressed program on the first items, as many as fit, and keep every value."""
        from gate.mil.variants import Variants  # loads torch

        first = Variants(self.evaluator, self.samples(1))
        fitting = max(1, KEPT_BYTES // max(first.held_bytes, 1))
        self.spent["sensitivity"] += 1 + min(count, fitting)
        return Variants(self.evaluator, self.samples(min(count, fitting)))

    def predictor(self, assignment: Mapping[str, str], purpose: str) -> Callable[[Batch], Outputs]:
        """Return what predicts with an assignment; an item is run once."""
        return _Predictor(self, self.evaluator.with_weights(self.values(assignment)), purpose)

    def yardstick(self, batch: Batch) -> Outputs:
        """Return the answers that a candidate is held to, once for each item."""
        missing = [i for i, index in enumerate(batch.index) if int(index) not in self._known]
        if missing:
            asked = self.items.batch(batch.index[missing])
            self.spent["reference"] += len(missing)
            answers = self.reference(asked) if self.reference else self._own(asked)
            for i, index in enumerate(asked.index):
                self._known[int(index)] = {name: values[i] for name, values in answers.items()}
        rows = [self._known[int(index)] for index in batch.index]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _own(self, batch: Batch) -> Outputs:
        return batched([plain(answer) for answer in self.evaluator.predict_batch(self.bench.inputs(batch))])


@dataclass(eq=False)
class _Predictor:
    ground: Ground
    evaluator: Any
    purpose: str
    known: dict[int, Mapping[str, Array]] = field(default_factory=dict)

    def __call__(self, batch: Batch) -> Outputs:
        new = [i for i, index in enumerate(batch.index) if int(index) not in self.known]
        if new:
            asked = self.ground.items.batch(batch.index[new])
            self.ground.spent[self.purpose] += len(new)
            answers = self.evaluator.predict_batch(self.ground.bench.inputs(asked))
            for index, answer in zip(asked.index, answers, strict=True):
                self.known[int(index)] = plain(answer)
        return batched([self.known[int(index)] for index in batch.index])


def _stored_bytes(encoded: Encoded) -> int:
    return sum(_part_bytes(part.data.size, int(np.prod(part.shape))) for part in encoded.parts.values())


def _part_bytes(stored: int, elements: int) -> int:
    return _blob(stored) if elements >= WITHIN_PROGRAM else stored


def _blob(stored: int) -> int:
    return BLOB + -(-stored // BLOB) * BLOB
