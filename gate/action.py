# SPDX-License-Identifier: Apache-2.0
"""What does GitHub ask for, and how does it get its answer?

Three processes, one per step of action.yml, so that the one in which code of the pull request runs never held a token:

    python -P -m gate.action prepare     token, network: is a model concerned? export the checkout, bring wheels and files
    python -P -m gate.action evaluate    neither: `gate check` in a container or in namespaces
    python -P -m gate.action report      token: comment, summary, annotations, outputs, and only then the exit code

`-P` everywhere: the working directory is the pull request's, and a `gate/` in it must not be imported instead of ours. This module
and cli.py are the only readers of os.environ. It loads neither torch nor numpy, so that "no model is concerned" is said at once.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, TypeVar

from pydantic import Field

from gate import baseline, config, github, prepare, render
from gate.document import Record
from gate.errors import Exit, GateError, NoAnswer, UsageError
from gate.files import write_text
from gate.report import Outcome, Report, exit_code

SUMMARY_BYTES = 1_000_000  # GitHub drops a summary above 1 MiB as a whole
ANNOTATIONS_PER_LEVEL = 10  # GitHub shows no more of a level per step, and a composite action is one step
ANNOTATION_CHARACTERS = 4_000
LOG_BYTES = 4_000_000
LINE_BYTES = 16_000
TAIL_LINES = 40
TAIL_CHARACTERS = 4_000
NOBODY = 65534
LOCAL_IMAGE = "coreml-gate:local"

ACTION = Path(__file__).resolve().parent.parent
ISOLATE = ACTION / "support" / "isolate.sh"
SYSTEM_PATHS = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives", "/etc/passwd")


class Mode(StrEnum):
    ALL = "all"
    EVALUATE = "evaluate"
    REPORT = "report"


class Runtime(StrEnum):
    AUTO = "auto"
    CONTAINER = "container"
    NATIVE = "native"


class Sandbox(StrEnum):
    CONTAINER = "container"
    NAMESPACES = "namespaces"
    NONE = "none"


class Engine(StrEnum):
    AUTO = "auto"
    MIL = "mil"
    COREML = "coreml"


class FailOn(StrEnum):
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NEVER = "never"


class CommentMode(StrEnum):
    ALWAYS = "always"
    ON_CHANGE = "on-change"
    ON_FAILURE = "on-failure"
    NEVER = "never"


# --- what was asked ------------------------------------------------------------------------------------------------

E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True)
class Inputs:
    """The inputs of action.yml. A composite action gets none by itself: its steps hand them over as INPUT_…"""

    mode: Mode = Mode.ALL
    config: str = "gate.yml"
    models: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    engine: Engine = Engine.AUTO
    runtime: Runtime = Runtime.AUTO
    fail_on: FailOn = FailOn.FAIL
    comment: CommentMode = CommentMode.ON_CHANGE
    comment_id: str = "default"
    artifact: str = "coreml-gate"
    report: str = ""
    image: str = ""
    time_limit_minutes: int = 60

    @staticmethod
    def read(environ: Mapping[str, str]) -> "Inputs":
        """Read the inputs; raise UsageError naming the input, what was found and what is possible."""
        default = Inputs()
        return Inputs(
            mode=_choice(environ, "mode", Mode),
            config=_text(environ, "config") or default.config,
            models=tuple(re.split(r"[\s,]+", _text(environ, "models"))) if _text(environ, "models") else (),
            policies=tuple(re.split(r"[\s,]+", _text(environ, "policies"))) if _text(environ, "policies") else (),
            engine=_choice(environ, "engine", Engine),
            runtime=_choice(environ, "runtime", Runtime),
            fail_on=_choice(environ, "fail-on", FailOn),
            comment=_choice(environ, "comment", CommentMode, default.comment),
            comment_id=_text(environ, "comment-id") or default.comment_id,
            artifact=_text(environ, "artifact") or default.artifact,
            report=_text(environ, "report"),
            image=_image(environ),
            time_limit_minutes=_minutes(environ, "time-limit-minutes", default.time_limit_minutes),
        )


def _text(environ: Mapping[str, str], name: str) -> str:
    return environ.get(f"INPUT_{name.upper().replace('-', '_')}", "").strip()


def _choice(environ: Mapping[str, str], name: str, kind: type[E], default: E | None = None) -> E:
    text = _text(environ, name)
    if not text:
        return default or next(iter(kind))
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"input {name}: found {text!r}, expected one of {', '.join(kind)}") from None


def _image(environ: Mapping[str, str]) -> str:
    text = _text(environ, "image")
    if text and not re.fullmatch(r"\w[\w./:-]*@sha256:[0-9a-f]{64}", text):
        raise UsageError(f"input image: found {text!r}, expected a name with its digest: name@sha256:…")
    return text


def _minutes(environ: Mapping[str, str], name: str, default: int) -> int:
    text = _text(environ, name)
    if text and not (text.isascii() and text.isdigit() and 0 < int(text) <= 1_440):
        raise UsageError(f"input {name}: found {text!r}, expected whole minutes from 1 to 1440")
    return int(text) if text else default


@dataclass(frozen=True)
class Surroundings:
    """What the runner tells a step: folders, command files, the event, and the token where the step has one."""

    environ: Mapping[str, str]

    @property
    def workspace(self) -> Path:
        return self._path("GITHUB_WORKSPACE")

    @property
    def work(self) -> Path:
        """The folder that the three steps share; `prepare` makes it."""
        return self._path("GATE_WORK")

    @property
    def token(self) -> str:
        return self.environ.get("GATE_TOKEN", "")

    def run_url(self, run: int | None = None) -> str | None:
        """Where the artifacts of a run are, by default of this one."""
        server, number = self.environ.get("GITHUB_SERVER_URL"), run or self.environ.get("GITHUB_RUN_ID")
        return f"{server}/{self.environ['GITHUB_REPOSITORY']}/actions/runs/{number}" if server and number else None

    def event(self) -> github.Event:
        """Read the event; what is no JSON is told as such."""
        name, path = self.environ.get("GITHUB_EVENT_NAME", ""), self._path("GITHUB_EVENT_PATH")
        payload = json.loads(path.read_text(encoding="utf-8"))
        return github.Event.read(name, self.environ["GITHUB_REPOSITORY"], payload)

    def client(self) -> github.Client:
        return github.Client(self.token, self.environ.get("GITHUB_API_URL", "https://api.github.com").rstrip("/"))

    def output(self, **values: str) -> None:
        """Set outputs of this step. A random delimiter, so that no value can end its own field and start another."""
        for name, value in values.items():
            delimiter = f"gate_{uuid.uuid4().hex}"
            self._append("GITHUB_OUTPUT", f"{name.replace('_', '-')}<<{delimiter}\n{value}\n{delimiter}\n")

    def summarize(self, markdown: str) -> None:
        """Add to the job's summary."""
        if len(markdown.encode()) > SUMMARY_BYTES:
            cut = markdown.encode()[:SUMMARY_BYTES].decode(errors="ignore")
            markdown = cut.rpartition("\n")[0] + "\n\n*Cut here: GitHub takes no more.*\n"
        self._append("GITHUB_STEP_SUMMARY", markdown + "\n")

    def _append(self, name: str, text: str) -> None:
        if path := self.environ.get(name):
            with Path(path).open("a", encoding="utf-8") as stream:
                stream.write(text)

    def _path(self, name: str) -> Path:
        if not self.environ.get(name):
            raise UsageError(f"{name} is not set; expected to run as a step of action.yml")
        return Path(self.environ[name])


class Plan(Record):
    """What `prepare` decided, for the two other steps. The folder that holds it is out of reach of the evaluated code."""

    concerned: tuple[str, ...] = Field(description="model entries to judge; none when the change touches none")
    sandbox: Sandbox = Field(description="what keeps their code apart")
    image: str = Field(default="", description="container image, by digest or as built here")
    commit: str = Field(default="", description="commit that is judged")
    base_commit: str = Field(default="", description="commit that it is compared with")
    event: str = Field(default="", description="GitHub event")


class Evaluated(Record):
    """How `gate check` ended."""

    exit_code: int = Field(description="its exit code")
    message: str = Field(default="", description="the end of what it printed")


# --- workflow commands ---------------------------------------------------------------------------------------------


def command(name: str, message: str, **properties: str | int) -> str:
    """Return a workflow command, such as an annotation, with everything in it escaped."""
    told = ",".join(f"{key}={_escape_property(str(value))}" for key, value in properties.items() if value != "")
    return f"::{name}{' ' if told else ''}{told}::{_escape_data(message)}"


def _escape_data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape_data(text).replace(":", "%3A").replace(",", "%2C")


def say(line: str) -> None:
    """Print a line of ours to the job's log."""
    print(line, flush=True)


# --- prepare -------------------------------------------------------------------------------------------------------


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
    around.output(evaluate=str(bool(plan.concerned)).lower(), sandbox=plan.sandbox, image=plan.image)
    around.output(concerned=" ".join(plan.concerned), folder=str(work / "out") if plan.concerned else "")
    return Exit.PASS


def _prepared(inputs: Inputs, around: Surroundings, event: github.Event, work: Path) -> Plan:
    plan = _plan(inputs, around, event)
    write_text(work / "plan.json", plan.model_dump_json())
    if not plan.concerned:
        say("No model is concerned by this change.")
        return plan
    _refuse_fork_without_sandbox(event, plan.sandbox)
    _lay_out(inputs, around, work)
    say(f"Models to judge: {', '.join(plan.concerned)}. Sandbox: {plan.sandbox}.")
    return plan


def _plan(inputs: Inputs, around: Surroundings, event: github.Event) -> Plan:
    pull = event.pull_request
    sandbox = _sandbox(inputs.runtime, around.environ)
    return Plan(
        concerned=_concerned(inputs, around, event),
        sandbox=sandbox,
        image=(inputs.image or locked_image()) if sandbox is Sandbox.CONTAINER else "",
        commit=pull.head_sha if pull else around.environ.get("GITHUB_SHA", ""),
        base_commit=(pull.base_sha if pull else event.before) or "",
        event=event.name,
    )


def locked_image() -> str:
    """Return the image of this version by digest, or the name under which support/engine.sh builds it here."""
    lines = (ACTION / "support" / "image.lock").read_text(encoding="utf-8").splitlines()
    (image,) = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return LOCAL_IMAGE if image == "local" else image


def _concerned(inputs: Inputs, around: Surroundings, event: github.Event) -> tuple[str, ...]:
    file = prepare.inside(around.workspace, inputs.config)
    asked = config.load(file)
    unknown = set(inputs.models) - {entry.name for entry in asked.models}
    if unknown:
        known = ", ".join(entry.name for entry in asked.models)
        raise UsageError(f"input models: {', '.join(sorted(unknown))}: not in {inputs.config}, which has {known}")
    touched = prepare.concerned(asked, file, around.workspace, _changed(around, event))
    return tuple(name for name in touched if not inputs.models or name in inputs.models)


def _changed(around: Surroundings, event: github.Event) -> frozenset[str] | None:
    """Ask which files changed; when GitHub does not say, every model is concerned."""
    try:
        return github.changed_files(around.client(), event)
    except github.GitHubError as error:
        say(command("notice", f"The changed files are not known, so every model is judged ({error})"))
        return None


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


def _lay_out(inputs: Inputs, around: Surroundings, work: Path) -> None:
    """Make source/ (a copy of the tracked files), site/ (wheels), out/ and tmp/ below the work folder."""
    prepare.refuse_credentials(around.workspace)
    for link in prepare.export_checkout(around.workspace, work / "source"):
        say(command("warning", f"{link}: a link that leads out of the checkout; the gate does not see it"))
    for name in ("site", "out", "tmp", "root"):
        (work / name).mkdir()
    prepare.bring(config.load(work / "source" / inputs.config), work / "site")


# --- evaluate ------------------------------------------------------------------------------------------------------


def run_evaluate(around: Surroundings) -> Exit:
    """Run `gate check` apart, and note how it ended. Its verdict is for the report step to tell."""
    inputs, work = Inputs.read(around.environ), around.work
    plan = Plan.model_validate_json((work / "plan.json").read_bytes())
    arguments = check_arguments(inputs, plan, work)
    ended = _watch(_apart(plan, work, arguments), inputs.time_limit_minutes * 60)
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


def child_environment(plan: Plan, base: Path) -> dict[str, str]:
    """Return everything that the evaluated side may know: no token, no command file, no folder of the runner."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": "/tmp" if plan.sandbox is not Sandbox.NONE else str(base / "tmp"),
        "TMPDIR": "/tmp" if plan.sandbox is not Sandbox.NONE else str(base / "tmp"),
        "LANG": "C.UTF-8",
        "PYTHONNOUSERSITE": "1",
        "PYTHONSAFEPATH": "1",
        "GATE_SITE": str(base / "site"),
        "GATE_SANDBOX": plan.sandbox,
        "GATE_EVENT": plan.event,
        "GATE_COMMIT": plan.commit,
        "GATE_BASE_COMMIT": plan.base_commit,
    }


@dataclass(frozen=True)
class Apart:
    """A command with all that it may know, and how to end it when it does not end by itself."""

    arguments: list[str]
    environment: dict[str, str]
    folder: Path
    end: tuple[str, ...] = ()


def _apart(plan: Plan, work: Path, arguments: list[str]) -> Apart:
    match plan.sandbox:
        case Sandbox.CONTAINER:
            if os.getuid() == 0:
                os.chown(work / "out", NOBODY, NOBODY)
            return in_container(plan, work, arguments, os.getuid(), os.getgid(), _memory_bytes())
        case Sandbox.NAMESPACES:
            return in_namespaces(plan, work, arguments, _python_paths())
        case Sandbox.NONE:
            environment = child_environment(plan, work) | {"PYTHONPATH": str(ACTION)}
            return Apart([sys.executable, "-P", "-m", "gate", *arguments], environment, work / "source")


def in_container(plan: Plan, work: Path, arguments: list[str], uid: int, gid: int, memory_bytes: int) -> Apart:
    """Wrap `gate check` in our own `docker run`. A root runner hands over to nobody; the image has no other user."""
    name = f"coreml-gate-{work.name}"
    user = f"{uid}:{gid}" if uid else f"{NOBODY}:{NOBODY}"
    told = [f"--env={key}={value}" for key, value in child_environment(plan, Path("/gate")).items()]
    limits = ["--pids-limit=1024", f"--memory={memory_bytes}", f"--memory-swap={memory_bytes}", "--ulimit=core=0"]
    closed = ["--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--read-only", f"--user={user}"]
    mounts = [
        f"--mount=type=bind,src={work / 'source'},dst=/gate/source,readonly",
        f"--mount=type=bind,src={work / 'site'},dst=/gate/site,readonly",
        f"--mount=type=bind,src={work / 'out'},dst=/gate/out",
        "--tmpfs=/tmp:rw,nosuid,nodev,size=8g",
    ]
    run = ["docker", "run", "--rm", "--init", "--pull=never", f"--name={name}", "--workdir=/gate/source"]
    docker = {key: os.environ[key] for key in ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG") if key in os.environ}
    return Apart(
        [*run, *closed, *limits, *mounts, *told, plan.image, *arguments], docker, work, ("docker", "kill", name)
    )


def in_namespaces(plan: Plan, work: Path, arguments: list[str], python_paths: Iterable[Path]) -> Apart:
    """Wrap `gate check` in Linux namespaces (support/isolate.sh); only the named paths exist in there."""
    shown = [path for path in (*map(Path, SYSTEM_PATHS), *python_paths, ACTION / "gate") if path.exists()]
    shown += [path for name in ("policies", "templates") if (path := ACTION / name).exists()]
    reads = [part for path in shown for part in ("--read", str(path))]
    reads += [part for name in ("source", "site") for part in ("--read-as", str(work / name), f"/gate/{name}")]
    places = ["--root", str(work / "root"), "--out", str(work / "out"), "--tmp", str(work / "tmp")]
    environment = child_environment(plan, Path("/gate")) | {"PYTHONPATH": str(ACTION)}
    python = [sys.executable, "-P", "-m", "gate", *arguments]
    return Apart([str(ISOLATE), *places, *reads, "--", *python], environment, work)


def _python_paths() -> list[Path]:
    """Return the folders of this interpreter, one inside another left out."""
    found = sorted({Path(sys.prefix), Path(sys.base_prefix), Path(sys.base_prefix).resolve()})
    return [path for path in found if not path.is_relative_to("/usr")]


def _memory_bytes() -> int:
    """Leave an eighth of the machine to the runner."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8 * 7


def _watch(apart: Apart, seconds: float) -> Evaluated:
    """Run to the end or to the time limit, and pass its output on between a stop and a resume that it cannot guess."""
    token = secrets.token_hex(16)
    say(f"::stop-commands::{token}")
    process = subprocess.Popen(
        apart.arguments, env=apart.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        cwd=apart.folder, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None  # we asked for a pipe
    expired = threading.Event()
    timer = threading.Timer(seconds, _end, (process, apart.end, expired))
    timer.start()
    try:
        message = _pass_on(process.stdout)
        code = process.wait()
    finally:
        timer.cancel()
        say(f"::{token}::")
    if expired.is_set():
        return Evaluated(exit_code=Exit.NO_ANSWER, message=f"{message}\nended at its time limit of {seconds:.0f} s")
    return Evaluated(exit_code=code, message=message)


def _end(process: "subprocess.Popen[bytes]", end: Sequence[str], expired: threading.Event) -> None:
    """Kill the evaluation with all its descendants."""
    expired.set()
    if end:
        subprocess.run(end, check=False, capture_output=True, timeout=60)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _pass_on(output: IO[bytes]) -> str:
    """Print what comes, up to a limit; read on beyond it, so that nobody blocks; return the end of it."""
    printed, tail = 0, deque[str](maxlen=TAIL_LINES)
    while line := output.readline(LINE_BYTES):
        text = line.decode(errors="replace").rstrip("\r\n")
        tail.append(text)
        printed += len(line)
        if printed <= LOG_BYTES:
            say(text)
    return "\n".join(tail)[-TAIL_CHARACTERS:].strip()


# --- report --------------------------------------------------------------------------------------------------------

VERDICT_NONE = "none"
UNTOLD = (
    "**The newest run of the Core ML gate left no report.** Either no model is concerned any more, or it could not run."
)
NOTHING = "**No model is concerned by this change.** The Core ML gate has nothing to judge."


@dataclass(frozen=True)
class Answer:
    """What the run has to say, in all the places where GitHub shows something."""

    verdict: str
    exit_code: Exit
    comment: str
    summary: str
    annotations: tuple[render.Annotation, ...] = ()


def run_report(around: Surroundings) -> Exit:
    """Tell the answer everywhere, and only then fail."""
    inputs, event = Inputs.read(around.environ), around.event()
    if event.workflow_run:
        return _report_other_run(inputs, around, event)
    answer = _answer(inputs, around)
    around.summarize(answer.summary)
    annotate(answer.annotations)
    if event.pull_request and inputs.mode is not Mode.EVALUATE:
        _comment(inputs, around, event.pull_request.number, answer)
    around.output(verdict=answer.verdict, exit_code=str(int(answer.exit_code)))
    return Exit.PASS if inputs.mode is Mode.REPORT else answer.exit_code


def _report_other_run(inputs: Inputs, around: Surroundings, event: github.Event) -> Exit:
    """Comment on the pull request of another run, from its artifact. Nothing of that run is executed or trusted."""
    run, client = event.workflow_run, around.client()
    assert run is not None  # the caller looked
    pull = github.pull_request_of_run(client, event.repository, run) if run.event == "pull_request" else None
    if pull is None:
        say(command("notice", f"Run {run.id} is not the newest of exactly one open pull request; nothing is posted."))
        around.output(verdict=VERDICT_NONE, exit_code="0", comment_written="false")
        return Exit.PASS
    data = github.artifact_member(client, event.repository, run.id, inputs.artifact, "report.json")
    if data is None:  # as when no model was concerned; an older comment is then brought up to date
        answer = Answer(VERDICT_NONE, Exit.PASS, UNTOLD, UNTOLD)
    else:
        answer = _judged(baseline.parse_report(data, "report.json"), inputs, around.run_url(run.id))
    around.summarize(answer.summary)
    _comment(inputs, around, pull.number, answer)
    around.output(verdict=answer.verdict, exit_code=str(int(answer.exit_code)))
    return Exit.PASS


def _answer(inputs: Inputs, around: Surroundings) -> Answer:
    if inputs.report:
        return _judged(_read_report(prepare.inside(around.workspace, inputs.report)), inputs, around.run_url())
    ended = around.work / "evaluated.json"
    if ended.exists():
        return _evaluated(Evaluated.model_validate_json(ended.read_bytes()), inputs, around)
    plan = Plan.model_validate_json((around.work / "plan.json").read_bytes())
    if plan.concerned:
        return _unanswered(Exit.NO_ANSWER, "the evaluation did not start; see the log of the step before", inputs)
    return Answer(VERDICT_NONE, Exit.PASS, NOTHING, NOTHING)


def _evaluated(ended: Evaluated, inputs: Inputs, around: Surroundings) -> Answer:
    """Tell the report, unless `gate check` ended in a way that does not fit it."""
    file = around.work / "out" / "report.json"
    if ended.exit_code in (Exit.USAGE, Exit.CRASH) or not file.exists():
        return _unanswered(_known(ended.exit_code), ended.message, inputs)
    answer = _judged(_read_report(file), inputs, around.run_url())
    if answer.exit_code != ended.exit_code:
        told = f"report.json says {answer.verdict}, but `gate check` ended with exit code {ended.exit_code}"
        return _unanswered(Exit.NO_ANSWER, f"{told}; neither is believed.\n{ended.message}", inputs)
    return answer


def _judged(report: Report, inputs: Inputs, run_url: str | None) -> Answer:
    return Answer(
        verdict=report.outcome,
        exit_code=exit_code(report.outcome, inputs.fail_on),
        comment=render.comment(report, report_url=run_url, marker_id=inputs.comment_id),
        summary=render.summary(report, report_url=run_url),
        annotations=tuple(render.annotations(report)),
    )


def _unanswered(code: Exit, message: str, inputs: Inputs) -> Answer:
    cause = "The gate cannot run as configured" if code is Exit.USAGE else "The gate has no answer"
    text = f"**{cause}** (exit code {int(code)}).\n\n{fenced(message)}\n"
    told = render.Annotation("error", inputs.config, 1, cause, message[-ANNOTATION_CHARACTERS:])
    return Answer(Outcome.ERROR, code, text, text, (told,))


def _known(code: int) -> Exit:
    return Exit(code) if code in (Exit.USAGE, Exit.NO_ANSWER, Exit.CRASH) else Exit.NO_ANSWER


def fenced(text: str) -> str:
    """Put text from outside where Markdown does not read it: a fence longer than any run of back-ticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _read_report(path: Path) -> Report:
    return baseline.parse_report(_read(path), path.name)


def _read(path: Path) -> bytes:
    """Read a file that the evaluated side could have replaced: no link is followed, and no more than a report is read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as problem:
        raise UsageError(f"{path.name}: {problem.strerror}; expected a plain file") from None
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError(f"{path.name}: expected a plain file")
        return stream.read(baseline.MAX_BYTES + 1)


def annotate(annotations: Iterable[render.Annotation]) -> None:
    """Print annotations, errors first, no more of a level than GitHub shows."""
    by_level = {level: [a for a in annotations if a.level == level] for level in ("error", "warning", "notice")}
    for level, found in by_level.items():
        for a in found[:ANNOTATIONS_PER_LEVEL]:
            say(command(level, a.message[:ANNOTATION_CHARACTERS], file=a.file, line=a.line, title=a.title))


def _comment(inputs: Inputs, around: Surroundings, number: int, answer: Answer) -> None:
    """Write the one comment where it is wanted. A token that may not is told, and is no failure."""
    client, repository = around.client(), around.environ["GITHUB_REPOSITORY"]
    try:
        written = _write_comment(inputs, client, repository, number, answer)
    except github.CannotComment as error:
        say(
            command(
                "notice", f"No comment was written: {error}. The summary has the report; see docs/github.md, Forks."
            )
        )
        written = None
    around.output(comment_written=str(written is not None).lower())
    if written:
        around.output(comment_id=str(written.id), comment_url=written.url)


def _write_comment(
    inputs: Inputs, client: github.Client, repository: str, number: int, answer: Answer
) -> github.Comment | None:
    match inputs.comment:
        case CommentMode.NEVER:
            return None
        case CommentMode.ALWAYS:
            wanted = True
        case CommentMode.ON_CHANGE:
            wanted = answer.verdict != VERDICT_NONE
        case CommentMode.ON_FAILURE:
            wanted = answer.exit_code is not Exit.PASS
    # Where none is wanted, an older comment is still brought up to date: it may say that something fails.
    if not wanted and github.find_comment(client, repository, number, inputs.comment_id) is None:
        return None
    how, comment = github.upsert_comment(client, repository, number, inputs.comment_id, answer.comment)
    say(f"Comment {how}: {comment.url}")
    return comment


# --- the three steps -----------------------------------------------------------------------------------------------

STEPS = {"prepare": run_prepare, "evaluate": run_evaluate, "report": run_report}


def main(arguments: Sequence[str]) -> int:
    """Run one step; a mistake of the user is an annotation, never a traceback."""
    if len(arguments) != 1 or arguments[0] not in STEPS:
        say(f"usage: python -P -m gate.action {'|'.join(STEPS)}")
        return Exit.USAGE
    try:
        return STEPS[arguments[0]](Surroundings(os.environ))
    except GateError as error:
        say(command("error", str(error), title="Core ML gate"))
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
