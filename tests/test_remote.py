# SPDX-License-Identifier: Apache-2.0
"""Does a worker in a container of its own answer as one beside us does, and what if it, or its container, goes away?"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gate import pipeline, remote
from gate.errors import NoAnswer, SourceFault
from gate.source import Source
from tests.project import Project

ENTRY = """
source: {factory: model.py:build}
dataset: data.py:items
metric: accuracy
"""
ROOT = Path(__file__).resolve().parents[1]
ITEMS = "import os, numpy as np\n\ndef items():\n    {0}\n    yield {{'x': np.zeros(1)}}, 7\n"


MODEL = """
import torch

print("hello from the model")

def build():
    return torch.nn.Linear(4, 4).eval()

def example():
    return (torch.ones(1, 4),)
"""
RUN = """
version: 1
models:
  - {name: tiny, source: {factory: 'model.py:build', example: 'model.py:example'}}
"""


class FarEnd:
    """The process that would be alone in its container."""

    def __init__(self) -> None:
        self.exchange = Path(tempfile.mkdtemp(prefix="x-", dir="/tmp"))  # a socket's path is short
        command = [sys.executable, "-P", "-m", "gate.remote", str(self.exchange)]
        self.process = subprocess.Popen(command, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"})

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.exchange, ignore_errors=True)


@pytest.fixture
def far() -> Iterator[FarEnd]:
    far = FarEnd()
    yield far
    far.end()


def opened(folder: Path, far: FarEnd, code: str) -> Source:
    project = Project(folder)
    project.write("data.py", ITEMS.format(code))
    with project.open(ENTRY) as source:
        source.exchange = far.exchange
        return source


def test_it_answers_and_what_it_printed_is_kept(tmp_path: Path, far: FarEnd) -> None:
    source = opened(tmp_path, far, "print('hello from there', os.getppid())")
    assert source.items().labels == (7,)
    source.close()
    assert f"hello from there {far.process.pid}" in source.log.read_text()
    assert [path.name for path in far.exchange.iterdir()] == [remote.SOCKET]


@pytest.mark.slow
def test_the_run_keeps_its_log(tmp_path: Path, far: FarEnd) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "gate.yml").write_text(RUN)
    out = tmp_path / "out"
    report = pipeline.check(pipeline.Options(tmp_path / "gate.yml", out, sandbox="container", exchange=far.exchange))
    assert report.models[0].log == "logs/tiny.log"
    assert "hello from the model" in (out / "logs" / "tiny.log").read_text()


def test_a_worker_that_crashes_is_told_and_replaced(tmp_path: Path, far: FarEnd) -> None:
    source = opened(tmp_path, far, "os.path.exists('/tmp/never') or os.abort()")
    for _ in range(2):
        with pytest.raises(SourceFault, match="crashed with SIGABRT"):
            source.items()
    source.close()


def test_a_container_that_ends_is_no_answer(tmp_path: Path, far: FarEnd) -> None:
    source = opened(tmp_path, far, f"os.kill({far.process.pid}, 9)")
    with pytest.raises(NoAnswer, match="has ended"):
        source.items()
    source.close()


def test_a_container_that_never_starts_is_no_answer(
    tmp_path: Path, far: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    far.end()
    monkeypatch.setattr(remote, "CONNECT_SECONDS", 0.3)
    far.exchange.mkdir()
    with pytest.raises(NoAnswer, match="did not start"):
        opened(tmp_path, far, "pass").items()


def test_a_link_in_place_of_its_log_is_not_followed(tmp_path: Path, far: FarEnd) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the judge")
    source = opened(tmp_path, far, f"os.system('ln -sf {secret} ' + os.environ['TMPDIR'] + '/../../worker.log')")
    source.items()
    source.close()
    assert not source.log.exists() or "of the judge" not in source.log.read_text()
