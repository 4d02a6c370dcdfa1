# SPDX-License-Identifier: Apache-2.0
"""What does another environment say about packages that were handed over?

`gate check --engine coreml --from FOLDER`: the questions that need a run (fidelity, float16, accuracy, latency) and the size of the
compiled model, on packages, inputs and reference outputs alone. No code of the team, no conversion, no torch. The report holds this
environment's answers only; `gate merge` puts them beside those of the run that handed over. What was read from the package there is
not asked again.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

from gate import metrics, waivers
from gate.candidate import computes_float32
from gate.checks import CHECKS, base
from gate.checks.base import Subject, not_run
from gate.checks.float16 import find_models
from gate.config import Waiver
from gate.engine import Engine, make_engine
from gate.errors import UsageError
from gate.handed import HandedCandidate, HandedModel
from gate.handover import Handed, read
from gate.pipeline import publish, tool_versions, toolchain_log, workspace
from gate.policy import Precision
from gate.render import write_views
from gate.report import Candidate, CheckName, Model, Outcome, Report, Result, Role, Run, make_report

ASKED = (CheckName.FIDELITY, CheckName.FLOAT16, CheckName.SIZE, CheckName.ACCURACY, CheckName.LATENCY)


def answer(
    folder: Path,
    out: Path,
    *,
    engine: Engine | str = "auto",
    device: str = "",
    development_team: str = "",
    fail_on: str | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Judge what was handed over in `folder` with the engine of this machine, and write the report to `out`."""
    handed = read(folder)
    runs = make_engine(engine, device, development_team) if isinstance(engine, str) else engine
    started = time.monotonic()
    with workspace(out) as work, toolchain_log(work):
        models = tuple(_model(handed, model, runs, work, progress) for model in handed.record.models)
        report = make_report(_run(handed, started, fail_on), models)
        write_views(report, work)
        publish(work, out)
    return report


def _run(handed: Handed, started: float, fail_on: str | None) -> Run:
    update = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": time.monotonic() - started,
        "sandbox": "none",  # none of the team's code is run
        "tools": tool_versions(),
        "part": None,
        "handover": handed.digest,
    }
    return handed.record.run.model_copy(update=update | ({"fail_on": fail_on} if fail_on else {}))


def _model(handed: Handed, model: HandedModel, engine: Engine, work: Path, progress: Callable[[str], None]) -> Model:
    accepted, candidates = handed.waivers(), []
    engine = engine.on(handed.entry(model).compute_units[0])
    for given, subject in handed.subjects(model, engine=engine, out=work):
        progress(f"{model.name}: judging {given.policy} with {engine.environment.engine}")
        candidates.append(_candidate(given, subject, accepted))
    if not candidates or candidates[0].role is not Role.SHIP:  # another shard handed that one over
        shipped = handed.entry(model).shipped_policy
        candidates.insert(0, Candidate(role=Role.SHIP, policy=Path(shipped).stem))
    return Model(
        name=model.name,
        source=model.source,
        source_digest=model.source_digest,
        reference=model.reference,
        route=model.route,
        deployment_target=model.deployment_target,
        candidates=tuple(candidates),
    )


def _candidate(given: HandedCandidate, subject: Subject, accepted: tuple[Waiver, ...]) -> Candidate:
    digest = subject.candidate.package.digest
    if digest != given.package_digest:
        raise UsageError(f"{subject.entry.name}/{given.policy}: the package is not the one that was handed over")
    started = time.monotonic()
    results = tuple(waivers.waive(r, subject.entry.name, accepted, date.today()) for r in _results(subject))
    return Candidate(
        role=given.role,
        policy=given.policy,
        summary=given.summary,
        policy_digest=given.policy_digest,
        package_digest=digest,
        files=subject.candidate.package.files,
        results=results,
        seconds=time.monotonic() - started,
    )


def _results(subject: Subject) -> Iterator[Result]:
    """Ask what only a run can answer. What says nothing of this environment was said where the package was made."""
    here = subject.engine.environment.engine
    for check in CHECKS:
        if check.name in ASKED:
            why = unanswerable(check.name, subject)
            found = (
                (not_run(check.name, why, environment=subject.engine.environment),) if why else base.run(check, subject)
            )
            yield from (
                _told_here(r, subject) for r in found if r.environment.engine == here or r.outcome is Outcome.NOT_RUN
            )


def _told_here(result: Result, subject: Subject) -> Result:
    """Say of a missing answer that it is missing here, so that it does not stand for another environment's."""
    here = subject.engine.environment
    if result.outcome is not Outcome.NOT_RUN or result.environment.engine == here.engine:
        return result
    return result.model_copy(update={"environment": here})


def unanswerable(check: CheckName, subject: Subject) -> str:
    """Say why this environment cannot be asked, if so."""
    if subject.engine.environment.engine == "mil":
        return ""
    if check is CheckName.ACCURACY and subject.entry.metric and metrics.is_own(subject.entry.metric):
        return "The metric is the team's own code, which is not run on this machine."
    if check is CheckName.FLOAT16 and subject.candidate.policy.precision is not Precision.FLOAT32:
        models = find_models(subject)
        if not computes_float32(models.float32 or models.float16):
            return "There is no float32 package to compare with: Core ML runs a float16 program as it is."
    return ""
