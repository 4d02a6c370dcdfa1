# SPDX-License-Identifier: Apache-2.0
"""One run on several machines, and only for what changed: the action's own steps against the fake GitHub.

`gate check` is not run here: its reports are written as it would leave them (tests/test_merge.py has real shards).
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gate import config, contents, shard
from gate.action import divide
from gate.action.answer import run_report
from gate.action.decide import run_prepare
from gate.action.evaluate import check_arguments
from gate.action.handover import Plan
from gate.action.inputs import Inputs
from gate.action.runner import Surroundings
from gate.errors import Exit
from gate.report import Candidate, CheckName, Model, Outcome, Part, Report, Result, Role, Run, make_report

sys.path.insert(0, str(Path(__file__).parent))
from fake_github import FakeGitHub, component
from runner import commit, make_checkout

HEAD, BASE = "a" * 40, "b" * 40
WORKFLOW = ".github/workflows/gate.yml"
GATE_YML = """
version: 1
models:
  - {name: a, paths: ['ml/a/**'], source: {factory: 'ml/a/model.py:build'}, explore: [int8]}
  - {name: b, paths: ['ml/b/**'], source: {factory: 'ml/b/model.py:build'}}
"""
FILES = {"gate.yml": GATE_YML, "ml/a/model.py": "1", "ml/b/model.py": "1", "README.md": "words"}


@dataclass
class Job:
    """One step of one job: inputs, a work folder, and what it printed as outputs."""

    folder: Path
    workspace: Path
    server: FakeGitHub
    event: dict[str, Any]
    name: str = "pull_request"
    environ: dict[str, str] = field(default_factory=dict)

    def around(self, **inputs: str) -> Surroundings:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "event.json").write_text(json.dumps(self.event))
        told = {f"INPUT_{key.upper()}": value for key, value in inputs.items()}
        return Surroundings(
            {
                "PATH": "/usr/bin:/bin",
                "INPUT_RUNTIME": "native",
                "RUNNER_TEMP": str(self.folder),
                "GITHUB_WORKSPACE": str(self.workspace),
                "GITHUB_REPOSITORY": self.server.repository,
                "GITHUB_API_URL": self.server.api_url,
                "GITHUB_EVENT_NAME": self.name,
                "GITHUB_EVENT_PATH": str(self.folder / "event.json"),
                "GITHUB_OUTPUT": str(self.folder / "outputs"),
                "GITHUB_WORKFLOW_REF": f"{self.server.repository}/{WORKFLOW}@refs/pull/7/merge",
                "GATE_TOKEN": "ghs_0123456789abcdefFAKE",
                **self.environ,
                **told,
            }
        )

    def prepare(self, **inputs: str) -> tuple[dict[str, str], Plan | None]:
        assert run_prepare(self.around(**inputs)) is Exit.PASS
        outputs = self.outputs()
        self.environ["GATE_WORK"] = outputs["work"]
        file = Path(outputs["work"]) / "plan.json"
        return outputs, Plan.model_validate_json(file.read_bytes()) if file.exists() else None

    def report(self, **inputs: str) -> tuple[Exit, dict[str, str]]:
        return run_report(self.around(**inputs)), self.outputs()

    def outputs(self) -> dict[str, str]:
        found, lines = {}, iter((self.folder / "outputs").read_text().splitlines())
        for line in lines:
            name, _, mark = line.partition("<<")
            found[name] = "\n".join(iter(lambda mark=mark: next(lines), mark))
        return found


@pytest.fixture
def server() -> Iterator[FakeGitHub]:
    with FakeGitHub(history={HEAD: [BASE], BASE: []}) as fake:
        yield fake


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return make_checkout(tmp_path / "app", FILES)


def pull(server: FakeGitHub, *changed: str, fork: bool = False) -> dict[str, Any]:
    server.files[7] = list(changed)
    head = {"full_name": "mallory/app" if fork else server.repository}
    sides = {"head": {"sha": HEAD, "repo": head}, "base": {"sha": BASE, "repo": {"full_name": server.repository}}}
    return {"pull_request": {"number": 7, **sides}}


def job(tmp_path: Path, workspace: Path, server: FakeGitHub, event: dict[str, Any], folder: str, **more: Any) -> Job:
    return Job(tmp_path / folder, workspace, server, event, **more)


def judged(workspace: Path, names: dict[str, tuple[str, ...]], **run: Any) -> Report:
    """What `gate check` would report of the named policies."""
    digest = config.load(workspace / "gate.yml").digest
    answer = Result(check=CheckName.SIZE, outcome=Outcome.PASS, message="small")
    models = []
    for model, policies in names.items():
        rows = [Candidate(role=Role.SHIP, policy="float16", results=(answer,) if "float16" in policies else ())]
        rows += [Candidate(role=Role.EXPLORE, policy=p, results=(answer,)) for p in policies if p != "float16"]
        models.append(Model(name=model, candidates=tuple(rows)))
    given = {"commit": HEAD, "base_commit": BASE, "event": "pull_request", "config_from": "base"} | run
    return make_report(Run(config_digest=digest, **given), tuple(models))


def leave(folder: Path, report: Report) -> None:
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(report.model_dump_json())


def test_a_plan_its_parts_and_their_merge_end_in_one_verdict_and_one_comment(tmp_path, workspace, server):
    event = pull(server, "ml/a/model.py", "ml/b/model.py")
    outputs, _ = job(tmp_path, workspace, server, event, "plan").prepare(mode="plan", shard="2")
    rows = json.loads(outputs["matrix"])["include"]
    assert [row["shard"] for row in rows] == ["1/2", "2/2"]
    assert outputs["evaluate"] == "false", "the job that plans judges nothing"

    units = tuple(tuple(row["units"].split()) for row in rows)
    for index, part in enumerate(units, start=1):
        _, plan = job(tmp_path, workspace, server, event, f"part{index}").prepare(
            mode="evaluate", shard=f"{index}/2", plan=outputs["matrix"]
        )
        assert plan is not None
        assert plan.concerned == ("a", "b"), "each part knows the whole"
        names: dict[str, tuple[str, ...]] = {}
        for unit in part:
            names[shard.model_of(unit)] = (*names.get(shard.model_of(unit), ()), unit.partition("/")[2])
        leave(workspace / "shards" / f"part-{index}", judged(workspace, names, part=Part(index=index, units=units)))

    merge = job(tmp_path, workspace, server, event, "merge")
    merge.prepare(mode="merge", plan=outputs["matrix"])
    code, told = merge.report(mode="merge")

    assert (code, told["verdict"]) == (Exit.PASS, "pass")
    assert len(server.comments) == 1
    assert "All 2 models pass" in server.comments[0]["body"]


def test_a_part_that_left_nothing_fails_the_whole(tmp_path, workspace, server):
    event = pull(server, "ml/a/model.py", "ml/b/model.py")
    outputs, _ = job(tmp_path, workspace, server, event, "plan").prepare(mode="plan", shard="2")
    units = tuple(tuple(row["units"].split()) for row in json.loads(outputs["matrix"])["include"])
    names = {shard.model_of(unit): ("float16", "int8") for unit in units[0] if unit.startswith("a/")}
    leave(workspace / "shards" / "part-1", judged(workspace, names, part=Part(index=1, units=units)))

    merge = job(tmp_path, workspace, server, event, "merge")
    merge.prepare(mode="merge", plan=outputs["matrix"])
    code, told = merge.report(mode="merge")

    assert (code, told["verdict"]) == (Exit.NO_ANSWER, "error")
    assert "shard 2/2" in server.comments[0]["body"]


def test_no_part_at_all_is_no_answer(tmp_path, workspace, server):
    event = pull(server, "ml/a/model.py")
    outputs, _ = job(tmp_path, workspace, server, event, "plan").prepare(mode="plan")
    merge = job(tmp_path, workspace, server, event, "merge")
    merge.prepare(mode="merge", plan=outputs["matrix"])

    assert merge.report(mode="merge") == (Exit.NO_ANSWER, merge.outputs())
    assert merge.outputs()["verdict"] == "error"


def test_a_pull_request_that_touches_no_model_ends_at_once_without_a_comment(tmp_path, workspace, server):
    event, started = pull(server, "README.md"), time.monotonic()
    outputs, _ = job(tmp_path, workspace, server, event, "plan").prepare(mode="plan")
    merge = job(tmp_path, workspace, server, event, "merge")
    merge.prepare(mode="merge", plan=outputs.get("matrix", ""))
    code, told = merge.report(mode="merge")

    assert "matrix" not in outputs
    assert (code, told["verdict"]) == (Exit.PASS, "none")
    assert server.comments == []
    assert time.monotonic() - started < 20
    assert server.requests("artifacts") == 0, "no baseline is fetched for nothing"


def baseline(server: FakeGitHub, workspace: Path) -> Report:
    """The push run of the merge base, with a report of what the workspace holds now."""
    digests = contents.digests(config.load(workspace / "gate.yml"), workspace / "gate.yml", workspace)
    report = judged(
        workspace, {"a": ("float16", "int8"), "b": ("float16",)}, commit=BASE, started="2026-11-20T10:00:00"
    )
    models = tuple(m.model_copy(update={"content_digest": digests[m.name]}) for m in report.models)
    report = report.model_copy(update={"models": models})
    repository = component("minimal-repository", full_name=server.repository)
    run = component("workflow-run", id=5, event="push", path=WORKFLOW, head_sha=BASE, head_branch="main")
    server.runs.append(run | {"head_repository": repository})
    server.add_artifact(5, "coreml-gate-baseline", {"report.json": report.model_dump_json().encode()})
    return report


def test_only_what_changed_is_judged_and_the_rest_is_carried(tmp_path, workspace, server):
    baseline(server, workspace)
    (workspace / "ml/a/model.py").write_text("2")
    commit(workspace, "second")

    outputs, plan = job(tmp_path, workspace, server, pull(server, "ml/a/model.py"), "all").prepare()

    assert plan is not None
    assert (plan.concerned, plan.carried) == (("a",), ("b",))
    arguments = " ".join(check_arguments(Inputs(), plan, Path(outputs["work"])))
    assert "--model a --carry b --baseline" in arguments
    assert arguments.endswith("baseline/base/report.json")


def test_what_was_touched_and_put_back_costs_no_run(tmp_path, workspace, server):
    baseline(server, workspace)

    outputs, plan = job(tmp_path, workspace, server, pull(server, "ml/a/model.py"), "all").prepare()

    assert plan is not None
    assert plan.concerned == ()
    assert outputs["evaluate"] == "false"


def test_a_change_of_one_entrys_limits_concerns_that_entry(tmp_path, workspace, server):
    before = contents.digests(config.load(workspace / "gate.yml"), workspace / "gate.yml", workspace)
    (workspace / "gate.yml").write_text(GATE_YML.replace("explore: [int8]}", "explore: [int8], budgets: {size: 1 MB}}"))
    after = contents.digests(config.load(workspace / "gate.yml"), workspace / "gate.yml", workspace)

    assert before["a"] != after["a"]
    assert before["b"] == after["b"]


@pytest.mark.parametrize(("runner", "refused"), [("self-hosted", True), ("github-hosted", False)])
def test_a_forks_packages_are_never_judged_on_the_teams_own_mac(tmp_path, workspace, server, runner, refused):
    (workspace / "handed").mkdir()
    record = {"run": {"config_digest": "0" * 64}, "models": [], "files": []}
    (workspace / "handed" / "handover.json").write_text(json.dumps(record))
    mac = job(tmp_path, workspace, server, pull(server, fork=True), "mac", environ={"RUNNER_ENVIRONMENT": runner})

    mac.prepare(mode="answer")

    ended = Path(mac.outputs()["work"]) / "evaluated.json"
    assert ended.exists() is refused
    if refused:
        assert "machine of the team's own" in ended.read_text()


@pytest.mark.parametrize(
    ("fork", "actor", "refused"),
    [
        pytest.param(False, "alice", False, id="of the same repository"),
        pytest.param(True, "mallory", True, id="from a fork"),
        pytest.param(False, "dependabot[bot]", True, id="of a bot"),
    ],
)
def test_what_strangers_made_is_never_put_on_a_device(tmp_path, workspace, server, fork, actor, refused):
    (workspace / "handed").mkdir()
    record = {"run": {"config_digest": "0" * 64}, "models": [], "files": []}
    (workspace / "handed" / "handover.json").write_text(json.dumps(record))
    environ = {"RUNNER_ENVIRONMENT": "github-hosted", "GITHUB_ACTOR": actor}
    mac = job(tmp_path, workspace, server, pull(server, fork=fork), "mac", environ=environ)

    mac.prepare(mode="answer", device="Desk phone")

    ended = Path(mac.outputs()["work"]) / "evaluated.json"
    assert ended.exists() is refused
    if refused:
        assert "a device of the team's own" in ended.read_text()


def test_a_device_is_asked_about_what_was_handed_over_only(tmp_path, workspace, server):
    one = job(tmp_path, workspace, server, pull(server, "ml/a/model.py"), "all")
    one.prepare(device="Desk phone")
    assert "with mode answer only" in (Path(one.outputs()["work"]) / "evaluated.json").read_text()
    plan = Plan(concerned=(), sandbox="none", handed="/handed")
    arguments = divide.answer_arguments(Inputs(device="Desk phone", development_team="AB12CD34EF"), plan, tmp_path)
    assert " ".join(arguments).count("--device Desk phone --development-team AB12CD34EF") == 1


def test_a_link_in_a_restored_cache_leads_nowhere(tmp_path, workspace, server):
    """Whoever poisons a cache could else have the push write into a folder of the runner, or take a file of it along."""
    cache, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    for folder in (cache, elsewhere):
        folder.mkdir()
    (elsewhere / "secret").write_text("s")
    (cache / "ab").symlink_to(elsewhere)
    (cache / "stolen").symlink_to(elsewhere / "secret")
    (tmp_path / "work" / "out").mkdir(parents=True)

    divide.lay_out(Inputs(cache=str(cache)), tmp_path / "work")
    made = tmp_path / "work" / "out" / "cache"
    assert list(made.iterdir()) == []
    (made / "ab").mkdir()
    (made / "ab" / "ab12.safetensors").write_bytes(b"x")
    (made / "theirs").symlink_to(elsewhere / "secret")
    event = job(tmp_path, workspace, server, {}, "one", name="push").around().event()
    divide.keep_cache(Inputs(cache=str(cache)), event, tmp_path / "work")

    assert (cache / "ab" / "ab12.safetensors").read_bytes() == b"x"
    assert not (cache / "ab").is_symlink()
    assert [path.name for path in elsewhere.iterdir()] == ["secret"]
    assert not any(path.is_symlink() for path in cache.rglob("*"))
    assert not (cache / "theirs").exists()


@pytest.mark.parametrize(("event", "kept"), [("push", True), ("pull_request", False), ("merge_group", False)])
def test_only_a_push_adds_to_the_cache(tmp_path, workspace, server, event, kept):
    made = tmp_path / "work" / "out" / "cache"
    made.mkdir(parents=True)
    (made / "weight.safetensors").write_bytes(b"x")
    one = job(tmp_path, workspace, server, {}, "one", name=event)

    divide.keep_cache(Inputs(cache=str(tmp_path / "cache")), one.around().event(), tmp_path / "work")

    assert (tmp_path / "cache" / "weight.safetensors").exists() is kept
