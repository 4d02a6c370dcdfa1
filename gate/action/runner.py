# SPDX-License-Identifier: Apache-2.0
"""What does GitHub's runner tell a step, and how is it told something back? Folders, the event, command files and workflow commands."""

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gate import github, lfs, render
from gate.errors import UsageError
from gate.render.escape import visible

SUMMARY_BYTES = 1_000_000  # GitHub drops a summary above 1 MiB as a whole
ANNOTATIONS_PER_LEVEL = 10  # GitHub shows no more of a level per step, and a composite action is one step
ANNOTATION_CHARACTERS = 4_000


@dataclass(frozen=True)
class Surroundings:
    """What the runner tells a step: folders, command files, the event, and the token where the step has one."""

    environ: Mapping[str, str]

    @property
    def workspace(self) -> Path:
        return self._path("GITHUB_WORKSPACE")

    @property
    def work(self) -> Path:
        """The folder that the three steps share; `prepare` makes it."""
        return self._path("GATE_WORK")

    @property
    def token(self) -> str:
        return self.environ.get("GATE_TOKEN", "")

    @property
    def workflow(self) -> str:
        """The file of the workflow that runs: from `owner/name/.github/workflows/gate.yml@refs/pull/7/merge`."""
        path = self.environ.get("GITHUB_WORKFLOW_REF", "").partition("@")[0]
        return path.removeprefix(f"{self.environ.get('GITHUB_REPOSITORY', '')}/") if ".github/" in path else ""

    def run_url(self, run: int | None = None) -> str | None:
        """Where the artifacts of a run are, by default of this one."""
        server, number = self.environ.get("GITHUB_SERVER_URL"), run or self.environ.get("GITHUB_RUN_ID")
        return f"{server}/{self.environ['GITHUB_REPOSITORY']}/actions/runs/{number}" if server and number else None

    def event(self) -> github.Event:
        """Read the event; what is no JSON is told as such."""
        name, path = self.environ.get("GITHUB_EVENT_NAME", ""), self._path("GITHUB_EVENT_PATH")
        payload = json.loads(path.read_text(encoding="utf-8"))
        return github.Event.read(name, self.environ["GITHUB_REPOSITORY"], payload)

    def client(self) -> github.Client:
        return github.Client(self.token, self.environ.get("GITHUB_API_URL", "https://api.github.com").rstrip("/"))

    def lfs(self) -> lfs.Server:
        """Where this repository keeps its large files."""
        server = self.environ.get("GITHUB_SERVER_URL", "https://github.com").rstrip("/")
        return lfs.Server(f"{server}/{self.environ['GITHUB_REPOSITORY']}", self.token)

    def output(self, **values: str) -> None:
        """Set outputs of this step. A random delimiter, so that no value can end its own field and start another."""
        for name, value in values.items():
            delimiter = f"gate_{uuid.uuid4().hex}"
            self._append("GITHUB_OUTPUT", f"{name.replace('_', '-')}<<{delimiter}\n{value}\n{delimiter}\n")

    def summarize(self, markdown: str) -> None:
        """Add to the job's summary."""
        if len(markdown.encode()) > SUMMARY_BYTES:
            cut = markdown.encode()[:SUMMARY_BYTES].decode(errors="ignore")
            markdown = cut.rpartition("\n")[0] + "\n\n*Cut here: GitHub takes no more.*\n"
        self._append("GITHUB_STEP_SUMMARY", markdown + "\n")

    def _append(self, name: str, text: str) -> None:
        if path := self.environ.get(name):
            with Path(path).open("a", encoding="utf-8") as stream:
                stream.write(text)

    def _path(self, name: str) -> Path:
        if not self.environ.get(name):
            raise UsageError(f"{name} is not set; expected to run as a step of action.yml")
        return Path(self.environ[name])


# --- workflow commands ---------------------------------------------------------------------------------------------


def command(name: str, message: str, **properties: str | int) -> str:
    """Return a workflow command, such as an annotation, with everything in it escaped."""
    told = ",".join(f"{key}={_escape_property(str(value))}" for key, value in properties.items() if value != "")
    return f"::{name}{' ' if told else ''}{told}::{_escape_data(message)}"


def _escape_data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape_data(text).replace(":", "%3A").replace(",", "%2C")


def say(line: str) -> None:
    """Print a line of ours to the job's log."""
    print(line, flush=True)


def annotate(annotations: Iterable[render.Annotation]) -> None:
    """Print annotations, errors first, no more of a level than GitHub shows."""
    by_level = {level: [a for a in annotations if a.level == level] for level in ("error", "warning", "notice")}
    for level, found in by_level.items():
        for a in found[:ANNOTATIONS_PER_LEVEL]:
            say(command(level, a.message[:ANNOTATION_CHARACTERS], file=a.file, line=a.line, title=a.title))


def _line(text: str) -> str:
    """A line as it is, indented as it is, unless something in it is hidden: a right-to-left override works in a fence, too."""
    return text if text.isascii() and text.isprintable() else visible(text)


def fenced(text: str) -> str:
    """Put text from outside where Markdown does not read it: a fence longer than any run of back-ticks in it."""
    text = "\n".join(map(_line, text.splitlines()))
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
