# SPDX-License-Identifier: Apache-2.0
"""Kept conversions: found again when nothing that decides differs, refused when anything of an entry was touched."""

import json
import os
import shutil
from pathlib import Path

import pytest

from gate import kept, worker
from gate.errors import UsageError
from gate.kept import Refused, shelf
from gate.pipeline import Options, check
from gate.protocol import ConversionAnswer, SourceMap, Verb
from gate.sandbox import Kind, kind_here
from gate.source import Source
from tests.project import TINY, Project
from tests.test_convert import open_worker

KEY = "0123456789abcdef-of-a-test"
ENTRY = "source: {factory: model.py:build, example: model.py:example}"
ASKED = {"route": "trace", "precision": "float32", "target": "iOS17", "keep_float32": []}
SAID = ConversionAnswer(package="package-1.mlpackage", source_map=SourceMap(ops={}))


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path)
    made.write("model.py", TINY)
    return made


def opened(project, *, secret=KEY, event=None, entry=ENTRY):
    loaded = project.config(entry)
    return shelf(project.folder.parent / "cache", secret, loaded.models[0], project.folder, event)


def package(folder: Path, content: bytes = b"weights") -> Path:
    """What stands for a package: nothing here looks inside."""
    (folder / "Data" / "weights").mkdir(parents=True)
    (folder / "Data" / "weights" / "weight.bin").write_bytes(content)
    (folder / "Manifest.json").write_bytes(b"{}")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_is_kept_comes_back_to_the_byte(project, tmp_path):
    ours, made = opened(project), package(tmp_path / "made")
    name = ours.name("c" * 64, ASKED)

    assert ours.take(name, tmp_path / "none") is None
    ours.put(name, made, SAID)

    assert ours.take(name, tmp_path / "back") == SAID
    assert content(tmp_path / "back") == content(made)
    assert ours.take(ours.name("d" * 64, ASKED), tmp_path / "other") is None


def replace_record(entry: Path, change) -> None:
    record = json.loads((entry / kept.RECORD).read_text())
    change(record)
    (entry / kept.RECORD).write_text(json.dumps(record))


def flip(entry: Path) -> None:
    file = entry / kept.PACKAGE / "Data" / "weights" / "weight.bin"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])


def flip_and_say_so(entry: Path) -> None:
    """A weight slightly changed, with the digest to match: all but the seal agrees."""
    flip(entry)
    files = [file.model_dump() for file in kept._files(entry / kept.PACKAGE)]
    replace_record(entry, lambda record: record.update(files=files))


def other_package(entry: Path) -> None:
    shutil.rmtree(entry / kept.PACKAGE)
    shutil.copytree(next(e for e in entry.parent.glob("[0-9a-f]*") if e != entry) / kept.PACKAGE, entry / kept.PACKAGE)


def other_entry(entry: Path) -> None:
    other = next(e for e in entry.parent.glob("[0-9a-f]*") if e != entry)
    shutil.rmtree(entry)
    shutil.copytree(other, entry)


def link(entry: Path) -> None:
    shutil.rmtree(entry / kept.PACKAGE)
    (entry / kept.PACKAGE).symlink_to("/etc")


def pipe(entry: Path) -> None:
    (entry / kept.RECORD).unlink()
    os.mkfifo(entry / kept.RECORD)


@pytest.mark.parametrize(
    ("tamper", "why"),
    [
        pytest.param(flip, "a file of it is not the one", id="a flipped byte"),
        pytest.param(flip_and_say_so, "its seal is not", id="a weight slightly changed, digests to match"),
        pytest.param(other_package, "a file of it is not the one", id="another model's package"),
        pytest.param(other_entry, "it is of another conversion", id="another model's entry, sealed as it is"),
        pytest.param(link, "cannot be read", id="a link"),
        pytest.param(pipe, "cannot be read", id="a pipe"),
        pytest.param(lambda e: (e / kept.SEAL).unlink(), "cannot be read", id="no seal"),
        pytest.param(lambda e: (e / kept.PACKAGE / "more").touch(), "a file of it is not", id="a file more"),
        pytest.param(lambda e: (e / kept.PACKAGE / "Manifest.json").unlink(), "a file of it is not", id="one less"),
        pytest.param(lambda e: (e / kept.SEAL).write_bytes(b"0" * 64), "its seal is not", id="a guessed seal"),
    ],
)
def test_what_was_touched_is_refused(project, tmp_path, tamper, why):
    ours = opened(project)
    name = ours.name("c" * 64, ASKED)
    ours.put(name, package(tmp_path / "made"), SAID)
    ours.put(ours.name("d" * 64, ASKED), package(tmp_path / "other", b"other!!"), SAID)
    tamper(ours.folder / name)

    with pytest.raises(Refused, match=why):
        ours.take(name, tmp_path / "back")
    assert not (tmp_path / "back").exists(), "nothing of it is left to be used by accident"


def test_a_seal_of_another_key_is_none(project, tmp_path):
    ours = opened(project)
    name = ours.name("c" * 64, ASKED)
    ours.put(name, package(tmp_path / "made"), SAID)

    with pytest.raises(Refused, match="seal"):
        opened(project, secret="another key, as long as it must be").take(name, tmp_path / "back")


def edited(project, name: str, text: str):
    project.write(name, text)
    return opened(project)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda p: edited(p, "model.py", TINY + "\n# words\n"), id="code"),
        pytest.param(lambda p: edited(p, "deep/down/loss.py", "x = 1\n"), id="code elsewhere"),
        pytest.param(lambda p: opened(p, entry=ENTRY + "\nkeep_float32: ['layers.0']"), id="what stays in float32"),
        pytest.param(lambda p: opened(p, entry=ENTRY + "\ninputs: [{name: x, shape: [1, 4]}]"), id="inputs"),
        pytest.param(lambda p: opened(p, entry=ENTRY.replace("build,", "build, args: {depth: 3},")), id="arguments"),
    ],
)
def test_another_configuration_or_code_is_another_conversion(project, change):
    assert opened(project).facts != change(project).facts


def test_budgets_policies_and_data_are_not_what_decides_a_conversion(project):
    more = ENTRY + "\nbudgets: {size: 1 MB}\nexplore: [int8]"
    (project.folder / "notes.md").write_text("words")
    assert opened(project).facts == opened(project, entry=more).facts


def test_another_tool_is_another_conversion(project, monkeypatch):
    before = opened(project)
    monkeypatch.setattr(kept, "tool_versions", lambda: {"coremltools": "10.0"})
    assert before.facts != opened(project).facts


@pytest.mark.parametrize("key", ASKED)
def test_another_request_is_another_conversion(project, key):
    ours = opened(project)
    other = ASKED | {key: "x"}
    assert ours.name("c" * 64, ASKED) != ours.name("c" * 64, other)


@pytest.mark.slow
def test_a_fingerprint_is_the_same_in_another_process_and_of_what_the_code_reads(project):
    """Code is digested apart; here are weights that come from a file, and the interface."""
    read = "torch.manual_seed(int(open('seed.txt').read()))"
    project.write("model.py", TINY.replace("torch.manual_seed(1)", read))

    def told(seed: str, more: str = "") -> list[str]:
        project.write("seed.txt", seed)
        with project.open(ENTRY + more) as source:
            return [source._ask(Verb.FINGERPRINT, route=route) for route in ("trace", "export")]

    first = told("1")
    assert None not in first
    assert told("1") == first
    assert not set(told("2")) & set(first), "weights"
    assert not set(told("1", "\ninputs: [{name: y, shape: [1, 4]}]")) & set(first), "interface"


def test_what_cannot_be_captured_has_no_fingerprint(project):
    unfit = TINY.replace("return torch.softmax(x, -1)", "return x[x > 0] if bool((x > 0).all()) else x")
    assert worker.fingerprint(open_worker(project, unfit, ENTRY), "export") is None


@pytest.mark.parametrize(
    ("event", "reads", "writes"),
    [
        pytest.param(None, True, True, id="a person's own machine"),
        pytest.param("pull_request", True, False, id="a pull request adds nothing"),
        pytest.param("push", False, True, id="what others build on is always converted"),
        pytest.param("merge_group", False, True, id="and so is what is about to be merged"),
    ],
)
def test_who_reads_and_who_writes(project, tmp_path, event, reads, writes):
    made, name = package(tmp_path / "made"), opened(project).name("c" * 64, ASKED)
    opened(project, event=event).put(name, made, SAID)
    assert (opened(project).take(name, tmp_path / "a") is not None) is writes
    opened(project).put(name, made, SAID)
    assert (opened(project, event=event).take(name, tmp_path / "b") is not None) is reads


def test_without_a_key_nothing_is_kept_and_a_short_one_is_refused(project):
    assert opened(project, secret=None) is None
    with pytest.raises(UsageError, match="GATE_CACHE_KEY: found 5 characters"):
        opened(project, secret="short")


def test_the_oldest_go(project, tmp_path):
    ours, made = opened(project), package(tmp_path / "made")
    for number in range(kept.MOST_ENTRIES + 3):
        name = ours.name(f"{number:064d}", ASKED)
        ours.put(name, made, SAID)
        os.utime(ours.folder / name, (number, number))
    names = [ours.name(f"{number:064d}", ASKED) for number in range(3)]
    assert len(list(ours.folder.iterdir())) == kept.MOST_ENTRIES
    assert not any((ours.folder / name).exists() for name in names)


@pytest.mark.skipif(kind_here() is Kind.PROCESS, reason="without namespaces their code could read the key")
def test_a_second_run_says_the_same_without_converting_and_a_touched_entry_is_converted_again(
    project, tmp_path, monkeypatch
):
    project.config(ENTRY + "\nbudgets: {size: 1 MB}")
    asked: list[str] = []
    ask = Source._ask

    def counted(self, verb, **arguments):
        asked.append(str(verb))
        return ask(self, verb, **arguments)

    monkeypatch.setattr(Source, "_ask", counted)

    def run(name: str, **more):
        asked.clear()
        options = Options(project.folder / "gate.yml", tmp_path / name, cache=tmp_path / "cache", cache_key=KEY, **more)
        report = check(options)
        said = [f for r in report.models[0].shipped.results for f in r.findings if f.rule == "convert.refused"]
        return report, content(tmp_path / name / "packages"), (tmp_path / name / "comment.md").read_text(), said

    cold, first, comment, _ = run("cold")
    assert asked.count("convert") == 2
    warm, second, again, said = run("warm", event="pull_request")
    assert asked.count("convert") == 0
    assert (second, again, said) == (first, comment, [])
    assert warm.models[0].shipped.results == cold.models[0].shipped.results

    for file in (tmp_path / "cache" / kept.FOLDER).rglob("weight.bin"):
        file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    touched, _, _, said = run("touched", event="pull_request")
    assert asked.count("convert") == 2
    assert len(said) == 2, "it is told, for either precision"
    assert touched.outcome is cold.outcome
    assert touched.models[0].shipped.package_digest == cold.models[0].shipped.package_digest
