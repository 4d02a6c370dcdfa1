# SPDX-License-Identifier: Apache-2.0
"""What does the evaluated side get, and how is it ended? The exact container, the exact namespaces, the exact environment."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from gate.action.handover import Evaluated, LimitsOf, Plan, Sandbox
from gate.action.runner import say
from gate.errors import Exit

LOG_BYTES = 4_000_000
LINE_BYTES = 16_000
TAIL_LINES = 40
TAIL_CHARACTERS = 4_000
NOBODY = 65534
LOCAL_IMAGE = "coreml-gate:local"

ACTION = Path(__file__).resolve().parent.parent.parent
ISOLATE = ACTION / "support" / "isolate.sh"
SYSTEM_PATHS = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives", "/etc/passwd")


def child_environment(plan: Plan, base: Path) -> dict[str, str]:
    """Return everything that the evaluated side may know: no token, no command file, no folder of the runner."""
    base_config = str(base / "base" / plan.config) if plan.limits is LimitsOf.BOTH else ""
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
        "GATE_LIMITS": plan.limits,
        "GATE_CONFIG_FROM": plan.config_from,
        "GATE_BASE_CONFIG": base_config,
        "GATE_APPROVED_BY": plan.approved_by,
        "GATE_CONTENTS": "\n".join(f"{name}={digest}" for name, digest in plan.contents.items()),
    }


@dataclass(frozen=True)
class Apart:
    """A command with all that it may know, and how to end it when it does not end by itself."""

    arguments: list[str]
    environment: dict[str, str]
    folder: Path
    end: tuple[str, ...] = ()
    beside: "Apart | None" = None  # started before it, and ended with it


def apart(plan: Plan, work: Path, arguments: list[str], cache_key: str = "") -> Apart:
    """Wrap `gate check`. Only where their code runs in another container than the judge does the judge get the key of the cache."""
    match plan.sandbox:
        case Sandbox.CONTAINER:
            if os.getuid() == 0:
                for path in (part for name in ("out", "exchange") for part in (work / name, *(work / name).rglob("*"))):
                    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)  # `out` may hold a copy of the cache
            alone = in_container(plan, work, arguments, os.getuid(), os.getgid(), _memory_bytes())
            return _with_key(alone, plan, cache_key) if cache_key else alone
        case Sandbox.NAMESPACES:
            return in_namespaces(plan, work, arguments, _python_paths())
        case Sandbox.NONE:
            environment = child_environment(plan, work) | {"PYTHONPATH": str(ACTION)}
            return Apart([sys.executable, "-P", "-m", "gate", *arguments], environment, work / "source")


def in_container(plan: Plan, work: Path, arguments: list[str], uid: int, gid: int, memory_bytes: int) -> Apart:
    """Wrap `gate check` in our own `docker run`, and the model's code in another, which cannot reach the results.

    A root runner hands over to nobody; the image has no other user.
    """
    user = f"{uid}:{gid}" if uid else f"{NOBODY}:{NOBODY}"
    docker = {key: os.environ[key] for key in ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG") if key in os.environ}

    def container(role: str, mounts: Sequence[tuple[str, str]], inside: Sequence[str], beside: Apart | None) -> Apart:
        name = f"coreml-gate-{work.name}-{role}"
        run = ["docker", "run", "--rm", "--init", "--pull=never", f"--name={name}", "--workdir=/gate/source"]
        closed = [
            "--network=none",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            "--read-only",
            f"--user={user}",
        ]
        limits = ["--pids-limit=1024", f"--memory={memory_bytes}", f"--memory-swap={memory_bytes}", "--ulimit=core=0"]
        bound = [f"--mount=type=bind,src={work / part},dst=/gate/{part}{how}" for part, how in mounts]
        tmp = "--tmpfs=/tmp:rw,nosuid,nodev,size=8g"
        return Apart([*run, *closed, *limits, *bound, tmp, *inside], docker, work, ("docker", "kill", name), beside)

    shared, read = ("exchange", ""), (("source", ",readonly"), ("base", ",readonly"))
    python = [
        "--env=PATH=/usr/bin:/bin",
        "--entrypoint=/opt/gate/bin/python",
        plan.image,
        "-P",
        "-m",
        "gate.remote",
        "/gate/exchange",
    ]
    code = container("run", (*read, ("site", ",readonly"), shared), python, None)
    told = child_environment(plan, Path("/gate")) | {"GATE_EXCHANGE": "/gate/exchange"}
    judge = [*(f"--env={key}={value}" for key, value in told.items()), plan.image, *arguments]
    return container("judge", (*read, ("baseline", ",readonly"), shared, ("out", "")), judge, code)


def _with_key(judge: Apart, plan: Plan, key: str) -> Apart:
    """Hand the key over by name: a command line is seen by everybody on the machine."""
    at = judge.arguments.index(plan.image)
    arguments = [*judge.arguments[:at], "--env=GATE_CACHE_KEY", *judge.arguments[at:]]
    return replace(judge, arguments=arguments, environment=judge.environment | {"GATE_CACHE_KEY": key})


def in_namespaces(plan: Plan, work: Path, arguments: list[str], python_paths: Iterable[Path]) -> Apart:
    """Wrap `gate check` in Linux namespaces (support/isolate.sh); only the named paths exist in there."""
    shown = [path for path in (*map(Path, SYSTEM_PATHS), *python_paths, ACTION / "gate") if path.exists()]
    shown += [path for name in ("policies", "templates") if (path := ACTION / name).exists()]
    reads = [part for path in shown for part in ("--read", str(path))]
    reads += [
        part
        for name in ("source", "site", "base", "baseline")
        for part in ("--read-as", str(work / name), f"/gate/{name}")
    ]
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


def watch(apart: Apart, seconds: float) -> Evaluated:
    """Run to the end or to the time limit, and pass its output on between a stop and a resume that it cannot guess."""
    token = secrets.token_hex(16)
    say(f"::stop-commands::{token}")
    beside = _started(apart.beside, subprocess.DEVNULL) if apart.beside else None
    process = _started(apart, subprocess.PIPE)
    assert process.stdout is not None  # we asked for a pipe
    expired = threading.Event()
    timer = threading.Timer(seconds, _end, (process, apart.end, expired))
    timer.start()
    try:
        message = _pass_on(process.stdout)
        code = process.wait()
    finally:
        timer.cancel()
        if beside and apart.beside:
            _end(beside, apart.beside.end, threading.Event())
        say(f"::{token}::")
    if expired.is_set():
        return Evaluated(exit_code=Exit.NO_ANSWER, message=f"{message}\nended at its time limit of {seconds:.0f} s")
    return Evaluated(exit_code=code, message=message)


def _started(apart: Apart, output: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        apart.arguments, env=apart.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        cwd=apart.folder, start_new_session=True,
    )  # fmt: skip


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
