# SPDX-License-Identifier: Apache-2.0
"""Files: written whole or not at all; pointers are told from files."""

import pytest

from gate import files


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "report.json"
    files.write_text(path, "one")
    files.write_text(path, "two")

    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    files.write_text(path, "old")

    class Interrupted(files.Path):
        def replace(self, target):
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "Path", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(path, "new")

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_git_lfs_pointer_is_recognised(tmp_path):
    pointer = tmp_path / "weight.bin"
    pointer.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    real = tmp_path / "real.bin"
    real.write_bytes(b"\x00" * 2000)

    assert files.is_lfs_pointer(pointer)
    assert not files.is_lfs_pointer(real)
    assert not files.is_lfs_pointer(tmp_path / "missing")


@pytest.mark.parametrize("folder", ["policies", "templates", "workflows"])
def test_what_ships_is_found_in_a_checkout(folder):
    assert any(files.shipped(folder).iterdir())
