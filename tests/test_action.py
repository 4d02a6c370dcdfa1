# SPDX-License-Identifier: Apache-2.0
"""Are inputs read, decisions taken and answers told as action.yml promises? The whole chain is in tests/action."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gate import baseline, github
from gate.action import answer, apart, decide, evaluate, handover, inputs, runner
from gate.errors import Exit, NoAnswer, UsageError
from gate.report import Candidate, CheckName, Model, Outcome, Report, Result, Role, Run, exit_code, make_report

sys.path.insert(0, str(Path(__file__).parent / "action"))
from fake_github import TOKEN, FakeGitHub

PROJECT = Path(__file__).resolve().parents[1]
NUMBER = 7


def make(outcome: Outcome) -> Report:
    result = Result(check=CheckName.SIZE, outcome=outcome, message="size")
    model = Model(name="tagger", candidates=(Candidate(role=Role.SHIP, policy="float16", results=(result,)),))
    return make_report(Run(config_digest="0" * 64), (model,))


def plan(sandbox: handover.Sandbox, **over: Any) -> handover.Plan:
    return handover.Plan(
        concerned=("tagger",), sandbox=sandbox, event="pull_request", commit="c", base_commit="b", **over
    )


# --- inputs --------------------------------------------------------------------------------------------------------


def test_no_inputs_are_the_defaults() -> None:
    assert inputs.Inputs.read({}) == inputs.Inputs()


def test_inputs_are_read() -> None:
    told = {"INPUT_MODE": "report", "INPUT_FAIL_ON": " never ", "INPUT_MODELS": "a, b\nc", "INPUT_COMMENT_ID": "x"}
    read = inputs.Inputs.read(told | {"INPUT_TIME_LIMIT_MINUTES": "5"})
    assert (read.mode, read.fail_on, read.models) == (inputs.Mode.REPORT, inputs.FailOn.NEVER, ("a", "b", "c"))
    assert (read.comment_id, read.time_limit_minutes) == ("x", 5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MODE", "al", "input mode: found 'al', expected one of all, evaluate, report"),
        ("RUNTIME", "docker", "input runtime: found 'docker', expected one of auto, container, native"),
        ("FAIL_ON", "Fail", "input fail-on: found 'Fail', expected one of fail, inconclusive, never"),
        ("TIME_LIMIT_MINUTES", "0", "input time-limit-minutes: found '0'"),
        ("TIME_LIMIT_MINUTES", "1.5", "input time-limit-minutes: found '1.5'"),
        ("TIME_LIMIT_MINUTES", "²", "input time-limit-minutes: found '²'"),
        ("IMAGE", "ghcr.io/o/i:latest", "expected a name with its digest"),
        ("IMAGE", f"--privileged@sha256:{'a' * 64}", "expected a name with its digest"),
    ],
)
def test_a_wrong_input_is_told_with_what_is_possible(name: str, value: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        inputs.Inputs.read({f"INPUT_{name}": value})


def metadata() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PROJECT / "action.yml").read_text())
    return loaded


def test_the_defaults_of_action_yml_are_the_defaults_of_the_code() -> None:
    defaults = {name.upper().replace("-", "_"): about["default"] for name, about in metadata()["inputs"].items()}
    assert inputs.Inputs.read({f"INPUT_{name}": value for name, value in defaults.items()}) == inputs.Inputs()


def test_every_input_is_handed_to_a_step_and_read_there() -> None:
    handed = {name for step in metadata()["runs"]["steps"] for name in step.get("env", {})}
    assert handed - {
        "GATE_PYTHON",
        "GATE_TOKEN",
        "GATE_WORK",
        "GATE_SANDBOX",
        "GATE_IMAGE",
        "GATE_EXTRA",
        "SETUP_PYTHON",
    } == {f"INPUT_{name.upper().replace('-', '_')}" for name in metadata()["inputs"] if name != "token"}


def test_only_prepare_and_report_are_handed_a_token() -> None:
    holders = [step["name"] for step in metadata()["runs"]["steps"] if "token" in json.dumps(step)]
    assert holders == ["Prepare", "Report"]


def test_the_action_loads_neither_torch_nor_numpy() -> None:
    script = "import sys, gate.action.__main__; print({'torch', 'numpy', 'coremltools'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- workflow commands and command files ---------------------------------------------------------------------------


def test_a_command_cannot_be_ended_by_its_content() -> None:
    text = runner.command("error", "50%\r\n::warning::x", title="a:b,c\nd", line=3, file="")
    assert text == "::error title=a%3Ab%2Cc%0Ad,line=3::50%25%0D%0A::warning::x"


def test_an_output_cannot_start_another(tmp_path: Path) -> None:
    around = runner.Surroundings({"GITHUB_OUTPUT": str(tmp_path / "output")})
    around.output(verdict="pass\ngate_\nverdict=fail", exit_code="0")
    text = (tmp_path / "output").read_text()
    found = re.findall(r"(?ms)^([\w-]+)<<(gate_\w{32})\n(.*?)\n\2$", text)
    assert [(name, value) for name, _, value in found] == [
        ("verdict", "pass\ngate_\nverdict=fail"),
        ("exit-code", "0"),
    ]


def test_a_summary_over_githubs_limit_is_cut_at_a_line(tmp_path: Path) -> None:
    around = runner.Surroundings({"GITHUB_STEP_SUMMARY": str(tmp_path / "summary")})
    around.summarize("é" * 99 + "\n" + ("é" * 99 + "\n") * 10_000)
    text = (tmp_path / "summary").read_text()
    assert len(text.encode()) < 1024 * 1024
    assert {len(line) for line in text.splitlines()[:-3]} == {99}
    assert text.endswith("GitHub takes no more.*\n\n")


@pytest.mark.parametrize("text", ["plain", "```\n<img>\n```", "`````", ""])
def test_text_from_outside_stays_in_its_fence(text: str) -> None:
    fence, *inside, last = runner.fenced(text).split("\n")
    assert fence == last + "text"
    assert not any(set(line) == {"`"} and len(line) >= len(last) for line in inside)


def test_nothing_hides_in_a_fence() -> None:
    assert runner.fenced("a \u202e b\n  plain").split("\n")[1:-1] == ["a [U+202E] b", "  plain"]


# --- what the evaluated side gets ----------------------------------------------------------------------------------


def test_the_arguments_of_both_docker_runs_are_exactly_these() -> None:
    image = "ghcr.io/o/coreml-gate@sha256:" + "a" * 64
    work = Path("/runner/temp/x")
    judge = apart.in_container(plan(handover.Sandbox.CONTAINER, image=image), work, ["check"], 1001, 118, 7_000)
    closed = [
        "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--read-only", "--user=1001:118",
        "--pids-limit=1024", "--memory=7000", "--memory-swap=7000", "--ulimit=core=0",
        "--mount=type=bind,src=/runner/temp/x/source,dst=/gate/source,readonly",
        "--mount=type=bind,src=/runner/temp/x/base,dst=/gate/base,readonly",
    ]  # fmt: skip
    assert judge.arguments == [
        "docker", "run", "--rm", "--init", "--pull=never", "--name=coreml-gate-x-judge", "--workdir=/gate/source", *closed,
        "--mount=type=bind,src=/runner/temp/x/baseline,dst=/gate/baseline,readonly",
        "--mount=type=bind,src=/runner/temp/x/exchange,dst=/gate/exchange",
        "--mount=type=bind,src=/runner/temp/x/out,dst=/gate/out",
        "--tmpfs=/tmp:rw,nosuid,nodev,size=8g",
        "--env=PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "--env=HOME=/tmp", "--env=TMPDIR=/tmp",
        "--env=LANG=C.UTF-8", "--env=PYTHONNOUSERSITE=1", "--env=PYTHONSAFEPATH=1", "--env=GATE_SITE=/gate/site",
        "--env=GATE_SANDBOX=container", "--env=GATE_EVENT=pull_request", "--env=GATE_COMMIT=c", "--env=GATE_BASE_COMMIT=b",
        "--env=GATE_LIMITS=working tree", "--env=GATE_CONFIG_FROM=working tree", "--env=GATE_BASE_CONFIG=", "--env=GATE_APPROVED_BY=",
        "--env=GATE_CONTENTS=", "--env=GATE_EXCHANGE=/gate/exchange", image, "check",
    ]  # fmt: skip
    assert judge.end == ("docker", "kill", "coreml-gate-x-judge")
    code = judge.beside
    assert code is not None
    assert code.arguments == [
        "docker", "run", "--rm", "--init", "--pull=never", "--name=coreml-gate-x-run", "--workdir=/gate/source", *closed,
        "--mount=type=bind,src=/runner/temp/x/site,dst=/gate/site,readonly",
        "--mount=type=bind,src=/runner/temp/x/exchange,dst=/gate/exchange",
        "--tmpfs=/tmp:rw,nosuid,nodev,size=8g",
        "--env=PATH=/usr/bin:/bin", "--entrypoint=/opt/gate/bin/python", image, "-P", "-m", "gate.remote", "/gate/exchange",
    ]  # fmt: skip
    assert code.end == ("docker", "kill", "coreml-gate-x-run")


def test_a_root_runner_hands_the_copy_of_the_cache_over_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out" / "cache" / "ab").mkdir(parents=True)
    (tmp_path / "exchange").mkdir()
    owned: list[str] = []
    monkeypatch.setattr(apart.os, "chown", lambda path, *_, **__: owned.append(path.relative_to(tmp_path).as_posix()))
    monkeypatch.setattr(apart.os, "getuid", lambda: 0)
    apart.apart(plan(handover.Sandbox.CONTAINER, image="i@sha256:0"), tmp_path, ["check"])
    assert sorted(owned) == ["exchange", "out", "out/cache", "out/cache/ab"]


def test_only_a_judge_in_a_container_of_its_own_gets_the_key_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "0123456789abcdef"
    monkeypatch.setattr(apart.os, "getuid", lambda: 1001)
    told = apart.apart(plan(handover.Sandbox.CONTAINER, image="i@sha256:0"), tmp_path, ["check"], key)
    plain = apart.apart(plan(handover.Sandbox.CONTAINER, image="i@sha256:0"), tmp_path, ["check"])
    assert [a for a in told.arguments if a not in plain.arguments] == ["--env=GATE_CACHE_KEY"]
    assert told.arguments.index("--env=GATE_CACHE_KEY") < told.arguments.index("i@sha256:0")
    assert told.environment["GATE_CACHE_KEY"] == key
    assert told.beside is not None
    assert key not in " ".join([*told.arguments, *told.beside.arguments, *told.beside.environment.values()])
    for sandbox in (handover.Sandbox.NAMESPACES, handover.Sandbox.NONE):
        other = apart.apart(plan(sandbox), tmp_path, ["check"], key)
        assert key not in " ".join([*other.arguments, *other.environment.values()])


def test_what_runs_beside_is_ended_with_the_judge(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    late = f"import time, pathlib; time.sleep(4); pathlib.Path({str(mark)!r}).touch()"
    beside = apart.Apart([sys.executable, "-c", late], {"PATH": os.environ["PATH"]}, Path("/"))
    judge = apart.Apart([sys.executable, "-c", "pass"], {"PATH": os.environ["PATH"]}, Path("/"), beside=beside)
    assert apart.watch(judge, 60).exit_code == 0
    time.sleep(4.5)
    assert not mark.exists()


def test_a_root_runner_does_not_run_the_container_as_root() -> None:
    cell = apart.in_container(plan(handover.Sandbox.CONTAINER), Path("/w"), [], 0, 0, 1)
    assert "--user=65534:65534" in cell.arguments


def test_the_arguments_of_gate_check() -> None:
    asked = inputs.Inputs(config="ci/gate.yml", policies=("int8",), fail_on=inputs.FailOn.NEVER)
    arguments = evaluate.check_arguments(asked, plan(handover.Sandbox.CONTAINER), Path("/w"))
    assert " ".join(arguments) == (
        "check --config ci/gate.yml --out /gate/out --engine auto --fail-on never --model tagger --policy int8"
    )


# --- ending what does not end --------------------------------------------------------------------------------------


def watch(script: str, seconds: float) -> handover.Evaluated:
    return apart.watch(apart.Apart([sys.executable, "-c", script], {"PATH": os.environ["PATH"]}, Path("/")), seconds)


def test_the_exit_code_and_the_end_of_the_output_are_noted(capsys: pytest.CaptureFixture[str]) -> None:
    ended = watch("import sys; print('first', flush=True); print('last', file=sys.stderr); sys.exit(2)", 60)
    assert (ended.exit_code, ended.message.split()) == (2, ["first", "last"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("::stop-commands::")
    assert lines[-1] == f"::{lines[0].removeprefix('::stop-commands::')}::"


def test_what_does_not_end_is_ended_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(mark)!r}).touch()"
    started = time.monotonic()
    ended = watch(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])", 0.5)
    assert time.monotonic() - started < 3
    assert ended.exit_code == Exit.NO_ANSWER
    assert "time limit" in ended.message
    time.sleep(3)
    assert not mark.exists()


def test_an_endless_log_is_drained_and_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    ended = watch("import sys\nfor _ in range(60): sys.stdout.write('x' * 100_000 + '\\n')", 60)
    assert ended.exit_code == 0
    assert len(capsys.readouterr().out) < apart.LOG_BYTES + 100_000
    assert len(ended.message) <= apart.TAIL_CHARACTERS


def test_links_among_the_results_are_removed_and_what_they_point_to_is_not(tmp_path: Path) -> None:
    out, secret = tmp_path / "out", tmp_path / "secret"
    (out / "packages").mkdir(parents=True)
    secret.mkdir()
    (secret / "key").write_text("key")
    (out / "report.json").write_text("{}")
    (out / "report.html").symlink_to(secret / "key")
    (out / "logs").symlink_to(secret)
    (out / "packages" / "dangling").symlink_to("/nowhere")
    os.mkfifo(out / "packages" / "pipe")
    assert evaluate.remove_links(out) == ["logs", "packages/dangling", "packages/pipe", "report.html"]
    assert [path.name for path in sorted(out.rglob("*"))] == ["packages", "report.json"]
    assert (secret / "key").read_text() == "key"


# --- the sandbox ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("docker", "runtime", "expected"),
    [
        ("exit 0", inputs.Runtime.AUTO, handover.Sandbox.CONTAINER),
        ("exit 0", inputs.Runtime.CONTAINER, handover.Sandbox.CONTAINER),
        ("exit 1", inputs.Runtime.CONTAINER, None),  # the client is there, but no daemon
        (None, inputs.Runtime.CONTAINER, None),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux's")
def test_a_container_needs_a_docker_that_answers(
    tmp_path: Path, docker: str | None, runtime: inputs.Runtime, expected: handover.Sandbox | None
) -> None:
    if docker:
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{docker}\n")
        (tmp_path / "docker").chmod(0o755)
    if expected:
        assert decide._sandbox(runtime, {"PATH": str(tmp_path)}) is expected
    else:
        with pytest.raises(UsageError, match="Docker daemon that answers"):
            decide._sandbox(runtime, {"PATH": str(tmp_path)})


def test_native_without_namespaces_is_told_as_none(tmp_path: Path) -> None:
    (tmp_path / "isolate.sh").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "isolate.sh").chmod(0o755)
    sandbox = decide._sandbox(inputs.Runtime.NATIVE, {"PATH": str(tmp_path)}, tmp_path / "isolate.sh")
    assert sandbox is handover.Sandbox.NONE


@pytest.mark.parametrize(
    ("owner", "sandbox", "refused"),
    [
        ("mallory", handover.Sandbox.NONE, True),
        ("mallory", handover.Sandbox.NAMESPACES, False),
        ("team", handover.Sandbox.NONE, False),
    ],
)
def test_a_fork_is_refused_only_without_a_sandbox(owner: str, sandbox: handover.Sandbox, refused: bool) -> None:
    pull = github.PullRequest(NUMBER, "c", "b", f"{owner}/app", "team/app")
    event = github.Event("pull_request", "team/app", pull)
    if refused:
        with pytest.raises(NoAnswer, match="comes from a fork"):
            decide._refuse_fork_without_sandbox(event, sandbox)
    else:
        decide._refuse_fork_without_sandbox(event, sandbox)


# --- the answer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "fail_on", "code"),
    [
        (Outcome.PASS, inputs.FailOn.FAIL, 0),
        (Outcome.FAIL, inputs.FailOn.FAIL, 1),
        (Outcome.ERROR, inputs.FailOn.FAIL, 3),
        (Outcome.INCONCLUSIVE, inputs.FailOn.FAIL, 0),
        (Outcome.INCONCLUSIVE, inputs.FailOn.INCONCLUSIVE, 3),
        (Outcome.FAIL, inputs.FailOn.INCONCLUSIVE, 1),
        (Outcome.FAIL, inputs.FailOn.NEVER, 0),
        (Outcome.ERROR, inputs.FailOn.NEVER, 0),
    ],
)
def test_what_the_job_ends_with(outcome: Outcome, fail_on: inputs.FailOn, code: int) -> None:
    assert exit_code(outcome, fail_on) == code


def told(folder: Path, code: int, report: str | None, fail_on: inputs.FailOn = inputs.FailOn.FAIL) -> answer.Answer:
    (folder / "out").mkdir()
    if report is not None:
        (folder / "out" / "report.json").write_text(report)
    around = runner.Surroundings({"GATE_WORK": str(folder), "GITHUB_REPOSITORY": "team/app"})
    return answer._evaluated(
        handover.Evaluated(exit_code=code, message="the end"), inputs.Inputs(fail_on=fail_on), around
    )


@pytest.mark.parametrize(
    ("outcome", "code", "expected"),
    [
        pytest.param(Outcome.PASS, 0, ("pass", 0), id="pass"),
        pytest.param(Outcome.FAIL, 1, ("fail", 1), id="fail"),
        pytest.param(Outcome.INCONCLUSIVE, 0, ("inconclusive", 0), id="inconclusive"),
        pytest.param(Outcome.PASS, 1, ("error", 3), id="a-pass-from-a-run-that-failed"),
        pytest.param(Outcome.FAIL, 0, ("error", 3), id="a-failure-from-a-run-that-passed"),
        pytest.param(Outcome.PASS, 2, ("error", 2), id="a-pass-left-over-from-before-a-usage-error"),
        pytest.param(Outcome.PASS, 70, ("error", 70), id="a-pass-written-before-a-crash"),
        pytest.param(Outcome.PASS, -9, ("error", 3), id="a-pass-from-a-run-that-was-killed"),
        pytest.param(None, 0, ("error", 3), id="no-report"),
        pytest.param(None, 125, ("error", 3), id="docker-did-not-start"),
    ],
)
def test_a_report_counts_only_with_the_exit_code_that_fits_it(
    tmp_path: Path, outcome: Outcome | None, code: int, expected: tuple[str, int]
) -> None:
    ended = told(tmp_path, code, make(outcome).model_dump_json() if outcome else None)
    assert (ended.verdict, ended.exit_code) == expected


def test_never_turns_no_usage_error_into_a_pass(tmp_path: Path) -> None:
    assert told(tmp_path, 2, None, inputs.FailOn.NEVER).exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "Invalid JSON", id="no-json"),
        pytest.param('{"verdict": "pass"}', "Field required", id="another-schema"),
        pytest.param(
            make(Outcome.FAIL).model_dump_json().replace('"fail"', '"pass"', 1), "follows", id="edited-verdict"
        ),
        pytest.param(make(Outcome.PASS).model_dump_json()[:-1] + ',"extra":1}', "Extra inputs", id="extra-key"),
    ],
)
def test_a_report_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        told(tmp_path, 0, text)


def test_a_report_that_is_a_link_or_a_pipe_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text(make(Outcome.PASS).model_dump_json())
    (tmp_path / "link").symlink_to(tmp_path / "secret.json")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(UsageError, match="expected a plain file"):
            answer._read(tmp_path / name)


def test_a_report_of_unbounded_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as stream:
        stream.truncate(10 * baseline.MAX_BYTES)
    data = answer._read(tmp_path / "big")
    assert len(data) == baseline.MAX_BYTES + 1
    with pytest.raises(UsageError, match="expected at most"):
        baseline.parse_report(data, "report.json")


# --- comments ------------------------------------------------------------------------------------------------------


@pytest.fixture
def fake() -> Iterator[FakeGitHub]:
    with FakeGitHub() as fake:
        yield fake


def comments_after(fake: FakeGitHub, mode: inputs.CommentMode, verdict: str, code: Exit) -> list[str]:
    asked = inputs.Inputs(comment=mode)
    client = github.Client(TOKEN, fake.api_url)
    answer._written(asked, client, "team/app", NUMBER, answer.Answer(verdict, code, verdict, verdict))
    return [comment["body"].splitlines()[1] for comment in fake.comments]


@pytest.mark.parametrize(
    ("mode", "verdict", "code", "first"),
    [
        ("always", "pass", Exit.PASS, True),
        ("always", "none", Exit.PASS, True),
        ("on-change", "pass", Exit.PASS, True),
        ("on-change", "none", Exit.PASS, False),
        ("on-failure", "pass", Exit.PASS, False),
        ("on-failure", "fail", Exit.FAIL, True),
        ("on-failure", "error", Exit.USAGE, True),
        ("never", "fail", Exit.FAIL, False),
    ],
)
def test_when_a_comment_is_written(fake: FakeGitHub, mode: str, verdict: str, code: Exit, first: bool) -> None:
    assert comments_after(fake, inputs.CommentMode(mode), verdict, code) == ([verdict] if first else [])


def test_an_old_failure_does_not_outlive_the_next_pass(fake: FakeGitHub) -> None:
    comments_after(fake, inputs.CommentMode.ON_FAILURE, "fail", Exit.FAIL)
    assert comments_after(fake, inputs.CommentMode.ON_FAILURE, "pass", Exit.PASS) == ["pass"]


# --- the documents -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", ["inputs", "outputs"])
def test_the_tables_of_the_document_are_those_of_action_yml(section: str) -> None:
    text = (PROJECT / "docs" / "github.md").read_text()
    table = text.partition(f"<!-- {section} -->")[2].partition(f"<!-- /{section} -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]
    expected = []
    for name, about in metadata()[section].items():
        default = [f"`{about['default']}`" if about.get("default") else ""] if section == "inputs" else []
        expected.append([f"`{name}`", *default, about["description"]])
    assert rows == expected


def test_one_lint_is_ignored_and_says_why() -> None:
    files = [
        PROJECT / "action.yml",
        *(PROJECT / ".github").rglob("*.yml"),
        *(PROJECT / "examples" / "workflows").glob("*.yml"),
    ]
    ignored = [line for file in files for line in file.read_text().splitlines() if "zizmor: ignore" in line]
    assert len(ignored) == 1
    assert ignored[0].partition("]")[2].strip()
