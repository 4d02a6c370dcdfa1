# SPDX-License-Identifier: Apache-2.0
"""How does the judge use a worker that lives in a container of its own?

The action starts two containers, neither with a network: one runs the model's code, one judges, and they share an exchange
folder. Here are both ends of the socket in it. The far end starts workers as `sandbox` does anywhere; the near end is a `Child` to
`source`. What comes over the socket says only that an answer is there, or why not: whoever runs beside the far end may have
written it, so the answer itself is checked as ever, and a lie is at worst the pull request's own fault.

    python -P -m gate.remote EXCHANGE        the far end, until it is ended
"""

import contextlib
import json
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedRWPair
from pathlib import Path
from typing import Any

from gate.errors import GateError, NoAnswer, SourceFault, ToolchainError
from gate.protocol import open_regular
from gate.sandbox import LOG_BYTES, Child, Kind, Limits, neutralise

SOCKET = "run.sock"
CONNECT_SECONDS = 60.0  # the other container starts at the same time as ours
GRACE_SECONDS = 30.0  # the far end keeps the time limit; we give up this much later
LINE_BYTES = 100_000
ERRORS: dict[str, type[GateError]] = {"source": SourceFault, "toolchain": ToolchainError, "no_answer": NoAnswer}


# --- the judge's end -----------------------------------------------------------------------------------------------


class Distant:
    """A worker in another container, with the face of `sandbox.Child`."""

    kind = Kind.CONTAINER

    def __init__(
        self, exchange: Path, startup: Path, private: Path, cwd: Path, log: Path, limits: Limits, hidden: Sequence[Path]
    ) -> None:
        self._log, self._theirs = log, private.parent / "worker.log"
        self._limits = limits
        self.seconds_left = limits.seconds
        self.is_alive = True
        self._connection = _connected(exchange / SOCKET, limits.seconds + GRACE_SECONDS)
        self._lines = self._connection.makefile("rb")
        told = {"startup": startup, "private": private, "cwd": cwd, "log": self._theirs, "hidden": [*map(str, hidden)]}
        self._start = {key: value if isinstance(value, list) else str(value) for key, value in told.items()}

    def begin(self) -> None:
        """Wait until it is ready."""
        self._call("start", {**self._start, "seconds": self._limits.seconds, "memory": self._limits.memory_bytes})

    def ask(self, number: int, what: str) -> None:
        """Wake the worker and wait until it has answered; raise what ended it otherwise."""
        self._call(what, {"number": number, "what": what})

    def _call(self, what: str, message: dict[str, Any]) -> None:
        started = time.monotonic()
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
            answer = json.loads(self._lines.readline(LINE_BYTES) or b"null")
        except (OSError, ValueError):
            answer = None
        self.seconds_left -= time.monotonic() - started
        if isinstance(answer, dict) and answer.get("ok") is True:
            return
        self.is_alive = False
        if not isinstance(answer, dict):
            raise NoAnswer(f"{what}: the container that runs the model's code has ended, or does not answer")
        error = ERRORS.get(str(answer.get("error")), NoAnswer)
        raise error(neutralise(str(answer.get("message", "")))[:2_000])

    def tail(self) -> str:
        """The end of what it printed is in the log."""
        return ""

    def close(self) -> None:
        """Let the far end close the worker, and keep what it printed."""
        with contextlib.suppress(GateError, OSError):
            self._connection.settimeout(GRACE_SECONDS)
            self._call("close", {"close": True})
        self._connection.close()
        self._lines.close()
        with contextlib.suppress(OSError, ValueError):
            _keep(self._theirs, self._log)


def _connected(path: Path, seconds: float) -> socket.socket:
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(seconds)
        try:
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            if time.monotonic() > deadline:
                raise NoAnswer(f"the container that runs the model's code did not start ({error.strerror})") from None
            time.sleep(0.1)
        else:
            return connection


def _keep(theirs: Path, ours: Path) -> None:
    """Copy a log that they may have replaced: no link, no pipe, no more than a log may have."""
    ours.parent.mkdir(parents=True, exist_ok=True)
    with open_regular(theirs, 2 * LOG_BYTES) as source, ours.open("ab") as target:
        shutil.copyfileobj(source, target)


# --- the far end ---------------------------------------------------------------------------------------------------


def serve(exchange: Path) -> None:
    """Start a worker for each connection, one after another."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(exchange / SOCKET))
        listener.listen(4)
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rwb") as stream, contextlib.suppress(OSError, ValueError, KeyError):
                _Session(stream).run()


@dataclass
class _Session:
    """One worker, from its start to the end of the connection."""

    stream: "BufferedRWPair[Any, Any]"
    child: Child | None = None

    def run(self) -> None:
        try:
            for message in self._messages():
                self._answer(message)
        finally:
            self.close()

    def close(self) -> None:
        """End the worker; what it printed is on disk then."""
        if self.child:
            self.child.close()
        self.child = None

    def _messages(self) -> Iterator[dict[str, Any]]:
        while line := self.stream.readline(LINE_BYTES):
            yield json.loads(line)

    def _answer(self, message: dict[str, Any]) -> None:
        try:
            self._do(message)
            told: dict[str, Any] = {"ok": True}
        except GateError as error:
            kind = next((name for name, known in ERRORS.items() if isinstance(error, known)), "no_answer")
            told = {"error": kind, "message": str(error)[:2_000]}
        self.stream.write(json.dumps(told).encode() + b"\n")
        self.stream.flush()

    def _do(self, message: dict[str, Any]) -> None:
        if "startup" in message:
            startup, private, cwd, log = (Path(message[key]) for key in ("startup", "private", "cwd", "log"))
            limits, hidden = Limits(message["seconds"], message["memory"]), [*map(Path, message["hidden"])]
            self.child = Child(startup, private, cwd, log, limits, Kind.CONTAINER, hidden)
            self.child.begin()
        elif "close" in message:
            self.close()
        elif self.child is None:
            raise NoAnswer("no worker has been started")
        else:
            self.child.ask(message["number"], message["what"])


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
