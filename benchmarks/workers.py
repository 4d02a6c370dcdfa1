# SPDX-License-Identifier: Apache-2.0
"""Does parallel compression ever hang? Fifty runs of convert and palettize on digits, ten in a process.

Each run is what a user's process does: torch traces and converts (its threads are then alive), then two new workers palettize
side by side without a cache. coremltools' own `num_kmeans_workers=2` forks after torch and was seen to hang for minutes there. A
process that is silent for longer than the limit is killed, and counted as a hang.

    python benchmarks/workers.py [--runs 50] [--limit 300]
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Timer

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "digits")]

PER_PROCESS = 10
WEIGHTS = 5  # four convolutions and the head
DONE = "done: "


def once(folder: Path) -> None:
    """Convert digits and palettize it by two workers."""
    from model import build

    from gate.compress import compress
    from gate.policy import Target, load
    from tests.compress.packages import convert

    source = convert(build(), (1, 1, 8, 8), "iOS17", folder / "in.mlpackage")
    made = compress(source, load("palette-4bit", ROOT), folder / "out.mlpackage", target=Target.IOS17, jobs=2)
    assert made.computed == WEIGHTS, made


def several(runs: int) -> None:
    """Run a number of times in this process, and say after each how long it took."""
    for _ in range(runs):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            once(Path(folder))
        print(f"{DONE}{time.perf_counter() - started:.3f}", flush=True)


def watched(runs: int, limit: float) -> list[float | None]:
    """Run in a fresh process; return seconds of each run, and None for the one that had to be killed."""
    command = [sys.executable, __file__, "--several", str(runs)]
    found: list[float | None] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        while len(found) < runs:
            watch = Timer(limit, process.kill)
            watch.start()
            line = next((line for line in process.stdout if line.startswith(DONE)), None)
            watch.cancel()
            found.append(float(line.removeprefix(DONE)) if line else None)
            if line is None:
                return found
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--limit", type=float, default=300, help="seconds that a run may take")
    parser.add_argument("--several", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.several:
        several(arguments.several)
    else:
        report(arguments)


def report(arguments: argparse.Namespace) -> None:
    """Run as often as asked, and print how many had to be killed."""
    found: list[float | None] = []
    while len(found) < arguments.runs:
        found += watched(min(PER_PROCESS, arguments.runs - len(found)), arguments.limit)
        print(f"{len(found):>3} runs, {found.count(None)} hung", flush=True)
    done = sorted(seconds for seconds in found if seconds is not None)
    figures = {"runs": len(found), "hung": found.count(None), "median_seconds": round(done[len(done) // 2], 2)}
    figures["slowest_seconds"] = round(done[-1], 2)
    machine = {"cores": os.cpu_count(), "system": platform.platform()}
    ratios = {"hung": figures["hung"] / len(found)}
    print(json.dumps({"benchmark": "workers", "ratios": ratios, "figures": figures, "machine": machine}))


if __name__ == "__main__":
    main()
