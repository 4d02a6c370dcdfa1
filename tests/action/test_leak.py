# SPDX-License-Identifier: Apache-2.0
"""Does code of a pull request find a token, when one lies where a leak would find it?

The token is in the job's environment, in that of an ancestor, and in files that a job has. The source looks in its environment, in
/proc, for .git, in the runner's temp folder and command files, and tries the network. Each test is run against the action as it
is, where nothing may be found, and against the action with one defence removed, where exactly that must be found.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gate.action.apart import SYSTEM_PATHS

sys.path.insert(0, str(Path(__file__).parent))
from runner import GATE_YML, PROJECT, Edit, Ended, Runner, copy_action, git, make_checkout, needs_namespaces

TOKEN = "ghs_T0kenThatMustNotBeSeen"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="namespaces and /proc are Linux's")

# Stands for `gate check`: imports the source by its location, as the gate's worker does.
CHECK = """
import importlib.util, pathlib, sys
arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
file = pathlib.Path(arguments["--config"]).parent / "ml" / "model.py"
spec = importlib.util.spec_from_file_location("model", file)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.build(pathlib.Path(arguments["--out"]))
"""

SOURCE = """
import glob, json, os, pathlib, socket, sys

TOKEN, WORKSPACE, TEMP, PORT = {token!r}, {workspace!r}, {temp!r}, {port}


def reads(path):
    try:
        return TOKEN.encode() in pathlib.Path(path).read_bytes()
    except OSError:
        return False


def writes(path):
    try:
        with open(path, "a") as stream:
            stream.write("x")
        return True
    except OSError:
        return False


def connects():
    try:
        socket.create_connection(("127.0.0.1", PORT), timeout=2).close()
        return True
    except OSError:
        return False


def status(field):
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith(field + ":"))


def build(out=None):
    ancestors = [pathlib.Path.cwd(), *pathlib.Path.cwd().parents]
    commands = glob.glob(TEMP + "/_runner_file_commands/*")
    found = {{
        "environment": any(TOKEN in value for value in os.environ.values()),
        "unlisted names": sorted(set(os.environ) - set({allowed!r})),
        "environment of a process": any(reads(path) for path in glob.glob("/proc/*/environ")),
        "git folder": any((folder / ".git").exists() for folder in [*ancestors, pathlib.Path(WORKSPACE)]),
        "temp folder": os.path.exists(TEMP + "/secret.txt"),
        "command files": any(writes(path) for path in commands),
        "network": connects(),
        "sources writable": writes("/gate/source/ml/written.py"),
        "interpreter writable": writes(sys.prefix + "/written"),
        "setuid programs": status("NoNewPrivs") != "1",
        "capabilities": int(status("CapEff"), 16) != 0,
        "outside of the root": any(os.path.exists(root + WORKSPACE) for root in glob.glob("/proc/*/root")),
    }}
    told = json.dumps({{name: value for name, value in found.items() if value}})
    if out is None:
        raise RuntimeError("FOUND " + told)  # the real gate tells it in the report
    (out / "found.json").write_text(told)
"""

# What a child may know; LC_CTYPE is Python's own, when it coerces the C locale.
ALLOWED = (
    "PATH", "HOME", "TMPDIR", "LANG", "LC_CTYPE", "PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONSAFEPATH",
    "GATE_SITE", "GATE_SANDBOX", "GATE_EVENT", "GATE_COMMIT", "GATE_BASE_COMMIT",
    "GATE_LIMITS", "GATE_CONFIG_FROM", "GATE_BASE_CONFIG", "GATE_APPROVED_BY", "GATE_CONTENTS",
    "PWD", "OLDPWD", "SHLVL", "_",  # set by the shell of support/isolate.sh, of the paths inside
    "USER", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONHASHSEED",  # of the gate's worker
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "TQDM_DISABLE",
    "TORCHINDUCTOR_CACHE_DIR", "TF_CPP_MIN_LOG_LEVEL", "KMP_INIT_AT_FORK", "KMP_DUPLICATE_LIB_OK",  # set by torch, coremltools and scikit-learn
)  # fmt: skip

ISOLATE, EVALUATE = "support/isolate.sh", "support/evaluate.sh"
APART, DECIDE = "gate/action/apart.py", "gate/action/decide.py"
NO_NAMESPACES = Edit(ISOLATE, '--probe) exec "${namespaces[@]}"', "--probe) exit 1; exec")
NO_DROP = Edit(ISOLATE, "--ambient-caps=-all --inh-caps=-all --bounding-set=-all ", "")
NO_SCRUB = Edit(EVALUATE, "exec env -i ", "exec env ")


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def make_runner(
    folder: Path, port: int, *edits: Edit, parent: str = "PARENT_TOKEN", check: str | None = CHECK
) -> Runner:
    workspace, temp = folder / "workspace", folder / "temp"
    values = {"token": TOKEN, "workspace": str(workspace), "temp": str(temp), "port": port, "allowed": ALLOWED}
    make_checkout(workspace, {"gate.yml": GATE_YML, "ml/model.py": SOURCE.format(**values)})
    (workspace / "credentials.json").write_text(TOKEN)  # as another action may leave them, untracked
    runner = Runner(
        action=copy_action(folder / "action", check=check, edits=edits),
        workspace=workspace,
        temp=temp,
        job_environment={"GITHUB_TOKEN": TOKEN},
        parent_environment={parent: TOKEN} if parent else {},
    )
    (temp / "secret.txt").write_text(TOKEN)
    return runner


def prepared(runner: Runner) -> Ended:
    return runner.step("step.sh", "prepare", GATE_TOKEN=TOKEN)


def found(runner: Runner) -> dict[str, object]:
    """Run prepare and evaluate, and return what the source found."""
    first = prepared(runner)
    assert first.code == 0, first.log
    assert first.outputs["evaluate"] == "true", first.log
    second = runner.step("evaluate.sh", GATE_WORK=first.outputs["work"])
    assert "exit code 0" in second.log, second.log
    return dict(json.loads(Path(first.outputs["work"], "out", "found.json").read_text()))


@needs_namespaces
def test_in_namespaces_the_source_finds_nothing(folder: Path, listener: int) -> None:
    assert found(make_runner(folder, listener)) == {}


@needs_namespaces
def test_the_real_gate_shows_its_source_nothing(folder: Path, listener: int) -> None:
    pytest.importorskip("torch")
    runner = make_runner(folder, listener, check=None)
    work = prepared(runner).outputs["work"]
    ended = runner.step("evaluate.sh", GATE_WORK=work)
    assert "exit code 1" in ended.log, ended.log  # feasibility: the source raises what it found
    report = json.loads(Path(work, "out", "report.json").read_text())
    (result,) = (r for r in report["models"][0]["candidates"][0]["results"] if r["check"] == "feasibility")
    assert "FOUND {}" in result["message"]
    assert report["run"]["sandbox"] == "namespaces"


REMOVED = {
    "process-and-user-namespaces": (
        (
            Edit(ISOLATE, "--user --map-root-user --mount --pid --fork --kill-child", "--mount"),
            Edit(ISOLATE, "mount -t proc -o nosuid,nodev,noexec proc", "mount --rbind /proc"),
            # Of two processes of root, one without capabilities may not look at the other; an ordinary user's may.
            Edit(ISOLATE, '"${ordinary[@]}" "${powerless[@]}" "$@"', '"$@"'),
        ),
        {"environment of a process", "outside of the root", "capabilities", "setuid programs"},
    ),
    "network-namespace": ((Edit(ISOLATE, " --net ", " "),), {"network"}),
    "own-root": (
        (Edit(APART, 'SYSTEM_PATHS = ("/usr"', 'SYSTEM_PATHS = ("{folder}", "/usr"'),),
        {"git folder", "temp folder", "outside of the root"},
    ),
    "own-root-read-only": (
        (
            Edit(APART, 'SYSTEM_PATHS = ("/usr"', 'SYSTEM_PATHS = ("{folder}", "/usr"'),
            Edit(ISOLATE, 'bind "$1" "${root}$2" ro', 'bind "$1" "${root}$2" rw'),
        ),
        {
            "git folder",
            "temp folder",
            "command files",
            "sources writable",
            "interpreter writable",
            "outside of the root",
        },
    ),
    "read-only-binds": (
        (Edit(ISOLATE, 'bind "$1" "${root}$2" ro', 'bind "$1" "${root}$2" rw'),),
        {"sources writable", "interpreter writable"},
    ),
    "no-new-privileges": ((Edit(ISOLATE, "--no-new-privs ", ""),), {"setuid programs"}),
    "capabilities-dropped": ((NO_DROP,), {"capabilities"}),
    "environment-by-list": (
        (Edit(APART, '    return {\n        "PATH": ', '    return dict(os.environ) | {\n        "PATH": '),),
        {"unlisted names"},
    ),
    "environment-by-list-and-scrub": (
        (Edit(APART, '    return {\n        "PATH": ', '    return dict(os.environ) | {\n        "PATH": '), NO_SCRUB),
        {"unlisted names", "environment", "environment of a process"},
    ),
}


@needs_namespaces
@pytest.mark.parametrize(("edits", "expected"), REMOVED.values(), ids=REMOVED.keys())
def test_without_a_defence_the_source_finds_something(
    folder: Path, listener: int, edits: tuple[Edit, ...], expected: set[str]
) -> None:
    placed = tuple(Edit(e.file, e.old, e.new.replace("{folder}", str(folder))) for e in edits)
    assert set(found(make_runner(folder, listener, *placed))) == expected


@needs_namespaces
def test_within_the_sandbox_the_worker_can_have_namespaces_of_its_own(folder: Path) -> None:
    for name in ("root", "out", "tmp", "source"):
        (folder / name).mkdir()
    places = [part for name in ("root", "out", "tmp") for part in (f"--{name}", str(folder / name))]
    system = [part for path in SYSTEM_PATHS if Path(path).exists() for part in ("--read", path)]
    inner = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--mount-proc", "true"]
    command = [
        str(PROJECT / ISOLATE),
        *places,
        *system,
        "--read-as",
        str(folder / "source"),
        "/gate/source",
        "--",
        *inner,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- a machine without namespaces: less is kept apart, but the step's own process holds nothing to find -------------


def test_without_a_sandbox_no_environment_holds_the_token(folder: Path, listener: int) -> None:
    seen = found(make_runner(folder, listener, NO_NAMESPACES, parent=""))
    assert not {"environment", "environment of a process", "unlisted names"} & set(seen)


def test_without_a_sandbox_and_scrub_the_parents_environment_holds_the_token(folder: Path, listener: int) -> None:
    assert "environment of a process" in found(make_runner(folder, listener, NO_NAMESPACES, NO_SCRUB, parent=""))


def test_without_a_sandbox_the_copy_of_the_checkout_still_has_no_credentials(folder: Path, listener: int) -> None:
    runner = make_runner(folder, listener, NO_NAMESPACES)
    source = Path(prepared(runner).outputs["work"]) / "source"
    assert {path.name for path in source.iterdir()} == {"gate.yml", "ml"}


# --- the checkout's git configuration ------------------------------------------------------------------------------

CREDENTIALS = {
    "extraheader": ("http.https://github.com/.extraheader", f"AUTHORIZATION: basic {TOKEN}"),
    "remote-url": ("remote.origin.url", f"https://x-access-token:{TOKEN}@github.com/team/app"),
    "rewritten-url": (f"url.https://x-access-token:{TOKEN}@github.com/.insteadof", "https://github.com/"),
    "helper": ("credential.helper", "store --file=/home/runner/.credentials"),
}
REFUSAL = "prepare.refuse_credentials(around.workspace)"


@pytest.mark.parametrize(("key", "value"), CREDENTIALS.values(), ids=CREDENTIALS.keys())
def test_a_credential_in_the_git_configuration_is_refused_and_not_printed(
    folder: Path, listener: int, key: str, value: str
) -> None:
    runner = make_runner(folder, listener)
    git(runner.workspace, "config", key, value)
    ended = prepared(runner)
    told = Path(ended.outputs["work"], "evaluated.json").read_text()
    assert ended.outputs["evaluate"] == "false"
    assert "persist-credentials: false" in told
    assert TOKEN not in told + ended.log


def test_a_credential_in_an_included_file_is_refused(folder: Path, listener: int) -> None:
    """As actions/checkout does it from v6 on."""
    runner = make_runner(folder, listener)
    included = runner.temp / "git-credentials.config"
    included.write_text(f'[http "https://github.com/"]\n\textraheader = AUTHORIZATION: basic {TOKEN}\n')
    git(runner.workspace, "config", f"includeIf.gitdir:{runner.workspace}/.git.path", str(included))
    assert prepared(runner).outputs["evaluate"] == "false"


def test_without_the_refusal_the_run_goes_on(folder: Path, listener: int) -> None:
    runner = make_runner(folder, listener, Edit(DECIDE, REFUSAL, "pass"))
    git(runner.workspace, "config", *CREDENTIALS["extraheader"])
    assert prepared(runner).outputs["evaluate"] == "true"


# --- our own steps hold the token: they must not import from the pull request ---------------------------------------

THIEF = "import os, pathlib\npathlib.Path({loot!r}).write_text(os.environ.get('GATE_TOKEN', ''))\nraise ImportError\n"


def robbed(folder: Path, listener: int, *edits: Edit) -> bool:
    runner = make_runner(folder, listener, *edits)
    loot = folder / "loot.txt"
    for name in ("gate/__init__.py", "gate/action.py", "yaml.py", "requests.py", "sitecustomize.py"):
        (runner.workspace / name).parent.mkdir(exist_ok=True)
        (runner.workspace / name).write_text(THIEF.format(loot=str(loot)))
    runner.job_environment = {"PYTHONPATH": str(runner.workspace)}
    prepared(runner)
    return loot.exists() and TOKEN in loot.read_text()


def test_our_steps_import_nothing_from_the_pull_request(folder: Path, listener: int) -> None:
    assert not robbed(folder, listener)


def test_with_the_jobs_pythonpath_our_steps_would_import_from_it(folder: Path, listener: int) -> None:
    edit = Edit(
        "support/step.sh", "PYTHONPATH=${GITHUB_ACTION_PATH}", "PYTHONPATH=${PYTHONPATH:-}:${GITHUB_ACTION_PATH}"
    )
    assert robbed(folder, listener, edit)


def test_from_the_workspace_without_p_our_steps_would_import_from_it(folder: Path, listener: int) -> None:
    edits = (
        Edit("support/step.sh", 'cd "${RUNNER_TEMP}"', "cd ."),
        Edit("support/step.sh", " PYTHONSAFEPATH=1", ""),
        Edit("support/step.sh", " -P -m ", " -m "),
        Edit("support/step.sh", "unset PYTHONHOME", "unset PYTHONPATH PYTHONHOME"),
    )
    assert robbed(folder, listener, *edits)
