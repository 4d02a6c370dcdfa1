# SPDX-License-Identifier: Apache-2.0
"""`integrity`: does each weight decode to what the compression steps promised?

Every weight of the package is decoded before and after, by the evaluator's own decoder, and compared with the promise: within
half a scale, the nearest table entry, zeros where they were asked for, and bit for bit the same where a step left it alone.
Bits and zeros are counted, never taken from the policy: coremltools was seen to skip an op and rescale its weight, and to
prune nothing at all. It says nothing about what the loss does to the answers: that is `accuracy`.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gate.checks import arrived
from gate.checks.base import Check, Subject, not_run
from gate.compress import Activations, Compressed, Promise, Skip
from gate.compress.activations import Pair, Quantized, pair_bounds, read_pairs
from gate.compress.encoded import Array
from gate.compress.invariants import Bound, Kept, bounds, rows, sparsity, untouched, widen
from gate.compress.plan import LEAST_ELEMENTS
from gate.mil.blob import BITS
from gate.mil.program import load_program
from gate.mil.weights import Weight, weights
from gate.naming import apart, weight_label
from gate.policy import Action
from gate.quantity import percent
from gate.report import Bound as Side
from gate.report import CheckName, Finding, Measurement, Outcome, Result, Series, Severity, Unit

MOST_FINDINGS = 50  # of one kind; the rest is a count
MOST_CHANGED = 3
NOTABLE = 0.1  # 4-bit palettes of Gaussian weights lose 10 %, int8 about 1 % (research, compression calibration)
MISFIT = "choose a group or block size that divides the channels, or another policy"
SKIP_BUG = "https://github.com/apple/coremltools/pull/2777"


@dataclass(frozen=True)
class WeightFacts:
    """One weight before and after, and what was promised about it."""

    name: str
    op: str
    layer: str | None
    applied: tuple[Action, ...]
    skipped: tuple[tuple[str, Skip], ...]  # kind of step, why
    bounds: tuple[Bound, ...]
    elements: int
    stored_bits: int
    sparsity: float
    error: float  # relative L2
    compressed: bool
    worst_channel: float = 0.0  # relative L2 of the channel that lost most
    label: str = ""  # what the drawings call it

    @property
    def broken(self) -> tuple[Bound, ...]:
        """The promises that do not hold."""
        return tuple(bound for bound in self.bounds if not bound.holds)


@dataclass(frozen=True)
class Facts:
    """All weights of a candidate, and those that cannot be found after compression."""

    policy: str
    steps: tuple[str, ...]
    weights: tuple[WeightFacts, ...]
    lost: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    activations: Activations | None = None
    quantized: Quantized | None = None  # what the package really does to them

    @property
    def broken_pairs(self) -> tuple[tuple[Pair, tuple[Bound, ...]], ...]:
        """The pairs of quantize and dequantize that are not what calibration asked for."""
        if self.activations is None or self.quantized is None:
            return ()
        found = ((pair, pair_bounds(pair, self.activations)) for pair in self.quantized.pairs)
        broken = ((pair, tuple(bound for bound in held if not bound.holds)) for pair, held in found)
        return tuple((pair, held) for pair, held in broken if held)

    @property
    def surprising(self) -> list[tuple[WeightFacts, str, Skip]]:
        """What was skipped although the policy asks for it."""
        return [(w, kind, skip) for w in self.weights for kind, skip in w.skipped if not skip.expected]

    @property
    def fits_nothing(self) -> bool:
        """Did the policy compress nothing because its settings fit no weight? A threshold above them all is a choice."""
        untouched = not any(weight.compressed for weight in self.weights) and self.activations is None
        return untouched and bool(self.steps and self.surprising)


def measure(before: Path, after: Path, compressed: Compressed) -> Facts:
    """Decode every weight of both packages and hold each to its promise."""
    promises = _Promises(compressed.promises)
    old_program, new_program = load_program(before), load_program(after)
    new = {reader: weight for weight, readers in _readers(weights(new_program)) for reader in readers}
    facts: list[WeightFacts] = []
    lost: list[str] = []
    for weight, readers in _readers(weights(old_program)):
        found = next((new[reader] for reader in readers if reader in new), None)
        if found is not None:
            facts.append(_weigh(weight, found, promises.about(weight), compressed.steps))
        else:
            lost.append(weight.name)
    asked = compressed.activations
    quantized = read_pairs(old_program, new_program) if asked else None
    return Facts(compressed.policy, compressed.steps, tuple(facts), tuple(lost), compressed.refused, asked, quantized)


Reader = tuple[str, str, str, int]  # function, op name, parameter, which of several


def _readers(found: Sequence[Weight]) -> Iterator[tuple[Weight, list[Reader]]]:
    """Yield each weight with the ops that read it: names of weights change between tools, and equal ones are merged."""
    seen: Counter[tuple[str, str, str]] = Counter()
    for weight in found:
        places = [(weight.function, op_name, parameter) for _, op_name, parameter in weight.consumers]
        yield weight, [(*place, seen[place]) for place in places]
        seen.update(set(places))


class _Promises:
    """Finds what was promised about a weight: by its name, or by the op that reads it."""

    def __init__(self, promises: Sequence[Promise]) -> None:
        self.by_name = {(p.function, p.weight): p for p in promises}
        self.by_reader = {(p.function, c.op_name, c.input): p for p in reversed(promises) for c in p.consumers}

    def about(self, weight: Weight) -> Promise | None:
        _, op_name, parameter = weight.consumers[0]
        named = self.by_name.get((weight.function, weight.name))
        return named or self.by_reader.get((weight.function, op_name, parameter))


def _weigh(old: Weight, new: Weight, promise: Promise | None, steps: Sequence[str]) -> WeightFacts:
    before = _values(old)
    after = _values(new).astype(before.dtype, copy=False)  # exact: decoding rounds to the type that the reader sees
    applied = promise.applied if promise else ()
    found = bounds(before, after, _kept(new), applied) if applied else untouched(before, after)
    error, worst = _errors(before, after) if applied else (0.0, 0.0)
    return WeightFacts(
        name=old.name,
        op=f"{old.consumers[0][0]} {old.consumers[0][1]}",
        layer=promise.layer if promise else None,
        applied=applied,
        skipped=tuple(_skipped(old, promise, steps)),
        bounds=found,
        elements=old.elements,
        stored_bits=new.package_bytes * 8,
        sparsity=sparsity(after),
        error=error,
        compressed=bool(new.forms),
        worst_channel=worst,
        label=weight_label(promise.layer if promise else None, *old.consumers[0][1:]),
    )


def _skipped(weight: Weight, promise: Promise | None, steps: Sequence[str]) -> Iterator[tuple[str, Skip]]:
    if promise is not None:
        yield from ((kind, skip) for kind, skip in zip(steps, promise.skips, strict=True) if skip)
    elif weight.forms:
        yield from ((kind, Skip("they arrived compressed", expected=True)) for kind in steps)
    elif weight.elements >= LEAST_ELEMENTS and weight.stored[0].file is None:
        yield from ((kind, Skip("they are written inside the program", expected=True)) for kind in steps)


def _values(weight: Weight) -> Array:
    """Return what the reader sees: as stored where it is stored plainly, so that integers and NaN bits stay exact."""
    return weight.decode() if weight.forms else weight.stored[0].array


def _kept(weight: Weight) -> Kept:
    """Bring the stored parameters of either generation of ops into the shapes of iOS18's."""
    scale, lut, rank = weight.scale, weight.palette, len(weight.shape)
    axis = weight.part("vector_axis")
    if lut is not None:
        tables = lut.astype(weight.dtype).reshape(lut.shape if lut.ndim > 1 else (*[1] * rank, -1, 1))
        bits = int(math.log2(tables.shape[-2]))
        along = int(axis.array.item()) % rank if axis else None
        integers = weight.part("data")
        return Kept(bits, None, tables, along, BITS[integers.dtype] if integers else None, scale)
    if scale is not None and scale.ndim < rank:
        shape = [1] * rank
        shape[weight.axis or 0] = -1
        scale = scale.reshape(shape)
    return Kept(weight.bits, scale)


def _errors(before: Array, after: Array) -> tuple[float, float]:
    """Return the relative error of a weight, and of its worst channel.

    One channel can be lost without being seen in the whole, where another is much larger (cases: cmp_901).
    """
    if not before.size:
        return 0.0, 0.0
    channels = [_squares(widen(old), widen(new)) for old, new in rows(before, after)]
    moved, norm = (np.concatenate(sums) for sums in zip(*channels, strict=True))
    whole = math.sqrt(moved.sum() / norm.sum()) if norm.any() else 0.0
    each = np.sqrt(moved[norm != 0] / norm[norm != 0])
    return whole, float(each.max(initial=0.0)) if before.ndim > 1 else 0.0


def _squares(old: Array, new: Array) -> tuple[Array, ...]:
    """Return how far each row moved, and its norm, both squared."""
    return tuple(np.square(part).reshape(len(part), -1).sum(axis=1, dtype=np.float64) for part in (old - new, old))


def judge(facts: Facts) -> Result:
    """Fail where a promise is broken, a weight is lost, or the settings fit no weight; one that was skipped is a finding."""
    broken = [weight for weight in facts.weights if weight.broken]
    bad = len(broken) + len(facts.lost) + len(pair_problems(facts))
    return Result(
        check=CheckName.INTEGRITY,
        outcome=Outcome.FAIL if bad or facts.fits_nothing else Outcome.PASS,
        measurements=_measurements(facts, bad),
        series=_series(facts),
        message=_message(facts, broken),
        remedy=_remedy(broken) if bad else MISFIT if facts.fits_nothing else None,
        findings=(
            *_breaches(broken),
            *_losses(facts),
            *pair_problems(facts)[:MOST_FINDINGS],
            *_skips(facts),
            *_most_changed(facts),
            *activation_notes(facts),
            *_remarks(facts),
        ),
    )


def _message(facts: Facts, broken: Sequence[WeightFacts]) -> str:
    if facts.fits_nothing and not broken and not facts.lost:
        weight, kind, skip = facts.surprising[0]
        return f"{facts.policy} compressed no weight, since its settings fit none; {weight.name}: {kind} was skipped: {skip.why}."
    done = sum(bool(weight.applied) for weight in facts.weights)
    if broken:
        first = broken[0]
        return (
            f"{len(broken)} of {len(facts.weights)} weights are not what {facts.policy} promised; "
            f"{first.name}: {first.broken[0]}."
        )
    if facts.lost:
        return f"{len(facts.lost)} weights are missing after compression: {', '.join(facts.lost[:3])}."
    if problems := pair_problems(facts):
        return f"8-bit activations are not what {facts.policy} promised: {problems[0].message}"
    return (
        f"All {len(facts.weights)} weights are what {facts.policy} promised: {done} compressed, "
        f"{len(facts.weights) - done} unchanged bit for bit.{_eight_bits(facts)}"
    )


def _eight_bits(facts: Facts) -> str:
    if facts.quantized is None or facts.activations is None:
        return ""
    return (
        f" {len(facts.quantized.done)} ops compute on 8-bit inputs, in {len(facts.quantized.pairs)} ranges from "
        f"{facts.activations.origin}."
    )


def _remedy(broken: Sequence[WeightFacts]) -> str:
    if not broken:
        return "leave the named ops alone with an override, `activations: false`; `gate doctor` shows tool versions"
    if any(weight.applied for weight in broken):
        return (
            "skip the named weights with an override, or choose another granularity; `gate doctor` shows tool versions"
        )
    return (
        "weights that no step should touch have changed: choose a group size that divides the channels, or skip the op"
    )


def _measurements(facts: Facts, bad: int) -> tuple[Measurement, ...]:
    if facts.fits_nothing and not bad:  # there was no promise to break
        return (Measurement(name="compressed_weights", value=0, unit=Unit.COUNT, limit=1, bound=Side.AT_LEAST),)
    done = [weight for weight in facts.weights if weight.applied]
    counts = [
        Measurement(name="broken_weights", value=bad, unit=Unit.COUNT, limit=0),
        Measurement(name="compressed_weights", value=len(done), unit=Unit.COUNT),
    ]
    if facts.quantized is not None:
        counts.append(Measurement(name="quantized_activations", value=len(facts.quantized.pairs), unit=Unit.COUNT))
    elements = sum(weight.elements for weight in done)
    if not elements:
        return tuple(counts)
    bits = sum(weight.stored_bits for weight in done) / elements
    zeros = sum(weight.sparsity * weight.elements for weight in done) / elements
    return (
        *counts,
        Measurement(name="stored_bits_per_value", value=bits, unit=Unit.NUMBER),
        Measurement(name="sparsity", value=zeros, unit=Unit.FRACTION),
    )


def _series(facts: Facts) -> tuple[Series, ...]:
    done = [w for w in facts.weights if w.applied]
    if not done:
        return ()
    errors = tuple(w.error if math.isfinite(w.error) else None for w in done)
    labels = apart([w.label or w.name for w in done], [w.name for w in done])
    return (Series(name="weight_error", x=tuple(label[:400] for label in labels), y=errors, unit=Unit.FRACTION),)


def _breaches(broken: Sequence[WeightFacts]) -> Iterator[Finding]:
    for weight in broken[:MOST_FINDINGS]:
        what = " then ".join(type(action).__name__.lower() for action in weight.applied) or "left alone"
        yield Finding(
            rule="integrity.promise" if weight.applied else "integrity.changed",
            severity=Severity.ERROR,
            message=f"weight {weight.name} ({what}): " + "; ".join(str(bound) for bound in weight.broken),
            advice=_remedy([weight]),
            op=weight.op,
            layer=weight.layer,
            evidence=None if weight.applied else SKIP_BUG,
        )
    if len(broken) > MOST_FINDINGS:
        more = f"{len(broken) - MOST_FINDINGS} more weights are not what was promised"
        yield Finding(rule="integrity.promise", severity=Severity.ERROR, message=more)


def _losses(facts: Facts) -> Iterator[Finding]:
    for name in facts.lost[:MOST_FINDINGS]:
        yield Finding(
            rule="integrity.lost",
            severity=Severity.ERROR,
            message=f"weight {name}: no op of the compressed package reads it, expected the op that read it before",
        )


def pair_problems(facts: Facts) -> tuple[Finding, ...]:
    """Say where 8-bit activations are not what was asked for."""
    found = [
        Finding(
            rule="integrity.activation",
            severity=Severity.ERROR,
            message=f"activation {pair.tensor}: " + "; ".join(str(bound) for bound in broken),
            advice="skip the op that reads it with an override; `gate doctor` shows tool versions",
        )
        for pair, broken in facts.broken_pairs
    ]
    if facts.quantized is not None and facts.quantized.mixed:
        message = f"op {facts.quantized.mixed[0]}: its inputs are dequantized by scales that do not belong together"
        found.append(Finding(rule="integrity.activation", severity=Severity.ERROR, message=message))
    if facts.quantized is not None and not facts.quantized.same_ops:
        message = "quantizing activations changed other ops of the program than it should"
        found.append(Finding(rule="integrity.activation", severity=Severity.ERROR, message=message))
    return tuple(found)


def activation_notes(facts: Facts) -> Iterator[Finding]:
    """Say which ops still compute on float inputs, and what a reader should know about the calibration items."""
    if facts.quantized is None or facts.activations is None:
        return
    kept = [name for name in facts.quantized.left if name in facts.activations.kept]
    if kept:
        message = f"quantize_activations left {len(kept)} ops alone: the policy's overrides say so"
        yield Finding(rule="integrity.skipped", severity=Severity.INFO, message=message)
    for name in [name for name in facts.quantized.left if name not in facts.activations.kept][:MOST_FINDINGS]:
        yield Finding(
            rule="integrity.skipped",
            severity=Severity.WARNING,
            message=f"op {name}: its inputs stay in float: coremltools' pass did not quantize them",
            advice="rewrite it as conv, linear, pooling or add of computed values, or leave it alone with an override",
            op=name,
        )
    for remark in facts.activations.remarks:
        yield Finding(rule="integrity.calibration", severity=Severity.WARNING, message=remark)


def _skips(facts: Facts) -> Iterator[Finding]:
    for weight, kind, skip in facts.surprising[:MOST_FINDINGS]:
        yield Finding(
            rule="integrity.skipped",
            severity=Severity.WARNING,
            message=f"weight {weight.name} ({weight.elements} values): {kind} was skipped: {skip.why}",
            advice="choose settings that fit its shape, or leave it alone with an override",
            op=weight.op,
            layer=weight.layer,
        )
    expected = Counter((kind, skip.why) for w in facts.weights for kind, skip in w.skipped if skip.expected)
    for (kind, why), count in expected.items():
        message = f"{kind} left {count} {'weight' if count == 1 else 'weights'} alone: {why}"
        yield Finding(rule="integrity.skipped", severity=Severity.INFO, message=message)


def _most_changed(facts: Facts) -> Iterator[Finding]:
    """Where answers got worse, look here first: these lost most of what a channel says."""
    ranked = sorted((w for w in facts.weights if w.applied), key=lambda w: -w.worst_channel)
    told = [w for w in ranked[:MOST_CHANGED] if NOTABLE <= w.worst_channel < math.inf]
    if told:
        names = ", ".join(f"{w.name} of {w.layer or w.op} ({percent(w.worst_channel, 2)})" for w in told)
        yield Finding(
            rule="integrity.most_changed",
            severity=Severity.INFO,
            message=f"these weights changed most, by the channel that lost most: {names}",
            advice="leave them alone by an override, give them more bits, or let fewer channels share a scale or table",
            op=told[0].op,
            layer=told[0].layer,
        )


def _remarks(facts: Facts) -> Iterator[Finding]:
    if facts.steps and not any(weight.compressed for weight in facts.weights):
        yield Finding(
            rule="integrity.nothing",
            severity=Severity.ERROR if facts.fits_nothing else Severity.WARNING,
            message=f"{facts.policy} compressed nothing: no weight is stored in another form",
            advice="lower weight_threshold, or choose settings that fit the shapes of the weights",
        )
    for refused in facts.refused[:MOST_FINDINGS]:
        advice = "it was computed again; if it happens often, somebody or something else writes to the cache"
        yield Finding(rule="integrity.cache", severity=Severity.WARNING, message=refused, advice=advice)


def _answer(subject: Subject) -> tuple[Result, ...]:
    if subject.compressed is None or subject.before is None:
        found, declared = arrived.arrived_weights(subject.candidate.package.path), subject.conversion.declared
        if found or declared:
            return (arrived.judge(found, declared),)
        return (not_run(CheckName.INTEGRITY, "The policy has no compression step."),)
    return (judge(measure(subject.before, subject.candidate.package.path, subject.compressed)),)


CHECK = Check(CheckName.INTEGRITY, "Is each weight what was asked for?", _answer)
