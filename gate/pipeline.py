# SPDX-License-Identifier: Apache-2.0
"""What happens between gate.yml and report.json? The stages in order, one short function each.

Plan (read and refuse before any work) → for each model entry: source, conversion, bench, candidates, checks → app → waivers →
report. Everything is written into a private folder first and moved into place at the end.
"""

import logging
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

from gate import render, waivers
from gate.checks.app_size import judge as judge_app_size
from gate.checks.base import no_answer, not_run
from gate.compress import Workers
from gate.config import ModelEntry
from gate.entry import Circumstances, Trial
from gate.errors import UsageError
from gate.files import write_text
from gate.plan import Options, Plan, make_plan
from gate.policy import Policy
from gate.quantity import duration
from gate.report import App, CheckName, Model, Report, Result, Role, Run, make_report
from gate.report import Candidate as CandidateRecord
from gate.source import Source, open_source
from gate.tools import tool_versions

__all__ = ["Options", "Plan", "check", "make_plan", "tool_versions"]

Progress = Callable[[str], None]
PUBLISHED = ("packages", "logs", "per_item", "comment.md", "summary.md", "report.html", "report.json")


def check(options: Options, progress: Progress = lambda text: None) -> Report:
    """Run the gate and write its report; raise UsageError before any work when what was asked cannot be done."""
    plan = make_plan(options)
    with _workspace(options.out) as work, toolchain_log(work), Workers(options.jobs) as workers:
        around = Circumstances(
            plan.config,
            plan.engine,
            plan.baseline,
            plan.waivers,
            options.cache,
            workers,
            work,
            release=plan.release,
            refused=plan.refused,
        )
        judged = [_judge_entry(plan, entry, around, progress) for entry in plan.entries]
        report = _assemble(plan, tuple(model for model, _ in judged), {sandbox for _, sandbox in judged})
        write_views(report, work)
        _publish(work, options.out)
    return report


@contextmanager
def _workspace(out: Path) -> Iterator[Path]:
    """A private folder beside the results; gone when the run ends in any way."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".gate-", dir=out))
    except OSError as error:
        raise UsageError(f"--out {out}: expected a folder that can be written to: {error.strerror}") from None
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def toolchain_log(work: Path) -> Iterator[None]:
    """Keep what coremltools says in a file: it warns of missing Apple libraries at every start."""
    (work / "logs").mkdir()
    handler = logging.FileHandler(work / "logs" / "gate.log")
    loggers = [logging.getLogger(name) for name in ("coremltools", "gate")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True
        handler.close()


def _publish(work: Path, out: Path) -> None:
    """Move the results into place; the report last, so that a report on disk always has its packages."""
    for name in PUBLISHED:
        target = out / name
        if target.is_dir():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        if (work / name).exists():
            (work / name).replace(target)


def _judge_entry(plan: Plan, entry: ModelEntry, around: Circumstances, progress: Progress) -> tuple[Model, str]:
    """Judge one model entry under all its policies; say which sandbox its code ran in."""
    started = time.monotonic()
    scratch = around.work / "scratch" / entry.name
    scratch.mkdir(parents=True)
    container = plan.options.sandbox == "container"
    with open_source(
        entry,
        plan.config,
        workdir=scratch,
        time_limit=plan.remaining(),
        memory_limit=plan.config.limits.memory,
        in_container=container,
        extra_pythonpath=(plan.options.site,) if plan.options.site else (),
    ) as source:
        progress(f"{entry.name}: converting {entry.source.location}")
        trial = Trial(entry, source, around, scratch)
        trial.prepare()
        candidates = tuple(_judge_candidate(trial, policy, plan, progress) for policy in plan.policies[entry.name])
        log = _keep_log(source, entry, around.work)
        sandbox = source.sandbox
    model = Model(
        name=entry.name,
        source=f"{entry.source.kind} {entry.source.location}",
        source_digest=trial.digest,
        reference=trial.bench.reference_name,
        route=trial.conversion.route,
        deployment_target=plan.config.target(entry),
        data=trial.data_record(plan.policies[entry.name][0]),
        log=log,
        seconds=time.monotonic() - started,
        candidates=candidates,
    )
    return model, sandbox


def _judge_candidate(trial: Trial, policy: Policy, plan: Plan, progress: Progress) -> CandidateRecord:
    role = Role.SHIP if policy is plan.policies[trial.entry.name][0] else Role.EXPLORE
    if plan.is_over:
        return CandidateRecord(role=role, policy=policy.name, summary=policy.summary, results=(_out_of_time(plan),))
    progress(f"{trial.entry.name}: judging {policy.name}")
    return trial.judge(policy, role)


def _out_of_time(plan: Plan) -> Result:
    limit = duration(plan.config.limits.time)
    message = f"The run's time limit of {limit} was used up before this candidate."
    return no_answer(
        CheckName.FEASIBILITY, message, plan.engine.environment, "raise limits.time, or explore fewer policies"
    )


def _keep_log(source: Source, entry: ModelEntry, work: Path) -> str | None:
    if not source.log.is_file():
        return None
    kept = work / "logs" / f"{entry.name}.log"
    kept.parent.mkdir(exist_ok=True)
    shutil.copyfile(source.log, kept)
    return kept.relative_to(work).as_posix()


def _assemble(plan: Plan, models: tuple[Model, ...], sandboxes: set[str]) -> Report:
    options, config = plan.options, plan.config
    run_record = Run(
        commit=options.commit or _git_head(config.folder),
        base_commit=options.base_commit,
        event=options.event,
        config=str(options.config),
        config_digest=config.digest,
        config_from=options.config_from,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.monotonic() - plan.started,
        sandbox=", ".join(sorted(sandboxes)) or "none",
        fail_on=options.fail_on,
        tools=tool_versions(),
    )
    return make_report(run_record, models, _judge_app(plan, models), plan.findings)


def _judge_app(plan: Plan, models: tuple[Model, ...]) -> App:
    """Sum the shipped packages. A run over some of the entries says nothing about the app."""
    if len(models) < len(plan.config.models):
        return App(results=(not_run(CheckName.APP_SIZE, "Only some of the app's models were judged."),))
    sizes = {m.name: sum(f.bytes for f in m.shipped.files) if m.shipped.files else None for m in models}
    before = plan.baseline.total_bytes() if plan.baseline else None
    result = judge_app_size(sizes, plan.config.app.budgets.app_size, before)
    return App(results=(waivers.waive(result, waivers.APP, plan.waivers, date.today()),))


def write_views(report: Report, work: Path) -> None:
    """Write report.json and every view of it."""
    for name, view in (("comment.md", render.comment), ("summary.md", render.summary), ("report.html", render.html)):
        write_text(work / name, view(report))
    write_text(work / "report.json", report.model_dump_json(indent=1) + "\n")


def _git_head(folder: Path) -> str | None:
    """The commit of the working tree, marked when files differ from it."""
    try:
        done = [
            subprocess.run(
                ["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=10, check=False
            )
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done[0].returncode != 0:
        return None
    return done[0].stdout.strip() + (" (with uncommitted changes)" if done[1].stdout.strip() else "")
