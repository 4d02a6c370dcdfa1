# SPDX-License-Identifier: Apache-2.0
"""Run coremltools' own tests against `gate.mil`.

    python -m tests.conformance.run --shard 1/8 --resume out/conformance
    python -m tests.conformance.run --sample 400 --seed 7
    python -m tests.conformance.run --each 2 --only test_recurrent
    python -m tests.conformance.run --report --resume out/conformance --summary tests/conformance/summary.json

The tests run in a child process, which is replaced when it crashes, hangs or has grown old; one line per test goes to
`results.jsonl` in the folder of `--resume`, and a test that has its line is not run again.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.plugin import SECONDS_PER_TEST
from tests.conformance.results import Outcome, Result, read, summarize
from tests.conformance.suite import ENVIRONMENT, FOLDERS, LEFT_OUT, paths, site_packages

MEMORY = Path("/dev/shm")  # where there is one, a run takes half the time
REPOSITORY = Path(__file__).parents[2]
TESTS_PER_CHILD = 2500  # coremltools and torch keep memory from test to test
NO_TESTS = 5  # pytest's exit code
TRIES = 3  # parameter sets of a function that show whether it predicts
SILENCE = SECONDS_PER_TEST + 120


@dataclass(frozen=True)
class Folder:
    """Where one run keeps its files."""

    path: Path
    scratch: Path
    """for the packages that tests make: gigabytes in small files, of which none is kept"""

    @property
    def ids(self) -> Path:
        return self.path / "ids.json"

    @property
    def results(self) -> Path:
        return self.path / "results.jsonl"

    @property
    def current(self) -> Path:
        return self.path / "current.txt"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def log(self) -> Path:
        return self.path / "pytest.log"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as scratch:
        folder = Folder((options.resume or Path(scratch, "run")).resolve(), Path(scratch))
        folder.path.mkdir(parents=True, exist_ok=True)
        wanted = select(all_ids(folder), options)
        if not options.report:
            run(folder, wanted, options.sample)
        done = read(folder.results)
        summary = {**describe(len(wanted)), **summarize(done[i] for i in wanted if i in done)}
    if options.summary:
        options.summary.write_text(json.dumps(summary, indent=1) + "\n")
    show(summary)
    return 1 if any(not failure["why"] for failure in summary["failures"]) else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--resume", type=Path, metavar="DIR", help="keep results here, and go on from those that are there"
    )
    parser.add_argument("--shard", type=shard, default=(1, 1), metavar="I/N", help="this part of the suite")
    parser.add_argument("--sample", type=int, metavar="COUNT", help="stop when this many tests have reached predict")
    parser.add_argument(
        "--each", type=int, metavar="COUNT", help="at most so many parameter sets of each test function"
    )
    parser.add_argument("--seed", type=int, default=7, help="of the sample, of --each")
    parser.add_argument("--only", default="", metavar="TEXT", help="tests whose id contains this")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="write the summary as JSON")
    parser.add_argument("--report", action="store_true", help="run nothing; sum up what --resume holds")
    return parser.parse_args(arguments)


def shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not 1 <= int(part) <= int(parts):
        raise argparse.ArgumentTypeError(f"{text}: expected I/N with 1 <= I <= N")
    return int(part), int(parts)


def select(ids: Sequence[str], options: argparse.Namespace) -> list[str]:
    """Choose the tests of a run, in rounds: one parameter set of each test function, then a second of each that has one …

    Both are in seeded random order, so that any beginning of a run has seen as much of the suite as its length allows.
    """
    part, parts = options.shard
    chosen = [i for i in ids if options.only in i and zlib.crc32(i.encode()) % parts == part - 1]
    shuffled = random.Random(options.seed).sample(chosen, len(chosen))
    rounds = sorted(((count, i) for count, i in numbered(shuffled)), key=lambda pair: pair[0])
    return [i for count, i in rounds if count <= (options.each or sys.maxsize)]


def numbered(ids: Iterable[str]) -> Iterable[tuple[int, str]]:
    """Say of each test which one of its function's it is."""
    seen: Counter[str] = Counter()
    for test_id in ids:
        seen[function_of(test_id)] += 1
        yield seen[function_of(test_id)], test_id


def all_ids(folder: Folder) -> list[str]:
    """List the suite; the list is kept beside the results."""
    if not folder.ids.exists():
        child = start(folder, {"list_to": str(folder.ids)}, "--collect-only")
        if child.wait() not in (0, NO_TESTS) or not folder.ids.exists():
            folder.ids.unlink(missing_ok=True)
            raise SystemExit(
                "pytest could not list the tests; is all of tests/conformance/requirements.txt installed?\n"
                + folder.log.read_text()[-4000:]
            )
    return list(json.loads(folder.ids.read_text()))


def run(folder: Folder, wanted: Sequence[str], sample: int | None) -> None:
    """Run what has no result yet, in as many child processes as it takes."""
    while True:
        done = read(folder.results)
        missing = promising_first([test_id for test_id in wanted if test_id not in done], done)
        enough = (sample or sys.maxsize) - sum(done[i].counts for i in wanted if i in done)
        if not missing or enough <= 0:
            return
        folder.current.unlink(missing_ok=True)
        plan = {
            "ids": missing[:TESTS_PER_CHILD],
            "results": str(folder.results),
            "current": str(folder.current),
            "stop_after_reached": enough,
        }
        child = start(folder, plan)
        outcome = watch(child, folder)
        if outcome is not None:
            note(folder, outcome, child.returncode)
        elif len(read(folder.results)) == len(done):
            raise SystemExit(f"pytest ran none of {len(missing)} tests:\n{folder.log.read_text()[-4000:]}")


def promising_first(missing: Sequence[str], done: Mapping[str, Result]) -> list[str]:
    """Put off the test functions whose first parameter sets never came to predict: they can't count."""
    tried: Counter[str] = Counter(function_of(test_id) for test_id in done)
    reached = {function_of(test_id) for test_id, result in done.items() if result.reached}
    return sorted(missing, key=lambda i: tried[function_of(i)] >= TRIES and function_of(i) not in reached)


def function_of(test_id: str) -> str:
    return test_id.partition("[")[0]


def start(folder: Folder, plan: dict[str, Any], *extra: str) -> subprocess.Popen[bytes]:
    """Start pytest on the suite, in a temporary directory of its own.

    The whole suite is collected each time: some classes share an iterator of parameters, which the first to be collected
    uses up, so that the ids of a file depend on the files before it.
    """
    folder.plan.write_text(json.dumps(plan))
    inherited = os.environ.get("PYTHONPATH", "")
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), inherited])),
        "TMPDIR": str(folder.scratch),
    }
    settings = [
        "-p",
        "tests.conformance.plugin",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--conformance-plan",
        str(folder.plan),
    ]
    reports = ["-q", "--tb=no", "--no-header", "-W", "ignore"]
    left_out = [f"--ignore={path}" for path in paths(LEFT_OUT)]
    place = ["-c", os.devnull, "--rootdir", str(site_packages()), *left_out, *paths(FOLDERS)]
    with folder.log.open("wb") as log:
        command = [sys.executable, "-m", "pytest", *settings, *reports, *extra, *place]
        return subprocess.Popen(command, cwd=folder.scratch, env=environment, stdout=log, stderr=subprocess.STDOUT)


def watch(child: subprocess.Popen[bytes], folder: Folder) -> Outcome | None:
    """Wait for the child; return what happened to the running test if it did not end by itself."""
    while True:
        try:
            code = child.wait(timeout=30)
            return None if code in (0, 1, 2, NO_TESTS) else Outcome.CRASHED
        except subprocess.TimeoutExpired:
            if age(folder.current) > SILENCE:
                child.kill()
                child.wait()
                return Outcome.TIMEOUT


def age(path: Path) -> float:
    return time.time() - path.stat().st_mtime if path.exists() else 0.0


def note(folder: Folder, outcome: Outcome, code: int | None) -> None:
    """Write the line of a test that took its process with it."""
    if not folder.current.exists():
        raise SystemExit(f"pytest ended with {code} before its first test:\n{folder.log.read_text()[-4000:]}")
    reason = f"the process ended with {code}; it may have been before predict"
    result = Result(folder.current.read_text(), 1, ["mlProgram"], outcome, 0.0, reason, [])
    with folder.results.open("a") as lines:
        lines.write(result.as_line())


def describe(wanted: int) -> dict[str, Any]:
    packages = ("coremltools", "numpy", "torch")
    tools = {name: importlib.metadata.version(name) for name in packages}
    return {"tools": {"python": platform.python_version(), **tools}, "environment": ENVIRONMENT, "tests": wanted}


def show(summary: dict[str, Any]) -> None:
    for name, counts in [*summary["groups"].items(), *summary["configurations"].items(), ("all", summary["totals"])]:
        print(f"{name:40} ran {counts.get('ran', 0):6}  reached {counts.get('reached', 0):6}  {shares(counts)}")
    for failure in summary["failures"]:
        print(f"{failure['outcome']}: {failure['id']}\n    {failure['why'] or failure['reason']}")


def shares(counts: Mapping[str, Any]) -> str:
    if counts["share"] is None:
        return ""
    return f"agree {counts['share']:7.2%}, as written {counts['share_as_written']:7.2%}"


if __name__ == "__main__":
    sys.exit(main())
