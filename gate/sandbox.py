# SPDX-License-Identifier: Apache-2.0
"""How does the team's code run without reaching anything of ours?

As a child with an environment built from nothing, in its own session, under limits of time, memory, file size and disk, its
output drained into a capped log. Where Linux grants namespaces it has no network, sees no process but its own, and finds the
file system read-only and `.git` covered (`jail`). What is left out: system call filters, and hiding files that the user may
read elsewhere on the machine; the action therefore runs this inside a container that has neither.
"""

import contextlib
import functools
import os
import pwd
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

from gate import jail, quantity
from gate.errors import NoAnswer, SourceFault, ToolchainError

LOG_BYTES = 5 * 10**6
DISK_BYTES = 20 * 10**9
FILE_BYTES = 16 * 10**9
TAIL_BYTES = 16_384
TICK_SECONDS = 0.5  # how late a crash, a full disk or a time limit may be noticed
PATH = "/usr/local/bin:/usr/bin:/bin"
UNSHARE = (
    "unshare",
    "--user",
    "--map-root-user",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--ipc",
    "--mount",
    "--mount-proc",
)
# A first process that waits: the kernel ignores signals that the first process of a namespace sends itself.
FIRST_PROCESS = ("/bin/sh", "-c", '"$@"; exit $?', "sh")
# The cell is entered before anything else is imported: capabilities are dropped per thread, and numpy starts threads.
ENTRY = (
    "import sys; from gate import jail; jail.enter(jail.Cell.from_json(sys.argv[1])); "
    "from pathlib import Path; from gate import worker; worker.main(Path(sys.argv[2]), *map(int, sys.argv[3:]))"
)
PROBE = "import sys; from gate import jail; jail.enter(jail.Cell.from_json(sys.argv[1]))"
SECRETS_AT_HOME = (
    *(".ssh", ".aws", ".azure", ".config", ".docker", ".gnupg", ".kube", ".netrc", ".git-credentials", ".gitconfig"),
    *(".npmrc", ".pypirc", ".Xauthority"),
)
SOCKETS = (Path("/run"), Path("/var/run"))  # docker.sock answers through any network namespace
MEMORY_SIGNS = ("bad_alloc", "DefaultCPUAllocator: not enough memory", "MemoryError", "Cannot allocate memory")


class Kind(StrEnum):
    """What keeps the model's code apart."""

    CONTAINER = "container"
    NAMESPACES = "namespaces"
    PROCESS = "process"
    NONE = "none"


@dataclass(frozen=True)
class Limits:
    """What the team's code may use. Only time spent waiting for it counts."""

    seconds: float
    memory_bytes: int


def kind_here(in_container: bool = False) -> Kind:
    """Say what keeps the model's code apart here: a container where we were told so, else namespaces if the kernel grants them."""
    if in_container:
        return Kind.CONTAINER
    return Kind.NAMESPACES if namespaces_work() else Kind.PROCESS


@functools.cache
def namespaces_work() -> bool:
    """Try once whether an ordinary user gets namespaces here; Docker and hardened kernels refuse."""
    if sys.platform != "linux" or not shutil.which("unshare", path=PATH):
        return False
    with tempfile.TemporaryDirectory(prefix="gate-probe-") as private:
        cell = jail.Cell(Path(private), (), 1 << 32, 1 << 32, own_mounts=True)
        command = [*UNSHARE, "--", sys.executable, "-P", "-c", PROBE, cell.to_json()]
        try:
            done = subprocess.run(
                command, env=_environment(Path(private)), stdin=subprocess.DEVNULL, capture_output=True, timeout=20
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0


def hidden_paths(folder: Path, more: Sequence[Path] = ()) -> tuple[Path, ...]:
    """List what the model's code must not see: the repository's `.git`, credentials at home, sockets, and `more`."""
    home = _home()
    paths = [*_git_folders(folder), *(home / name for name in SECRETS_AT_HOME), *SOCKETS, *more]
    return tuple(path for path in dict.fromkeys(paths) if path.exists() and not path.is_symlink())


def _home() -> Path:
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # a container that runs under a number without a name
        return Path("/nonexistent")


def _git_folders(folder: Path) -> Iterator[Path]:
    """`.git` here or above; in a worktree it is a file that names the real one."""
    for parent in (folder, *folder.parents):
        git = parent / ".git"
        if git.is_file():
            named = re.match(r"gitdir: (.+?)(/worktrees/[^/]+)?\s*$", git.read_text(errors="replace"))
            if named:
                yield (parent / named[1]).resolve()
        if git.exists():
            yield git


def _environment(private: Path) -> dict[str, str]:
    """Nothing is inherited: no GITHUB_*, no token, nothing that a runner put there."""
    threads = str(os.cpu_count() or 1)
    return {
        "PATH": PATH,
        "HOME": str(private / "home"),
        "TMPDIR": str(private / "tmp"),
        "LANG": "C.UTF-8",
        "USER": "gate",  # torch asks for a name, and a container may run under a number without one
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait cost ten times the time where cores are shared
        "TQDM_DISABLE": "1",
    }


class Child:
    """A running worker: wake it, wait for it, end it and all that it started."""

    def __init__(
        self, startup: Path, private: Path, cwd: Path, log: Path, limits: Limits, kind: Kind, hidden: Sequence[Path]
    ) -> None:
        self.kind = kind
        self._startup = startup
        self._private = private
        self._limits = limits
        self.seconds_left = limits.seconds
        for name in ("home", "tmp"):
            (private / name).mkdir(parents=True)
        jail.forbid_peeking()
        request_read, self._request = os.pipe()
        self._answer, answer_write = os.pipe()
        lifeline_read, self._lifeline = os.pipe()
        ends = (request_read, answer_write, lifeline_read)
        try:
            self._process = subprocess.Popen(
                self._command(ends, hidden),
                env=_environment(private),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=ends,
                start_new_session=True,
            )
        finally:
            for end in ends:
                os.close(end)
        assert self._process.stdout is not None
        self._log = _CappedLog(self._process.stdout, log)

    def _command(self, ends: tuple[int, int, int], hidden: Sequence[Path]) -> list[str]:
        own_mounts = self.kind is Kind.NAMESPACES
        cell = jail.Cell(self._private, tuple(hidden), self._limits.memory_bytes, FILE_BYTES, own_mounts)
        prefix = [*UNSHARE, "--", *FIRST_PROCESS] if own_mounts else []
        python = [sys.executable, "-P", "-c", ENTRY]
        return [*prefix, *python, cell.to_json(), str(self._startup), *map(str, ends)]

    @property
    def is_alive(self) -> bool:
        """Can it still be asked?"""
        return self._process.poll() is None

    def begin(self) -> None:
        """Wait until it is ready. None of the team's code has run by then, so a failure is not theirs."""
        if not self._answered("start"):
            self._log.settle()
            raise NoAnswer(f"the sandbox did not start ({self.kind}): {self._last_line()}")

    def ask(self, number: int, what: str) -> None:
        """Wake the worker for request `number` and wait until it has answered; raise what ended it otherwise."""
        with contextlib.suppress(BrokenPipeError):  # it is dead; the wait below says how it died
            os.write(self._request, f"{number}\n".encode())
        if not self._answered(what):
            raise self._died(what)

    def _answered(self, what: str) -> bool:
        """Wait for the worker's line; False when it died instead. The wait counts against the time limit."""
        started = time.monotonic()
        try:
            while not self._has_line(self.seconds_left - (time.monotonic() - started), what):
                if not self.is_alive:
                    return False
                self._watch_disk(what)
            return True
        finally:
            self.seconds_left -= time.monotonic() - started

    def _has_line(self, seconds: float, what: str) -> bool:
        if seconds <= 0:
            self._kill()
            raise NoAnswer(
                f"{what}: no answer within the time limit of {quantity.duration(self._limits.seconds)}, after "
                f"{quantity.duration(self.seconds_left)} in this step; "
                "raise limits.time in gate.yml if that is expected, else mend what hangs"
            )
        with selectors.DefaultSelector() as selector:
            selector.register(self._answer, selectors.EVENT_READ)
            if not selector.select(min(seconds, TICK_SECONDS)):
                return False
        if os.read(self._answer, 64):
            return True
        time.sleep(TICK_SECONDS)  # it has closed its end: dying, or their code did that
        return False

    def _watch_disk(self, what: str) -> None:
        if folder_bytes(self._private) > DISK_BYTES:
            self._kill()
            raise NoAnswer(
                f"{what}: the model's code wrote more than {quantity.size(DISK_BYTES)} to its private folder"
            )

    def _died(self, what: str) -> Exception:
        """Say how it ended: our kill and memory limits are no answer, what the code does to itself is its fault."""
        status = self._process.returncode
        number = -status if status < 0 else status - 128 if status > 128 else 0
        self._log.settle()
        if any(sign in self.tail() for sign in MEMORY_SIGNS):
            return NoAnswer(f"{what}: {memory_message(self._limits.memory_bytes)}")
        if number in (signal.SIGKILL, signal.SIGTERM):
            return NoAnswer(
                f"{what}: the process was killed ({signal.Signals(number).name}); the machine may be out of memory"
            )
        if number:
            name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
            crash = ToolchainError if what.startswith("convert") else SourceFault
            return crash(f"{what}: the process crashed with {name}; last output: {self._last_line()}")
        return SourceFault(
            f"{what}: the code ended the process itself (exit status {status}); it must return to its caller instead"
        )

    def _last_line(self) -> str:
        lines = [line.strip() for line in self.tail().splitlines() if line.strip()]
        return lines[-1][:300] if lines else "none"

    def tail(self) -> str:
        """The end of what it printed, neutralised."""
        return neutralise(self._log.tail())

    def close(self) -> None:
        """End it and everything that it started."""
        self._kill()
        for end in (self._request, self._answer, self._lifeline):
            os.close(end)
        self._log.close()

    def _kill(self) -> None:
        if self._process.returncode is None or self.kind is not Kind.NAMESPACES:
            _kill_group(self._process.pid)
        self._process.wait()
        if (
            self.kind is not Kind.NAMESPACES
        ):  # a namespace ends with its first process; elsewhere a daemon may have left the group
            _kill_strays(str(self._private))


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _kill_strays(mark: str) -> None:
    """Kill processes that left the group, known by the private folder in the environment that we gave them."""
    if sys.platform != "linux":
        return
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TMPDIR={mark}/tmp".encode() in environment.read_bytes().split(b"\0"):
                os.kill(int(environment.parent.name), signal.SIGKILL)
        except (OSError, ValueError):
            continue


class _CappedLog:
    """Drains a pipe into a file: the first `LOG_BYTES` of it, and in memory the last few kilobytes."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream = stream
        self._tail = b""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)  # a worker that replaces a crashed one goes on
        self._thread = threading.Thread(target=self._drain, daemon=True, name="worker log")
        self._thread.start()

    def _drain(self) -> None:
        written, dropped = 0, 0
        while chunk := os.read(self._stream.fileno(), 1 << 16):
            kept = chunk[: LOG_BYTES - written]
            self._keep(kept)
            written += len(kept)
            dropped += len(chunk) - len(kept)
            self._tail = (self._tail + chunk)[-TAIL_BYTES:]
        if dropped:
            self._keep(f"\n[{dropped} more bytes were dropped; the last of them:]\n".encode() + self._tail)

    def _keep(self, text: bytes) -> None:
        with contextlib.suppress(OSError):  # of a full disk: a pipe that nobody drains keeps the worker waiting
            self._file.write(text)

    def settle(self) -> None:
        """Wait for the rest of the output of a process that has ended."""
        self._thread.join(timeout=2.0)

    def tail(self) -> str:
        return self._tail.decode(errors="replace")

    def close(self) -> None:
        self.settle()
        if not self._thread.is_alive():  # a stray that holds the pipe must not keep us; the thread is a daemon
            self._stream.close()
            self._file.close()


def memory_message(memory_bytes: int) -> str:
    """What to say when the memory limit was hit."""
    return f"not enough memory under the limit of {quantity.size(memory_bytes)}; raise limits.memory in gate.yml if the machine has more"


def folder_bytes(folder: Path) -> int:
    """Sum the sizes of the files under `folder`, of which some may vanish meanwhile."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size  # noqa: PTH118  # a hot loop
            except OSError:
                continue
    return total


_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)?", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_LINE_ENDS = re.compile(r"\r\n|[\r\u2028\u2029\x85\x0b\x0c]")
_COMMAND = re.compile(r"^(\s*)::", re.MULTILINE)


def neutralise(text: str) -> str:
    """Make output of others safe to print: no workflow command is obeyed and no terminal sequence acts.

    GitHub's runner obeys `::cmd::` at the start of a trimmed line and `##[cmd]` anywhere in one (actions/runner, ActionCommand.cs).
    """
    text = _LINE_ENDS.sub("\n", _ESCAPES.sub("", text))
    text = _CONTROL.sub("", text)
    return _COMMAND.sub(r"\1: :", text).replace("##[", "# #[")
