# SPDX-License-Identifier: Apache-2.0
"""What does the whole gate cost, against a script that only converts and compresses?

Both sides take a model of ResNet-50's shape as torch code, and make a float16 package and six compressed ones, in processes of one
thread each (OMP_NUM_THREADS=1). The plain script does nothing else. Ours, `gate check` as a user calls it, also compares with the
source, finds float16 loss, decodes every weight, measures size, memory and accuracy on labelled items, and writes the report; it uses
as many worker processes as there are cores. Whole processes are timed, with their imports. `cold` has no cache; `unchanged` is the same command
once more with the first run's report: git says that nothing changed, so the last result stands, marked with its day.

`--growth` measures instead how cost grows: transformers of 25, 50 and 100 million parameters under float16, int8 and palette-4bit,
seconds per parameter and the peak memory of all processes together.

    python benchmarks/gate.py [--growth [--rounds N]] [--jobs N]
"""

import argparse
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]

POLICIES = ("int8", "palette-8bit", "palette-6bit", "palette-4bit", "palette-2bit", "prune-50")
ITEMS = 32
MILLIONS = (25, 50, 100)

RESNET = """
import torch
from resnet import resnet50


def build():
    return resnet50()


def example():
    return torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
"""

TRANSFORMER = """
import torch
from torch import nn

WIDTH, TOKENS = 512, 32


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.out(torch.softmax(q @ k.transpose(-1, -2) / WIDTH**0.5, -1) @ v)
        return x + self.down(torch.relu(self.up(self.norm2(x))))


def build(millions):
    torch.manual_seed(0)
    depth = round(millions * 1e6 / (12 * WIDTH**2))
    return nn.Sequential(*(Block() for _ in range(depth)))


def example():
    return torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))
"""

PLAIN = """
import sys
from pathlib import Path

sys.path[:0] = [{root!r}, {folder!r}]
import coremltools as ct
import torch
from model import build, example

from gate.policy import load
from tests.compress.packages import plain_coremltools

folder = Path({folder!r})
x = example()
traced = torch.jit.trace(build().eval(), x)
made = ct.convert(
    traced, inputs=[ct.TensorType(name="x", shape=x.shape)], minimum_deployment_target=ct.target.iOS17,
    compute_precision=ct.precision.FLOAT16,
)
made.save(str(folder / "float16.mlpackage"))
for name in {policies!r}:
    plain_coremltools(folder / "float16.mlpackage", load(name, folder), folder / f"{{name}}.mlpackage")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--growth", action="store_true", help="measure 25, 50 and 100 million parameters")
    parser.add_argument("--rounds", type=int, default=3, help="of --growth")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        where = Path(name)
        ratios, figures = (
            grow(where, arguments.jobs, arguments.rounds)
            if arguments.growth
            else against_a_script(where, arguments.jobs)
        )
    machine = {"cores": os.cpu_count(), "jobs": arguments.jobs, "system": platform.platform()}
    print(json.dumps({"benchmark": "gate", "ratios": ratios, "figures": figures, "machine": machine}))


def against_a_script(folder: Path, jobs: int) -> tuple[dict, dict]:
    """Time the plain script, then the gate twice."""
    resnet = (ROOT / "tests" / "resnet.py").read_text(encoding="utf-8")
    project = write_project(folder / "project", {"model.py": RESNET, "resnet.py": resnet}, "build", "{}", POLICIES)
    label(project)
    commit(project)
    script = PLAIN.format(root=str(ROOT), folder=str(project), policies=POLICIES)
    plain = run([sys.executable, "-c", script], project)
    cold = run(gate(project, jobs), project)
    unchanged = run([*gate(project, jobs), "--baseline", str(project / "out" / "report.json")], project)
    report = json.loads((project / "out" / "report.json").read_text())
    print(f"verdict: {report['outcome']}, {len(report['models'][0]['candidates'])} candidates")
    for name, (seconds, peak) in {"plain script": plain, "gate, cold": cold, "gate, unchanged": unchanged}.items():
        print(f"{name:<18}{seconds:8.1f} s   {peak / 1e6:7.0f} MB", flush=True)
    ratios = {"cold": round(cold[0] / plain[0], 4), "unchanged": round(unchanged[0] / plain[0], 4)}
    figures = {"plain_seconds": plain[0], "cold_seconds": cold[0], "unchanged_seconds": unchanged[0]}
    return ratios, {name: round(value, 2) for name, value in figures.items()}


def grow(folder: Path, jobs: int, rounds: int) -> tuple[dict, dict]:
    """Time the gate on three sizes of one architecture, in turns; medians of seconds, the highest peak."""
    measured: dict[int, list[tuple[float, float]]] = {millions: [] for millions in MILLIONS}
    for turn, millions in itertools.product(range(rounds), MILLIONS):
        project = write_project(
            folder / f"{turn}-{millions}",
            {"model.py": TRANSFORMER},
            "build",
            f"{{millions: {millions}}}",
            ("int8", "palette-4bit"),
        )
        commit(project)
        seconds, peak = run(gate(project, jobs), project)
        measured[millions].append((seconds, peak))
        shutil.rmtree(project)
        print(f"{millions:>4} M{seconds:8.1f} s{seconds / millions:8.2f} s/M{peak / 1e6:9.0f} MB", flush=True)
    figures: dict[str, float] = {}
    for millions, runs in measured.items():
        figures[f"seconds_per_million_{millions}"] = round(median(seconds for seconds, _ in runs) / millions, 3)
        figures[f"peak_mb_{millions}"] = round(max(peak for _, peak in runs) / 1e6)
        figures[f"allowed_mb_{millions}"] = 3 * 4 * millions + 1_000
    each = [figures[f"seconds_per_million_{millions}"] for millions in MILLIONS]
    memory = max(figures[f"peak_mb_{m}"] / figures[f"allowed_mb_{m}"] for m in MILLIONS)
    return {"growth": round(max(each) / min(each), 3), "memory": round(memory, 3)}, figures


def write_project(folder: Path, files: dict[str, str], factory: str, args: str, policies: tuple[str, ...]) -> Path:
    """Write what a team would have: code and gate.yml."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    data = (
        "\n    dataset: items.npz\n    metric: accuracy\n    budgets: {accuracy: {drop: 20 points}}"
        if "resnet.py" in files
        else ""
    )
    (folder / "gate.yml").write_text(
        f"""version: 1
app: {{deployment_target: iOS17}}
limits: {{time: 60 min, memory: 20 GB}}
models:
  - name: model
    source: {{factory: "model.py:{factory}", args: {args}, example: "model.py:example"}}
    ship: float16
    explore: [{", ".join(policies)}]{data}
""",
        encoding="utf-8",
    )
    return folder


def label(project: Path) -> None:
    """Make labelled items. The weights are random, so the labels are arbitrary: what judging costs is measured, not its answer."""
    import numpy as np

    items = np.random.default_rng(0).random((ITEMS, 3, 224, 224), dtype=np.float32)
    np.savez(project / "items.npz", x=items, label=np.arange(ITEMS))


def commit(project: Path) -> None:
    """Keep the project in git: `--only-changed` asks git what changed."""
    (project / ".gitignore").write_text("__pycache__\n*.mlpackage\n", encoding="utf-8")
    git = ["git", "-C", str(project), "-c", "user.name=b", "-c", "user.email=b@example.com"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "a model"]):
        subprocess.run([*git, *command], check=True)


def gate(project: Path, jobs: int) -> list[str]:
    """The command of a user."""
    options = ["--out", str(project / "out"), "--cache", str(project / "cache"), "--jobs", str(jobs), "--only-changed"]
    return [sys.executable, "-m", "gate", "check", "--config", str(project / "gate.yml"), *options]


def run(command: list[str], folder: Path) -> tuple[float, float]:
    """Run one side to its end; return seconds, and the peak bytes of the process with all its descendants."""
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=one_thread, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watcher.start()
    said = process.stderr.read() if process.stderr else ""
    if process.wait() not in (0, 1):
        raise SystemExit(f"{' '.join(command[:4])} ended with exit code {process.returncode}:\n{said[-3_000:]}")
    seconds = time.perf_counter() - started
    watcher.join()
    return seconds, peak[0]


def _watch(process: "subprocess.Popen[str]", peak: list[float]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], float(sum(map(_proportional_bytes, _family(process.pid)))))
        time.sleep(0.2)


def _family(pid: int) -> Iterator[int]:
    """A process and its descendants, by /proc."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _family(int(child))


def _proportional_bytes(pid: int) -> int:
    """Resident bytes, a page that several processes share counted in parts (Linux)."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    main()
