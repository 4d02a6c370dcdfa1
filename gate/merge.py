# SPDX-License-Identifier: Apache-2.0
"""What do the reports of several machines say together?

Two kinds of parts: shards of one run (`gate check --shard`), each with other models and policies, and answers from another environment
(`gate check --from`), each about packages that a shard made. One report comes out, which says what one run on one machine would
have said. A part that is missing is an `error`, never a pass; parts of another commit, configuration or tool version, and the same
part twice, are refused. Reads records and copies files; needs no engine.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gate import limits
from gate.app_size import judge_app
from gate.baseline import REPORT, load_baseline, read_report
from gate.config import Config, load, load_waivers
from gate.errors import NoAnswer, UsageError
from gate.files import sha256_file
from gate.render import write_views
from gate.report import (
    App,
    Candidate,
    CheckName,
    Finding,
    Model,
    Outcome,
    Report,
    Result,
    Role,
    Run,
    make_report,
    verdict,
)
from gate.shard import read_matrix, units_of

SAME = (
    "commit",
    "base_commit",
    "event",
    "config_digest",
    "config_from",
    "approved_by",
    "fail_on",
)  # what all parts must share
GATE = "coreml-gate"  # the one tool that an answer from another machine must share
ORDER = list(CheckName)


@dataclass(frozen=True)
class Piece:
    """One report, and the folder with its packages."""

    report: Report
    folder: Path

    @property
    def run(self) -> Run:
        """Its circumstances."""
        return self.report.run

    @property
    def name(self) -> str:
        """How a message calls it."""
        part = self.run.part
        return f"shard {part.index}/{len(part.units)}" if part else str(self.folder)

    @property
    def units(self) -> tuple[str, ...]:
        """What it judged: MODEL/POLICY. A shipped candidate that another part judges stands in it without an answer."""
        if part := self.run.part:
            return part.units[part.index - 1]
        return tuple(f"{m.name}/{c.policy}" for m in self.report.models if not m.carried for c in m.candidates)

    def model(self, name: str) -> Model | None:
        """Its record of a model entry."""
        return next((model for model in self.report.models if model.name == name), None)


@dataclass(frozen=True)
class Absent:
    """A part that left no report, and what it would have judged where that is known."""

    name: str
    units: tuple[str, ...] = ()


def merge(
    places: Sequence[Path],
    out: Path,
    *,
    config: Path | None = None,
    baseline: Path | None = None,
    plan: Path | None = None,
    base_config: Path | None = None,
) -> Report:
    """Join reports into one, and write it with its views and packages to `out`; `places` are reports or their folders."""
    pieces, absent = gather(places)
    shards = sorted((p for p in pieces if p.run.handover is None), key=lambda p: p.run.part.index if p.run.part else 0)
    answers = [piece for piece in pieces if piece.run.handover is not None]
    if not shards:
        raise _nothing(places)
    missing = missing_of(shards, absent, read_matrix(plan).parts() if plan else None)
    _refuse_strangers(shards, answers)
    settings = _configuration(config or Path(shards[0].run.config), shards[0].run)
    models = tuple(_with_answers(model, answers) for model in _models(settings, shards, missing))
    findings = [finding for piece in (*shards, *answers) for finding in piece.report.findings]
    app = _app(settings, models, baseline, missing)
    if base_config is not None:
        both = limits.compare(base_config, config or Path(shards[0].run.config))
        app, told = _under_both(both, shards[0].run, app, _app(both.config, models, baseline, missing))
        findings += told
    elif shards[0].run.approved_by is None:
        _refuse_own_limits(findings)
    report = make_report(_run(shards), models, app, _in_one_run(settings, findings))
    for piece in shards:
        _copy(piece, out)
    write_views(report, out)
    return report


# --- what there is ---------------------------------------------------------------------------------------------------


def gather(places: Sequence[Path]) -> tuple[list[Piece], list[Absent]]:
    """Read every report, and name the places that have none. A folder may hold one report, or folders that do."""
    pieces: list[Piece] = []
    absent: list[Absent] = []
    for place in places:
        files = [place] if place.is_file() else _reports_in(place)
        pieces += [Piece(read_report(file), file.parent) for file in files]
        absent += [] if files else [Absent(place.name)]
    return pieces, absent


def _reports_in(folder: Path) -> list[Path]:
    if (folder / REPORT).is_file():
        return [folder / REPORT]
    return sorted(folder.glob(f"*/{REPORT}"))


def _nothing(places: Sequence[Path]) -> UsageError | NoAnswer:
    """Where nothing can be merged: were the places mistyped, or did the jobs leave nothing in them?"""
    named = ", ".join(map(str, places))
    if unknown := [str(place) for place in places if not place.exists()]:
        return UsageError(
            f"{', '.join(unknown)}: no such file or folder; expected reports of `gate check --shard`, or their folders"
        )
    return NoAnswer(f"no report of a whole run or of a shard in {named}; nothing can be merged")


def missing_of(
    shards: Sequence[Piece], absent: Sequence[Absent], planned: tuple[tuple[str, ...], ...] | None = None
) -> tuple[Absent, ...]:
    """Name the parts that left no report; raise UsageError where the shards are not of one run."""
    whole = [piece for piece in shards if piece.run.part is None]
    if whole and len(shards) > 1:
        raise UsageError(f"{whole[0].name} is a whole run; it can be merged with answers to its hand-over only")
    parts = [piece.run.part for piece in shards if piece.run.part]
    if not parts:
        return tuple(absent)
    units = planned or parts[0].units
    indices = [part.index for part in parts]
    for part in parts:
        if part.units != units:
            raise UsageError(
                f"shard {part.index}/{len(part.units)} is of another plan; merge shards of one `gate plan` only"
            )
        if indices.count(part.index) > 1:
            raise UsageError(f"shard {part.index}/{len(units)} is given twice; expected each shard once")
    gone = [Absent(f"shard {n}/{len(units)}", units[n - 1]) for n in range(1, len(units) + 1) if n not in indices]
    return (*gone, *absent[len(gone) :])  # a place without a report is where a missing shard would have been


def _refuse_strangers(shards: Sequence[Piece], answers: Sequence[Piece]) -> None:
    """Raise UsageError where a part was judged in other circumstances."""
    first = shards[0]
    for piece in (*shards[1:], *answers):
        for key in SAME:
            ours, theirs = getattr(first.run, key), getattr(piece.run, key)
            if ours != theirs:
                raise UsageError(
                    f"{piece.name}: {key} is {theirs}, but {first.name} has {ours}; expected parts of one run"
                )
    for piece in shards[1:]:
        _refuse_other_tools(first, piece, sorted(first.run.tools.keys() | piece.run.tools.keys()))
    for piece in answers:
        _refuse_other_tools(first, piece, [GATE])


def _refuse_other_tools(first: Piece, piece: Piece, names: Sequence[str]) -> None:
    for name in names:
        ours, theirs = first.run.tools.get(name), piece.run.tools.get(name)
        if ours != theirs:
            raise UsageError(
                f"{piece.name}: {name} is {theirs}, but {first.name} had {ours}; use one version everywhere"
            )


def _configuration(path: Path, run: Run) -> Config:
    """Read the configuration that the parts were judged under: it has the order of the models and the app's budget."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file; name the gate.yml of these reports with --config")
    config = load(path)
    if config.digest != run.config_digest:
        raise UsageError(f"{path}: not the configuration that these reports were judged under; its digest differs")
    return config


# --- models ----------------------------------------------------------------------------------------------------------


def _models(config: Config, shards: Sequence[Piece], missing: Sequence[Absent]) -> Iterator[Model]:
    """Put each model entry together from the parts that have it, in the order of the configuration."""
    owners = {unit: piece for piece in shards for unit in piece.units}
    asked = {*owners, *(unit for one in missing for unit in one.units)}
    for name, policies in units_of(config).items():
        units = [f"{name}/{policy}" for policy in policies if f"{name}/{policy}" in asked]
        if units:
            yield _joined(name, units, owners)
        elif carried := next((model for piece in shards if (model := piece.model(name)) is not None), None):
            yield carried
    known = {entry.name for entry in config.models}  # an entry that the pull request takes out is told by every part
    strangers = {model.name: model for piece in shards for model in piece.report.models if model.name not in known}
    yield from strangers.values()


def _joined(name: str, units: Sequence[str], owners: dict[str, Piece]) -> Model:
    found = {unit: _record(owners[unit], name) for unit in units if unit in owners}
    _refuse_other_sources(name, list(found.values()))
    candidates = [_candidate(unit, found.get(unit), ships=not i) for i, unit in enumerate(units)]
    record = found.get(units[0]) or next(iter(found.values()), Model(name=name, candidates=tuple(candidates)))
    seconds = sum({id(model): model.seconds for model in found.values()}.values())
    return record.model_copy(update={"candidates": tuple(candidates), "seconds": seconds})


def _record(piece: Piece, name: str) -> Model:
    model = piece.model(name)
    if model is None:
        raise UsageError(f"{piece.name}: model {name!r} is in its plan, but not in its report")
    return model


def _candidate(unit: str, model: Model | None, *, ships: bool) -> Candidate:
    policy = unit.partition("/")[2]
    if model is None:
        why = f"The shard that judges {unit} left no report."
        lost = Result(check=CheckName.FEASIBILITY, outcome=Outcome.ERROR, message=why, remedy="run that job again")
        return Candidate(role=Role.SHIP if ships else Role.EXPLORE, policy=policy, results=(lost,))
    candidate = next((one for one in model.candidates if one.policy == policy), None)
    if candidate is None:
        raise UsageError(f"{unit} is in the plan of a shard, but not in its report")
    return candidate


def _refuse_other_sources(name: str, records: Sequence[Model]) -> None:
    digests = {model.source_digest for model in records if model.source_digest}
    if len(digests) > 1:
        raise UsageError(
            f"model {name!r}: the shards read different sources or weights; "
            "expected the same from each (is a random weight without a seed among them?)"
        )


# --- answers from another environment --------------------------------------------------------------------------------


def _with_answers(model: Model, answers: Sequence[Piece]) -> Model:
    """Add what another environment says about the same packages."""
    records = [record for piece in answers if (record := piece.model(model.name)) is not None]
    given = [candidate for record in records for candidate in record.candidates if candidate.results]
    known = {candidate.policy for candidate in model.candidates}
    if strange := [one.policy for one in given if one.policy not in known]:
        raise UsageError(
            f"{model.name}/{strange[0]}: answered by another environment, but judged by none of the shards"
        )
    joined = tuple(_answered(model.name, c, [g for g in given if g.policy == c.policy]) for c in model.candidates)
    return model.model_copy(update={"candidates": joined})


def _answered(model: str, candidate: Candidate, answers: Sequence[Candidate]) -> Candidate:
    results = list(candidate.results)
    for answer in answers:
        if candidate.package_digest is None:
            continue  # its own shard left no report, which is said already
        if answer.package_digest != candidate.package_digest:
            raise UsageError(f"{model}/{candidate.policy}: the answers are about another package; its digest differs")
        if same := {r.key for r in results} & {r.key for r in answer.results}:
            check = next(iter(same))[0]
            raise UsageError(
                f"{model}/{candidate.policy}: {check} is answered twice by one environment; merge each once"
            )
        results += answer.results
    return candidate.model_copy(update={"results": tuple(_in_order(results)) if answers else candidate.results})


def _in_order(results: Sequence[Result]) -> Iterator[Result]:
    """Sort by check; a question that one environment answered is not also told as not run in another."""
    answered = {_question(r) for r in results if r.outcome is not Outcome.NOT_RUN}
    last = {_question(r): r for r in results if r.outcome is Outcome.NOT_RUN}
    for result in sorted(results, key=lambda r: ORDER.index(r.check)):
        question = _question(result)
        open_ = question not in answered and not (
            question[1:] == (None, None) and result.check in {q[0] for q in answered}
        )
        if result.outcome is not Outcome.NOT_RUN or _only_there(result) or (open_ and last[question] is result):
            yield result


def _only_there(result: Result) -> bool:
    """Was the answer of this very environment required, such as of a device that gate.yml names? No other stands for it."""
    return result.required and result.environment.engine != "static"


def _question(result: Result) -> tuple[CheckName, str | None, str | None]:
    return (result.check, result.against, result.slice)


# --- the whole -------------------------------------------------------------------------------------------------------


def _app(config: Config, models: tuple[Model, ...], baseline: Path | None, missing: Sequence[Absent]) -> App:
    accepted = load_waivers(config.folder / config.waivers) if config.waivers else ()  # absolute where it is base's
    earlier = load_baseline(baseline)[0]
    app = judge_app(config, models, earlier.total_bytes() if earlier else None, accepted)
    return App(results=(*app.results, *map(_lost, missing)))


def _under_both(both: limits.Limits, run: Run, own: App, governed: App) -> tuple[App, list[Finding]]:
    """Which answer about the app counts on a pull request that changes limits, and what to say of it."""
    app = own if run.approved_by else limits.worse_app(governed, own)
    if not both.touch(limits.APP):
        return app, []
    outcomes = verdict(governed.results), verdict(own.results)
    return app, [limits.note(limits.APP, *outcomes, run.approved_by, both.base.approval.label)]


def _refuse_own_limits(findings: Sequence[Finding]) -> None:
    """Raise UsageError where the parts were judged under base's limits and the app would be under the pull request's own."""
    if changed := next((finding for finding in findings if finding.rule == limits.CHANGED), None):
        raise UsageError(
            f"the parts were judged under the base branch's limits, too ({changed.message}); expected its gate.yml "
            "in GATE_BASE_CONFIG, as `gate check` had it, since the app is judged here"
        )


def _in_one_run(config: Config, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """What the parts say of the run, each once and in the order of one run: limits first, by model entry."""
    subjects = [f"{entry.name}: " for entry in config.models]

    def place(finding: Finding) -> tuple[int, int]:
        if finding.rule not in limits.RULES:
            return len(limits.RULES), 0
        about = (n for n, subject in enumerate(subjects) if finding.message.startswith(subject))
        return limits.RULES.index(finding.rule), next(about, len(subjects))

    return tuple(sorted(dict.fromkeys(findings), key=place))


def _lost(one: Absent) -> Result:
    """A part without a report is no answer, whatever it would have judged."""
    about = f": {', '.join(one.units)} not judged" if one.units else ""
    return Result(
        check=CheckName.FEASIBILITY,
        outcome=Outcome.ERROR,
        slice=one.name[:400],
        message=f"{one.name} left no report{about}"[:4_000],
        remedy="run that job again; its log says why it ended",
    )


def _run(shards: Sequence[Piece]) -> Run:
    runs = [piece.run for piece in shards]
    sandboxes = {name for run in runs for name in run.sandbox.split(", ")}
    return runs[0].model_copy(
        update={
            "part": None,
            "started": min(run.started for run in runs),
            "seconds": max(run.seconds for run in runs),  # they ran side by side
            "sandbox": ", ".join(sorted(sandboxes - {"none"} or sandboxes)),
        }
    )


def _copy(piece: Piece, out: Path) -> None:
    """Copy what the part's own candidates brought; what was not uploaded is not there."""
    for model in piece.report.models:
        for candidate in model.candidates:
            if f"{model.name}/{candidate.policy}" in piece.units:
                _copy_package(piece, candidate, out)
                _copy_file(piece.folder, f"per_item/{model.name}/{candidate.policy}.jsonl", out)
        if model.log and f"{model.name}/{model.shipped.policy}" in piece.units:
            _copy_file(piece.folder, model.log, out)


def _copy_package(piece: Piece, candidate: Candidate, out: Path) -> None:
    if candidate.package is None or not (piece.folder / candidate.package).exists():
        return
    single = (piece.folder / candidate.package).is_file()
    for file in candidate.files:
        name = candidate.package if single else f"{candidate.package}/{file.path}"
        if not _copy_file(piece.folder, name, out) or sha256_file(out / name) != file.sha256:
            raise UsageError(f"{piece.name}: {name}: not the file that its report names; the digest differs")


def _copy_file(folder: Path, name: str, out: Path) -> bool:
    """Copy one plain file that lies inside the folder; say whether it did."""
    source = folder / name
    inside = source.resolve().is_relative_to(folder.resolve()) and (out / name).resolve().is_relative_to(out.resolve())
    if not inside or source.is_symlink():
        raise UsageError(f"{name}: leads out of {folder.name}/; expected a file inside it")
    if not source.is_file():
        return False
    if source.resolve() != (out / name).resolve():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, out / name)
    return True
