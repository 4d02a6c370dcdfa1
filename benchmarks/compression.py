# SPDX-License-Identifier: Apache-2.0
"""How long do six policies take, against a plain coremltools script that does them one after another?

Both sides compress a package of ResNet-50's shape, in processes of one thread each (OMP_NUM_THREADS=1); ours uses as many worker
processes as there are cores. `cold` has no cache, `two_layers_changed` has the cache of a package that differs in two of 54
weights, `unchanged` that of the same package. Imports are not counted, on either side; starting worker processes is.

    python benchmarks/compression.py [--policies NAME…] [--jobs N]
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

POLICIES = ("int8", "palette-8bit", "palette-6bit", "palette-4bit", "palette-2bit", "prune-50")
CHANGED = ("fc.weight", "blocks.7.conv2.weight")


def build(folder: Path) -> tuple[Path, Path]:
    """Convert the model, and once more with two changed layers."""
    import torch

    from tests.compress.packages import convert
    from tests.resnet import resnet50

    model = resnet50()
    shape = (1, 3, 224, 224)
    first = convert(model, shape, "iOS17", folder / "first.mlpackage")
    with torch.no_grad():
        for name in CHANGED:
            model.get_parameter(name).mul_(1.01)
    return first, convert(model, shape, "iOS17", folder / "second.mlpackage")


def plain(package: Path, policies: list[str], out: Path) -> dict[str, float]:
    """Do what a user's own script does; return seconds by policy."""
    from gate.policy import load
    from tests.compress.packages import plain_coremltools

    seconds = {}
    for name in policies:
        started = time.perf_counter()
        plain_coremltools(package, load(name, ROOT), out / f"{name}.mlpackage")
        seconds[name] = time.perf_counter() - started
    return seconds


def ours(package: Path, policies: list[str], out: Path, cache: Path, jobs: int) -> dict[str, float]:
    """Do the same through gate.compress."""
    import coremltools  # noqa: F401

    from gate.compress import Workers, compress
    from gate.policy import Target, load

    seconds = {}
    with Workers(jobs) as workers:
        for name in policies:
            started = time.perf_counter()
            path = out / f"{name}.mlpackage"
            compress(package, load(name, ROOT), path, target=Target.IOS17, jobs=jobs, cache=cache, workers=workers)
            seconds[name] = time.perf_counter() - started
    return seconds


def child(arguments: argparse.Namespace) -> None:
    """Run one side in this process and print its figures."""
    out = arguments.folder / arguments.side
    if arguments.side == "plain":
        seconds = plain(arguments.package, arguments.policies, out)
    else:
        seconds = ours(arguments.package, arguments.policies, out, arguments.folder / "cache", arguments.jobs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 * arguments.jobs
    print(json.dumps({"seconds": seconds, "peak_bytes": peak + (workers if arguments.side != "plain" else 0)}))


def run(side: str, package: Path, folder: Path, arguments: argparse.Namespace) -> dict:
    """Start a fresh process for one side."""
    command = [sys.executable, __file__, "--side", side, "--package", str(package), "--folder", str(folder)]
    command += ["--jobs", str(arguments.jobs), "--policies", *arguments.policies]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=one_thread)
    figures = json.loads(done.stdout.splitlines()[-1])
    print(f"{side:<20}{sum(figures['seconds'].values()):8.1f} s   {figures['peak_bytes'] / 1e6:6.0f} MB", flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--package", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        return child(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, second = build(folder)
        found = {
            side: run(side, package, folder, arguments)
            for side, package in (
                ("plain", first),
                ("cold", first),
                ("unchanged", first),
                ("two_layers_changed", second),
            )
        }
    return report(found, arguments)


def report(found: dict[str, dict], arguments: argparse.Namespace) -> None:
    """Print seconds by policy, and the ratios as JSON."""
    print(f"\n{'seconds':<16}" + "".join(f"{side:>20}" for side in found))
    for policy in arguments.policies:
        print(f"{policy:<16}" + "".join(f"{found[side]['seconds'][policy]:>20.2f}" for side in found))
    totals = {side: sum(figures["seconds"].values()) for side, figures in found.items()}
    ratios = {side: round(totals[side] / totals["plain"], 4) for side in found if side != "plain"}
    figures = {f"{side}_seconds": round(total, 2) for side, total in totals.items()}
    figures |= {f"{side}_peak_mb": round(figures_["peak_bytes"] / 1e6) for side, figures_ in found.items()}
    machine = {"cores": os.cpu_count(), "jobs": arguments.jobs, "system": platform.platform()}
    print(json.dumps({"benchmark": "compression", "ratios": ratios, "figures": figures, "machine": machine}))


if __name__ == "__main__":
    main()
