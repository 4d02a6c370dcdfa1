# SPDX-License-Identifier: Apache-2.0
"""A pull request that changes limits, judged by several machines: the action's own steps, real shards, one verdict and one comment.

Each part judges under base's limits and under its own; the app is judged where the parts are joined, under both as well.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gate.action.apart import child_environment
from gate.action.decide import run_prepare
from gate.action.evaluate import check_arguments
from gate.action.handover import Evaluated, LimitsOf, Sandbox
from gate.action.inputs import Inputs
from gate.cli import app
from gate.errors import Exit
from tests.compress.packages import convert, net

sys.path.insert(0, str(Path(__file__).parent))
from fake_github import FakeGitHub
from runner import make_checkout
from test_division import BASE, HEAD, Job, job, pull

TWO = """
version: 1
app: {{deployment_target: iOS18, budgets: {{app_size: {{total: {0}}}}}}}
approval: {{label: limits-approved}}
models:
  - {{name: tiny, source: {{coreml: net.mlpackage}}, explore: [int8], budgets: {{size: {1}}}}}
  - {{name: other, source: {{coreml: net.mlpackage}}, budgets: {{size: 100 KB}}}}
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    return convert(net(), (1, 4, 8, 8), "iOS18", tmp_path_factory.mktemp("limits") / "net.mlpackage")


@pytest.fixture
def server() -> Iterator[FakeGitHub]:
    with FakeGitHub(history={HEAD: [BASE], BASE: []}) as fake:
        yield fake


@pytest.fixture
def workspace(tmp_path: Path, package: Path, server: FakeGitHub):
    """Lay out the pull request's checkout and base's gate.yml, with given limits of the app and of one model."""

    def make(base: tuple[str, str], head: tuple[str, str]) -> Path:
        server.contents = {"gate.yml": TWO.format(*base).encode()}
        folder = tmp_path / "app"
        shutil.copytree(package, folder / "net.mlpackage")
        return make_checkout(folder, {"gate.yml": TWO.format(*head)})

    return make


def evaluate(one: Job, monkeypatch, **inputs: str) -> Path:
    """Prepare, and run `gate check` exactly as the action would start it, in this process; return what it left."""
    _, plan = one.prepare(**inputs)
    assert plan is not None
    assert plan.limits is LimitsOf.BOTH
    work = Path(one.environ["GATE_WORK"])
    here = plan.model_copy(update={"sandbox": Sandbox.NONE})  # paths of this machine instead of a container's
    arguments = check_arguments(Inputs.read(one.around(**inputs).environ), here, work)
    with monkeypatch.context() as inside:
        inside.chdir(work / "source")
        ended = CliRunner().invoke(app, arguments, env=child_environment(here, work))
    assert ended.exit_code in (0, 1), ended.output
    (work / "evaluated.json").write_text(Evaluated(exit_code=ended.exit_code).model_dump_json())
    return work / "out"


def judged_by_one_and_by_three(tmp_path: Path, workspace: Path, server: FakeGitHub, monkeypatch):
    """Return exit code, verdict and comment of one run, and of a plan, its parts and their merge."""
    event = pull(server, "gate.yml")
    one = job(tmp_path, workspace, server, event, "one")
    evaluate(one, monkeypatch)
    alone = one.report()
    comment = server.comments.pop()["body"]

    outputs, _ = job(tmp_path, workspace, server, event, "plan").prepare(mode="plan", shard="3")
    assert len(json.loads(outputs["matrix"])["include"]) == 3
    for index in (3, 1, 2):
        part = job(tmp_path, workspace, server, event, f"part{index}")
        left = evaluate(part, monkeypatch, mode="evaluate", shard=f"{index}/3", plan=outputs["matrix"])
        shutil.copytree(left, workspace / "shards" / f"part-{index}")
        assert part.report(mode="evaluate", shard=f"{index}/3")[0] is Exit.PASS, (
            "the verdict is told where they are joined"
        )
    assert server.comments == [], "a part writes no comment"
    merge = job(tmp_path, workspace, server, event, "merge")
    merge.prepare(mode="merge", plan=outputs["matrix"])
    joined = merge.report(mode="merge")
    return (alone[0], alone[1]["verdict"], comment), (joined[0], joined[1]["verdict"], server.comments[0]["body"])


@pytest.mark.parametrize(
    ("base", "head", "verdict", "said"),
    [
        pytest.param(("1 MB", "1 KB"), ("1 MB", "100 KB"), "fail", "tiny is too large", id="a model's is raised"),
        pytest.param(
            ("1 KB", "100 KB"),
            ("1 MB", "90 KB"),
            "fail",
            "the limit is 1.00 kB",
            id="the app's is raised",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("1 MB", "100 KB"),
            ("2 MB", "90 KB"),
            "pass",
            "The worse of both counts",
            id="all fits",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_parts_of_a_change_of_limits_end_as_one_run_does(
    tmp_path, workspace, server, monkeypatch, base, head, verdict, said
):
    alone, joined = judged_by_one_and_by_three(tmp_path, workspace(base, head), server, monkeypatch)

    assert joined == alone
    assert joined[:2] == ({"pass": Exit.PASS, "fail": Exit.FAIL}[verdict], verdict)
    assert said in joined[2]


def test_a_part_that_judged_under_its_own_limits_only_is_refused(tmp_path, workspace, server, monkeypatch):
    """As a part would say that knew nothing of base's limits: another circumstance than that of the rest."""
    folder = workspace(("1 MB", "1 KB"), ("1 MB", "100 KB"))
    event = pull(server, "gate.yml")
    outputs, _ = job(tmp_path, folder, server, event, "plan").prepare(mode="plan", shard="3")
    for index in (1, 2, 3):
        part = job(tmp_path, folder, server, event, f"part{index}")
        left = evaluate(part, monkeypatch, mode="evaluate", shard=f"{index}/3", plan=outputs["matrix"])
        shutil.copytree(left, folder / "shards" / f"part-{index}")
    file = folder / "shards" / "part-2" / "report.json"
    record = json.loads(file.read_text())
    record["run"]["config_from"], record["findings"] = "head", []
    file.write_text(json.dumps(record))

    merge = job(tmp_path, folder, server, event, "merge")
    assert run_prepare(merge.around(mode="merge", plan=outputs["matrix"])) is Exit.PASS
    merge.environ["GATE_WORK"] = merge.outputs()["work"]
    code, told = merge.report(mode="merge")

    assert (code, told["verdict"]) == (Exit.USAGE, "error")
    assert "config_from" in server.comments[0]["body"]
