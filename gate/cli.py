# SPDX-License-Identifier: Apache-2.0
"""The command line: parse, call, exit code. No decisions; heavy modules load inside the command that needs them."""

import logging
import os
import re
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from gate import __version__
from gate.errors import Exit, GateError, UsageError, refused

app = typer.Typer(
    name="gate",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Example: gate check --config gate.yml\n\nJudge Core ML models before they are merged: conversion, float16, size and accuracy "
    "budgets, on Linux.\n\nExit codes: 0 pass, 1 a check fails, 2 wrong usage or configuration, 3 no answer where one was required, 70 our own crash, 130 stopped by Ctrl-C.",
)


class EngineName(StrEnum):
    """What runs a candidate."""

    AUTO = "auto"
    MIL = "mil"
    COREML = "coreml"


class FailOn(StrEnum):
    """Which outcome blocks."""

    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NEVER = "never"


class Format(StrEnum):
    """The views of a report."""

    COMMENT = "comment"
    SUMMARY = "summary"
    HTML = "html"
    TERMINAL = "terminal"


class RoundingName(StrEnum):
    """How float16 is rounded; see docs/evaluator.md."""

    FLOAT32 = "float32"
    DECLARED = "declared"
    NARROW = "narrow"
    ACCUMULATE16 = "accumulate16"


ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="Configuration file.")]
PlanOption = Annotated[
    Path | None, typer.Option("--plan", help="What gate plan printed; without it, each part deals the work out anew.")
]
CarryOption = Annotated[
    list[str] | None, typer.Option(help="Show the last result of this model entry, from --baseline; repeat for more.")
]
OnlyChangedOption = Annotated[
    bool, typer.Option("--only-changed", help="Let the last result stand where git says that nothing changed.")
]
HandOverOption = Annotated[
    Path | None, typer.Option(help="Folder for packages, inputs and reference outputs, for a Mac to judge.")
]
ProfileFirstOption = Annotated[
    bool, typer.Option("--profile-first", help="Leave the runs to that Mac; judge here what needs none.")
]
HandedOption = Annotated[
    Path | None, typer.Option("--from", help="Judge what another machine handed over; no code of the team is run.")
]
DeviceOption = Annotated[str, typer.Option(help="Time the packages on this device, too; it is connected to this Mac.")]
DevelopmentTeamOption = Annotated[
    str, typer.Option(help="Apple developer team that signs the app which runs them there.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the record itself.")]
ReportArgument = Annotated[Path, typer.Argument(metavar="REPORT", help="A report.json.")]
PackageArgument = Annotated[Path, typer.Argument(metavar="PACKAGE", help="A .mlpackage.")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"coreml-gate {__version__}")
        raise typer.Exit


@app.command(short_help="Judge the models of a configuration.")
def check(
    config: ConfigOption = Path("gate.yml"),
    model: Annotated[list[str] | None, typer.Option(help="Only this model entry; repeat for more.")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="Only rows of this policy, and the shipped one; repeat for more.")
    ] = None,
    engine: Annotated[EngineName, typer.Option(help="auto is coreml on a Mac and mil elsewhere.")] = EngineName.AUTO,
    baseline: Annotated[Path | None, typer.Option(help="The base branch's report.json, to compare with.")] = None,
    release: Annotated[
        Path | None, typer.Option(help="The last release's report.json, for accuracy against: release.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.json, comment.md, report.html and packages/.")] = Path(
        "gate-out"
    ),
    cache: Annotated[
        Path | None, typer.Option(help="Folder where work is kept between runs; conversions under GATE_CACHE_KEY.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes for compression.")] = min(4, os.cpu_count() or 1),
    fail_on: Annotated[FailOn, typer.Option(help="Which outcome makes the exit code non-zero.")] = FailOn.FAIL,
    shard: Annotated[str | None, typer.Option(help="Judge part K of N only, written K/N; see gate plan.")] = None,
    plan: PlanOption = None,
    carry: CarryOption = None,
    only_changed: OnlyChangedOption = False,
    hand_over: HandOverOption = None,
    profile_first: ProfileFirstOption = False,
    handed: HandedOption = None,
    device: DeviceOption = "",
    development_team: DevelopmentTeamOption = "",
    json: JsonOption = False,
) -> None:
    """Example: gate check --config gate.yml --model tagger --out gate-out

    Convert, compress, run and judge the models of a configuration; write report.json, comment.md, report.html and the packages.
    """
    from gate import pipeline

    if handed is not None:
        _finish(_answer(handed, out, engine, fail_on, device, development_team), out, fail_on, json)
    options = pipeline.Options(
        config=config,
        out=out,
        models=tuple(model or ()),
        policies=tuple(policy or ()),
        engine=engine.value,
        baseline=baseline,
        release=release,
        cache=cache,
        jobs=jobs,
        fail_on=fail_on.value,
        shard=shard,
        matrix=plan,
        carry=tuple(carry or ()),
        only_changed=only_changed,
        hand_over=hand_over,
        profile_first=profile_first,
        device=device,
        development_team=development_team,
        **_told_by_the_action(),
    )
    _finish(pipeline.check(options, progress=_progress), out, fail_on, json)


def _answer(handed: Path, out: Path, engine: EngineName, fail_on: FailOn, device: str, team: str) -> Any:
    from gate.answer import answer

    on = {"engine": engine.value, "device": device, "development_team": team}
    return answer(handed, out, **on, fail_on=fail_on.value, progress=_progress)


def _finish(report: Any, out: Path, fail_on: FailOn, json: bool) -> NoReturn:
    """Show a report that was just written, and end with its exit code."""
    from gate.render import terminal
    from gate.report import exit_code

    if json:
        typer.echo((out / "report.json").read_text(encoding="utf-8"))
    else:
        _show(terminal(report))
        typer.echo(
            f"report   {out / 'report.json'}\nhtml     {out / 'report.html'}\ncomment  {out / 'comment.md'}\npackages {out / 'packages'}"
        )
    raise typer.Exit(int(exit_code(report.outcome, fail_on.value)))


@app.command(short_help="Divide a run among several machines.")
def plan(
    config: ConfigOption = Path("gate.yml"),
    model: Annotated[list[str] | None, typer.Option(help="Only this model entry; repeat for more.")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="Only rows of this policy, and the shipped one; repeat for more.")
    ] = None,
    shards: Annotated[int, typer.Option(min=1, max=256, help="How many machines, at most.")] = 4,
    baseline: Annotated[Path | None, typer.Option(help="An earlier report.json, for how long each took.")] = None,
) -> None:
    """Example: gate plan --config gate.yml --shards 4

    Print a job matrix: which part of the models and policies each machine judges, balanced by how long they took last time. Each
    job runs gate check --shard K/N; gate merge joins what they report.
    """
    from gate import shard
    from gate.baseline import load_baseline
    from gate.config import load

    last = load_baseline(baseline)[0]
    units = shard.units_of(load(config), tuple(model or ()), tuple(policy or ()))
    typer.echo(shard.to_json(shard.matrix(units, shards, last.report if last else None)))


@app.command(short_help="Join the reports of several machines.")
def merge(
    shard: Annotated[list[Path], typer.Argument(metavar="SHARD...", help="Reports, or their folders.")],
    out: Annotated[Path, typer.Option(help="Folder for the joined report and its packages.")] = Path("gate-out"),
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Their configuration; where they found it by default.")
    ] = None,
    baseline: Annotated[Path | None, typer.Option(help="The earlier report.json that they were compared with.")] = None,
    plan: PlanOption = None,
    json: JsonOption = False,
) -> None:
    """Example: gate merge shard-1 shard-2 --out gate-out

    Join the reports of shards, and of other environments (gate check --from), into one report with one verdict. A part that is
    missing is no answer; parts of another commit, configuration or tool version are refused.
    """
    from gate.merge import merge as join
    from gate.render import terminal
    from gate.report import exit_code

    base = _told_by_the_action()["base_config"]
    report = join(shard, out, config=config, baseline=baseline, plan=plan, base_config=base)
    if json:
        typer.echo((out / "report.json").read_text(encoding="utf-8"))
    else:
        _show(terminal(report))
        typer.echo(f"report   {out / 'report.json'}\nhtml     {out / 'report.html'}\ncomment  {out / 'comment.md'}")
    raise typer.Exit(int(exit_code(report.outcome, report.run.fail_on)))


@app.command(short_help="Predict with a Core ML package on any operating system.")
def run(
    package: PackageArgument,
    inputs: Annotated[Path, typer.Option(help="Input arrays by name, .npz.")],
    out: Annotated[Path, typer.Option(help="Where the outputs go, .npz.")],
    precision: Annotated[RoundingName, typer.Option(help="How float16 is rounded.")] = RoundingName.DECLARED,
) -> None:
    """Example: gate run Tagger.mlpackage --inputs in.npz --out out.npz

    Predict with a Core ML package on any operating system.
    """
    _quieten()
    from gate.engine.mil import run_file

    for line in run_file(package, inputs, out, precision.value):
        typer.echo(line)


@app.command(short_help="Say what is in a package.")
def inspect(package: PackageArgument, json: JsonOption = False) -> None:
    """Example: gate inspect Tagger.mlpackage

    Say what is in a package without running it: ops, MACs, parameters, weight formats, memory, eligibility, pitfalls.
    """
    _quieten()
    from gate.inspect import inspect as examine

    _print(examine(package), json)


@app.command(short_help="Say what changed between two packages.")
def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="A .mlpackage.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="Another.")],
    json: JsonOption = False,
) -> None:
    """Example: gate diff old/Tagger.mlpackage new/Tagger.mlpackage

    Say what changed between two packages, per op, per weight and in the interface, whatever the ops are called.
    """
    _quieten()
    from gate.diff import diff as compare

    _print(compare(before, after), json)


@app.command(short_help="Print a view of a report.")
def render(
    report: ReportArgument,
    format: Annotated[Format, typer.Option(help="Which view.")] = Format.TERMINAL,
) -> None:
    """Example: gate render gate-out/report.json --format comment

    Print a view of a report.
    """
    from gate import render as views
    from gate.baseline import read_report

    record = read_report(report)
    if format is Format.TERMINAL:
        _show(views.terminal(record))
    else:
        typer.echo(getattr(views, format.value)(record))


@app.command(short_help="Post a report on a pull request.")
def comment(
    report: ReportArgument,
    pull_request: Annotated[int, typer.Option(min=1, help="Number of the pull request.")],
    repository: Annotated[str, typer.Option(envvar="GITHUB_REPOSITORY", help="owner/name on GitHub.")],
    id: Annotated[str, typer.Option(help="Tells apart the comments of several gates.")] = "default",
) -> None:
    """Example: gate comment gate-out/report.json --repository acme/app --pull-request 41

    Write, or bring up to date, the one comment on a pull request. The token comes from the environment: GITHUB_TOKEN.
    """
    from gate import github
    from gate import render as views
    from gate.baseline import read_report

    token = os.environ.get("GITHUB_TOKEN")
    if not token:
        raise UsageError("gate comment: GITHUB_TOKEN is not set; it needs the permission pull-requests: write")
    if repository.count("/") != 1:
        raise UsageError(f"--repository {repository}: expected owner/name")
    text = views.comment(read_report(report), marker_id=id)
    client = github.Client(token, os.environ.get("GITHUB_API_URL", "https://api.github.com").rstrip("/"))
    how, written = github.upsert_comment(client, repository, pull_request, id, text)
    typer.echo(f"{how} {written.url}")


@app.command(short_help="Find the ops that lose precision in float16, and the cure.")
def float16(
    config: ConfigOption = Path("gate.yml"),
    model: Annotated[str, typer.Option(help="Which model entry; may be left out where there is one.")] = "",
    json: JsonOption = False,
) -> None:
    """Example: gate float16 --config gate.yml --model tagger

    Find the ops that lose precision in float16, why, and the least that must stay in float32; convert that and judge it.
    """
    from gate import remedy

    record = remedy.command(config, model or None, progress=_progress)
    _print(record, json)
    raise typer.Exit(int(Exit.FAIL if record.failed else Exit.PASS))


@app.command(short_help="Find the smallest candidate that meets every budget.")
def search(
    config: ConfigOption = Path("gate.yml"),
    model: Annotated[str, typer.Option(help="Which model entry; may be left out where there is one.")] = "",
    size: Annotated[str, typer.Option(help="Seek the best accuracy under this size, such as 2 MB, instead.")] = "",
    time: Annotated[str, typer.Option(help="How long the search may take; judging comes on top.")] = "5 min",
    option: Annotated[
        list[str] | None, typer.Option(help="Only this treatment of a weight, such as int8; repeat for more.")
    ] = None,
    tradeoff: Annotated[bool, typer.Option(help="Draw size against loss, 8 to 1 bits and 10 to 90 % zeros.")] = True,
    out: Annotated[Path, typer.Option(help="Folder for the report, the package and policies/MODEL.yaml.")] = Path(
        "gate-out"
    ),
    cache: Annotated[Path | None, typer.Option(help="Folder where compressed weights are kept between runs.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes for compression.")] = min(4, os.cpu_count() or 1),
    fail_on: Annotated[FailOn, typer.Option(help="Which outcome makes the exit code non-zero.")] = FailOn.FAIL,
    json: JsonOption = False,
) -> None:
    """Example: gate search --config gate.yml --model tagger --time 10min

    Choose for each weight how it is compressed, on the search part of the data, so that every budget is met at the least size; judge the
    result once on the confirmation part. Writes a policy file to commit, and a report with the Pareto front and why the rest fell.
    Ctrl-C and the time limit leave the best so far, judged.
    """
    from gate import pipeline
    from gate.report import Outcome, exit_code, verdict
    from gate.search import ask

    options = pipeline.Options(
        config=config,
        out=out,
        models=(model,) if model else (),
        cache=cache,
        jobs=jobs,
        fail_on=fail_on.value,
        search=ask(size, time, tuple(option or ()), tradeoff),
    )
    report = pipeline.search_one(options, progress=_progress)
    if json:
        typer.echo((out / "report.json").read_text(encoding="utf-8"))
    else:
        from gate.render import terminal

        _show(terminal(report))
        typer.echo(f"report   {out / 'report.json'}\nhtml     {out / 'report.html'}\npackages {out / 'packages'}")
        for found in report.models:
            passes = verdict(found.shipped.results) in (Outcome.PASS, Outcome.INCONCLUSIVE)
            told = "commit it, and name its path as `ship:`" if passes else "the best so far; it is not certified"
            typer.echo(f"policy   {out / 'policies' / found.name}.yaml: {told}")
    stopped = pipeline.was_interrupted(report)
    raise typer.Exit(int(Exit.STOPPED if stopped else exit_code(report.outcome, fail_on.value)))


@app.command(short_help="Write a first gate.yml and the workflow files.")
def init(
    folder: Annotated[Path, typer.Argument(help="The repository to look at.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    json: JsonOption = False,
) -> None:
    """Example: gate init .

    Scan a repository for .mlpackage files, ct.convert( calls and module factories; write a commented gate.yml with measured
    sizes plus 10 %, and the two workflow files.
    """
    from gate.scaffold import write

    _print(write(folder, force=force), json)


@app.command(short_help="Say what this machine can and cannot do.")
def doctor(
    github: Annotated[
        str, typer.Option(metavar="OWNER/NAME", help="Look at a repository's set-up on GitHub instead.")
    ] = "",
    json: JsonOption = False,
) -> None:
    """Example: gate doctor

    Say what this machine can and cannot do. With --github OWNER/NAME, say what is missing in a repository's set-up: workflows,
    permissions, required status, labels. The token comes from the environment: GITHUB_TOKEN; it needs to read only.
    """
    from gate.doctor import examine

    if not github:
        _print(examine(), json)
        return
    from gate import onboarding
    from gate.github import Client

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", github):
        raise UsageError(f"--github {github}: expected OWNER/NAME")
    api_url = os.environ.get("GITHUB_API_URL", "https://api.github.com").rstrip("/")
    found = onboarding.examine(Client(os.environ.get("GITHUB_TOKEN", ""), api_url), github)
    _print(found, json)
    raise typer.Exit(int(Exit.PASS if found.is_complete else Exit.FAIL))


def _told_by_the_action() -> dict[str, Any]:
    """What the GitHub action says of the run: it starts this command in a sandbox, with an environment of these names only."""
    told: dict[str, Any] = {
        name: os.environ.get(f"GATE_{name.upper()}") or None for name in ("event", "commit", "base_commit", "sandbox")
    }
    for name in ("site", "base_config", "exchange"):
        path = os.environ.get(f"GATE_{name.upper()}")
        told |= {name: Path(path) if path else None}
    told |= {"contents": _contents(os.environ.get("GATE_CONTENTS"))}
    told |= {"cache_key": os.environ.get("GATE_CACHE_KEY") or None}
    told |= {"approved_by": os.environ.get("GATE_APPROVED_BY") or None}
    told |= {"self_declared": os.environ.get("GATE_LIMITS") == "own"}
    return told | {"config_from": os.environ.get("GATE_CONFIG_FROM") or "working tree"}


def _contents(told: str | None) -> dict[str, str]:
    """Model entry → digest of what it rests on: `tagger=0f…` per line, as the action writes it."""
    pairs = (line.partition("=") for line in (told or "").splitlines())
    return {name: digest for name, _, digest in pairs}


def _print(record: Any, as_json: bool) -> None:
    typer.echo(record.model_dump_json(indent=2) if as_json else record.text())


def _quieten() -> None:
    """Keep back what coremltools warns of at every start: other people's versions, and libraries that only a Mac has."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)


def _show(view: Any) -> None:
    from rich.console import Console

    Console().print(view)


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _stop(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)


def _run() -> Any:
    """Run a command; what the disk refuses is no fault of ours."""
    try:
        return app(standalone_mode=False)
    except OSError as error:
        told = refused(error)
        if told is None:
            raise
        raise told from None


def main() -> None:
    """Run the command line; every error becomes a message and an exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in the sandbox; torch reads it when it loads
    try:
        sys.exit(_run() or 0)
    except UsageError as error:
        _stop(str(error), error.exit_code)
    except GateError as error:
        _stop(f"no answer: {error}", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _stop("stopped", Exit.STOPPED)
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of click, which typer carries under a private name
            _stop(f"{error.format_message()}\nTry --help.", Exit.USAGE)
        _stop(f"{traceback.format_exc()}\nThis is our own fault; please report it.", Exit.CRASH)
