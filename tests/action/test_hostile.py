# SPDX-License-Identifier: Apache-2.0
"""What does a hostile pull request get? Nothing that is not its own, and no end of the job but ours.

The real gate, in namespaces of its own (network, processes, mounts) with resource limits, judges a model whose code tries each thing
that pull requests try. It then hands over an honest model, so that the run goes on to its verdict.
"""

import hashlib
import json
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from runner import Edit, Ended, Runner, commit, copy_action, make_checkout, needs_namespaces

TOKEN = "ghs_T0kenOfTheJob"
LOG_BYTES = 1_000_000_000

pytestmark = [
    pytest.mark.slow,
    needs_namespaces,
    pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's"),
]

GATE_YML = """
version: 1
limits: {time: 120 s, memory: 1 GB}
models:
  - name: tagger
    paths: ['ml/**']
    source: {factory: 'ml/model.py:build', example: 'ml/model.py:example'}
    dataset: eval.npz
    metric: ml/metric.py
    budgets: {accuracy: {at_least: 90 %}}
"""

METRIC = "def per_item(outputs, label):\n    return [1.0] * len(label) if hasattr(label, '__len__') else 1.0\n"

MODEL = '''
import glob, json, os, pathlib, signal, socket, subprocess, sys, time
import torch

TOKEN, PORTS, FORGED = "{token}", (80, 443), """{forged}"""


def attempt(what, act):
    try:
        return what if act() else None
    except BaseException:
        return None


def speak():
    for command in ("::set-output name=verdict::pass", "##[add-mask]a", "::stop-commands::x", "::error::forged"):
        print(command, flush=True)
        print(command, file=sys.stderr, flush=True)


def write_everywhere():
    """Every path that the environment names, the gate itself, and wherever a report could lie."""
    named = [part for value in os.environ.values() for part in value.split(":") if part.startswith("/")]
    import gate
    named += [os.path.dirname(gate.__file__), "/gate/out", "/gate/source", "/gate/base", "{action}", "{workspace}", "{temp}"]
    done = []
    for path in named:
        for name in ("report.json", "sandbox.py", "verdict"):
            try:
                with open(os.path.join(path, name), "w") as stream:
                    stream.write(FORGED)
                done.append(path)
            except OSError:
                pass
    return [path for path in done if not path.startswith(os.environ["TMPDIR"].rsplit("/", 1)[0])]


def reads_token():
    files = [*glob.glob("/proc/*/environ"), *glob.glob("/proc/*/cmdline"), "{workspace}/.git/config", "{temp}/secret.txt"]
    for path in files:
        try:
            if TOKEN.encode() in pathlib.Path(path).read_bytes():
                return True
        except OSError:
            pass
    return any(TOKEN in value for value in os.environ.values())


def connects():
    for address in (("127.0.0.1", {port}), ("1.1.1.1", 443)):
        try:
            socket.create_connection(address, timeout=1).close()
            return True
        except OSError:
            pass
    return False


def kills():
    """Every process that it sees and that is not its own."""
    hit = 0
    for path in glob.glob("/proc/[0-9]*"):
        pid = int(path.rsplit("/", 1)[1])
        if pid not in (1, os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
                hit += 1
            except OSError:
                pass
    return hit


def forks():
    """As many processes as it is given."""
    script = "i=0; while [ $i -lt 1100 ]; do sleep 60 & i=$((i+1)); done"
    subprocess.run(["/bin/sh", "-c", script], stderr=subprocess.DEVNULL, timeout=30)
    mine = [path for path in glob.glob("/proc/[0-9]*/comm") if pathlib.Path(path).read_text().strip() == "sleep"]
    kills()
    return len(mine) >= 1_100


def allocates():
    """As much memory as it is given."""
    held = []
    try:
        while len(held) < 64:
            held.append(bytearray(100_000_000))
    except MemoryError:
        pass
    return len(held) >= 64


def fills():
    """As large a file as it is given; the folder of answers is all that it can write to."""
    with open(os.path.join(os.environ["TMPDIR"], "full"), "wb") as stream:
        for _ in range(4):
            stream.write(bytes(100_000_000))
    os.unlink(stream.name)
    return False


def patches():
    import gate.report, gate.protocol
    gate.report.verdict = lambda results: "pass"
    gate.protocol.MAX_JSON_BYTES = 10**12
    return False


def build():
    speak()
    tried = [
        attempt("token", reads_token), attempt("network", connects), attempt("files", write_everywhere), attempt("kills", kills),
        attempt("forks", forks), attempt("memory", allocates), attempt("disk", fills), attempt("patches", patches),
    ]
    print("LOOT " + json.dumps([what for what in tried if what]), flush=True)
    line = b"::error::x" * 6_553 + b"\\n"
    for _ in range({log} // len(line)):
        os.write(1, line)
    os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"])  # stays behind
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4)).eval()


def example():
    return (torch.ones(1, 16),)
'''


@dataclass
class Job:
    runner: Runner
    work: Path
    ended: Ended
    seconds: float
    before: str  # digest of the action and of the checkout

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.work / "out" / "report.json").read_text()))

    @property
    def log(self) -> Path:
        return self.work / "out" / "logs" / "tagger.log"

    @property
    def loot(self) -> list[str]:
        (found,) = re.findall(r"^LOOT (.*)$", self.log.read_bytes()[:6_000_000].decode(errors="replace"), re.MULTILINE)
        return list(json.loads(found))


def judge(folder: Path, *edits: Edit, log: int = 1_000_000, port: int = 9) -> Job:
    workspace, temp = folder / "workspace", folder / "temp"
    action = copy_action(folder / "action", edits=edits)
    forged = json.dumps({"schema_version": 1, "outcome": "pass"})
    values = {
        "token": TOKEN,
        "forged": forged,
        "action": action,
        "workspace": workspace,
        "temp": temp,
        "port": port,
        "log": log,
    }
    text = re.sub(r"\{(token|forged|action|workspace|temp|port|log)\}", lambda found: str(values[found[1]]), MODEL)
    make_checkout(workspace, {"gate.yml": GATE_YML, "ml/model.py": text, "ml/metric.py": METRIC})
    random = np.random.default_rng(0)
    np.savez(workspace / "eval.npz", input=random.standard_normal((8, 1, 16)).astype("float32"), label=np.arange(8) % 4)
    commit(workspace, "data")
    runner = Runner(
        action, workspace, temp, job_environment={"GITHUB_TOKEN": TOKEN}, parent_environment={"PARENT": TOKEN}
    )
    (temp / "secret.txt").write_text(TOKEN)
    first = runner.step("step.sh", "prepare", GATE_TOKEN=TOKEN)
    assert first.outputs["evaluate"] == "true", first.log
    before, started = digest(action, workspace), time.monotonic()
    ended = runner.step("evaluate.sh", GATE_WORK=first.outputs["work"])
    return Job(runner, Path(first.outputs["work"]), ended, time.monotonic() - started, before)


def digest(*folders: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            whole.update(str(path).encode() + path.read_bytes())
    return whole.hexdigest()


def test_a_hostile_pull_request_gets_a_verdict_and_nothing_else(tmp_path: Path) -> None:
    job = judge(tmp_path, log=LOG_BYTES)
    assert re.search(r"exit code [013]\.", job.ended.log), job.ended.log[-2_000:]
    # The kernel counts no processes of a machine's root (docs/security.md); a container has --pids-limit.
    assert job.loot == (["forks"] if os.getuid() == 0 else [])
    assert job.seconds < 110
    assert job.log.stat().st_size < 6_000_000

    report = job.report
    assert report["run"]["sandbox"] == "namespaces"
    (model,) = report["models"]
    accuracy = next(r for r in model["candidates"][0]["results"] if r["check"] == "accuracy")
    assert accuracy["basis"] == "reported"  # its own metric says so, and nobody else

    # What it printed is in the log file alone; the job's own log has no command of it.
    assert not re.search(r"^\s*::(set-output|error)", job.ended.log, re.MULTILINE)
    assert "##[" not in job.ended.log
    assert TOKEN not in job.ended.log
    # Nothing of ours was written to: action, checkout, command files.
    assert digest(job.runner.action, job.runner.workspace) == job.before
    told = job.runner.step("step.sh", "report", GATE_WORK=str(job.work))
    assert told.outputs["verdict"] == report["outcome"]
