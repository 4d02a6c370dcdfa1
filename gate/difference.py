# SPDX-License-Identifier: Apache-2.0
"""How far are two sets of answers apart, output by output?

The range of an output is its largest |reference| over all samples of a kind, with an absolute floor of 1e-6; an error is told as a
fraction of it, never element by element, since elements near zero make that meaningless (cases: coremltools#1809). Samples that were
made up (shuffled, at the end of a declared range) are a kind of their own: what is large there must not excuse errors on real ones.
Integers are compared exactly; of those that are choices (`choices.py`) the error is the share that came out otherwise. Where the reference itself is not finite, nothing is held against the other side.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]

RANGE_FLOOR = 1e-6


@dataclass(frozen=True)
class OutputDifference:
    """One output over all samples."""

    name: str
    samples: int
    max_error: float  # largest |difference| where both sides are finite, on the sample where it is worst
    range: float  # of the samples of that kind
    new_nonfinite: int  # elements that are finite in the reference only
    wrong_integers: int  # elements of an integer output that differ
    decisions: int  # samples whose largest element is another one
    snr_db: float | None  # None where there is no noise, or no signal
    identical: bool
    problem: str | None = None  # a wrong shape or a missing output
    integers: int = 0  # elements of an integer output
    negative: bool = False  # has an integer below zero where the reference has none
    turned: int | None = None  # of an output of choices: how many came out otherwise

    @property
    def error(self) -> float:
        """Largest error as a fraction of the range; of choices, the share that came out otherwise."""
        return self.max_error / self.range

    @property
    def sound(self) -> bool:
        """Can the error be trusted to describe the difference?"""
        return self.problem is None and not self.new_nonfinite and not self.wrong_integers


Ranges = Sequence[Mapping[str, float]]


def compare(
    reference: Sequence[Outputs],
    found: Sequence[Outputs],
    ranges: Ranges | None = None,
    choices: frozenset[str] = frozenset(),
) -> tuple[OutputDifference, ...]:
    """Compare the answers to the same samples; outputs are matched by name, or by order where no name matches.

    `ranges` holds the range of each output for each sample; without it there is one, over all samples. `choices` names those of the
    outputs found that choose.
    """
    names = match_names(reference[0], found[0])
    ranges = ranges or find_ranges(reference, [""] * len(reference))
    rows = [(_compare_output(name, other, reference, found, ranges), other) for name, other in names.items()]
    return tuple(_turned(row) if other in choices else row for row, other in rows)


def find_ranges(reference: Sequence[Outputs], kinds: Sequence[str]) -> list[dict[str, float]]:
    """Return the range of each output for each sample: the largest |reference| over the samples of its kind."""
    found: dict[tuple[str, str], float] = {}
    for row, kind in zip(reference, kinds, strict=True):
        for name, value in row.items():
            found[kind, name] = max(found.get((kind, name), RANGE_FLOOR), _peak(np.asarray(value)))
    return [{name: found[kind, name] for name in row} for row, kind in zip(reference, kinds, strict=True)]


def _peak(value: Array) -> float:
    if value.dtype.kind not in "fiub":
        return 0.0
    finite = np.abs(value.astype(np.float64)[np.isfinite(value)])
    return float(finite.max()) if finite.size else 0.0


def match_names(reference: Iterable[str], found: Iterable[str]) -> dict[str, str | None]:
    """Map each reference output to the other side's: by name, or by position where the converter renamed all of them."""
    ours, theirs = list(reference), list(found)
    if len(ours) == len(theirs) and not set(ours) & set(theirs):
        return dict(zip(ours, theirs, strict=True))
    return {name: name if name in theirs else None for name in ours}


def _compare_output(
    name: str, other: str | None, reference: Sequence[Outputs], found: Sequence[Outputs], ranges: Ranges
) -> OutputDifference:
    if other is None:
        return _problem(name, f"output {name!r} is missing; found {', '.join(found[0])}")
    pairs = [(np.asarray(a[name]), np.asarray(b[other])) for a, b in zip(reference, found, strict=True)]
    for want, have in pairs:
        if want.shape != have.shape and want.size != have.size:
            return _problem(name, f"output {name!r} has shape {have.shape}, expected {want.shape}")
    return _measure(name, [(want, have.reshape(want.shape)) for want, have in pairs], [row[name] for row in ranges])


def _problem(name: str, text: str) -> OutputDifference:
    return OutputDifference(name, 0, 0.0, RANGE_FLOOR, 0, 0, 0, None, identical=False, problem=text)


def _measure(name: str, pairs: Sequence[tuple[Array, Array]], ranges: Sequence[float]) -> OutputDifference:
    integer = all(not np.issubdtype(want.dtype, np.floating) for want, _ in pairs)
    wide = [(want.astype(np.float64), have.astype(np.float64)) for want, have in pairs]
    both = [np.isfinite(want) & np.isfinite(have) for want, have in wide]
    deltas = [want[mask] - have[mask] for (want, have), mask in zip(wide, both, strict=True)]
    signal = float(sum(np.sum(want[mask] ** 2) for (want, _), mask in zip(wide, both, strict=True)))
    noise = float(sum(np.sum(delta**2) for delta in deltas))
    errors = [float(np.abs(delta).max()) if delta.size else 0.0 for delta in deltas]
    worst = max(range(len(pairs)), key=lambda i: errors[i] / ranges[i])
    return OutputDifference(
        name=name,
        samples=len(pairs),
        max_error=errors[worst],
        range=ranges[worst],
        new_nonfinite=sum(int(np.sum(np.isfinite(want) & ~np.isfinite(have))) for want, have in wide),
        wrong_integers=sum(int(np.sum(want != have)) for want, have in wide) if integer else 0,
        decisions=sum(_argmax_moved(want, have) for want, have in wide),
        snr_db=10 * float(np.log10(signal / noise)) if signal > 0 and noise > 0 else None,
        identical=all(np.array_equal(want, have, equal_nan=True) for want, have in wide),
        integers=sum(want.size for want, _ in wide) if integer else 0,
        negative=any(bool(np.any((have < 0) & (want >= 0))) for want, have in wide),
    )


def _turned(d: OutputDifference) -> OutputDifference:
    """Count what an output of choices chose otherwise; nothing chooses a negative number, which is a damaged one."""
    if not d.integers or d.negative or d.problem:
        return d
    share = d.wrong_integers / d.integers
    return replace(d, max_error=share, range=1.0, wrong_integers=0, snr_db=None, turned=d.wrong_integers)


def _argmax_moved(want: Array, have: Array) -> bool:
    if want.size < 2 or not np.isfinite(want).all():
        return False
    return bool(np.argmax(want) != np.argmax(np.nan_to_num(have, nan=-np.inf)))
