# SPDX-License-Identifier: Apache-2.0
"""Does half precision only rank near-equal candidates in another order?

A detector takes the best hundred of its boxes. Where two scores are equal to a rounding, float16 may swap their rows, and the outputs
look far off although each box is right. Given the positions that float32 ranks, the float16 program says how far off it is apart from that.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gate.engine import plain
from gate.float16.models import Models
from gate.mil.evaluator import Evaluator, load
from gate.mil.program import Op

RANKS = ("topk", "argsort")

Sample = Mapping[str, Any]
Outputs = Mapping[str, Any]


def in_exact_order(models: Models, samples: Sequence[Sample], limit: float) -> tuple[tuple[Outputs, ...], str] | None:
    """Return the float16 answers with candidates in float32's order, and the op that ranks otherwise.

    None where no rank differs, or where the scores that are ranked are themselves further off than `limit` of their range.
    """
    exact, half = _load(models.float32 or models.float16, "float32"), _load(models.float16, "declared")
    if exact is None or half is None:
        return None
    ranks = list(zip(_ranks(exact), _ranks(half), strict=False))
    if not ranks or len(_ranks(exact)) != len(_ranks(half)):
        return None
    answers, moved = [], ""
    for sample in samples:
        wanted = exact.run(exact.features.read(sample), keep=_names([a for a, _ in ranks]))
        inputs = half.features.read(sample)
        found = half.run(inputs, keep=_names([b for _, b in ranks]))
        given: dict[str, Tensor] = {}
        for a, b in ranks:
            for was, now in zip(a.outputs, b.outputs, strict=True):
                x, y = wanted[was.name], found[now.name]
                if x.shape != y.shape or (x.is_floating_point() and not _near(x, y, limit)):
                    return None
                if not x.is_floating_point() and not torch.equal(x, y):
                    moved = moved or f"{b.type} {b.name}"
                given[now.name] = y if x.is_floating_point() else x
        answers.append(plain(half.features.write(half.run(inputs, given=given))))
    return (tuple(answers), moved) if moved else None


def _load(package: Path, precision: str) -> Evaluator | None:
    """Load a program that can be resumed: no pipeline, no states."""
    evaluator = load(package, precision=precision)
    return evaluator if isinstance(evaluator, Evaluator) and not evaluator.features.states else None


def _ranks(evaluator: Evaluator) -> list[Op]:
    return [op for op in evaluator.function.body.ops if op.type in RANKS]


def _names(ops: Sequence[Op]) -> list[str]:
    return [value.name for op in ops for value in op.outputs]


def _near(x: Tensor, y: Tensor, limit: float) -> bool:
    return x.numel() == 0 or bool((x - y).abs().max() <= limit * x.abs().max())
