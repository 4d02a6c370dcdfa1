# SPDX-License-Identifier: Apache-2.0
"""Files: written whole or not at all; pointers are told from files."""

import errno
import os
import shutil

import pytest

from gate import errors, files
from gate.errors import Exit


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


def failed(number, *names):
    return OSError(number, os.strerror(number), *names)


NO_SPACE = os.strerror(errno.ENOSPC)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        pytest.param(failed(errno.ENOSPC, "o.npz"), Exit.NO_ANSWER, "o.npz: the disk is full", id="full"),
        pytest.param(failed(errno.EDQUOT), Exit.NO_ANSWER, "Disk quota exceeded", id="quota"),
        pytest.param(failed(errno.ENOSPC, "a", None, "b"), Exit.NO_ANSWER, "b: the disk is full", id="copied"),
        pytest.param(shutil.Error([("a", "b", NO_SPACE)]), Exit.NO_ANSWER, NO_SPACE, id="tree"),
        pytest.param(failed(errno.EROFS, "o.npz"), Exit.USAGE, "o.npz: Read-only file system", id="read-only"),
        pytest.param(failed(errno.EACCES, "o.npz"), Exit.USAGE, "o.npz: Permission denied", id="permission"),
        pytest.param(failed(errno.ENOTDIR, "f/o.npz"), Exit.USAGE, "f/o.npz: Not a directory", id="below a file"),
    ],
)
def test_what_the_disk_refuses_has_a_place_and_an_exit_code(error, code, told):
    refused = errors.refused(error)

    assert refused is not None
    assert refused.exit_code is code
    assert told in str(refused)
    assert "another" in str(refused)


@pytest.mark.parametrize("error", [failed(errno.EIO, "a"), failed(errno.ENOENT, "a"), failed(errno.EACCES)])
def test_what_may_be_our_own_fault_is_not_excused(error):
    assert errors.refused(error) is None


def test_a_write_that_fails_names_the_file_that_was_asked_for(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/o\.npz"):
        files.write_text(tmp_path / "file" / "o.npz", "new")


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
