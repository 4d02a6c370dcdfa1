# SPDX-License-Identifier: Apache-2.0
"""The command line as a user meets it: light, with examples, exit codes, and no traceback for a mistake."""

import errno
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gate import __version__, cli
from gate.errors import Exit
from gate.report import CheckName, Outcome, Result, Run, make_report

ROOT = Path(__file__).parent.parent
COMMANDS = ("check", "run", "render", "comment", "init", "doctor")


def gate(*arguments: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GITHUB_")} | {"PYTHONPATH": str(ROOT)} | env
    return subprocess.run(
        [sys.executable, "-m", "gate", *arguments], capture_output=True, text=True, cwd=cwd, env=environ
    )


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['gate', '--help']\n"
        "from gate.cli import main\n"
        "try: main()\n"
        "except SystemExit: print([m for m in ('torch', 'coremltools', 'numpy', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)

    assert done.stdout.strip().endswith("[]")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_begins_its_help_with_an_example(command):
    done = gate(command, "--help")

    assert done.returncode == 0
    assert f"Example: gate {command}" in done.stdout


def test_the_help_and_the_readme_name_every_exit_code():
    told = " ".join(gate("--help").stdout.split()).partition("Exit codes: ")[2].partition(". ")[0]
    table = re.findall(r"^\| (\d+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)

    assert [int(code) for code in re.findall(r"\d+", told)] == list(Exit)
    assert [int(code) for code in table] == list(Exit)


def test_control_c_ends_with_a_word_and_130(monkeypatch, capsys):
    def stopped(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", stopped)

    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == Exit.STOPPED
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 3), (errno.EROFS, 2), (errno.EIO, 70)])
def test_a_disk_that_refuses_is_no_crash_of_ours(monkeypatch, capsys, number, code):
    def refusing(**_):
        raise OSError(number, os.strerror(number), "out/report.json")

    monkeypatch.setattr(cli, "app", refusing)
    with pytest.raises(SystemExit) as stopped:
        cli.main()

    assert stopped.value.code == code
    assert ("Traceback" in capsys.readouterr().err) is (code == 70)


def test_the_version_is_printed():
    assert gate("--version").stdout.strip() == f"coreml-gate {__version__}"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["chek"], "Did you mean 'check'", id="command"),
        pytest.param(["check", "--polcy", "x"], "No such option", id="option"),
        pytest.param(["check", "--engine", "tpu"], "'tpu' is not one of", id="choice"),
        pytest.param(["check", "--config", "missing.yml"], "missing.yml: no such file", id="config"),
        pytest.param(["check", "--jobs", "0"], "jobs", id="range"),
        pytest.param(["render", "missing.json"], "no such report", id="report"),
        pytest.param(
            ["run", "missing.mlpackage", "--inputs", "missing.npz", "--out", "o.npz"],
            "missing.npz: no such file",
            id="inputs",
        ),
        pytest.param(["init", "missing"], "no such folder", id="folder"),
        pytest.param(
            ["comment", "missing.json", "--repository", "a/b", "--pull-request", "1"],
            "GITHUB_TOKEN is not set",
            id="token",
        ),
    ],
)
def test_a_mistake_ends_with_2_and_a_sentence(arguments, told, tmp_path):
    done = gate(*arguments, cwd=tmp_path)

    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_misspelt_key_names_the_nearest(tmp_path):
    (tmp_path / "gate.yml").write_text(
        "version: 1\nmodels:\n  - {name: m, source: {coreml: m.mlpackage}, budgets: {siz: 6 MB}}\n"
    )

    done = gate("check", cwd=tmp_path)

    assert done.returncode == 2
    assert 'gate.yml: models[0].budgets.siz: unknown key (did you mean "size"?)' in done.stderr
    assert not (tmp_path / "gate-out").exists()


def test_coreml_off_a_mac_is_wrong_usage(tmp_path):
    if sys.platform == "darwin":
        return
    (tmp_path / "gate.yml").write_text("version: 1\nmodels:\n  - {name: m, source: {coreml: m.mlpackage}}\n")

    done = gate("check", "--engine", "coreml", cwd=tmp_path)

    assert done.returncode == 2
    assert "expected macOS; use --engine mil" in done.stderr
    assert not (tmp_path / "gate-out").exists()


@pytest.mark.parametrize("view", ["comment", "summary", "html", "terminal"])
def test_a_report_is_rendered_in_every_view(view, tmp_path):
    record = make_report(Run(config_digest="0" * 64), ())
    path = tmp_path / "report.json"
    path.write_text(record.model_dump_json())

    done = gate("render", str(path), "--format", view)

    assert done.returncode == 0
    assert "No model is concerned" in done.stdout


def test_an_edited_report_is_refused(tmp_path):
    record = make_report(Run(config_digest="0" * 64), ())
    failed = Result(check=CheckName.APP_SIZE, outcome=Outcome.FAIL, message="m")
    forged = json.loads(record.model_dump_json())
    forged["app"]["results"] = [json.loads(failed.model_dump_json())]
    (tmp_path / "report.json").write_text(json.dumps(forged))

    done = gate("render", str(tmp_path / "report.json"))

    assert done.returncode == 2
    assert "follows from the results to be fail" in done.stderr


def test_doctor_says_what_works_here():
    done = gate("doctor", "--json")

    found = {c["name"]: c["ok"] for c in json.loads(done.stdout)["capabilities"]}
    assert found["run Core ML programs here (engine mil)"]
    assert found["run on Apple's runtime (engine coreml)"] == (sys.platform == "darwin")


CLAIMING = b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f4', 'fortran_order': False, 'shape': (%d,)}" % 10**13


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"not a zip", CLAIMING.ljust(79) + b"\n"])
def test_inputs_that_are_no_arrays_are_told(content, tmp_path):
    path = tmp_path / "in.npz"
    path.write_bytes(content)

    done = gate("run", "m.mlpackage", "--inputs", str(path), "--out", str(tmp_path / "o.npz"))

    assert done.returncode == 2
    assert "expected an .npz" in done.stderr
    assert not (tmp_path / "o.npz").exists()


def test_pickles_in_inputs_are_refused(tmp_path):
    path = tmp_path / "in.npz"
    np.savez(path, x=np.array([{"a": 1}], dtype=object))

    done = gate("run", "m.mlpackage", "--inputs", str(path), "--out", str(tmp_path / "o.npz"))

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_zipped_package_is_told_once_with_what_to_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.mlpackage", "w") as archive:
        archive.writestr("Manifest.json", "{}")
    np.savez(tmp_path / "in.npz", x=np.zeros(1))
    (tmp_path / "gate.yml").write_text("version: 1\nmodels:\n  - {name: m, source: {coreml: m.mlpackage}}\n")

    for arguments in (["inspect", "m.mlpackage"], ["run", "m.mlpackage", "--inputs", "in.npz", "--out", "o.npz"]):
        done = gate(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (2, "m.mlpackage: it is a zip archive: unpack it first\n")
    done = gate("check", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "m: reading m.mlpackage\nsource.coreml: m.mlpackage: it is a zip archive: unpack it first\n"
