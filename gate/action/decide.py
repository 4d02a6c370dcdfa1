# SPDX-License-Identifier: Apache-2.0
"""Is a model concerned, and what may its evaluation see? The step with the network, which runs nothing of the pull request."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gate import config, github, lfs, prepare, shard
from gate.action import before, divide, trust
from gate.action.apart import ACTION, ISOLATE, LOCAL_IMAGE
from gate.action.handover import Evaluated, LimitsOf, Plan, Sandbox
from gate.action.inputs import Inputs, Mode, Runtime
from gate.action.runner import Surroundings, command, say
from gate.errors import Exit, GateError, NoAnswer, UsageError
from gate.files import write_text


def run_prepare(around: Surroundings) -> Exit:
    """Decide whether a model is concerned, and lay out what the evaluation may see.

    What goes wrong once the work folder exists is left for the report step to tell, where people look for it.
    """
    inputs, event = Inputs.read(around.environ), around.event()
    github.marker(inputs.comment_id)  # refused now rather than after an hour of work
    work = Path(tempfile.mkdtemp(prefix="coreml-gate-", dir=around.environ.get("RUNNER_TEMP")))
    around.output(work=str(work), evaluate="false")
    if inputs.mode is Mode.REPORT:
        return Exit.PASS
    try:
        plan = _prepared(inputs, around, event, work)
    except GateError as error:
        write_text(work / "evaluated.json", Evaluated(exit_code=error.exit_code, message=str(error)).model_dump_json())
        return Exit.PASS
    evaluates = bool(plan.concerned) and inputs.mode in (Mode.ALL, Mode.EVALUATE, Mode.ANSWER)
    around.output(extra="coreml" if inputs.mode is Mode.ANSWER else "engine,onnx")
    around.output(evaluate=str(evaluates).lower(), sandbox=plan.sandbox, image=plan.image)
    around.output(concerned=" ".join(plan.concerned), folder=str(work / "out") if plan.concerned else "")
    return Exit.PASS


def _prepared(inputs: Inputs, around: Surroundings, event: github.Event, work: Path) -> Plan:
    if inputs.mode is Mode.ANSWER:
        return _written(divide.plan_answer(inputs, around, event, work), work)
    if inputs.device:
        told = "expected it with mode answer only, where none of the model's code is run"
        raise UsageError(f"input device: found {inputs.device!r} with mode {inputs.mode}, {told}")
    file = trust.configuration(event, around.workspace, inputs.config)
    changed = _changed(around, event)
    planned = divide.planned(inputs)
    concerned = _concerned(inputs, around, file, changed) if planned is None else planned
    if not concerned:
        say("No model is concerned by this change.")
        return _written(Plan(concerned=(), sandbox=Sandbox.NONE, event=event.name), work)
    asked = config.load(file)
    (work / before.FOLDER).mkdir()
    past = before.look(inputs, around, event, asked, file, work)
    concerned = past.needed(concerned) if planned is None else concerned
    if not concerned:
        say("What this change touches was judged already, with this very content.")
        return _written(Plan(concerned=(), sandbox=Sandbox.NONE, event=event.name), work)
    found = trust.standing(around.client(), around.lfs(), event, around.workspace, file, changed)
    edited = _edited(around, event, changed)
    plan = _plan(inputs, around, event, concerned, found).model_copy(
        update={
            "edited": edited,
            "carried": past.carried([entry.name for entry in asked.models], concerned),
            "contents": dict(past.contents or {}),
            "earlier": past.fetched,
        }
    )
    _written(plan, work)
    _refuse_fork_without_sandbox(event, plan.sandbox)
    if inputs.mode is Mode.PLAN:
        around.output(matrix=shard.to_json(_matrix(inputs, asked, concerned, past)))
        return plan
    _lay_out(inputs, around, plan, work)
    divide.lay_out(inputs, work)
    if plan.limits is LimitsOf.BOTH:
        trust.lay_out_base(around.client(), around.lfs(), event, found, around.workspace, work / "base", file)
    if inputs.mode is Mode.MERGE:
        write_text(work / "evaluated.json", divide.join(inputs, around, plan, work).model_dump_json())
        return plan
    say(f"Models to judge: {', '.join(plan.concerned)}. Sandbox: {plan.sandbox}.")
    return plan


def _matrix(inputs: Inputs, asked: config.Config, concerned: tuple[str, ...], past: before.Before) -> shard.Matrix:
    """Deal what is concerned to jobs, by how long it took last time."""
    return shard.matrix(shard.units_of(asked, concerned, inputs.policies), inputs.shards, past.base)


def _written(plan: Plan, work: Path) -> Plan:
    write_text(work / "plan.json", plan.model_dump_json())
    return plan


def _plan(
    inputs: Inputs, around: Surroundings, event: github.Event, concerned: tuple[str, ...], found: trust.Standing
) -> Plan:
    pull = event.pull_request
    sandbox = _sandbox(inputs.runtime, around.environ)
    return Plan(
        concerned=concerned,
        sandbox=sandbox,
        image=(inputs.image or locked_image()) if sandbox is Sandbox.CONTAINER else "",
        commit=pull.head_sha if pull else around.environ.get("GITHUB_SHA", ""),
        base_commit=(pull.base_sha if pull else event.before) or "",
        event=event.name,
        limits=found.limits,
        approved_by=found.approved_by,
        config=inputs.config,
    )


def locked_image() -> str:
    """Return the image of this version by digest, or the name under which support/engine.sh builds it here."""
    lines = (ACTION / "support" / "image.lock").read_text(encoding="utf-8").splitlines()
    (image,) = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return LOCAL_IMAGE if image == "local" else image


def _concerned(inputs: Inputs, around: Surroundings, file: Path, changed: frozenset[str] | None) -> tuple[str, ...]:
    asked = config.load(file)
    unknown = set(inputs.models) - {entry.name for entry in asked.models}
    if unknown:
        known = ", ".join(entry.name for entry in asked.models)
        raise UsageError(f"input models: {', '.join(sorted(unknown))}: not in {inputs.config}, which has {known}")
    touched = prepare.concerned(asked, file, around.workspace, changed)
    return tuple(name for name in touched if not inputs.models or name in inputs.models)


def _changed(around: Surroundings, event: github.Event) -> frozenset[str] | None:
    """Ask which files changed; when GitHub does not say, or nobody may ask it, every model is concerned."""
    if not around.token:
        return None
    try:
        return github.changed_files(around.client(), event)
    except github.GitHubError as error:
        say(command("notice", f"The changed files are not known, so every model is judged ({error})"))
        return None


def _edited(around: Surroundings, event: github.Event, changed: frozenset[str] | None) -> tuple[str, ...]:
    """Name what this change edits of its own evaluation; the posting workflow finds out again, and acts on it."""
    if event.pull_request is None or changed is None or not around.workflow:
        return ()
    with contextlib.suppress(github.GitHubError):
        found = trust.altered(around.client(), event.repository, event.pull_request, around.workflow, changed)
        return found if found is not None else (around.workflow,)
    return ()


def _sandbox(runtime: Runtime, environ: Mapping[str, str], isolate: Path = ISOLATE) -> Sandbox:
    """Choose what keeps their code apart. What was asked for and is not there is an error, never a silent step down."""
    docker = sys.platform == "linux" and _succeeds(["docker", "info"], environ)
    if runtime is Runtime.CONTAINER and not docker:
        raise UsageError(
            "input runtime: container needs Linux and a Docker daemon that answers `docker info`; "
            "use auto or native, or another runner"
        )
    if docker and runtime is not Runtime.NATIVE:
        return Sandbox.CONTAINER
    return Sandbox.NAMESPACES if _succeeds([str(isolate), "--probe"], environ) else Sandbox.NONE


def _succeeds(arguments: list[str], environ: Mapping[str, str]) -> bool:
    if shutil.which(arguments[0], path=environ.get("PATH")) is None:
        return False
    try:
        done = subprocess.run(arguments, env=dict(environ), capture_output=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _refuse_fork_without_sandbox(event: github.Event, sandbox: Sandbox) -> None:
    if sandbox is Sandbox.NONE and event.pull_request and event.pull_request.from_fork:
        raise NoAnswer(
            "This pull request comes from a fork, and this machine has neither Docker nor Linux namespaces to keep its code "
            "apart; it was not run. Use a Linux runner with Docker."
        )


def _lay_out(inputs: Inputs, around: Surroundings, plan: Plan, work: Path) -> None:
    """Make source/ (a copy of the tracked files), site/ (wheels), out/ and tmp/ below the work folder."""
    prepare.refuse_credentials(around.workspace)
    for link in prepare.export_checkout(around.workspace, work / "source"):
        say(command("warning", f"{link}: a link that leads out of the checkout; the gate does not see it"))
    for name in ("site", "out", "tmp", "root", "base", "exchange"):
        (work / name).mkdir()
    if inputs.mode is Mode.MERGE:  # which runs nothing of theirs
        return
    source, file = work / "source", work / "source" / inputs.config
    asked = config.load(file)
    needing = [entry for entry in asked.models if entry.name in plan.concerned]

    def wanted(path: str) -> bool:
        return any(prepare.rests_on(asked, entry, file, source, path) for entry in needing)

    around.lfs().fetch(lfs.pointers(source, wanted))
    prepare.bring(asked, work / "site")
