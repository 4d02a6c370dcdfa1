# SPDX-License-Identifier: Apache-2.0
"""Does a link, or a file that a data set names, lead a pull request around the base branch's limits?"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gate import lfs
from gate.action import trust
from gate.action.handover import LimitsOf
from gate.errors import NoAnswer, UsageError
from gate.github import Client, Event, PullRequest

sys.path.insert(0, str(Path(__file__).parent))
from fake_github import FakeGitHub
from runner import commit, make_checkout

GATE = "version: 1\nmodels:\n  - {name: tagger, source: {factory: 'ml/model.py:build'}, %s}\n"
DATA = GATE % "dataset: data/eval.npz"
ITEMS = '{"x": "img/1.png", "label": "ml", "id": "README.md"}\n'
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 9\n" % ("0" * 64)


class Storage(lfs.Server):
    """A Git LFS that keeps one file."""

    def fetch(self, pointers) -> None:
        for pointer in pointers:
            pointer.path.write_text(ITEMS)


@pytest.fixture
def fake() -> Iterator[FakeGitHub]:
    with FakeGitHub() as fake:
        yield fake


def stand(
    folder: Path,
    fake: FakeGitHub,
    base: Mapping[str, str],
    head: Mapping[str, str],
    changed: set[str] | None,
    links: Mapping[str, str] | None = None,
    config: str = "gate.yml",
) -> tuple[LimitsOf, dict[str, str]]:
    """Whose limits count for a pull request, and what the copy with base's files holds."""
    fake.contents = {name: text.encode() for name, text in base.items()}
    root = make_checkout(folder / "app", {"ml/model.py": "new", **head})
    for name, target in (links or {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(target)
    (root / "count.txt").touch()
    event = Event("pull_request", "team/app", PullRequest.read(fake.add_pull(7, commit(root, "second"))))
    client, known = Client("", fake.api_url), None if changed is None else frozenset(changed)
    file = trust.configuration(event, root, config)
    found = trust.standing(client, Storage(""), event, root, file, known)
    if found.limits is LimitsOf.BOTH:
        trust.lay_out_base(client, Storage(""), event, found, root, folder / "base", file)
    held = (path for path in (folder / "base").rglob("*") if path.is_file())
    return found.limits, {path.relative_to(folder / "base").as_posix(): path.read_text() for path in held}


# --- links ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", [{"gate.yml": "lax.yml"}, {"ci": "lax"}], ids=["file", "folder"])
def test_a_configuration_behind_a_link_is_refused(tmp_path: Path, fake: FakeGitHub, links: dict[str, str]) -> None:
    config = "ci/gate.yml" if "ci" in links else "gate.yml"
    head = {"lax.yml": DATA, "lax/gate.yml": DATA}
    with pytest.raises(UsageError, match=r"a link leads from it to lax"):
        stand(tmp_path, fake, {config: DATA}, head, {"lax.yml", *links}, links, config)


def test_a_configuration_behind_a_link_is_read_where_no_pull_request_is_judged(tmp_path: Path) -> None:
    (tmp_path / "lax.yml").write_text(DATA)
    (tmp_path / "gate.yml").symlink_to("lax.yml")
    assert trust.configuration(Event("push", "team/app"), tmp_path, "gate.yml") == tmp_path / "lax.yml"


def test_a_folder_that_became_a_link_is_bases_folder_in_the_copy(tmp_path: Path, fake: FakeGitHub) -> None:
    base = {"gate.yml": DATA, "data/eval.npz": "hard", "easy/eval.npz": "easy"}
    head = {"gate.yml": DATA, "easy/eval.npz": "easy"}
    counts, held = stand(tmp_path, fake, base, head, {"data", "data/eval.npz"}, {"data": "easy"})
    assert (counts, held["data/eval.npz"], held["easy/eval.npz"]) == (LimitsOf.BOTH, "hard", "easy")


@pytest.mark.parametrize(
    ("links", "changed"),
    [
        ({"data": "pool"}, "pool/eval.npz"),
        ({"data": "far", "far": "pool"}, "pool/eval.npz"),
        ({"data/eval.npz": "../near.npz", "near.npz": "pool/eval.npz"}, "pool/eval.npz"),
        ({"data/eval.npz": "../pool/eval.npz"}, "pool/eval.npz"),
    ],
    ids=["folder", "two folders", "two files", "file"],
)
def test_what_lies_behind_a_link_holds_limits(
    tmp_path: Path, fake: FakeGitHub, links: dict[str, str], changed: str
) -> None:
    head = {"gate.yml": DATA, "pool/eval.npz": "easy"}
    counts, held = stand(tmp_path, fake, {**head, "pool/eval.npz": "hard"}, head, {changed}, links)
    assert (counts, held[changed]) == (LimitsOf.BOTH, "hard")


def test_a_link_in_the_middle_that_leads_elsewhere_is_bases_file_in_the_copy(tmp_path: Path, fake: FakeGitHub) -> None:
    head = {"gate.yml": DATA, "easy.npz": "easy", "hard.npz": "hard"}
    links = {"data/eval.npz": "../middle.npz", "middle.npz": "easy.npz"}
    base = {**head, "middle.npz": "hard"}  # GitHub follows a link to a file
    counts, held = stand(tmp_path, fake, base, head, {"middle.npz"}, links)
    assert (counts, held["data/eval.npz"], held["easy.npz"]) == (LimitsOf.BOTH, "hard", "easy")


def test_a_link_to_a_folder_that_leads_elsewhere_has_no_answer(tmp_path: Path, fake: FakeGitHub) -> None:
    """What it led to on the base branch cannot be laid out, and an absent folder of images would be a smaller data set."""
    fake.links = {"data"}
    head = {"gate.yml": DATA, "easy/eval.npz": "easy", "hard/eval.npz": "hard"}
    with pytest.raises(NoAnswer, match="data: .* has a symlink there"):
        stand(tmp_path, fake, head, head, {"data"}, {"data": "easy"})


def test_links_within_a_folder_of_images_are_followed(tmp_path: Path, fake: FakeGitHub) -> None:
    head = {"gate.yml": GATE % "dataset: {images: img}", "img/dog/1.png": "dog", "pool/1.png": "easy"}
    base = {**head, "pool/1.png": "hard"}
    counts, held = stand(tmp_path, fake, base, head, {"pool/1.png"}, {"img/cat": "../pool", "img/again": "../img"})
    assert (counts, held["pool/1.png"]) == (LimitsOf.BOTH, "hard")


def test_a_file_that_became_a_folder_and_one_that_was_one_are_bases(tmp_path: Path, fake: FakeGitHub) -> None:
    gate = GATE % "dataset: eval.npz, reference: {package: net.mlpackage, kind: base}"
    base = {"gate.yml": gate, "eval.npz": "hard", "net.mlpackage/weights": "old"}
    head = {"gate.yml": gate, "eval.npz/x": "easy", "net.mlpackage": "new"}
    changed = {"eval.npz", "eval.npz/x", "net.mlpackage", "net.mlpackage/weights"}
    counts, held = stand(tmp_path, fake, base, head, changed)
    assert (counts, held["eval.npz"], held["net.mlpackage/weights"]) == (LimitsOf.BOTH, "hard", "old")


def test_names_with_dots_and_of_the_whole_repository_are_found(tmp_path: Path, fake: FakeGitHub) -> None:
    gate = GATE % "dataset: ../data/./eval.npz"
    base = {"ci/gate.yml": gate, "data/eval.npz": "hard"}
    head = {**base, "data/eval.npz": "easy"}
    assert (
        stand(tmp_path / "a", fake, base, head, {"data/eval.npz"}, config="ci/gate.yml")[1]["data/eval.npz"] == "hard"
    )
    head = {"gate.yml": GATE % "dataset: {images: .}", "cat/1.png": "easy"}
    assert stand(tmp_path / "b", fake, head, head, {"cat/1.png"})[0] is LimitsOf.BOTH


def test_a_name_that_differs_in_case_alone_is_the_same_file_on_a_mac(tmp_path: Path, fake: FakeGitHub) -> None:
    base = {"gate.yml": DATA, "data/eval.npz": "hard"}
    assert stand(tmp_path, fake, base, {**base, "Data/Eval.npz": "easy"}, {"Data/Eval.npz"})[0] is LimitsOf.BOTH


def test_a_link_out_of_the_repository_is_bases_file_in_the_copy(tmp_path: Path, fake: FakeGitHub) -> None:
    base = {"gate.yml": DATA, "data/eval.npz": "hard"}
    links = {"data/eval.npz": "/etc/hostname"}
    counts, held = stand(tmp_path, fake, base, {"gate.yml": DATA}, {"data/eval.npz"}, links)
    assert (counts, held["data/eval.npz"]) == (LimitsOf.BOTH, "hard")


@pytest.mark.parametrize("links", [{"gate.yml": "gate.yml"}, {"gate.yml": "../out.yml"}], ids=["circle", "out"])
def test_a_configuration_that_no_link_leads_to_is_told(tmp_path: Path, fake: FakeGitHub, links: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="leads out of app/"):
        stand(tmp_path, fake, {"gate.yml": DATA}, {}, {"gate.yml"}, links)


def test_links_in_a_circle_are_told(tmp_path: Path, fake: FakeGitHub) -> None:
    with pytest.raises(UsageError, match="more than 40 links"):
        stand(tmp_path, fake, {"gate.yml": DATA}, {"gate.yml": DATA}, {"data"}, {"data": "data"})


def test_behind_links_nothing_is_judged_when_nobody_knows_what_changed(tmp_path: Path, fake: FakeGitHub) -> None:
    head = {"gate.yml": DATA, "easy/eval.npz": "easy"}
    with pytest.raises(NoAnswer, match="this folder or link"):
        stand(tmp_path, fake, {**head, "data/eval.npz": "hard"}, head, None, {"data": "easy"})


# --- files that a file of data names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "named"),
    [(ITEMS, "data/img/1.png"), ('{"x": "../1.png"}', "1.png"), ('{"x": "a"}\r{"x": "é.png"}', "data/é.png")],
    ids=["below", "beside", "old line ends"],
)
def test_images_that_items_name_are_bases(tmp_path: Path, fake: FakeGitHub, items: str, named: str) -> None:
    head = {"gate.yml": GATE % "dataset: data/items.jsonl", "data/items.jsonl": items, named: "easy"}
    counts, held = stand(tmp_path, fake, {**head, named: "hard"}, head, {named, "ml/model.py"})
    assert (counts, held[named], held["ml/model.py"]) == (LimitsOf.BOTH, "hard", "new")


def test_ids_and_labels_of_items_name_no_files(tmp_path: Path, fake: FakeGitHub) -> None:
    head = {"gate.yml": GATE % "dataset: items.jsonl", "items.jsonl": ITEMS, "README.md": "new"}
    assert stand(tmp_path, fake, head, head, {"ml/model.py", "README.md"})[0] is LimitsOf.BASE
    assert fake.requests("contents") == 0


@pytest.mark.parametrize("folder", ["data", "link"])
def test_images_that_only_bases_items_name_are_bases(tmp_path: Path, fake: FakeGitHub, folder: str) -> None:
    """The pull request takes the hard image out of its own items, and exchanges it."""
    gate, items = GATE % f"dataset: {folder}/items.jsonl", "data/items.jsonl"
    base = {"gate.yml": gate, items: '{"x": "hard.png"}', "data/hard.png": "hard"}
    head = {"gate.yml": gate, items: '{"x": "other.png"}', "data/hard.png": "easy", "data/other.png": "easy"}
    counts, held = stand(tmp_path, fake, base, head, {items, "data/hard.png", "data/other.png"}, {"link": "data"})
    assert (counts, held["data/hard.png"], held[items]) == (LimitsOf.BOTH, "hard", base[items])
    assert "data/other.png" not in held


def test_items_in_git_lfs_are_fetched_to_be_read(tmp_path: Path, fake: FakeGitHub) -> None:
    head = {"gate.yml": GATE % "dataset: items.jsonl", "items.jsonl": POINTER, "img/1.png": "easy"}
    counts, held = stand(tmp_path, fake, {**head, "img/1.png": "hard"}, head, {"img/1.png"})
    assert (counts, held["img/1.png"]) == (LimitsOf.BOTH, "hard")
    assert (tmp_path / "app" / "items.jsonl").read_text() == POINTER


@pytest.mark.parametrize("name", ["x" * 5_000, "\\u0000", "\\ud800", "/etc/hostname", "../../x"])
def test_names_that_no_file_of_the_repository_has_are_passed_over(tmp_path: Path, fake: FakeGitHub, name: str) -> None:
    items = '{"x": "%s"}\nno json\n%s\n{"x": "img/1.png"}' % (name, "[" * 100_000)  # noqa: UP031
    head = {"gate.yml": GATE % "dataset: items.jsonl", "items.jsonl": items, "img/1.png": "easy"}
    assert stand(tmp_path, fake, {**head, "img/1.png": "hard"}, head, {"img/1.png"})[1]["img/1.png"] == "hard"


def test_weights_beside_an_onnx_twin_are_bases(tmp_path: Path, fake: FakeGitHub) -> None:
    head = {"gate.yml": GATE % "reference: {onnx: twin.onnx}", "twin.onnx": "x", "twin.onnx.data": "new"}
    counts, held = stand(tmp_path, fake, {**head, "twin.onnx.data": "old"}, head, {"twin.onnx.data"})
    assert (counts, held["twin.onnx.data"]) == (LimitsOf.BOTH, "old")


def test_a_file_of_base_of_more_than_a_megabyte_is_laid_out(tmp_path: Path, fake: FakeGitHub) -> None:
    head = {"gate.yml": DATA, "data/eval.npz": "easy"}
    counts, held = stand(tmp_path, fake, {**head, "data/eval.npz": "h" * 1_000_001}, head, {"data/eval.npz"})
    assert (counts, len(held["data/eval.npz"])) == (LimitsOf.BOTH, 1_000_001)
