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
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from gate import carry, heap, limits, search
from gate.ahead import Ahead
from gate.app_size import judge_app, unjudged
from gate.checks.base import no_answer
from gate.compress import Workers
from gate.config import ModelEntry, load, load_waivers
from gate.entry import Circumstances, Trial
from gate.errors import NoAnswer, SourceFault, UsageError
from gate.files import write_text
from gate.handover import start
from gate.kept import Shelf, shelf
from gate.mil import MilError
from gate.plan import Options, Plan, make_plan
from gate.policy import Policy
from gate.quantity import duration
from gate.render import write_views
from gate.report import App, CheckName, Finding, Model, Outcome, Report, Result, Role, Run, make_report, verdict
from gate.report import Candidate as CandidateRecord
from gate.source import Source, open_source
from gate.tools import tool_versions

__all__ = ["Options", "Plan", "check", "make_plan", "tool_versions"]

Progress = Callable[[str], None]
LEFT = (CheckName.FIDELITY, CheckName.FLOAT16, CheckName.ACCURACY)  # what `--profile-first` leaves to the other machine
PUBLISHED = ("packages", "policies", "logs", "per_item", "comment.md", "summary.md", "report.html", "report.json")


def check(options: Options, progress: Progress = lambda text: None) -> Report:
    """Run the gate and write its report; raise UsageError before any work when what was asked cannot be done."""
    plan = make_plan(options)
    with workspace(options.out) as work, toolchain_log(work), Workers(options.jobs, plan.remaining) as workers:
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
            handover=start(options.hand_over) if options.hand_over else None,
            left=LEFT if options.profile_first else (),
        )
        judged = [_judge_entry(plan, entry, around, progress) for entry in plan.entries]
        own = Verdicts(tuple(model for model, _ in judged), _judge_app(plan, [model for model, _ in judged]))
        standing = _standing(plan, own, around, progress)
        report = _assemble(plan, standing, {sandbox for _, sandbox in judged})
        if around.handover:
            base = None if options.approved_by else options.base_config
            around.handover.seal(plan.config, options.config, report.run, base)
        if plan.baseline:
            carry.copy_files(_carried(plan), plan.baseline, work)
        write_views(report, work)
        publish(work, options.out)
    return report


def search_one(options: Options, progress: Progress = lambda text: None) -> Report:
    """Search for one model entry, and judge what was found."""
    names = [entry.name for entry in load(options.config).models]
    if not options.models and len(names) > 1:
        raise UsageError(f"--model: {options.config} has {', '.join(names)}; name one of them")
    return check(options, progress)


def was_interrupted(report: Report) -> bool:
    """Was a search of it stopped by Ctrl-C?"""
    results = (result for model in report.models for result in model.shipped.results)
    return any(finding.rule == search.INTERRUPTED for result in results for finding in result.findings)


@contextmanager
def workspace(out: Path) -> Iterator[Path]:
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


def publish(work: Path, out: Path) -> None:
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
        exchange=plan.options.exchange,
        extra_pythonpath=(plan.options.site,) if plan.options.site else (),
        shelf=_shelf(plan, entry),
    ) as source:
        doing = "reading" if entry.source.kind == "coreml" else "converting"
        progress(f"{entry.name}: {doing} {entry.source.location}")
        around = replace(around, engine=plan.engine.on(entry.compute_units[0]))
        trial = Trial(entry, source, around, scratch, searches=plan.ask(entry) is not None)
        trial.prepare()
        candidates, shipped = _candidates(trial, plan, progress)
        sandbox = source.sandbox
    log = _keep_log(source, entry, around.work)  # a worker in another container hands its log over when it is closed
    model = Model(
        name=entry.name,
        source=f"{entry.source.kind} {entry.source.location}",
        source_digest=trial.digest,
        reference=trial.bench.reference_name,
        route=trial.conversion.route,
        deployment_target=plan.config.target(entry),
        data=trial.data_record(shipped),
        log=log,
        seconds=time.monotonic() - started,
        candidates=(*_shipped_elsewhere(plan, entry), *candidates),
    )
    return model, sandbox


def _shelf(plan: Plan, entry: ModelEntry) -> Shelf | None:
    options = plan.options
    site = (options.site,) if options.site else ()
    return shelf(options.cache, options.cache_key, entry, plan.config.folder, options.event, site)


def _shipped_elsewhere(plan: Plan, entry: ModelEntry) -> tuple[CandidateRecord, ...]:
    """Name the shipped policy where another part judges it: a model's first candidate is the one that ships."""
    shipped = plan.policies[entry.name][0]
    if shipped in plan.judged(entry.name):
        return ()
    return (CandidateRecord(role=Role.SHIP, policy=shipped.name, summary=shipped.summary),)


def _candidates(trial: Trial, plan: Plan, progress: Progress) -> tuple[tuple[CandidateRecord, ...], Policy]:
    """Judge the policies of this part, the shipped one as gate.yml names it or as it is found; return that too."""
    start, policies = plan.policies[trial.entry.name][0], plan.judged(trial.entry.name)
    shipped, told = _search(trial, plan, progress) if start in policies else (start, ())
    with Ahead(trial.around.workers) as ahead:
        trial.begin((shipped if policy is start else policy for policy in policies), ahead)
        judged = tuple(
            _with(_judge_candidate(trial, shipped, Role.SHIP, plan, progress), told)
            if policy is start
            else _judge_candidate(trial, policy, Role.EXPLORE, plan, progress)
            for policy in policies
        )
    return judged, shipped


def _search(trial: Trial, plan: Plan, progress: Progress) -> tuple[Policy, tuple[Result, ...]]:
    """Return the policy that ships, as gate.yml names it or as it is found; a found one is written for the team to commit."""
    start, ask = plan.policies[trial.entry.name][0], plan.ask(trial.entry)
    if ask is None or not trial.conversion.usable:
        return start, ()
    where = plan.engine.environment
    try:
        found = search.search(trial, start, ask, lambda text: progress(f"{trial.entry.name}: {text}"))
    except (MilError, NoAnswer, SourceFault) as error:
        instead = "name a policy as ship:, or mend what the message names"
        missing = no_answer(CheckName.ACCURACY, f"the search ended without an answer: {error}", where, instead)
        return start, (missing.model_copy(update={"slice": search.SLICE}),)
    text = search.write_policy(found.policy, search.file_note(found, f"gate search --model {trial.entry.name}"))
    write_text(trial.around.work / "policies" / f"{trial.entry.name}.yaml", text)
    return found.policy, (search.result(found, where),)


def _with(record: CandidateRecord, told: tuple[Result, ...]) -> CandidateRecord:
    """Add to a candidate how it was found, in the order of the checks."""
    order = list(CheckName)
    judged = map(_unfinished, record.results) if _ran_out(told) else record.results
    results = sorted((*judged, *told), key=lambda result: order.index(result.check))
    return record.model_copy(update={"results": tuple(results)})


def _ran_out(told: tuple[Result, ...]) -> bool:
    return any(finding.rule == search.STOPPED for result in told for finding in result.findings)


def _unfinished(result: Result) -> Result:
    """What a search that ran out of time shipped is not its last word on the budgets that it is about."""
    if result.outcome in (Outcome.PASS, Outcome.NOT_RUN) or result.check not in (CheckName.SIZE, CheckName.ACCURACY):
        return result
    return result.model_copy(update={"remedy": f"{search.MORE_TIME}; else {result.remedy or 'move the budget'}"})


def _judge_candidate(trial: Trial, policy: Policy, role: Role, plan: Plan, progress: Progress) -> CandidateRecord:
    if plan.is_over and trial.conversion.usable:  # else the code that used the time up is named
        return CandidateRecord(role=role, policy=policy.name, summary=policy.summary, results=(_out_of_time(plan),))
    progress(f"{trial.entry.name}: judging {policy.name}")
    started = time.monotonic()
    record = trial.judge(policy, role)
    heap.give_back()
    return record.model_copy(update={"seconds": time.monotonic() - started})


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


@dataclass(frozen=True)
class Verdicts:
    """The answers of one run, and what there is to say about the run."""

    models: tuple[Model, ...]
    app: App
    findings: tuple[Finding, ...] = ()


def _standing(plan: Plan, own: Verdicts, around: Circumstances, progress: Progress) -> Verdicts:
    """Which answers count: on a pull request that changes limits, the worse of those under base's limits and its own."""
    options = plan.options
    if options.base_config is None:
        declared = {model.name for model in own.models} if options.self_declared else set()
        return replace(own, models=_declared(own.models, declared))
    both = limits.compare(options.base_config, options.config)
    old = _under_base(plan, both, own, around, progress)
    counted = own if options.approved_by else _worse(old, own, around)
    removed = () if options.approved_by else tuple(limits.missing(entry) for entry in both.removed)
    pairs = [
        (model.name, verdict(before.shipped.results), verdict(model.shipped.results))
        for before, model in zip(old.models, own.models, strict=True)
        if both.touch(model.name) and model.shipped.results  # another part judges it, and tells
    ]
    if both.touch(limits.APP) and plan.part is None:  # of several parts, none has seen the whole app: `merge` tells
        pairs.append((limits.APP, verdict(old.app.results), verdict(own.app.results)))
    notes = limits.notes(both, pairs, options.approved_by, both.base.approval.label)
    return Verdicts((*_declared(counted.models, both.new), *removed), counted.app, tuple(notes))


def _under_base(plan: Plan, both: limits.Limits, own: Verdicts, around: Circumstances, progress: Progress) -> Verdicts:
    """Judge again what a changed limit concerns; the rest has the same answer under both."""
    config = both.config
    accepted = load_waivers(Path(config.waivers)) if config.waivers else ()
    old = replace(plan, config=config, waivers=accepted, started=time.monotonic())
    handover = None if plan.options.approved_by else around.handover
    there = replace(around, config=config, waivers=accepted, work=around.work / "under-base", handover=handover)
    (there.work / "logs").mkdir(parents=True)
    models = []
    for entry, model in zip(old.entries, own.models, strict=True):
        if both.touch(entry.name):
            progress(f"{entry.name}: again, under the base branch's limits")
            if handover:
                handover.forget(entry.name)  # what counts is handed over
            model, _ = _judge_entry(old, entry, there, progress)
        models.append(model)
    return Verdicts(tuple(models), _judge_app(old, models))


def _worse(old: Verdicts, own: Verdicts, around: Circumstances) -> Verdicts:
    """Take the worse answer about each candidate, with its files."""
    models = tuple(limits.worse(before, model) for before, model in zip(old.models, own.models, strict=True))
    for before, model, kept in zip(old.models, own.models, models, strict=True):
        if before is not model:
            _take_over(around.work / "under-base", around.work, (before, model, kept))
    return Verdicts(models, limits.worse_app(old.app, own.app))


def _take_over(source: Path, target: Path, models: tuple[Model, Model, Model]) -> None:
    """Of what stands from the other run (`before`), put the files in place of ours."""
    before, model, kept = models
    standing = {id(candidate) for candidate in kept.candidates}
    for name in (name for c in model.candidates if id(c) not in standing for name in _files_of(model, c)):
        shutil.rmtree(target / name) if (target / name).is_dir() else (target / name).unlink(missing_ok=True)
    for name in (name for c in before.candidates if id(c) in standing for name in _files_of(before, c)):
        if (source / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).replace(target / name)


def _files_of(model: Model, candidate: CandidateRecord) -> Iterator[str]:
    """What a run leaves of a candidate; the log of a model goes with the shipped one."""
    if candidate.package:
        yield candidate.package
    yield f"per_item/{model.name}/{candidate.policy}.jsonl"
    if candidate is model.shipped:
        yield f"logs/{model.name}.log"


def _declared(models: Iterable[Model], names: Collection[str]) -> tuple[Model, ...]:
    return tuple(m.model_copy(update={"self_declared": True}) if m.name in names else m for m in models)


def _assemble(plan: Plan, judged: Verdicts, sandboxes: set[str]) -> Report:
    options, config = plan.options, plan.config
    run_record = Run(
        commit=options.commit or _git_head(config.folder),
        base_commit=options.base_commit,
        event=options.event,
        config=str(options.config),
        config_digest=config.digest,
        config_from=options.config_from,
        approved_by=options.approved_by,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.monotonic() - plan.started,
        sandbox=", ".join(sorted(sandboxes)) or "none",
        fail_on=options.fail_on,
        tools=tool_versions(),
        part=plan.part,
    )
    models = carry.in_order(config, (*judged.models, *_carried(plan)), options.contents)
    return make_report(run_record, models, judged.app, (*judged.findings, *plan.findings))


def _carried(plan: Plan) -> tuple[Model, ...]:
    """The last results of entries of which nothing changed; every part of a divided run brings the same."""
    return carry.carried(plan.config, plan.options.carry, plan.baseline)


def _judge_app(plan: Plan, models: Sequence[Model]) -> App:
    if plan.part:
        return unjudged("This is one part of a run; the app is judged where the parts are joined.")
    before = plan.baseline.total_bytes() if plan.baseline else None
    return judge_app(plan.config, (*models, *_carried(plan)), before, plan.waivers)


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
