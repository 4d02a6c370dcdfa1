# SPDX-License-Identifier: Apache-2.0
"""How would engines that round more often answer, and how much of that is known rather than feared?

`declared` is judged on all samples. The harsher roundings run on a few: `cliffs`, where only the ops that were measured to fail on the
Neural Engine run as measured, may fail a model; `narrow` and `accumulate16` assume the worst of hardware that nobody outside Apple has
seen inside, so they warn.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gate.engine import plain
from gate.float16 import Tier
from gate.mil.evaluator import Evaluator, load
from gate.mil.numerics import Precision, Rounding
from gate.mil.program import Constant, Function, Op, TensorType

MEASURED = {  # ops whose float16 failure was measured on a device
    "softplus": "https://github.com/apple/coremltools/issues/2687",
    "softplus_parametric": "https://github.com/apple/coremltools/issues/2359",
    "reduce_log_sum_exp": "https://github.com/apple/coremltools/issues/2690",
}
SAMPLES = 6  # for `narrow`; `accumulate16` runs on one
MOST_MULTIPLY_ADDS = 5e7  # accumulate16 rounds after each; about two seconds
MOST_TERMS = 50_000

Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Answers:
    """What a program answers to some of the samples under a tier."""

    tier: Tier
    indices: tuple[int, ...]
    outputs: tuple[Mapping[str, Any], ...]


def harsher(package: Path, samples: Sequence[Sample]) -> Iterator[Answers]:
    """Yield the answers under each harsher tier that applies, the one that may block first."""
    evaluator = load(package)
    kinds = {op.type for op in evaluator.function.body.walk()}
    everywhere = tuple(range(len(samples)))
    if kinds & MEASURED.keys():
        yield _answers(evaluator.at(_as_measured), Tier.CLIFFS, samples, everywhere)
    yield _answers(evaluator.at(Precision.NARROW), Tier.NARROW, samples, _spread(len(samples), SAMPLES))
    if is_cheap(evaluator.function):
        yield _answers(evaluator.at(Precision.ACCUMULATE16), Tier.ACCUMULATE16, samples, (0,))


def _answers(evaluator: Evaluator, tier: Tier, samples: Sequence[Sample], indices: tuple[int, ...]) -> Answers:
    return Answers(tier, indices, tuple(map(plain, evaluator.predict_batch(dict(samples[i]) for i in indices))))


def _as_measured(op: Op) -> Rounding:
    return Rounding(Precision.NARROW if op.type in MEASURED else Precision.DECLARED)


def _spread(count: int, wanted: int) -> tuple[int, ...]:
    """Choose indices from the first to the last, evenly."""
    if count <= wanted:
        return tuple(range(count))
    return tuple(sorted({round(i * (count - 1) / (wanted - 1)) for i in range(wanted)}))


def is_cheap(function: Function) -> bool:
    """Can every sum be rounded term by term in a few seconds?"""
    terms = [(_terms(op), _elements(op.outputs[0].type)) for op in function.body.walk() if op.outputs]
    return sum(t * n for t, n in terms) <= MOST_MULTIPLY_ADDS and sum(t for t, _ in terms) <= MOST_TERMS


def _terms(op: Op) -> int:
    """How many terms one element of the result sums."""
    if op.type in ("linear", "conv"):
        weight = op.inputs["weight"][0].type
        return math.prod(_shape(weight)[1:])
    if op.type == "matmul":
        return _shape(op.inputs["x"][0].type)[-1] if op.inputs["x"] else 0
    if op.type.startswith("reduce_"):
        return _elements(op.inputs["x"][0].type) // max(1, _elements(op.outputs[0].type))
    if op.type == "softmax":
        return max(_shape(op.outputs[0].type), default=0)
    return 0


def _shape(kind: Any) -> tuple[int, ...]:
    """Declared sizes; an open one counts as a thousand."""
    return tuple(n or 1000 for n in kind.shape or ()) if isinstance(kind, TensorType) else ()


def _elements(kind: Any) -> int:
    return math.prod(_shape(kind))


def is_untrained(package: Path) -> bool:
    """Are the weights where torch's own initialisation of linear and convolution layers leaves them?

    nn.Linear and nn.Conv2d draw from ±1/√(inputs of a unit). Trained weights have long tails; a batch norm that was folded into a
    convolution hides the pattern, so "no" may be wrong, "yes" hardly.
    """
    evaluator = load(package)
    weights = [op.inputs["weight"][0] for op in evaluator.function.body.walk() if op.type in ("linear", "conv")]
    arrays = [w.array for w in weights if isinstance(w, Constant) and w.array.size >= 256]
    return bool(arrays) and sum(map(_initial, arrays)) >= 0.9 * len(arrays)


def _initial(weight: Any) -> bool:
    bound = 1 / math.sqrt(math.prod(weight.shape[1:]))
    top, spread = float(abs(weight).max()), float(weight.astype("float64").std())
    return 0.95 * bound <= top <= 1.001 * bound and abs(spread * math.sqrt(3) / bound - 1) < 0.08
