# SPDX-License-Identifier: Apache-2.0
"""How are weights compressed side by side? In fresh processes of one thread each, largest weight first.

Each process holds one weight at a time, so memory is bounded by the number of processes times the largest weight. They start
when there is something to do and can be kept for several policies.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Timer
from types import TracebackType
from typing import Any, Self

from gate.compress.entry import Task
from gate.errors import NoAnswer, ToolchainError

_ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Job:
    """A task, and the file that its result goes to."""

    name: str
    task: Task
    out: Path


Reasons = tuple[str | None, ...]


class Workers:
    """A number of worker processes; a context manager that ends them.

    `remaining` says how many seconds are left; when they are over, whatever still computes is killed.
    """

    def __init__(self, jobs: int, remaining: Callable[[], float] | None = None) -> None:
        self.jobs = max(1, jobs)
        self._remaining = remaining
        self._is_over = False
        self._idle: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        self._started: list[subprocess.Popen[str]] = []
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the processes that write to it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        for process in self._started:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream:
                    with suppress(OSError):  # what was still to be written to a process that is gone
                        stream.close()
        self._started.clear()
        self._idle = SimpleQueue()

    def run(self, jobs: Sequence[Job]) -> dict[Path, Reasons]:
        """Do all jobs; return why steps were skipped, by result file.

        ToolchainError when one cannot be done, NoAnswer when time is up.
        """
        if not jobs:
            return {}
        with self._watched():
            return self._run(jobs)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Kill the processes when time is up: a thread that waits for an answer then reads the end of it."""
        if self._remaining is None:
            yield
            return
        timer = Timer(max(0.0, self._remaining()), self._stop)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _stop(self) -> None:
        self._is_over = True
        for process in tuple(self._started):
            process.kill()

    def _run(self, jobs: Sequence[Job]) -> dict[Path, Reasons]:
        for _ in range(min(self.jobs, len(jobs)) - len(self._started)):
            self._start()
        ordered = sorted(jobs, key=lambda job: job.task.elements, reverse=True)
        with ThreadPoolExecutor(max_workers=self.jobs) as pool:
            try:
                answers = list(pool.map(self._do, ordered))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.close()
                raise
        return {job.out: reasons for job, reasons in zip(ordered, answers, strict=True)}

    def _start(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gate.compress.worker"],  # -P: nothing is imported from the working directory
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={"PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)]), **ONE_THREAD},
        )
        self._started.append(process)
        if self._is_over:  # it ended between the start and this line
            process.kill()
        self._idle.put(process)

    def _do(self, job: Job) -> Reasons:
        process = self._idle.get_nowait()  # there are as many as threads; none is left once they were ended
        reply = _ask(process, {"task": job.task.to_json(), "out": str(job.out)})
        self._idle.put(process)
        if "error" in reply and self._is_over:
            raise NoAnswer(
                f"weight {job.name}: its compression was stopped: the run's time limit is used up; raise limits.time"
            )
        if "error" in reply:
            raise ToolchainError(f"weight {job.name}: compression failed: {reply['error'] or self._ending(process)}")
        return tuple(reply["reasons"])

    def _ending(self, process: "subprocess.Popen[str]") -> str:
        """Say how a process ended: the last line that it wrote, as a traceback's last line says most."""
        code = process.wait()
        self._log.seek(0)
        lines = self._log.read()[-2_000:].decode(errors="replace").splitlines()
        said = lines[-1].strip() if lines and code > 0 else "too little memory is the usual cause"
        return f"its process ended with code {code}; {said}"


def _ask(process: "subprocess.Popen[str]", request: Mapping[str, Any]) -> dict[str, Any]:
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except (OSError, ValueError):
        line = ""
    if not line:
        return {"error": ""}
    reply: dict[str, Any] = json.loads(line)
    return reply
