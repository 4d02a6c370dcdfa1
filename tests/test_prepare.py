# SPDX-License-Identifier: Apache-2.0
"""Is it known which models a change concerns, and does nothing of a pull request run while things are brought?"""

import hashlib
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import requests

from gate import config, prepare
from gate.errors import NoAnswer, UsageError

FETCHED = b"weights"


def configured(root: Path, text: str, name: str = "gate.yml") -> tuple[config.Config, Path]:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("version: 1\n" + text)
    return config.load(file), file


TWO = """
setup: {requirements: ml/requirements.lock, pythonpath: [ml/shared]}
waivers: waivers.yml
models:
  - name: tagger
    paths: ["ml/tagger/**"]
    source: {factory: "src/build.py:tagger"}
    dataset: eval.npz
    explore: [policies/ours.yml]
  - name: pitch
    paths: ["*.cfg"]
    source: {coreml: App/Pitch.mlpackage}
    reference: {onnx: pitch.onnx}
"""


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        pytest.param({"README.md"}, (), id="none"),
        pytest.param(set(), (), id="nothing-changed"),
        pytest.param({"ml/tagger/deep/model.py"}, ("tagger",), id="glob"),
        pytest.param({"ml/other/model.py"}, (), id="beside-the-glob"),
        pytest.param({"src/build.py"}, ("tagger",), id="source-file"),
        pytest.param({"eval.npz"}, ("tagger",), id="dataset"),
        pytest.param({"policies/ours.yml"}, ("tagger",), id="own-policy"),
        pytest.param({"App/Pitch.mlpackage/Data/weights.bin"}, ("pitch",), id="file-in-a-package"),
        pytest.param({"App/Pitch.mlpackage2/x"}, (), id="longer-name"),
        pytest.param({"pitch.onnx"}, ("pitch",), id="reference"),
        pytest.param({"a.cfg"}, ("pitch",), id="star"),
        pytest.param({"deep/a.cfg"}, (), id="star-stays-in-a-folder"),
        pytest.param({"gate.yml"}, ("tagger", "pitch"), id="configuration"),
        pytest.param({"waivers.yml"}, ("tagger", "pitch"), id="waivers"),
        pytest.param({"ml/requirements.lock"}, ("tagger", "pitch"), id="requirements"),
        pytest.param({"ml/shared/layers.py"}, ("tagger", "pitch"), id="pythonpath"),
        pytest.param(None, ("tagger", "pitch"), id="unknown"),
    ],
)
def test_which_models_a_change_concerns(tmp_path: Path, changed: set[str] | None, expected: tuple[str, ...]) -> None:
    asked, file = configured(tmp_path, TWO)
    known = None if changed is None else frozenset(changed)
    assert prepare.concerned(asked, file, tmp_path, known) == expected


def test_paths_are_the_repositorys_and_files_are_gate_ymls(tmp_path: Path) -> None:
    asked, file = configured(tmp_path, TWO, "ci/gate.yml")
    concerned = {
        path: prepare.concerned(asked, file, tmp_path, frozenset({path}))
        for path in ("ci/eval.npz", "eval.npz", "ml/tagger/x", "ci/ml/tagger/x")
    }
    assert concerned == {"ci/eval.npz": ("tagger",), "eval.npz": (), "ml/tagger/x": ("tagger",), "ci/ml/tagger/x": ()}


def test_a_folder_above_a_named_file_that_became_a_link_concerns_its_entry(tmp_path: Path) -> None:
    asked, file = configured(
        tmp_path, "models: [{name: m, paths: [ml/**], dataset: a/b/e.npz, source: {coreml: m.mlpackage}}]"
    )
    found = {path: prepare.concerned(asked, file, tmp_path, frozenset({path})) for path in ("a", "a/b", "a/c", "a/bc")}
    assert found == {"a": ("m",), "a/b": ("m",), "a/c": (), "a/bc": ()}


def test_an_entry_without_paths_is_concerned_by_everything(tmp_path: Path) -> None:
    asked, file = configured(tmp_path, "models: [{name: m, source: {coreml: m.mlpackage}}]")
    assert prepare.concerned(asked, file, tmp_path, frozenset({"README.md"})) == ("m",)
    assert prepare.concerned(asked, file, tmp_path, frozenset()) == ()


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("ml/**", "ml/a/b.py", True),
        ("ml/**", "mlx/a.py", False),
        ("**/*.py", "a.py", True),
        ("**/*.py", "x/y/a.py", True),
        ("**/*.py", "a.pyc", False),
        ("ml/*/model.py", "ml/a/model.py", True),
        ("ml/*/model.py", "ml/a/b/model.py", False),
        ("a?.py", "ab.py", True),
        ("a?.py", "a/.py", False),
        ("a.py", "aXpy", False),
        ("./ml/a.py", "ml/a.py", True),
        ("[ab].py", "[ab].py", True),
    ],
)
def test_globs(glob: str, path: str, expected: bool) -> None:
    assert prepare.matches(glob, path) is expected


# --- the export ----------------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.test")
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "ml").mkdir(parents=True)
    (folder / "ml" / "model.py").write_text("x = 1\n")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "in").symlink_to("ml/model.py")
    (folder / "out").symlink_to("../secret.txt")
    (folder / "ml" / "absolute").symlink_to("/etc/passwd")
    (folder / "ml" / "folder").symlink_to("/etc")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "x")
    (folder / "untracked.json").write_text("credentials of another action")
    return folder


def test_the_export_has_tracked_files_only_and_no_git_folder(checkout: Path, tmp_path: Path) -> None:
    prepare.export_checkout(checkout, tmp_path / "source")
    assert {p.relative_to(tmp_path / "source").as_posix() for p in (tmp_path / "source").rglob("*")} == {
        "ml", "ml/model.py", "in",
    }  # fmt: skip
    assert (tmp_path / "source" / "in").read_text() == "x = 1\n"


def test_links_that_lead_out_are_left_out_and_named(checkout: Path, tmp_path: Path) -> None:
    left_out = prepare.export_checkout(checkout, tmp_path / "source")
    assert sorted(left_out) == ["ml/absolute", "ml/folder", "out"]


def test_links_in_a_circle_are_left_out(checkout: Path, tmp_path: Path) -> None:
    (checkout / "circle").symlink_to("circle")
    git(checkout, "add", "circle")
    assert "circle" in prepare.export_checkout(checkout, tmp_path / "source")


def test_what_is_no_git_checkout_is_told(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(UsageError, match="expected a git checkout, as actions/checkout leaves it"):
        prepare.export_checkout(tmp_path / "plain", tmp_path / "source")


@pytest.mark.parametrize(
    ("key", "value", "refused"),
    [
        ("http.https://github.com/.extraheader", "AUTHORIZATION: basic abc", True),
        ("http.https://github.com/.extraheader", "X-Trace: 1", False),
        ("remote.origin.url", "https://x-access-token:abc@github.com/team/app", True),
        ("remote.origin.url", "https://github.com/team/app", False),
        ("remote.origin.url", "git@github.com:team/app.git", False),
        ("remote.origin.url", "ssh://git@github.com/team/app.git", False),
        ("url.https://abc@github.com/.insteadof", "https://github.com/", True),
        ("credential.https://github.com.helper", "store", True),
        ("user.email", "t@example.test", False),
    ],
)
def test_which_settings_are_credentials(checkout: Path, key: str, value: str, refused: bool) -> None:
    git(checkout, "config", key, value)
    if refused:
        with pytest.raises(UsageError, match="persist-credentials: false") as raised:
            prepare.refuse_credentials(checkout)
        assert "abc" not in str(raised.value)
    else:
        prepare.refuse_credentials(checkout)


# --- wheels --------------------------------------------------------------------------------------------------------

HASH = "--hash=sha256:" + "a" * 64


def locked(folder: Path, text: str) -> list[str]:
    (folder / "requirements.lock").write_text(text)
    return prepare.locked_requirements(folder / "requirements.lock")


def test_a_locked_file_as_pip_compile_writes_it_is_read(tmp_path: Path) -> None:
    text = f"# header\nnumpy==1.26.4 \\\n    {HASH} \\\n    {HASH}\n    # via torch\nfoo[bar]==1.0 ; python_version < '3.12' {HASH}\n\n"
    assert [line.split()[0] for line in locked(tmp_path, text)] == ["numpy==1.26.4", "foo[bar]==1.0"]


@pytest.mark.parametrize(
    "line",
    [
        "numpy==1.26.4",
        f"numpy>=1.26 {HASH}",
        "--no-binary :all:",
        "--index-url https://evil.test",
        "-r other.txt",
        "-e .",
        f"./local {HASH}",
        f"evil @ https://evil.test/evil.zip {HASH}",
        f"numpy==1.26.4 --config-settings=x=y {HASH}",
        f"numpy==1.26.4 {HASH} --no-binary=numpy",
    ],
)
def test_a_line_that_could_run_code_or_change_the_index_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match=r"requirements\.lock: logical line 2: found"):
        locked(tmp_path, f"# first\n{line}\n")


def make_wheel(folder: Path) -> Path:
    wheel = folder / "tiny-1.0-py3-none-any.whl"
    metadata = {"METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n", "RECORD": ""}
    metadata["WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "value = 1\n")
        for name, text in metadata.items():
            archive.writestr(f"tiny-1.0.dist-info/{name}", text)
    return wheel


def make_source_distribution(folder: Path, trace: Path) -> Path:
    built = folder / "tiny-1.0.tar.gz"
    (folder / "setup.py").write_text(f"open({str(trace)!r}, 'w').write('ran')\n")
    with tarfile.open(built, "w:gz") as archive:
        archive.add(folder / "setup.py", "tiny-1.0/setup.py")
    return built


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def install(file: Path, folder: Path, digest: str | None = None) -> Path:
    digest = digest or hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "requirements.lock").write_text(f"tiny==1.0 --hash=sha256:{digest}\n")
    prepare.install_wheels(folder / "requirements.lock", folder / "site")
    return folder / "site"


def test_a_wheel_with_its_digest_is_installed_beside_the_source(index: Path, tmp_path: Path) -> None:
    assert (install(make_wheel(index), tmp_path) / "tiny.py").read_text() == "value = 1\n"


def test_a_wheel_with_another_digest_is_refused(index: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="DO NOT MATCH THE HASHES"):
        install(make_wheel(index), tmp_path, "0" * 64)


def test_a_source_distribution_is_refused_and_its_build_does_not_run(index: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No matching distribution"):
        install(make_source_distribution(index, tmp_path / "trace"), tmp_path)
    assert not (tmp_path / "trace").exists()


# --- files by digest -----------------------------------------------------------------------------------------------


class Server(requests.Session):
    """Answers every GET with the same bytes, perhaps from elsewhere."""

    def __init__(self, content: bytes, *, status: int = 200, final_url: str = "") -> None:
        super().__init__()
        self.content, self.status, self.final_url = content, status, final_url

    def get(self, url: str | bytes, **_: Any) -> requests.Response:
        response = requests.Response()
        response.status_code, response.raw, response.url = (
            self.status,
            io.BytesIO(self.content),
            self.final_url or str(url),
        )
        return response


def fetched(folder: Path, server: Server, to: str = "w/tagger.bin") -> Path:
    digest = hashlib.sha256(FETCHED).hexdigest()
    text = f"setup: {{fetch: [{{url: 'https://x.test/w', sha256: {digest}, to: {to}}}]}}\n"
    asked, _ = configured(folder, text + "models: [{name: m, source: {coreml: m.mlpackage}}]")
    prepare.bring(asked, folder / "site", server)
    return folder / to


def test_a_file_with_the_expected_digest_is_kept(tmp_path: Path) -> None:
    assert fetched(tmp_path, Server(FETCHED)).read_bytes() == FETCHED


@pytest.mark.parametrize(
    ("server", "error", "message"),
    [
        pytest.param(Server(b"other"), UsageError, "expected .*; nothing was kept", id="other-bytes"),
        pytest.param(Server(b"", status=404), NoAnswer, "could not be fetched", id="not-found"),
        pytest.param(Server(FETCHED, final_url="http://x.test/w"), UsageError, "expected https", id="plain-http"),
    ],
)
def test_a_file_that_is_not_what_was_said_is_not_kept(
    tmp_path: Path, server: Server, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fetched(tmp_path, server)
    assert list((tmp_path / "w").iterdir()) == []


@pytest.mark.parametrize("to", ["../evil", "/tmp/evil", "link/evil"])
def test_a_target_outside_of_the_checkout_is_refused(tmp_path: Path, to: str) -> None:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="leads out of checkout/"):
        fetched(folder, Server(FETCHED), to)
