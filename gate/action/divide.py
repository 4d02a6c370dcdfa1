# SPDX-License-Identifier: Apache-2.0
"""How do several jobs make one run? Their parts are laid out, a Mac is given data only, and the parts are joined.

Modes of the action: `plan` prints the matrix, `evaluate` with `shard` judges a part, `answer` lets a Mac judge what was handed over,
`merge` joins what all of them left. The artifacts between the jobs are this run's own.
"""

import shutil
from pathlib import Path

from gate import github, merge, prepare
from gate.action.before import BASE, FOLDER, MATRIX
from gate.action.handover import Evaluated, LimitsOf, Plan, Sandbox
from gate.action.inputs import Inputs
from gate.action.runner import Surroundings, say
from gate.baseline import REPORT
from gate.errors import NoAnswer
from gate.files import write_text
from gate.handed import read_record
from gate.report import exit_code
from gate.shard import Matrix, model_of, parse_matrix

CONVERSIONS = "conversions"  # of the cache; gate.kept, which loads the engine
HANDED, SHARDS = "handed", "shards"  # where the jobs put what they get from one another


def planned(inputs: Inputs) -> tuple[str, ...] | None:
    """The model entries of the plan that this job was given: what one job decided holds for all."""
    if not inputs.plan:
        return None
    plan: Matrix = parse_matrix(inputs.plan, "input plan")
    return tuple(dict.fromkeys(model_of(unit) for part in plan.parts() for unit in part))


def lay_out(inputs: Inputs, work: Path) -> None:
    """Put the plan beside the earlier reports, and a copy of the cache where the evaluation may write."""
    if inputs.plan:
        write_text(work / FOLDER / MATRIX, inputs.plan)
    if inputs.cache and Path(inputs.cache).is_dir():
        shutil.copytree(inputs.cache, work / "out" / "cache", ignore=_links)


def plan_answer(inputs: Inputs, around: Surroundings, event: github.Event, work: Path) -> Plan:
    """Lay out a hand-over to be judged with this machine's engine: data only, so no checkout and no sandbox are needed."""
    pull = event.pull_request
    if pull and pull.from_fork and around.environ.get("RUNNER_ENVIRONMENT") != "github-hosted":
        raise NoAnswer(
            "A pull request from a fork is not judged on a machine of the team's own; use a runner of GitHub's."
        )
    if inputs.device and pull and (pull.from_fork or around.environ.get("GITHUB_ACTOR", "").endswith("[bot]")):
        raise NoAnswer(
            f"{inputs.device} is a device of the team's own; packages of pull requests from forks and bots are not put on it."
        )
    for name in ("source", "site", "out", "tmp", "root", "base", FOLDER):
        (work / name).mkdir(exist_ok=True)
    handed = prepare.inside(around.workspace, inputs.source or HANDED)
    names = tuple(model.name for model in read_record(handed).models)
    return Plan(concerned=names, sandbox=Sandbox.NONE, event=event.name, handed=str(handed))


def answer_arguments(inputs: Inputs, plan: Plan, work: Path) -> list[str]:
    """Return the arguments of `gate check` for a hand-over."""
    arguments = ["check", "--from", plan.handed, "--out", str(work / "out"), "--engine", inputs.engine]
    if inputs.device:
        arguments += ["--device", inputs.device, "--development-team", inputs.development_team]
    return [*arguments, "--fail-on", inputs.fail_on]


def keep_cache(inputs: Inputs, event: github.Event, work: Path) -> None:
    """Put what a push compressed into the cache. A pull request's own stays in its job: others would restore it."""
    made, kept = work / "out" / "cache", Path(inputs.cache)
    if not (inputs.cache and event.name == "push" and made.is_dir()):
        return
    for link in [path for path in kept.rglob("*") if path.is_symlink()]:
        link.unlink()  # whoever restored it could lead what we write anywhere
    shutil.rmtree(kept / CONVERSIONS, ignore_errors=True)  # `made` began as a copy of it, and dropped the oldest
    shutil.copytree(made, kept, ignore=_links, dirs_exist_ok=True)


def _links(folder: str, names: list[str]) -> list[str]:
    """What is neither file nor folder stays where it is: nothing in a cache has to be a link."""
    found = ((name, Path(folder) / name) for name in names)
    return [name for name, path in found if path.is_symlink() or not (path.is_file() or path.is_dir())]


def join(inputs: Inputs, around: Surroundings, plan: Plan, work: Path) -> Evaluated:
    """Join the parts in the folder `from` into one report, in place of an evaluation. Needs no engine."""
    folder = prepare.inside(around.workspace, inputs.source or SHARDS)
    places = [folder] if (folder / REPORT).is_file() else sorted(folder.glob("*"))
    file = prepare.inside(around.workspace, inputs.config)
    base = work / FOLDER / BASE / "report.json"
    report = merge.merge(
        places,
        work / "out",
        config=file,
        baseline=base if base.is_file() else None,
        plan=work / FOLDER / MATRIX if inputs.plan else None,
        base_config=work / "base" / plan.config if plan.limits is LimitsOf.BOTH else None,
    )
    say(f"Joined {len(places)} parts.")
    return Evaluated(exit_code=exit_code(report.outcome, inputs.fail_on))
