# SPDX-License-Identifier: Apache-2.0
"""What hostile or broken code can and cannot do. The code stands in a data set, which needs no torch and so starts fast."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gate import jail, sandbox
from gate.errors import NoAnswer, SourceFault, UsageError
from tests.project import Project

ENTRY = """
source: {factory: model.py:build}
dataset: data.py:items
metric: accuracy
"""
needs_namespaces = pytest.mark.skipif(not sandbox.namespaces_work(), reason="the kernel grants no namespaces here")
KINDS = [
    pytest.param(sandbox.Kind.NAMESPACES, marks=needs_namespaces),
    pytest.param(sandbox.Kind.PROCESS),
]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> sandbox.Kind:
    return request.param  # type: ignore[no-any-return]


def run(
    project: Project, code: str, *, kind: sandbox.Kind, seconds: float = 60, memory: int = 8 * 10**9
) -> list[object]:
    """Run `code` as the body of a data set; return the labels that it yields."""
    project.write("data.py", body(code))
    with project.open(ENTRY, seconds=seconds, memory=memory) as source:
        source.kind = kind
        return list(source.items().labels)


def body(code: str) -> str:
    lines = "\n".join(f"    {line}" for line in code.strip().splitlines())
    return f"import os, sys, ctypes, socket, time\nimport numpy as np\n\ndef items():\n{lines}\n"


def tell(expression: str) -> str:
    return f"yield {{'x': np.zeros(1)}}, {expression}"


# ----------------------------------------------------------------------------------------------- how code can end


@pytest.mark.parametrize(
    ("code", "error", "says"),
    [
        ("raise ValueError('no such split')", SourceFault, "ValueError: no such split (data.py:5)"),
        ("sys.exit(3)", SourceFault, "called sys.exit(3)"),
        ("os._exit(7)", SourceFault, "ended the process itself (exit status 7)"),
        ("ctypes.string_at(0)", SourceFault, "crashed with SIGSEGV"),
        ("os.kill(os.getpid(), 9)", NoAnswer, "was killed (SIGKILL)"),
        ("os.abort()", SourceFault, "crashed with SIGABRT"),
        ("yield 5", SourceFault, "item 0: found int, expected ({name: array}, label)"),
        ("yield {'x': 'text'}, 1", SourceFault, "input x is str, expected an array"),
        ("yield {'x': np.zeros(1)}, object()", SourceFault, "object cannot be handed over"),
        ("yield {'x': np.array([{}], dtype=object)}, 1", SourceFault, "array of object cannot be handed over"),
        ("return 5", SourceFault, "TypeError"),
        (
            "while True: time.sleep(1)",
            NoAnswer,
            "items of tiny (data.py:items): no answer within the time limit of 3.0 s, after ",
        ),
        ("yield {'x': np.ones(10**9)}, 1", NoAnswer, "not enough memory"),
        ("raise KeyboardInterrupt", SourceFault, "KeyboardInterrupt"),
    ],
)
def test_however_their_code_ends_it_becomes_an_outcome_with_a_reason(
    project: Project, code: str, error: type[Exception], says: str, kind: sandbox.Kind
) -> None:
    with pytest.raises(error) as caught:
        run(project, code, kind=kind, seconds=3, memory=2 * 10**9)
    assert says in str(caught.value)


def test_a_missing_file_or_function_is_wrong_usage_with_the_nearest_name(project: Project) -> None:
    with project.open(ENTRY) as source, pytest.raises(UsageError, match=r"data\.py: no such file"):
        source.items()
    project.write("data.py", "def item(): pass")
    with project.open(ENTRY) as source, pytest.raises(UsageError, match='did you mean "item"'):
        source.items()


def test_an_lfs_pointer_is_named_as_one(project: Project) -> None:
    project.write("data.py", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with project.open(ENTRY) as source, pytest.raises(UsageError, match="Git LFS pointer"):
        source.items()


# -------------------------------------------------------------------------------------------------- what it can see


def test_nothing_of_the_environment_is_inherited(
    project: Project, monkeypatch: pytest.MonkeyPatch, kind: sandbox.Kind
) -> None:
    for name in ("GITHUB_TOKEN", "ACTIONS_RUNTIME_TOKEN", "RUNNER_TEMP", "MY_SECRET"):
        monkeypatch.setenv(name, "hush-12345")
    (names,) = run(project, tell("' '.join(sorted(os.environ))"), kind=kind)
    allowed = set(sandbox._environment(Path("/x"))) | {"LC_CTYPE", "PWD", "OLDPWD", "SHLVL", "_"}
    assert set(str(names).split()) <= allowed
    (values,) = run(project, tell("'hush' in str(os.environ)"), kind=kind)
    assert values is False


READ_OTHERS = """
found = 0
for pid in filter(str.isdigit, os.listdir('/proc')):
    for name in ('environ', 'mem'):
        try:
            data = open(f'/proc/{pid}/{name}', 'rb')
            found += name == 'mem' and int(pid) not in OWN or b'hush-12345' in data.read(1 << 20)
        except OSError:
            pass
yield {'x': np.zeros(1)}, found
"""


def without_capabilities() -> list[str]:
    """Root's capabilities would shield the parent by themselves; a runner's user has none."""
    if os.getuid() != 0:
        return []
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


def test_no_token_is_found_in_the_memory_or_environment_of_other_processes(tmp_path: Path, kind: sandbox.Kind) -> None:
    """The parent has the token from its start, as a runner's process has; only our own process can be shielded without namespaces."""
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path.cwd())!r})
from tests.project import Project
from tests import test_sandbox as t
from gate import sandbox
project = Project(Path({str(tmp_path)!r}))
code = {READ_OTHERS!r}.replace('OWN', '(os.getpid(),)').replace("os.listdir('/proc')", SCOPE)
print(t.run(project, code, kind=sandbox.Kind.{kind.name}))
"""
    scope = "os.listdir('/proc')" if kind is sandbox.Kind.NAMESPACES else "[str(os.getppid())]"
    script = script.replace("SCOPE", repr(scope))
    done = subprocess.run(
        [*(without_capabilities() if kind is sandbox.Kind.PROCESS else []), sys.executable, "-c", script],
        env={"GITHUB_TOKEN": "hush-12345", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[0]", done.stderr


@needs_namespaces
def test_namespaces_hide_git_network_sockets_and_the_runners_folder(project: Project, tmp_path: Path) -> None:
    project.write(".git/config", "extraheader = AUTHORIZATION: basic hush")
    runner = tmp_path / "runner"
    runner.mkdir()
    (runner / "event.json").write_text("hush")
    project.write(
        "data.py",
        f"""
        import os, socket
        import numpy as np

        def network():
            try:
                socket.create_connection(("127.0.0.1", 22), timeout=1)
            except OSError as problem:
                return problem.errno
            return 0

        def items():
            git, runner = os.listdir(".git"), os.listdir({str(runner)!r})
            yield {{"x": np.zeros(1)}}, [git, runner, os.listdir("/run"), [name for _, name in socket.if_nameindex()]]
        """,
    )
    with project.open(ENTRY, hidden=(runner,)) as source:
        assert source.items().labels == ([[], [], [], ["lo"]],)


@needs_namespaces
@pytest.mark.parametrize(
    "attempt",
    [
        "open('data.py', 'a')",
        "open('/tmp/gate-escape', 'w')",
        "open(sys.modules['gate'].__file__, 'a')",
        "os.system('umount .git && ls .git | grep -q config') and 1/0",
        "ctypes.CDLL(None, use_errno=True).mount(b'/', b'/mnt', None, 4096, None) and 1/0",
        "os.setuid(1234)",
    ],
)
def test_namespaces_leave_the_file_system_read_only_for_good(project: Project, attempt: str) -> None:
    project.write(".git/config", "hush")
    with pytest.raises(
        SourceFault, match=r"Read-only file system|ZeroDivisionError|Operation not permitted|Invalid arg"
    ):
        run(project, attempt, kind=sandbox.Kind.NAMESPACES)


def test_a_private_temporary_folder_is_writable_and_gone_afterwards(project: Project, kind: sandbox.Kind) -> None:
    code = "import tempfile\npath = tempfile.mkdtemp()\nopen(path + '/f', 'w').write('x')\n" + tell("path")
    (path,) = run(project, code, kind=kind)
    assert "gate-" in str(path)
    assert not Path(str(path)).parents[2].exists()


# ------------------------------------------------------------------------------------------------ what it leaves behind


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(os.environ['TMPDIR'] + '/../../PIDFILE', 'w').write(str(os.getpid()))
    time.sleep(600)
time.sleep(1)
"""


def test_a_daemon_that_left_the_process_group_dies_too(project: Project, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    code = DAEMON.replace("os.environ['TMPDIR'] + '/../../PIDFILE'", repr(str(pidfile))) + tell("1")
    assert run(project, code, kind=sandbox.Kind.PROCESS) == [1]
    pid = int(pidfile.read_text())
    for _ in range(50):
        if not alive(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the daemon outlived the worker")


@needs_namespaces
def test_no_process_of_a_namespace_outlives_the_worker(project: Project) -> None:
    code = DAEMON.replace("os.environ['TMPDIR'] + '/../../PIDFILE'", "os.environ['TMPDIR'] + '/pid'") + tell("1")
    project.write("data.py", body(code))
    with project.open(ENTRY) as source:
        source.items()
        mark = str(source._private)
        assert len(processes_with(mark)) >= 4  # unshare, the first process, the worker, and theirs
    assert processes_with(mark) == []


def processes_with(mark: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "cmdline").read_bytes() and alive(int(folder.name)):
                found.append(folder.name)
    return found


def test_a_hundred_megabytes_of_output_do_not_fill_the_log(project: Project, kind: sandbox.Kind) -> None:
    code = "for _ in range(100): os.write(1, b'x' * 1_000_000)\nprint('the end')\n" + tell("1")
    assert run(project, code, kind=kind) == [1]
    log = project.out / "log" / "tiny.log"
    assert sandbox.LOG_BYTES <= log.stat().st_size < sandbox.LOG_BYTES + 50_000
    assert "bytes were dropped" in log.read_text()
    assert "the end" in log.read_text()


def test_too_much_on_disk_is_no_answer(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "DISK_BYTES", 1_000_000)
    code = "open(os.environ['TMPDIR'] + '/big', 'wb').write(b'x' * 5_000_000)\ntime.sleep(30)"
    with pytest.raises(NoAnswer, match="wrote more than"):
        run(project, code, kind=sandbox.Kind.PROCESS)


def test_ctrl_c_ends_the_worker_and_removes_its_folder(project: Project) -> None:
    project.write("data.py", "import numpy as np\n\ndef items():\n    yield {'x': np.zeros(1)}, 1\n")
    seen: list[Path] = []
    with pytest.raises(KeyboardInterrupt), project.open(ENTRY) as source:  # noqa: PT012
        source.items()
        assert source._private is not None
        seen.append(source._private)
        raise KeyboardInterrupt
    assert not seen[0].exists()
    assert processes_with(str(seen[0])) == []


def test_a_crashed_worker_is_replaced_at_the_next_request(project: Project) -> None:
    project.write("data.py", body("os._exit(1)"))
    with project.open(ENTRY) as source:
        with pytest.raises(SourceFault, match="ended the process itself"):
            source.items()
        project.write("data.py", body(tell("4")))
        assert source.items().labels == (4,)


def test_a_sandbox_that_cannot_start_is_no_answer_and_not_their_fault(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "ENTRY", "import sys; sys.exit('no room')")
    with project.open(ENTRY) as source, pytest.raises(NoAnswer, match=r"did not start .*no room"):
        source.items()


# ------------------------------------------------------------------------------------------------------- small parts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("::error::x", ": :error::x"),
        ("  \t::set-output name=a::b", "  \t: :set-output name=a::b"),
        ("fine :: here", "fine :: here"),
        ("x\r::stop-commands::y", "x\n: :stop-commands::y"),
        ("x\u2028::warning::y", "x\n: :warning::y"),
        ("say ##[add-mask]secret", "say # #[add-mask]secret"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2K\x1b]0;title\x07::error::", ": :error::"),
        ("\u200b::error::", ": :error::"),
        ("a\x00b\x07c", "abc"),
        ("#\x00#[group]", "# #[group]"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_output_of_others_is_neutralised(text: str, expected: str) -> None:
    assert sandbox.neutralise(text) == expected


def test_git_folder_of_a_worktree_is_hidden_too(tmp_path: Path) -> None:
    main = tmp_path / "main" / ".git"
    (main / "worktrees" / "wt").mkdir(parents=True)
    tree = tmp_path / "wt" / "ml"
    tree.mkdir(parents=True)
    (tmp_path / "wt" / ".git").write_text(f"gitdir: {main}/worktrees/wt\n")
    assert {main, tmp_path / "wt" / ".git"} <= set(sandbox.hidden_paths(tree))


def test_a_cell_survives_the_command_line() -> None:
    cell = jail.Cell(Path("/a b"), (Path("/c"),), 1, 2, True)
    assert jail.Cell.from_json(cell.to_json()) == cell
