# SPDX-License-Identifier: Apache-2.0
"""`gate float16`: where does a model lose precision, and what is the least that mends it?

Does what the float16 check does, and then converts again with the ops that it finds kept in float32, to judge that package too.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gate.candidate import Candidate, read_package
from gate.checks import base, fidelity, float16
from gate.checks.float16 import Facts
from gate.compress import Workers, cast_float16
from gate.config import ModelEntry
from gate.entry import Circumstances, Trial
from gate.errors import NoAnswer, SourceFault, UsageError
from gate.float16.record import CulpritRecord, CureRecord, Float16Record
from gate.pipeline import Options, Plan, make_plan, toolchain_log
from gate.policy import Policy, Precision
from gate.report import Outcome, Result, Role
from gate.source import open_source

if TYPE_CHECKING:
    from gate.float16.cure import Cure, Failing
    from gate.float16.investigate import Suspect
    from gate.float16.models import Models

Progress = Callable[[str], None]


def command(
    config: Path, model: str | None = None, *, engine: str = "mil", progress: Progress = lambda text: None
) -> Float16Record:
    """Blame and cure one model entry of a configuration."""
    options = Options(config=config, out=Path("gate-out"), models=(model,) if model else (), engine=engine)
    plan = make_plan(options)
    if len(plan.entries) != 1:
        raise UsageError(f"--model: {config} has {', '.join(entry.name for entry in plan.entries)}; name one of them")
    entry = plan.entries[0]
    policies = plan.policies[entry.name]
    policy = _policy(policies)
    if policy is None:
        raise UsageError(f"model {entry.name!r}: policy {policies[0].name} computes in float32, so nothing can be lost")
    with tempfile.TemporaryDirectory(prefix="gate-float16-") as folder:
        work = Path(folder).resolve()
        with toolchain_log(work):
            return _examine_entry(plan, entry, policy, work, progress)


def _policy(policies: Sequence[Policy]) -> Policy | None:
    """The one that computes in float16, the shipped one first; else the package as it is."""
    halves = [p for p in policies if p.precision is Precision.FLOAT16]
    return next(iter([*halves, *(p for p in policies if p.precision is Precision.AS_IS)]), None)


def _examine_entry(plan: Plan, entry: ModelEntry, policy: Policy, work: Path, progress: Progress) -> Float16Record:
    around = Circumstances(plan.config, plan.engine, None, (), None, Workers(1, plan.remaining), work)
    scratch = work / "scratch"
    scratch.mkdir()
    with open_source(
        entry, plan.config, workdir=scratch, time_limit=plan.remaining(), memory_limit=plan.config.limits.memory
    ) as source:
        progress(f"{entry.name}: converting {entry.source.location}")
        trial = Trial(entry, source, around, scratch)
        trial.prepare()
        return examine(trial, policy, progress)


def examine(trial: Trial, policy: Policy, progress: Progress = lambda text: None) -> Float16Record:
    """Blame and cure what was converted."""
    conversion = trial.conversion
    if not conversion.usable:
        raise (SourceFault(conversion.fault) if conversion.fault else NoAnswer(conversion.no_answer or "not converted"))
    subject = _subject(trial, policy, trial.before(policy))
    exact = base.run(fidelity.CHECK, subject)[0]
    if why := float16.not_judged(subject):
        return Float16Record(model=trial.entry.name, result=why, fidelity=exact)
    progress(f"{trial.entry.name}: looking for the ops that lose precision")
    models = float16.find_models(subject)
    facts = float16.measure(subject, models)
    record = _record(trial, subject, models, facts).model_copy(update={"fidelity": exact})
    if record.result.outcome is not Outcome.FAIL:
        return record
    progress(f"{trial.entry.name}: looking for the least to keep in float32")
    return record.model_copy(update=_mend(trial, policy, subject, models, facts))


def _subject(trial: Trial, policy: Policy, package: Path) -> base.Subject:
    return trial.subject(Candidate(Role.SHIP, policy, read_package(package)), None, package)


def _record(trial: Trial, subject: base.Subject, models: "Models", facts: Facts) -> Float16Record:
    from gate.float16.investigate import float32_names
    from gate.float16.tiers import is_untrained
    from gate.mil.program import load_program

    found = facts.investigation
    blame = found.blame if found else None
    return Float16Record(
        model=trial.entry.name,
        result=float16.judge_facts(facts, subject.entry.budgets.float16),
        tier=found.tier if found else None,
        spread=bool(found and found.spread),
        untrained=is_untrained(models.float32 or models.float16),
        kept_float32=tuple(sorted(float32_names(load_program(models.float16).function(), inputs=False))),
        culprits=tuple(_culprit(s) for s in found.suspects) if found else (),
        tried=blame.tried if blame else 0,
        evaluations=blame.evaluations if blame else 0.0,
    )


def _culprit(suspect: "Suspect") -> CulpritRecord:
    why = suspect.diagnosis
    return CulpritRecord(
        op=suspect.type,
        name=suspect.name,
        layer=suspect.layer,
        source=suspect.source,
        damage=suspect.damage,
        local_error=min(suspect.local, 10.0),
        cause=why.cause,
        margin=why.margin,
        advice=why.advice,
        evidence=why.evidence,
    )


def _mend(trial: Trial, policy: Policy, subject: base.Subject, models: "Models", facts: Facts) -> dict[str, object]:
    """Find the cure, or say why there is none."""
    from gate.float16.cure import find_cure

    found = facts.investigation
    if found is None or found.blame is None or found.trials is None:
        return {"no_cure": facts.no_blame or "the loss is not one of float16 rounding; see the advice"}
    if not trial.source.is_torch and models.float32 is None:
        return {
            "no_cure": "a finished float16 package cannot be converted again; convert it from its source, or in float32"
        }
    results: dict[Path, Result] = {}

    def convert(patterns: Sequence[str]) -> Path:
        kept = (*policy.keep_float32, *patterns)
        if not trial.source.is_torch and models.float32 is not None:
            return cast_float16(models.float32, trial.scratch / f"mended-{len(results)}.mlpackage", kept)
        return trial.source.convert(
            trial.conversion.route or "", Precision.FLOAT16, keep_float32=kept, target=trial.target
        ).package

    def failing(package: Path) -> "Failing | None":
        mended = _subject(trial, policy, package)
        again = float16.measure(mended, float16.find_models(mended), blame=False)
        results[package] = float16.judge_facts(again, subject.entry.budgets.float16)
        return None if results[package].outcome is Outcome.PASS else again.worst

    cure = find_cure(found.trials, found.blame, models, float16.trial_limit(subject), convert, failing)
    if isinstance(cure, str):
        return {"no_cure": cure}
    return {"cure": _cure(cure, results[cure.package])}


def _cure(cure: "Cure", after: Result) -> CureRecord:
    return CureRecord(
        keep_float32=cure.keep_float32,
        policy=policy_fragment(cure.keep_float32),
        call=coremltools_call(cure),
        ops=cure.ops,
        minimal=cure.minimal,
        conversions=cure.conversions,
        bytes_before=cure.bytes_before,
        bytes_after=cure.bytes_after,
        casts_before=cure.casts_before,
        casts_after=cure.casts_after,
        after=after,
    )


def policy_fragment(patterns: Sequence[str]) -> str:
    """Write the patterns as YAML, for the model entry in gate.yml or for a policy."""
    return "keep_float32: [" + ", ".join(f'"{pattern}"' for pattern in patterns) + "]"


def coremltools_call(cure: "Cure") -> str:
    """Write the same for a converter script: by the names that the ops have during conversion."""
    names = ", ".join(map(repr, cure.names))
    return (
        f"kept = {{{names}}}\n"
        "ct.convert(..., compute_precision=ct.transform.FP16ComputePrecision(\n"
        "    op_selector=lambda op: not any(v.name in kept for v in op.outputs)))"
    )
