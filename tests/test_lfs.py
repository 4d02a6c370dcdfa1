# SPDX-License-Identifier: Apache-2.0
"""Do the files that gate.yml needs come from Git LFS, checked, and do the others stay away?"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gate import config, lfs, prepare
from gate.errors import NoAnswer, UsageError

GATE_YML = """
version: 1
models:
  - {name: tagger, paths: ['ml/**'], source: {coreml: App/Tagger.mlpackage}, dataset: eval.npz}
  - {name: other, paths: ['other/**'], source: {factory: 'other/model.py:f'}}
"""


class Store:
    """A server that speaks the Batch API and hands out objects."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.authorizations: list[str | None] = []
        store = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert (self.path, body["operation"]) == ("/team/app.git/info/lfs/objects/batch", "download")
                store.authorizations.append(self.headers.get("authorization"))
                store.asked += [item["oid"] for item in body["objects"]]
                found = [self.located(item) for item in body["objects"]]
                self.answer(json.dumps({"objects": found}).encode())

            def located(self, item: dict[str, object]) -> dict[str, object]:
                if item["oid"] not in store.objects:
                    return item | {"error": {"code": 404, "message": "no such object"}}
                href = f"{store.url}/objects/{item['oid']}"
                return item | {"actions": {"download": {"href": href, "header": {"X-Signed": "yes"}}}}

            def do_GET(self) -> None:
                store.authorizations.append(self.headers.get("authorization"))
                assert self.headers["X-Signed"] == "yes"
                self.answer(store.objects[self.path.rsplit("/", 1)[1]])

            def answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def pointer(self, path: Path, content: bytes, *, kept: bytes | None = None) -> str:
        """Write a pointer to `content`; the store holds `kept` under its name."""
        oid = hashlib.sha256(content).hexdigest()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n")
        self.objects[oid] = content if kept is None else kept
        return oid


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.server.shutdown()
    store.server.server_close()


def bring(root: Path, store: Store, *names: str) -> None:
    (root / "gate.yml").write_text(GATE_YML)
    asked = config.load(root / "gate.yml")
    entries = [entry for entry in asked.models if entry.name in names]

    def wanted(path: str) -> bool:
        return any(prepare.rests_on(asked, entry, root / "gate.yml", root, path) for entry in entries)

    lfs.Server(f"{store.url}/team/app", "secret").fetch(lfs.pointers(root, wanted))


def test_what_the_concerned_entries_need_is_fetched_and_nothing_else(tmp_path: Path, store: Store) -> None:
    for name in ("App/Tagger.mlpackage/Data/weight.bin", "eval.npz", "ml/w/tagger.safetensors"):
        store.pointer(tmp_path / name, name.encode())
    stays = [store.pointer(tmp_path / name, name.encode()) for name in ("other/w.bin", "video.mov")]
    bring(tmp_path, store, "tagger")
    assert (tmp_path / "eval.npz").read_bytes() == b"eval.npz"
    assert (tmp_path / "App/Tagger.mlpackage/Data/weight.bin").read_bytes().startswith(b"App/")
    assert (tmp_path / "ml/w/tagger.safetensors").read_bytes().startswith(b"ml/")
    assert not set(stays) & set(store.asked)
    assert (tmp_path / "video.mov").read_text().startswith("version https://git-lfs")


def test_the_token_goes_to_the_server_and_not_to_where_the_files_are(tmp_path: Path, store: Store) -> None:
    store.pointer(tmp_path / "eval.npz", b"data")
    bring(tmp_path, store, "tagger")
    assert store.authorizations == ["Basic " + base64.b64encode(b"x-access-token:secret").decode(), None]


@pytest.mark.parametrize("kept", [b"evil", b"data and more", b"dat"], ids=["other", "longer", "shorter"])
def test_what_is_not_what_the_pointer_says_is_not_kept(tmp_path: Path, store: Store, kept: bytes) -> None:
    store.pointer(tmp_path / "eval.npz", b"data", kept=kept)
    with pytest.raises(UsageError, match="not what the pointer says"):
        bring(tmp_path, store, "tagger")
    assert [path.name for path in tmp_path.iterdir() if path.name != "gate.yml"] == ["eval.npz"]
    assert (tmp_path / "eval.npz").read_text().startswith("version https://git-lfs")


def test_an_object_that_was_never_pushed_is_named(tmp_path: Path, store: Store) -> None:
    del store.objects[store.pointer(tmp_path / "eval.npz", b"data")]
    with pytest.raises(NoAnswer, match=r"eval.npz: Git LFS has no object"):
        bring(tmp_path, store, "tagger")


def test_more_than_a_run_may_need_is_refused_before_anything_is_asked(tmp_path: Path, store: Store) -> None:
    oid = "a" * 64
    (tmp_path / "eval.npz").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 9000000000\n"
    )
    with pytest.raises(UsageError, match="narrow `paths:`"):
        bring(tmp_path, store, "tagger")
    assert store.asked == []


def test_without_pointers_nobody_is_asked(tmp_path: Path, store: Store) -> None:
    (tmp_path / "eval.npz").write_bytes(b"data")
    bring(tmp_path, store, "tagger")
    assert store.asked == []
