# SPDX-License-Identifier: Apache-2.0
"""What happens between gate.yml and report.json? The stages in order, one short function each.

Plan (read and refuse before any work) → for each model entry: source, conversion, bench, candidates, checks → app → waivers →
report. Everything is written into a private folder first and moved into place at the end.
"""

import difflib
import importlib.metadata
import logging
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from gate import __version__, policy, render, waivers
from gate.baseline import Baseline, load_baseline
from gate.checks.app_size import judge as judge_app_size
from gate.checks.base import not_run
from gate.checks.memory import refuse_impossible
from gate.compress import Workers
from gate.config import Config, ModelEntry, Waiver, load, load_waivers
from gate.engine import Engine, make_engine
from gate.entry import Circumstances, Trial
from gate.errors import Exit, UsageError
from gate.files import write_text
from gate.policy import Policy, Precision
from gate.report import App, CheckName, Finding, Model, Outcome, Report, Role, Run, make_report
from gate.report import Candidate as CandidateRecord
from gate.source import Source, open_source

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What was asked on the command line, or by GitHub's inputs."""

    config: Path
    out: Path
    models: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    engine: str = "auto"
    baseline: Path | None = None
    cache: Path | None = None
    jobs: int = 1
    fail_on: str = "fail"
    event: str | None = None
    commit: str | None = None
    base_commit: str | None = None
    config_from: str = "working tree"
    sandbox: str | None = None  # what an outer step already keeps apart: container or namespaces
    site: Path | None = None  # wheels that the prepare step installed, for the team's code only


@dataclass(frozen=True)
class Plan:
    """What will be done, read and checked before any work."""

    options: Options
    config: Config
    policies: dict[str, tuple[Policy, ...]]  # model name -> shipped first
    engine: Engine
    baseline: Baseline | None
    waivers: tuple[Waiver, ...]
    findings: tuple[Finding, ...]
    started: float = field(default_factory=time.monotonic)

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """The model entries that are judged."""
        return tuple(entry for entry in self.config.models if entry.name in self.policies)

    def remaining(self) -> float:
        """Seconds that are left of the run's time limit; never less than one, so that a late stage still fails cleanly."""
        return max(1.0, self.config.limits.time - (time.monotonic() - self.started))


def check(options: Options, progress: Progress = lambda text: None) -> Report:
    """Run the gate and write its report; raise UsageError before any work when what was asked cannot be done."""
    plan = make_plan(options)
    with _workspace(options.out) as work, toolchain_log(work), Workers(options.jobs) as workers:
        around = Circumstances(plan.config, plan.engine, plan.baseline, plan.waivers, options.cache, workers, work)
        judged = [_judge_entry(plan, entry, around, progress) for entry in plan.entries]
        report = _assemble(plan, tuple(model for model, _ in judged), {sandbox for _, sandbox in judged})
        write_views(report, work)
        _publish(work, options.out)
    return report


def exit_code(report: Report, fail_on: str) -> Exit:
    """Return the exit code of a report: a failure outweighs a missing answer."""
    if fail_on == "never":
        return Exit.PASS
    match report.outcome:
        case Outcome.FAIL:
            return Exit.FAIL
        case Outcome.ERROR:
            return Exit.NO_ANSWER
        case Outcome.INCONCLUSIVE:
            return Exit.NO_ANSWER if fail_on == "inconclusive" else Exit.PASS
        case _:
            return Exit.PASS


def make_plan(options: Options) -> Plan:
    """Read everything that can be wrong before any work is done."""
    config = load(options.config)
    refuse_impossible(config)
    entries = _selected(config, options.models)
    baseline, findings = load_baseline(options.baseline)
    accepted = load_waivers(config.folder / config.waivers) if config.waivers else ()
    waivers.unknown(accepted, [entry.name for entry in config.models])
    policies = {entry.name: _policies(entry, config, options.policies) for entry in entries}
    _refuse_unknown_filter(options.policies, policies)
    ended = waivers.expired(accepted, date.today())
    return Plan(options, config, policies, make_engine(options.engine), baseline, accepted, (*findings, *ended))


def _selected(config: Config, names: tuple[str, ...]) -> tuple[ModelEntry, ...]:
    known = {entry.name: entry for entry in config.models}
    for name in names:
        if name not in known:
            raise UsageError(f"--model {name}: no such entry in {config.folder.name}{_nearest(name, known)}")
    return tuple(entry for entry in config.models if not names or entry.name in names)


def _policies(entry: ModelEntry, config: Config, wanted: tuple[str, ...]) -> tuple[Policy, ...]:
    """Load the entry's policies, the shipped one first; `--policy` filters the explored rows only."""
    names = [name for name in entry.policies if name == entry.shipped_policy or not wanted or name in wanted]
    found = tuple(policy.load(name, config.folder) for name in names)
    for one in found:
        one.refuse_unless_carried_by(config.target(entry), entry.name)
        if one.precision is Precision.AS_IS and entry.source.kind not in ("coreml", "converter"):
            raise UsageError(
                f"model {entry.name!r}: policy as-is is for a finished package; this source is a {entry.source.kind}"
            )
    return found


def _refuse_unknown_filter(wanted: tuple[str, ...], policies: dict[str, tuple[Policy, ...]]) -> None:
    known = {one.name for row in policies.values() for one in row}
    for name in wanted:
        if name not in known and Path(name).stem not in known:
            raise UsageError(f"--policy {name}: no selected model ships or explores it{_nearest(name, known)}")


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f' (did you mean "{close[0]}"?)' if close else f"; known: {', '.join(sorted(known))}"


@contextmanager
def _workspace(out: Path) -> Iterator[Path]:
    """A private folder beside the results; gone when the run ends in any way."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: a file, expected a folder")
    out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".gate-", dir=out))
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
    for name in ("packages", "logs", "per_item", "comment.md", "summary.md", "report.html", "report.json"):
        if (work / name).exists():
            target = out / name
            if target.is_dir():
                shutil.rmtree(target)
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
    progress(f"{trial.entry.name}: judging {policy.name}")
    shipped = policy is plan.policies[trial.entry.name][0]
    return trial.judge(policy, Role.SHIP if shipped else Role.EXPLORE)


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


def tool_versions() -> dict[str, str]:
    """Versions of what the numbers depend on; numbers of other versions are not compared."""
    names = ("torch", "coremltools", "numpy", "scikit-learn", "onnxruntime")
    found = {"coreml-gate": __version__, "python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


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
