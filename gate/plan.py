# SPDX-License-Identifier: Apache-2.0
"""What will be done, and what of it can be refused before any work?

Everything that is wrong with what was asked and can be known without running anything is told here, with exit code 2.
"""

import difflib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from gate import calibration, metrics, policy, shard, unchanged, waivers
from gate.baseline import Baseline, load_baseline
from gate.checks.accuracy import check_budget
from gate.checks.memory import refuse_impossible
from gate.config import Config, ModelEntry, Waiver, load, load_waivers
from gate.engine import Engine, make_engine
from gate.errors import ConfigError, UsageError
from gate.files import is_lfs_pointer
from gate.policy import Policy, Precision
from gate.report import Finding, Part, Severity
from gate.search import AUTO, Ask, start_policy


@dataclass(frozen=True)
class Options:
    """What was asked on the command line, or by GitHub's inputs."""

    config: Path
    out: Path
    models: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    engine: str = "auto"
    baseline: Path | None = None
    release: Path | None = None
    cache: Path | None = None
    cache_key: str | None = None  # seals the conversions that are kept there; none are kept without
    jobs: int = 1
    fail_on: str = "fail"
    event: str | None = None
    commit: str | None = None
    base_commit: str | None = None
    config_from: str = "working tree"
    base_config: Path | None = None  # gate.yml of the base branch, beside the files that it names
    self_declared: bool = False  # a pull request whose base branch has no gate.yml
    approved_by: str | None = None  # who accepted that this pull request changes limits
    sandbox: str | None = None  # what an outer step already keeps apart: container or namespaces
    carry: tuple[str, ...] = ()  # entries whose last result stands: nothing of them changed
    only_changed: bool = False  # let the last result of every entry of which nothing changed stand
    contents: Mapping[str, str] = field(default_factory=dict)  # entry -> digest of what it rests on
    shard: str | None = None  # K/N: judge this part only
    matrix: Path | None = None  # what `gate plan` printed; dealt anew where there is none
    exchange: Path | None = None  # shared with a container of its own for the model's code
    hand_over: Path | None = None  # write there what another machine needs to judge the same packages
    profile_first: bool = False  # leave what needs a run to that machine
    device: str = ""  # connected to this Mac: time the packages there, too
    development_team: str = ""  # whose signature the app carries that runs them there
    site: Path | None = None  # wheels that the prepare step installed, for the team's code only
    search: Ask | None = None  # look for the smallest candidate of the entries, and judge that alone


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
    release: Baseline | None = None
    refused: Mapping[str, str] = field(default_factory=dict)  # yardstick -> why its report is not compared with
    part: Part | None = None  # of a run on several machines
    started: float = field(default_factory=time.monotonic)

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """The model entries that are judged."""
        return tuple(entry for entry in self.config.models if entry.name in self.policies and self.judged(entry.name))

    def judged(self, model: str) -> tuple[Policy, ...]:
        """The policies of an entry that this part judges."""
        mine = self.part and self.part.units[self.part.index - 1]
        return tuple(one for one in self.policies[model] if mine is None or f"{model}/{one.name}" in mine)

    @property
    def is_over(self) -> bool:
        """Is the run's time limit used up? A stage that has begun is finished."""
        return time.monotonic() - self.started > self._seconds

    def remaining(self) -> float:
        """Seconds that are left of the run's time limit; never less than one, so that a late stage still fails cleanly."""
        return max(1.0, self._seconds - (time.monotonic() - self.started))

    @property
    def _seconds(self) -> float:
        """The run's time limit; what a search was given on the command line comes on top."""
        return self.config.limits.time + (self.options.search.seconds if self.options.search else 0.0)

    def ask(self, entry: ModelEntry) -> Ask | None:
        """What is to be searched for an entry; with `ship: auto`, within half of the time that is left."""
        if self.options.search is not None:
            return self.options.search
        return Ask(seconds=self.remaining() / 2) if entry.ship == AUTO else None


def make_plan(options: Options) -> Plan:
    """Read everything that can be wrong before any work is done."""
    if options.profile_first and options.hand_over is None:
        raise UsageError("--profile-first: leaves the runs to another machine; say with --hand-over what that one gets")
    if options.device and (options.event or "").startswith("pull_request"):
        raise UsageError(
            f"--device {options.device}: on a pull request a device is given packages only, never where its code is run; "
            "judge what another machine handed over (--from)"
        )
    config = load(options.config)
    refuse_impossible(config)
    baseline, findings = load_baseline(options.baseline)
    if options.carry and options.baseline is None:
        raise UsageError("--carry: the last result is in a report; name it with --baseline")
    if options.only_changed:
        now, same, why = unchanged.standing(config, options.config, baseline, _written_to(options))
        options = replace(options, contents=now, carry=same)
        findings = (*findings, *why)
    entries = _selected(config, options.models, options.carry)
    for entry in entries:
        _refuse_missing_files(entry, config)
        _refuse_metric(entry, f"{options.config.name}: models.{entry.name}")
    release, more = load_baseline(options.release, "release")
    refused = {name: found[0].message for name, found in (("base", findings), ("release", more)) if found}
    accepted = load_waivers(config.folder / config.waivers) if config.waivers else ()
    waivers.refuse_impossible(accepted, [entry.name for entry in config.models], str(config.waivers))
    policies = {entry.name: _policies(_asked(entry, options), config, options.policies) for entry in entries}
    _refuse_unknown_filter(options.policies, policies)
    part = _part(options, policies, baseline)
    notes = (*findings, *more, *waivers.expired(accepted, date.today()), *_unused(config, options))
    engine = make_engine(options.engine, options.device, options.development_team)
    return Plan(options, config, policies, engine, baseline, accepted, notes, release, refused, part)


def _part(options: Options, policies: dict[str, tuple[Policy, ...]], baseline: Baseline | None) -> Part | None:
    if options.shard is None:
        return None
    units = {model: [one.name for one in row] for model, row in policies.items()}
    planned = shard.read_matrix(options.matrix) if options.matrix else None
    return shard.take(options.shard, units, planned, baseline.report if baseline else None)


def _written_to(options: Options) -> tuple[Path, ...]:
    return tuple(path for path in (options.out, options.cache, options.baseline) if path)


def _selected(config: Config, names: tuple[str, ...], carried: tuple[str, ...] = ()) -> tuple[ModelEntry, ...]:
    """The entries that are judged: those named, or all, without those whose last result stands."""
    known = {entry.name: entry for entry in config.models}
    for name in names:
        if name not in known:
            raise UsageError(f"--model {name}: no such entry{_nearest(name, known)}")
    asked = (entry for entry in config.models if not names or entry.name in names)
    return tuple(entry for entry in asked if entry.name not in carried)


def _asked(entry: ModelEntry, options: Options) -> ModelEntry:
    """Return the entry as it is judged: `gate search` looks at nothing but what it finds."""
    return entry if options.search is None else entry.model_copy(update={"ship": AUTO, "explore": ()})


def _policies(entry: ModelEntry, config: Config, wanted: tuple[str, ...]) -> tuple[Policy, ...]:
    """Load the entry's policies, the shipped one first; `--policy` filters the explored rows only."""
    every = [
        start_policy(entry) if name == AUTO and name == entry.ship else policy.load(name, config.folder)
        for name in entry.policies
    ]
    names = [one.name for one in every]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"model {entry.name!r}: two of its policies are called {', '.join(sorted(twice))}; rename one")
    asked = {name for given in wanted for name in (given, Path(given).stem)}
    found = tuple(one for index, one in enumerate(every) if index == 0 or not wanted or one.name in asked)
    for one in found:
        one.refuse_unless_carried_by(config.target(entry), entry.name)
        if one.activations:
            calibration.refuse_missing(entry, one.name)
        if one.precision is Precision.AS_IS and entry.source.kind not in ("coreml", "converter"):
            raise UsageError(
                f"model {entry.name!r}: policy as-is is for a finished package; this source is a {entry.source.kind}"
            )
    _refuse_what_keeps_nothing(entry, found)
    return found


def _refuse_what_keeps_nothing(entry: ModelEntry, policies: tuple[Policy, ...]) -> None:
    """`keep_float32` leaves ops out of the cast to float16: of a finished package, only where a float16 policy casts it."""
    if entry.source.kind not in ("coreml", "converter"):
        return
    why = f"a {entry.source.kind} source is converted already, and only a float16 policy casts it"
    for one in policies:
        if one.keep_float32 and one.precision is not Precision.FLOAT16:
            raise UsageError(
                f"model {entry.name!r}: policy {one.name}: keep_float32 keeps nothing ({why}); remove it, or set precision: float16"
            )
    if entry.keep_float32 and not any(one.precision is Precision.FLOAT16 for one in policies):
        raise UsageError(
            f"models.{entry.name}.keep_float32: it keeps nothing under {', '.join(one.name for one in policies)} ({why}); "
            "remove it, or ship or explore float16"
        )


def _refuse_unknown_filter(wanted: tuple[str, ...], policies: dict[str, tuple[Policy, ...]]) -> None:
    known = {one.name for row in policies.values() for one in row}
    for name in wanted:
        if name not in known and Path(name).stem not in known:
            raise UsageError(f"--policy {name}: no selected model ships or explores it{_nearest(name, known)}")


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f' (did you mean "{close[0]}"?)' if close else f"; known: {', '.join(sorted(known))}"


def _refuse_missing_files(entry: ModelEntry, config: Config) -> None:
    """Refuse a file that gate.yml names and that is not there; what the source reads is told by the source."""
    named = {f"outputs.{output.name}.classes": output.classes for output in entry.outputs}
    named |= {"calibration": entry.calibration, "setup.requirements": config.setup.requirements}
    if entry.reference is not None:
        named |= {"reference.onnx": entry.reference.onnx, "reference.outputs": entry.reference.outputs}
    if isinstance(entry.dataset, str):
        named["dataset"] = entry.dataset
    for key, name in named.items():
        if name is None or ".py:" in name:
            continue
        path = config.folder / name
        if not path.exists():
            raise ConfigError(f"models.{entry.name}.{key}: {name}: no such file")
        if path.is_file() and is_lfs_pointer(path):
            raise ConfigError(f"models.{entry.name}.{key}: {name}: a Git LFS pointer, not the file; run `git lfs pull`")
    for folder in config.setup.pythonpath:
        if not (config.folder / folder).is_dir():
            raise ConfigError(f"setup.pythonpath: {folder}: no such folder")


def _refuse_metric(entry: ModelEntry, where: str) -> None:
    """Refuse an unknown metric, and a budget in a form that its metric cannot have."""
    budget = entry.budgets.accuracy
    if entry.metric is None or metrics.is_own(entry.metric):
        return
    try:
        metric = metrics.load(entry.metric)
        if budget is not None:
            check_budget(metric, budget)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{where}.{line}" for line in str(error).splitlines())) from None


def _unused(config: Config, options: Options) -> Iterator[Finding]:
    """Say which keys are read and change nothing in this version, or on this command line."""
    for entry in config.models:
        searches = options.search is not None or entry.ship == AUTO
        quantizes = any(policy.load(name, config.folder).activations for name in entry.policies if name != AUTO)
        if entry.calibration is not None and not quantizes:
            yield _note(f"models.{entry.name}.calibration: none of its policies quantizes activations; it is not used")
        if (entry.splits.calibrate and not quantizes) or (entry.splits.search and not searches):
            yield _note(
                f"models.{entry.name}.splits: only the confirmation part is judged; the rest is kept for searches"
            )
    if (config.setup.requirements or config.setup.fetch) and options.site is None:
        yield _note("setup: only the action's prepare step installs and fetches; here, what is installed is used")


def _note(message: str) -> Finding:
    return Finding(rule="config.unused", severity=Severity.INFO, message=message)
