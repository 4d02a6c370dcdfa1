# SPDX-License-Identifier: Apache-2.0
"""The part of GitHub's runner that our scripts see: a workspace, a temp folder, command files, and steps one after another.

The action under test is a copy of this checkout, in which a test may remove a defence; `gate check` may be replaced by a
double, so that what is under test is the action and not a conversion.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PARTS = ("gate", "support", "templates", "policies", "action.yml", "constraints.txt")
GATE_YML = "version: 1\nmodels:\n  - {name: tagger, paths: ['ml/**'], source: {factory: 'ml/model.py:build'}}\n"

_PROBE = subprocess.run([str(PROJECT / "support" / "isolate.sh"), "--probe"], capture_output=True, check=False)
needs_namespaces = pytest.mark.skipif(_PROBE.returncode != 0, reason="this kernel grants no user namespaces here")


@dataclass(frozen=True)
class Edit:
    """One change of one file of the action; what is to be replaced must be there."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Ended:
    code: int
    log: str
    outputs: Mapping[str, str]


def copy_action(target: Path, *, check: str | None = None, edits: tuple[Edit, ...] = ()) -> Path:
    """Copy the action; `check` is the text of a `gate/__main__.py` that stands for the command line."""
    for name in PARTS:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
    if check is not None:
        (target / "gate" / "__main__.py").write_text(check)
    for edit in edits:
        text = (target / edit.file).read_text()
        assert edit.old in text, f"{edit.file} no longer has {edit.old!r}"
        (target / edit.file).write_text(text.replace(edit.old, edit.new))
    return target


def make_checkout(folder: Path, files: Mapping[str, str]) -> Path:
    """Make a git checkout with one commit."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, "first")
    return folder


def commit(folder: Path, message: str) -> str:
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@example.test", "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD").strip()


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout


@dataclass
class Runner:
    """One job on one machine."""

    action: Path
    workspace: Path
    temp: Path
    event: Mapping[str, object] = field(default_factory=dict)
    event_name: str = "workflow_dispatch"
    job_environment: Mapping[str, str] = field(default_factory=dict)
    parent_environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.temp / "_runner_file_commands").mkdir(parents=True)
        (self.temp / "event.json").write_text(json.dumps(self.event))

    def step(self, script: str, *arguments: str, **environment: str) -> Ended:
        """Run one of support/*.sh as a composite action's step."""
        commands = self.temp / "_runner_file_commands"
        files = {"GITHUB_OUTPUT": commands / "set_output_1", "GITHUB_STEP_SUMMARY": commands / "step_summary_1"}
        for path in files.values():
            path.touch()
        files["GITHUB_OUTPUT"].write_text("")
        told = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.temp),
            "RUNNER_TEMP": str(self.temp),
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_ACTION_PATH": str(self.action),
            "GITHUB_REPOSITORY": "team/app",
            "GITHUB_EVENT_NAME": self.event_name,
            "GITHUB_EVENT_PATH": str(self.temp / "event.json"),
            "GATE_PYTHON": sys.executable,
            **{name: str(path) for name, path in files.items()},
            **self.job_environment,
            **environment,
        }
        # The shell in between stays, with an environment of its own, as the runner's worker does.
        entries = [f"{name}={value}" for name, value in told.items()]
        done = subprocess.run(
            [
                "bash",
                "-c",
                '"$@"; exit $?',
                "worker",
                "env",
                "-i",
                *entries,
                str(self.action / "support" / script),
                *arguments,
            ],
            cwd=self.workspace,
            env={"PATH": os.environ["PATH"], **self.parent_environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ended(done.returncode, done.stdout + done.stderr, _outputs(files["GITHUB_OUTPUT"].read_text()))

    @property
    def summary(self) -> str:
        return (self.temp / "_runner_file_commands" / "step_summary_1").read_text()


def _outputs(text: str) -> dict[str, str]:
    return {name: value for name, _, value in re.findall(r"(?ms)^([\w-]+)<<(\w+)\n(.*?)\n\2$", text)}
