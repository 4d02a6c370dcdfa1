# SPDX-License-Identifier: Apache-2.0
"""How does `gate check` run on the pull request's code? Apart, under a time limit, with nothing to find."""

from pathlib import Path

from gate.action.apart import apart, watch
from gate.action.handover import Plan, Sandbox
from gate.action.inputs import Inputs
from gate.action.runner import Surroundings, command, say
from gate.errors import Exit
from gate.files import write_text


def run_evaluate(around: Surroundings) -> Exit:
    """Run `gate check` apart, and note how it ended. Its verdict is for the report step to tell."""
    inputs, work = Inputs.read(around.environ), around.work
    plan = Plan.model_validate_json((work / "plan.json").read_bytes())
    arguments = check_arguments(inputs, plan, work)
    ended = watch(apart(plan, work, arguments), inputs.time_limit_minutes * 60)
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
    out = work / "out" if plan.sandbox is Sandbox.NONE else Path("/gate/out")
    arguments = ["check", "--config", inputs.config, "--out", str(out)]
    arguments += ["--engine", inputs.engine, "--fail-on", inputs.fail_on]
    arguments += [part for name in plan.concerned for part in ("--model", name)]
    return arguments + [part for name in inputs.policies for part in ("--policy", name)]
