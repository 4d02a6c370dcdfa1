# SPDX-License-Identifier: Apache-2.0
"""How does `gate check` run on the pull request's code? Apart, under a time limit, with nothing to find."""

from pathlib import Path

from gate.action.apart import apart, watch
from gate.action.before import BASE, FOLDER, MATRIX, RELEASE
from gate.action.divide import answer_arguments
from gate.action.handover import Plan, Sandbox
from gate.action.inputs import HandOver, Inputs
from gate.action.runner import Surroundings, command, say
from gate.errors import Exit
from gate.files import write_text


def run_evaluate(around: Surroundings) -> Exit:
    """Run `gate check` apart, and note how it ended. Its verdict is for the report step to tell."""
    inputs, work = Inputs.read(around.environ), around.work
    plan = Plan.model_validate_json((work / "plan.json").read_bytes())
    arguments = answer_arguments(inputs, plan, work) if plan.handed else check_arguments(inputs, plan, work)
    ended = watch(apart(plan, work, arguments, inputs.cache_key), inputs.time_limit_minutes * 60)
    for path in remove_links(work / "out"):
        say(command("warning", f"{path}: a link or device among the results; removed"))
    write_text(work / "evaluated.json", ended.model_dump_json())
    say(f"gate check ended with exit code {ended.exit_code}.")
    return Exit.PASS


def remove_links(folder: Path) -> list[str]:
    """Remove what is neither file nor folder, and return it: an upload of the results would follow a link on the host."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or not (path.is_file() or path.is_dir())]
    for path in found:
        path.unlink()
    return [path.relative_to(folder).as_posix() for path in found]


def check_arguments(inputs: Inputs, plan: Plan, work: Path) -> list[str]:
    """Return the arguments of `gate check`. It runs in the copy of the checkout, so that paths in the report are the repository's."""
    root = work if plan.sandbox is Sandbox.NONE else Path("/gate")
    arguments = ["check", "--config", inputs.config, "--out", str(root / "out")]
    arguments += ["--engine", inputs.engine, "--fail-on", inputs.fail_on]
    arguments += [part for name in plan.concerned for part in ("--model", name)]
    arguments += [part for name in inputs.policies for part in ("--policy", name)]
    arguments += [part for name in plan.carried for part in ("--carry", name)]
    options = {BASE: "--baseline", RELEASE: "--release"}
    for kind in plan.earlier:
        arguments += [options[kind], str(root / FOLDER / kind / "report.json")]
    return arguments + _division(inputs, root)


def _division(inputs: Inputs, root: Path) -> list[str]:
    """What this machine does of the whole, and what it hands over. The cache is a copy: what is put there stays in this job."""
    arguments = ["--shard", inputs.shard] if inputs.shard else []
    if inputs.shard and inputs.plan:
        arguments += ["--plan", str(root / FOLDER / MATRIX)]
    if inputs.hand_over is not HandOver.NO:
        arguments += ["--hand-over", str(root / "out" / "handed")]
    if inputs.hand_over is HandOver.FIRST:
        arguments.append("--profile-first")
    return arguments + (["--cache", str(root / "out" / "cache")] if inputs.cache else [])
