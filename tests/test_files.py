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


def test_a_write_that_fails_leaves_nothing_behind(tmp_path):
    taken = tmp_path / "report.json"
    taken.mkdir()
    with pytest.raises(OSError, match="directory"):
        files.write_text(taken, "new")

    assert list(tmp_path.iterdir()) == [taken]


def test_a_git_lfs_pointer_is_recognised(tmp_path):
    pointer = tmp_path / "weight.bin"
    pointer.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    real = tmp_path / "real.bin"
    real.write_bytes(b"\x00" * 2000)

    assert files.is_lfs_pointer(pointer)
    assert not files.is_lfs_pointer(real)
    assert not files.is_lfs_pointer(tmp_path / "missing")


def test_a_problem_names_its_place_once(tmp_path):
    package = tmp_path / "M.mlpackage"

    assert files.located(package, ValueError("no program")) == f"{package}: no program"
    assert files.located(package, ValueError(f"{package}/Data: damaged")) == f"{package}/Data: damaged"


@pytest.mark.parametrize("folder", ["policies", "templates", "workflows"])
def test_what_ships_is_found_in_a_checkout(folder):
    assert any(files.shipped(folder).iterdir())
