# SPDX-License-Identifier: Apache-2.0
"""`float16`: does half precision damage what reaches the outputs, which op does it, and what mends it?

Judged at the outputs only: magnitude or infinity inside a program is no failure (masks, an exp that overflows into 1/(1+inf)).
Blocks on new non-finite values, on wrong integers, and, where no labels vouch for the answers, on error above the limit.
With labels, drift is a note: large drift with equal accuracy is well documented (coremltools#2625). Engines that round inside an op are
feared, not known: they warn, except where an op's failure was measured on a device.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gate.candidate import computes_float32
from gate.checks.base import Check, Subject, not_run
from gate.checks.fidelity import describe, finding, measurements
from gate.choices import choices
from gate.config import Float16Budget
from gate.difference import OutputDifference, compare
from gate.engine import has_torch
from gate.float16 import Tier
from gate.mil import MilError
from gate.policy import Precision
from gate.quantity import percent
from gate.report import CheckName, Environment, Finding, Outcome, Result, Series, Severity, Unit
from gate.rules import random_ops

if TYPE_CHECKING:
    from gate.float16.investigate import Investigation, Suspect
    from gate.float16.models import Models

FAIL_ERROR = 0.02  # of the output's range; calibrated on devices and 80 cases (docs/checks.md)
WARN_ERROR = 0.005
NAMED = 3  # culprits told; the others are in `gate float16 --json`

Outputs = Mapping[str, Any]
Differences = tuple[OutputDifference, ...]


@dataclass(frozen=True)
class Facts:
    """What was measured about one float16 package."""

    declared: Differences
    labelled: bool
    environment: Environment
    feared: tuple[tuple[Tier, Differences], ...] = ()
    investigation: "Investigation | None" = None
    no_blame: str | None = None  # why no op is named
    notes: tuple[Finding, ...] = ()
    worst: tuple[Outputs, Mapping[str, float]] | None = None  # the sample that is damaged most, and its ranges


def judge(
    differences: Differences, budget: Float16Budget | None, *, labelled: bool, environment: Environment
) -> Result:
    """Compare what reaches the outputs with the budget, or with the defaults where there is none."""
    wrong = tuple(d for d in differences if breaks(d, budget, labelled))
    drifted = tuple(d for d in differences if d not in wrong and d.error > WARN_ERROR)
    worst = max(differences, key=lambda d: (not d.sound, d.error))
    limit = budget.error if budget else None if labelled else FAIL_ERROR
    return Result(
        check=CheckName.FLOAT16,
        outcome=Outcome.FAIL if wrong else Outcome.PASS,
        environment=environment,
        identical=all(d.identical for d in differences),
        measurements=measurements(differences, limit, budget.snr if budget else None),
        message=_message(worst, bool(wrong), labelled),
        remedy="keep the ops that lose precision in float32 (keep_float32), or rescale before them" if wrong else None,
        findings=tuple(finding(d, _rule(d), Severity.ERROR) for d in wrong)
        + tuple(_note(d, labelled) for d in drifted),
    )


def judge_facts(facts: Facts, budget: Float16Budget | None) -> Result:
    """Judge what is known; add what is feared and who is to blame."""
    deciding = next((d for tier, d in facts.feared if tier is Tier.CLIFFS), None)
    result = judge(facts.declared, budget, labelled=facts.labelled, environment=facts.environment)
    if result.outcome is Outcome.PASS and deciding is not None:
        measured = judge(deciding, budget, labelled=facts.labelled, environment=facts.environment)
        if measured.outcome is Outcome.FAIL:
            result = measured.model_copy(update={"message": f"As measured on the Neural Engine: {measured.message}"})
    warnings = tuple(_feared(tier, d) for tier, d in facts.feared if not tier.blocks and _is_far(d))
    told = result.findings + warnings[:1] + tuple(_culprits(facts)) + facts.notes
    return result.model_copy(
        update={"findings": told, "series": tuple(_curves(facts.investigation)), "remedy": _remedy(result, facts)}
    )


def breaks(d: OutputDifference, budget: Float16Budget | None, labelled: bool) -> bool:
    """Does one output fail?"""
    if not d.sound:
        return True
    if budget and budget.snr is not None and d.turned is None:
        return not (d.identical or d.snr_db is None or d.snr_db >= budget.snr)
    if budget and budget.error is not None:
        return not d.error <= budget.error
    return not labelled and not d.error <= FAIL_ERROR


def _is_far(differences: Differences) -> bool:
    """Is it worth a warning under a rounding that may never happen?"""
    return any(not d.sound or not d.error <= FAIL_ERROR for d in differences)


def _rule(d: OutputDifference) -> str:
    if d.new_nonfinite:
        return "float16.nonfinite"
    return "float16.integers" if d.wrong_integers else "float16.error"


def _note(d: OutputDifference, labelled: bool) -> Finding:
    severity = Severity.INFO if labelled else Severity.WARNING
    return finding(
        d, "float16.drift", severity, "labelled accuracy decides" if labelled else "measure accuracy on labelled data"
    )


def _message(worst: OutputDifference, wrong: bool, labelled: bool) -> str:
    if wrong:
        return f"Half precision damages the answers: {describe(worst)}."
    note = "; the labelled data decide whether that matters" if labelled and worst.error > WARN_ERROR else ""
    return f"Half precision moves the answers by at most {percent(worst.error)} of their range{note}."


# -------------------------------------------------------------------------------------------------------- what is told

FEARED = {
    Tier.NARROW: "if the Neural Engine rounds inside the ops that it runs as several steps",
    Tier.ACCUMULATE16: "if sums were kept in float16, which no Apple engine is known to do",
}


def _feared(tier: Tier, differences: Differences) -> Finding:
    worst = max(differences, key=lambda d: (not d.sound, d.error))
    return Finding(
        rule=f"float16.{tier}",
        severity=Severity.WARNING,
        message=f"{describe(worst)[:1].upper()}{describe(worst)[1:]} {FEARED[tier]}.",
        advice="test this output on a device, or take the advice for the op that is named",
    )


def _culprits(facts: Facts) -> Iterator[Finding]:
    found = facts.investigation
    if facts.no_blame:
        yield Finding(rule="float16.no_blame", severity=Severity.INFO, message=f"No op is named: {facts.no_blame}")
    if found is None:
        return
    if found.spread:
        yield Finding(
            rule="float16.spread",
            severity=Severity.WARNING,
            message="No single op is to blame: many small losses add up along the network.",
            advice="keep the last layers in float32, or compare with labelled data: such drift often changes no decision",
        )
    for suspect in found.suspects[:NAMED]:
        yield _culprit(suspect, found.tier)


def _culprit(suspect: "Suspect", tier: Tier) -> Finding:
    why = suspect.diagnosis
    return Finding(
        rule=f"float16.{why.cause}",
        severity=Severity.WARNING,
        op=f"{suspect.type} {suspect.name}"[:4_000],
        layer=suspect.layer,
        source=suspect.source,
        message=f"{_alone(suspect)} ({why.cause}): {why.margin}."[:4_000],
        advice=why.advice,
        evidence=why.evidence,
    )


def _alone(suspect: "Suspect") -> str:
    """Say what this op alone does to the outputs."""
    if suspect.damage >= 10:
        return f"{suspect.type} alone makes outputs infinite or NaN"
    if suspect.diagnosis.cause in SPECIAL:
        return f"{suspect.type} {SPECIAL[suspect.diagnosis.cause]}"
    return f"{suspect.type} alone moves the outputs by {percent(min(suspect.damage, 9.9))} of their range"


SPECIAL = {"integers": "reads integers that do not fit", "converter": "was lost in conversion"}


def _curves(found: "Investigation | None") -> Iterator[Series]:
    """Error along the network: what each op loses by itself, and what has come together up to it."""
    if found is None or found.blame is None:
        return
    places = [
        (place, local) for place, local in zip(found.blame.places, found.blame.locals, strict=True) if place.index >= 0
    ]
    positions = tuple(float(place.index) for place, _ in places)
    rows = (
        ("error_along_the_network", [found.blame.curve[place.index] for place, _ in places]),
        ("error_of_each_op_alone", [local.error for _, local in places]),
    )
    for name, errors in rows:
        capped = tuple(None if e is None or e != e else min(e, 1.0) for e in errors)
        yield Series(name=name, x=positions, y=capped, unit=Unit.FRACTION, x_name="op, in order")


def _remedy(result: Result, facts: Facts) -> str | None:
    if result.outcome is not Outcome.FAIL:
        return result.remedy
    found = facts.investigation
    if found is None or not found.suspects:
        return result.remedy
    first = found.suspects[0]
    where = first.source or first.layer or first.name
    return f"{where}: {first.diagnosis.advice}; `gate float16` finds the layers to keep in float32"


# --------------------------------------------------------------------------------------------------------- measurement


@dataclass(frozen=True)
class Seen:
    """Samples, what the reference answers, and the range of each output."""

    samples: tuple[Outputs, ...]
    reference: tuple[Outputs, ...]
    ranges: tuple[Mapping[str, float], ...]
    choices: frozenset[str] = frozenset()  # outputs that choose

    def pick(self, indices: Iterable[int]) -> "Seen":
        """Leave out the others."""
        some = tuple(indices)
        ranges = tuple(self.ranges[i] for i in some)
        return Seen(tuple(self.samples[i] for i in some), tuple(self.reference[i] for i in some), ranges, self.choices)

    def differences(self, found: Sequence[Outputs]) -> Differences:
        """Compare answers with the reference's."""
        return compare(self.reference, found, self.ranges, self.choices)

    def worst(self, found: Sequence[Outputs]) -> tuple[Outputs, Mapping[str, float]]:
        """The sample on which answers are furthest off, and its ranges."""
        from gate.float16.investigate import worst_sample

        index = worst_sample(self.reference, found, self.ranges, self.choices)
        return self.samples[index], self.ranges[index]


def measure(subject: Subject, models: "Models", *, blame: bool = True) -> Facts:
    """Run the float16 package, find out how far it is off, and (unless told not to) who is to blame where it is too far.

    Shuffled inputs are left out: they check the converter's logic, but values that never meet in real data (the corners of a box in
    another order) lose precision that nobody misses.
    """
    bench, engine, budget = subject.bench, subject.engine, subject.entry.budgets.float16
    reference, noted = _reference(subject, models)
    real = bench.real()
    ranges = tuple(bench.ranges(reference))
    seen = Seen(bench.samples, tuple(reference), ranges, choices(models.float16)).pick(real)
    answers = bench.answers(engine, models.float16)
    found: tuple[Outputs, ...] = tuple(answers[i] for i in real)
    facts = Facts(
        declared=seen.differences(found),
        labelled=bench.dataset is not None and bench.dataset.labels is not None,
        environment=engine.environment,
        notes=(*noted, *_nonfinite(seen.samples, seen.reference)),
    )
    if ordered := _in_exact_order(facts, models, seen, budget):
        return ordered
    tier = Tier.DECLARED
    if not any(breaks(d, budget, facts.labelled) for d in facts.declared):
        if engine.environment.engine == "mil":
            facts, tier, seen, found = _fear(facts, models, seen, found, budget)
        if tier is Tier.DECLARED and not any(d.error > WARN_ERROR for d in facts.declared):
            return facts
    if not blame:
        return replace(facts, worst=seen.worst(found)) if _is_ours(subject) else facts
    facts = replace(facts, notes=facts.notes + tuple(_untrained(facts, models)))
    limit = (budget.error if budget else None) or FAIL_ERROR
    return _blame(facts, models, seen, found, tier, min(limit, _worst_error(facts)))


def _in_exact_order(facts: Facts, models: "Models", seen: Seen, budget: Float16Budget | None) -> Facts | None:
    """What is left of a failure when near-equal candidates stand in float32's order; None if it fails then too."""
    if facts.environment.engine != "mil" or not any(breaks(d, budget, facts.labelled) for d in facts.declared):
        return None
    from gate.float16.order import in_exact_order

    limit = (budget.error if budget else None) or FAIL_ERROR
    found = in_exact_order(models, seen.samples, limit)
    if found is None:
        return None
    answers, op = found
    left = seen.differences(answers)
    if any(breaks(d, budget, facts.labelled) for d in left):
        return None
    worst = max(facts.declared, key=lambda d: (not d.sound, d.error))
    told = Finding(
        rule="float16.order",
        severity=Severity.WARNING,
        op=op,
        message=f"Near-equal candidates change places: {describe(worst)}, in float32's order by {percent(max(d.error for d in left))}.",
        advice="let the app rely on no order among equal scores, or keep this op and its scores in float32",
    )
    return replace(facts, declared=left, notes=(*facts.notes, told))


def _worst_error(facts: Facts) -> float:
    every = (*facts.declared, *(d for _, row in facts.feared for d in row))
    return max((d.error if d.sound else 1.0 for d in every), default=1.0)


def _fear(
    facts: Facts, models: "Models", seen: Seen, found: tuple[Outputs, ...], budget: Float16Budget | None
) -> tuple[Facts, Tier, Seen, tuple[Outputs, ...]]:
    """Ask the harsher tiers until one of them damages the answers."""
    from gate.float16.tiers import harsher

    feared: list[tuple[Tier, Differences]] = []
    for answers in harsher(models.float16, seen.samples):
        some = seen.pick(answers.indices)
        differences = some.differences(answers.outputs)
        feared.append((answers.tier, differences))
        blocks = answers.tier.blocks and any(breaks(d, budget, facts.labelled) for d in differences)
        if blocks or _is_far(differences):
            return replace(facts, feared=tuple(feared)), answers.tier, some, answers.outputs
    return replace(facts, feared=tuple(feared)), Tier.DECLARED, seen, found


def _untrained(facts: Facts, models: "Models") -> Iterator[Finding]:
    """Tell that the numbers of a model with random weights say little, where no labels vouch for it."""
    from gate.float16.tiers import is_untrained

    if not facts.labelled and is_untrained(models.float32 or models.float16):
        yield Finding(
            rule="float16.untrained",
            severity=Severity.INFO,
            message="The weights are where torch initialises them: a trained model may lose more or less than this.",
            advice="judge float16 on trained weights",
        )


def _blame(facts: Facts, models: "Models", seen: Seen, found: Sequence[Outputs], tier: Tier, limit: float) -> Facts:
    from gate.float16.investigate import investigate

    try:
        investigation = investigate(models, seen.samples, seen.reference, found, seen.ranges, tier, limit)
    except MilError as error:
        return replace(facts, no_blame=str(error))
    return replace(facts, investigation=investigation)


def _reference(subject: Subject, models: "Models") -> tuple[tuple[Outputs, ...], tuple[Finding, ...]]:
    """The source's answers, where the float32 program gives them too; else what that program gives, and why.

    A finished package is compared with itself in float32, as is a program that draws random numbers.
    """
    bench = subject.bench
    incomparable = not bench.steady or random_ops(models.float16)
    reference = None if subject.conversion.float32 is None or incomparable else bench.reference
    if reference is not None and not _is_ours(
        subject
    ):  # a Mac may lack our evaluator; where it is, fidelity was judged
        return reference, ()
    own = bench.answers(subject.engine, models.float32 or models.float16, "float32")
    if reference is None:
        return own, ()
    limit = subject.entry.budgets.fidelity.error
    apart = compare(reference, own, bench.ranges(reference), choices(models.float32 or models.float16))
    return (reference, ()) if all(d.sound and d.error <= limit for d in apart) else (own, (CONVERTER_FIRST,))


CONVERTER_FIRST = Finding(
    rule="float16.fidelity",
    severity=Severity.INFO,
    message="The float32 program already differs from the source (see fidelity), so float16 is compared with that program.",
    advice="mend the conversion first",
)


def _nonfinite(samples: Iterable[Outputs], reference: Sequence[Outputs]) -> Iterator[Finding]:
    """Say where the data or the float32 answers are already not a number, or infinite; -inf in an input is how masks are written."""
    bad_inputs = sorted({name for sample in samples for name, x in sample.items() if _has_nan(x)})
    for name in bad_inputs:
        yield Finding(
            rule="float16.input_nonfinite",
            severity=Severity.WARNING,
            message=f"Input {name!r} has NaN in the data; what it touches is not judged.",
            advice="clean the data set: the app will not send such values, or the model must handle them",
        )
    counts = {
        name: sum(int((~np.isfinite(np.asarray(row[name]))).sum()) for row in reference if _is_float(row[name]))
        for name in reference[0]
    }
    for name, count in counts.items():
        if count:
            yield Finding(
                rule="float16.reference_nonfinite",
                severity=Severity.WARNING,
                message=f"Output {name!r} has {count} infinite values or NaN in float32 already; float16 is not blamed for them.",
                advice="mend the float32 model first",
            )


def _is_float(value: Any) -> bool:
    return bool(np.issubdtype(np.asarray(value).dtype, np.floating))


def _has_nan(value: Any) -> bool:
    return _is_float(value) and bool(np.isnan(np.asarray(value)).any())


def find_models(subject: Subject) -> "Models":
    """The float16 package before compression, and the float32 program that it came from."""
    from gate.float16.models import Models

    conversion = subject.conversion
    float16 = subject.before or conversion.float16 or conversion.finished or subject.candidate.package.path
    float32 = conversion.float32
    if (
        float32 is None
        and conversion.finished
        and float16 != conversion.finished
        and computes_float32(conversion.finished)
    ):
        float32 = conversion.finished
    return Models(float16=Path(float16), float32=float32, layers=conversion.layers, lines=conversion.lines)


def not_judged(subject: Subject) -> Result | None:
    """Say why there is nothing to judge, if so."""
    if subject.candidate.policy.precision is Precision.FLOAT32:
        return not_run(CheckName.FLOAT16, "This policy computes in float32.")
    if subject.conversion.float16 is None and computes_float32(find_models(subject).float16):
        return not_run(CheckName.FLOAT16, "The package computes in float32: it has no float16 op to judge.")
    return None


def trial_limit(subject: Subject) -> float:
    """How far outputs may be off on the way to a cure: labels vouch for all but infinities and wrong integers."""
    budget, dataset = subject.entry.budgets.float16, subject.bench.dataset
    labelled = dataset is not None and dataset.labels is not None
    return (budget.error if budget else None) or (0.99 if labelled and budget is None else FAIL_ERROR)


def _answer(subject: Subject) -> tuple[Result, ...]:
    if why := not_judged(subject):
        return (why,)
    models, budget = find_models(subject), subject.entry.budgets.float16
    if _is_ours(subject):  # only our evaluator can round one op and not another
        return (judge_facts(measure(subject, models), budget),)
    each = (replace(subject, engine=subject.engine.on(units)) for units in subject.entry.compute_units)
    rows = [judge_facts(measure(one, models, blame=False), budget) for one in each]
    if not has_torch():  # a Mac that was handed packages: the evaluator's own row stands beside these
        return tuple(rows)
    low, high = _expected(subject, models)
    return tuple(row.model_copy(update={"findings": (*row.findings, _beside(row, low, high))}) for row in rows)


def _is_ours(subject: Subject) -> bool:
    return subject.engine.environment.engine == "mil"


# ------------------------------------------------------------------------------------------------------------ on a Mac


def _expected(subject: Subject, models: "Models") -> tuple[float, float]:
    """What the evaluator says that an Apple engine may lose: rounding each op once, and inside composite ops as well."""
    from gate.engine.mil import MilEngine

    facts = measure(replace(subject, engine=MilEngine()), models, blame=False)
    harsher = [d for tier, row in facts.feared if tier is not Tier.ACCUMULATE16 for d in row]
    low = max(_size(d) for d in facts.declared)
    return low, max([low, *map(_size, harsher)])


def _size(d: OutputDifference) -> float:
    return d.error if d.sound else float("inf")


def _beside(row: Result, low: float, high: float) -> Finding:
    """Compare what a compute unit lost with what the evaluator expects."""
    lost = float("inf") if row.outcome is Outcome.FAIL and _nonfinite_rule(row) else _largest(row)
    inside = lost <= max(high, WARN_ERROR)
    return Finding(
        rule="float16.measured",
        severity=Severity.INFO if inside else Severity.WARNING,
        message=f"{row.environment.compute_units} loses {_lost(lost)} of the range; the evaluator expects {_lost(low)} to {_lost(high)}.",
        advice=""
        if inside
        else "this device loses more than the evaluator knows of: keep the measured number, and report the op",
    )


def _nonfinite_rule(row: Result) -> bool:
    return any(f.rule in ("float16.nonfinite", "float16.integers") for f in row.findings)


def _largest(row: Result) -> float:
    return max(
        (float(m.value) for m in row.measurements if m.name.startswith("error:") and m.value is not None), default=0.0
    )


def _lost(error: float) -> str:
    return percent(error) if error < float("inf") else "all"


CHECK = Check(CheckName.FLOAT16, "Does half precision hurt?", _answer)
