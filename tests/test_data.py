# SPDX-License-Identifier: Apache-2.0
"""Items in every form, what is refused, and parts that never overlap."""

import contextlib
import io
import json
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

from gate import data
from gate.config import ImageFolder, Input, Splits
from gate.data import Part
from gate.errors import Exit, UsageError

IMAGE = Input(name="image", image=(8, 10))


def write(folder, name="eval.npz", **arrays):
    np.savez(folder / name, **arrays)
    return data.load(name, folder)


def numbers(n=6):
    return np.arange(n * 3, dtype=np.float32).reshape(n, 3)


# --- .npz --------------------------------------------------------------------------------------------------------------


def test_an_npz_brings_inputs_labels_and_what_tells_items_apart(tmp_path):
    made = write(
        tmp_path,
        x=numbers(),
        y=np.arange(6, dtype=np.int32),
        label=np.array([0, 1, 0, 1, 0, 1]),
        id=np.array(list("abcdef")),
        slice=np.array(["day"] * 3 + ["night"] * 3),
        cluster=np.array([1, 1, 2, 2, 3, 3]),
    )
    assert (len(made), sorted(made.inputs), made.ids) == (6, ["x", "y"], tuple("abcdef"))
    assert made.slices == ("day",) * 3 + ("night",) * 3
    assert made.clusters == ("1", "1", "2", "2", "3", "3")
    batch = made.batch(np.array([4, 1]))
    assert batch.ids == ("e", "b")
    assert batch.labels.tolist() == [0, 1]
    assert batch.inputs["x"].tolist() == [[12, 13, 14], [3, 4, 5]]


def test_items_without_ids_are_numbered(tmp_path):
    made = write(tmp_path, x=numbers(3))
    assert made.ids == ("0", "1", "2")
    assert made.labels is None


def test_a_subset_keeps_order_and_has_its_own_digest(tmp_path):
    made = write(tmp_path, x=numbers(), label=np.arange(6))
    part = made.subset(np.array([5, 2]))
    assert part.ids == ("5", "2")
    assert part.batch(np.array([1])).inputs["x"].tolist() == [[6, 7, 8]]
    assert part.digest != made.digest


def test_a_large_stored_array_is_mapped_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "_CHUNK_BYTES", 16)
    made = write(tmp_path, x=numbers(), label=np.arange(6))
    assert isinstance(made.inputs["x"], np.memmap)
    assert np.array_equal(made.batch(np.arange(6)).inputs["x"], numbers())


def test_a_compressed_file_holds_the_same_data(tmp_path):
    plain = write(tmp_path, x=numbers(), label=np.arange(6))
    np.savez_compressed(tmp_path / "c.npz", x=numbers(), label=np.arange(6))
    assert data.load("c.npz", tmp_path).digest == plain.digest


@pytest.mark.parametrize(
    "changed",
    [
        {"x": numbers() + 1},
        {"label": np.arange(6)[::-1]},
        {"id": np.array(list("abcdef"))},
        {"x": numbers().astype("f8")},
    ],
)
def test_the_digest_follows_every_value(tmp_path, changed):
    before = {"x": numbers(), "label": np.arange(6)}
    assert write(tmp_path, **before).digest == write(tmp_path, "again.npz", **before).digest
    assert write(tmp_path, **before).digest != write(tmp_path, "other.npz", **{**before, **changed}).digest


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"x": numbers(0)}, "no items"),
        ({"label": np.arange(3)}, "found only label, expected an array per model input"),
        ({"x": numbers(6), "label": np.arange(5)}, "unequal numbers of items: label 5, x 6"),
        ({"x": np.float32(1)}, "x is a single number"),
        ({"x": np.where(numbers() == 7, np.nan, numbers())}, "x of item 2 is NaN or infinite"),
        ({"x": np.where(numbers() == 16, np.inf, numbers())}, "x of item 5 is NaN or infinite"),
        ({"x": numbers(), "label": np.array([0, 1, np.nan, 0, 1, 0])}, "label of item 2 is NaN"),
        ({"x": numbers(3), "id": np.array(["a", "b", "a"])}, "id 'a' appears twice, as items 0 and 2"),
        ({"x": np.array([1, "a"], dtype=object)}, "x is an object array"),
        ({"x": np.array(["a", "b"])}, "x is text"),
        ({"x": np.array([1j, 2j])}, "x has type complex128"),
        ({"x": numbers(2), "split": np.array(["search", "train"])}, "split: found 'train'"),
        (
            {"x": numbers(2), "split": np.array(["search", "confirm"]), "cluster": np.array([1, 1])},
            "cluster '1' is in both search and confirm",
        ),
    ],
)
def test_wrong_arrays_are_told_and_are_the_users_to_mend(tmp_path, arrays, told):
    with pytest.raises(UsageError, match=told) as raised:
        write(tmp_path, **arrays)
    assert raised.value.exit_code is Exit.USAGE
    assert "eval.npz" in str(raised.value)


def _pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _claiming(path):
    """200 billion numbers in the header, none behind it."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (400, 500_000_000)})
    zipfile.ZipFile(path, "w").writestr("x.npy", header.getvalue())


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "no such file"),
        (_claiming, r"x: its header says float32 \[400, 500000000\], 800 GB, but the file holds 128 B of it"),
        (lambda path: path.write_bytes(b"PK\x03\x04 not a zip"), "not a readable .npz"),
        (_pointer, "Git LFS pointer"),
        (lambda path: zipfile.ZipFile(path, "w").writestr("x.npy", b"nonsense"), "x: not a readable array"),
        (lambda path: zipfile.ZipFile(path, "w").writestr("x.txt", b"nonsense"), "found x.txt, expected only arrays"),
    ],
)
def test_wrong_files_are_told(tmp_path, make, told):
    make(tmp_path / "eval.npz")
    with pytest.raises(UsageError, match=told):
        data.load("eval.npz", tmp_path)


def test_an_unknown_form_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"expected a \.npz or \.jsonl file"):
        data.load("eval.csv", tmp_path)


def test_the_workers_items_go_by_the_functions_name(tmp_path):
    np.savez(tmp_path / "items.npz", x=numbers(), label=np.arange(6))
    made = data.load("eval.py:items", tmp_path, items=tmp_path / "items.npz")
    assert made.where == "eval.py:items"


# --- JSON lines --------------------------------------------------------------------------------------------------------


def lines(folder, *records, name="items.jsonl"):
    (folder / name).write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records))
    return folder / name


def test_json_lines_bring_numbers_and_labels(tmp_path):
    lines(
        tmp_path,
        {"x": [1.5, 2], "t": 3, "label": "cat", "id": "a"},
        "",
        {"x": [3, 4], "t": 4, "label": "dog", "id": "b"},
    )
    made = data.load("items.jsonl", tmp_path)
    batch = made.batch(np.arange(2))
    assert batch.labels.tolist() == ["cat", "dog"]
    assert (batch.inputs["x"].dtype, batch.inputs["t"].dtype) == (np.float32, np.int32)
    assert made.ids == ("a", "b")


def test_labels_of_unequal_length_are_filled_up(tmp_path):
    lines(
        tmp_path, {"x": 1, "label": [[0, 1, 2, 3, 4]]}, {"x": 2, "label": []}, {"x": 2, "label": [[1, 1, 1, 1, 1]] * 2}
    )
    labels = data.load("items.jsonl", tmp_path).labels
    assert labels.shape == (3, 2, 5)
    assert labels[1].tolist() == [[-1] * 5] * 2


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ([], "no items"),
        (["{"], "items.jsonl:1: not JSON"),
        (["[1]"], "items.jsonl:1: found list, expected an object"),
        ([{"x": 1}, {"y": 1}], r"items.jsonl:2: found keys \['y'\], expected \['x'\]"),
        ([{"x": [1]}, {"x": [1, 2]}], "x: items have unequal shapes"),
        ([{"x": "a"}], "x: found <U1, expected numbers"),
        ([{"x": 1, "label": None}], "label"),
        (['{"x": NaN}'], "x of item 0 is NaN"),
        ([{"x": 1, "id": 1}, {"x": 1, "id": 1}], "id '1' appears twice"),
    ],
)
def test_wrong_lines_are_told(tmp_path, records, told):
    lines(tmp_path, *records)
    with pytest.raises(UsageError, match=told):
        data.load("items.jsonl", tmp_path)


# --- images ------------------------------------------------------------------------------------------------------------


def picture(path, colour, size=(20, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_subfolders_are_labels(tmp_path):
    picture(tmp_path / "eval/cat/1.png", (255, 0, 0))
    picture(tmp_path / "eval/dog/1.png", (0, 0, 255))
    made = data.load(ImageFolder(images="eval"), tmp_path, (IMAGE,))
    batch = made.batch(np.arange(2))
    assert made.ids == ("cat/1.png", "dog/1.png")
    assert batch.labels.tolist() == ["cat", "dog"]
    assert batch.inputs["image"].shape == (2, 8, 10, 3)
    assert batch.inputs["image"][:, 0, 0].tolist() == [[255, 0, 0], [0, 0, 255]]


def test_a_table_brings_labels_slices_and_numbers(tmp_path):
    for name in ("a.png", "b.png"):
        picture(tmp_path / "eval" / name, (9, 9, 9))
    (tmp_path / "eval.csv").write_text("file,label,slice\nb.png,3,night\na.png,1,day\n")
    made = data.load(ImageFolder(images="eval", labels="eval.csv"), tmp_path, (IMAGE,))
    assert made.labels.tolist() == [3, 1]
    assert made.slices == ("night", "day")


def test_grey_images_have_no_channel_axis(tmp_path):
    picture(tmp_path / "eval/0/1.png", (10, 10, 10))
    grey = Input(name="image", image=(8, 10), color="GRAYSCALE")
    made = data.load(ImageFolder(images="eval"), tmp_path, (grey,))
    assert made.batch(np.array([0])).inputs["image"].shape == (1, 8, 10)


def test_images_can_be_named_in_json_lines(tmp_path):
    picture(tmp_path / "a.png", (1, 2, 3))
    lines(tmp_path, {"image": "a.png", "label": 0})
    made = data.load("items.jsonl", tmp_path, (IMAGE,))
    assert made.batch(np.array([0])).inputs["image"][0, 0, 0].tolist() == [1, 2, 3]


def test_text_alone_names_an_image_in_json_lines(tmp_path):
    """Else base's numbers would be read as files of a pull request that declares the input as an image."""
    picture(tmp_path / "a.png", (1, 2, 3))
    (tmp_path / "a.png").rename(tmp_path / "[1]")
    lines(tmp_path, {"image": [1], "label": 0})
    with pytest.raises(UsageError, match=r"image: found \[1\], expected the path of an image"):
        data.load("items.jsonl", tmp_path, (IMAGE,))


def test_the_digest_follows_the_pixels(tmp_path):
    picture(tmp_path / "eval/0/1.png", (10, 10, 10))
    before = data.load(ImageFolder(images="eval"), tmp_path, (IMAGE,)).digest
    picture(tmp_path / "eval/0/1.png", (11, 10, 10))
    assert data.load(ImageFolder(images="eval"), tmp_path, (IMAGE,)).digest != before


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("name,label\na.png,1\n", "found columns"),
        ("file,label,colour\na.png,1,red\n", "found columns"),
        ("file,label\na.png,\n", "eval.csv:2: a value is missing"),
        ("file,label\n../../etc/passwd,1\n", "lies outside the folder"),
        ("file,label\nmissing.png,1\n", "missing.png: no such file"),
        ("file,label\n", "no items"),
    ],
)
def test_a_wrong_table_is_told(tmp_path, table, told):
    picture(tmp_path / "eval/a.png", (0, 0, 0))
    (tmp_path / "eval.csv").write_text(table)
    with pytest.raises(UsageError, match=told):
        data.load(ImageFolder(images="eval", labels="eval.csv"), tmp_path, (IMAGE,))


def test_images_need_labels_an_image_input_and_a_folder(tmp_path):
    picture(tmp_path / "eval/a.png", (0, 0, 0))
    with pytest.raises(UsageError, match="images without labels"):
        data.load(ImageFolder(images="eval"), tmp_path, (IMAGE,))
    with pytest.raises(UsageError, match="declared as an image"):
        data.load(ImageFolder(images="eval"), tmp_path, (Input(name="x", shape=(1, 3, 8, 8)),))
    with pytest.raises(UsageError, match="no such folder"):
        data.load(ImageFolder(images="evil"), tmp_path, (IMAGE,))


def test_a_broken_image_is_told_when_it_is_read(tmp_path):
    (tmp_path / "eval/0").mkdir(parents=True)
    (tmp_path / "eval/0/broken.png").write_bytes(b"not a picture")
    made = data.load(ImageFolder(images="eval"), tmp_path, (IMAGE,))
    with pytest.raises(UsageError, match=r"broken\.png: not a readable image"):
        made.batch(np.array([0]))


# --- against the model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", [{"x": (1, 3)}, {"x": (3,)}, {"x": (1, None)}, {"x": (None, 3)}, {"x": None}])
def test_items_fit_with_or_without_the_leading_one(tmp_path, expected):
    data.check_inputs(write(tmp_path, x=numbers()), expected)


@pytest.mark.parametrize(
    ("expected", "told"),
    [
        ({"image": (3,)}, "no array for input image; found x, expected image"),
        ({"x": (1, 4)}, r"has shape \(3,\), the model takes \(1, 4\)"),
        ({"x": (2, 3)}, r"has shape \(3,\), the model takes \(2, 3\)"),
    ],
)
def test_items_that_do_not_fit_the_model_are_told(tmp_path, expected, told):
    made = write(tmp_path, x=numbers())
    for items in (made, made.subset(np.arange(2))):
        with pytest.raises(UsageError, match=told):
            data.check_inputs(items, expected)


# --- parts -------------------------------------------------------------------------------------------------------------


SPLITS = Splits.model_validate({"seed": 7, "calibrate": "20 %", "search": "40 %", "confirm": "40 %"})


def test_parts_share_no_item_and_leave_none_out(tmp_path):
    made = write(tmp_path, x=numbers(500))
    parts = data.split(made, SPLITS)
    together = np.sort(np.concatenate(list(parts.values())))
    assert together.tolist() == list(range(500))
    assert 70 < len(parts[Part.CALIBRATE]) < 130
    assert 160 < len(parts[Part.SEARCH]) < 240


def test_the_seed_decides_the_parts(tmp_path):
    made = write(tmp_path, x=numbers(100))
    again, other = data.split(made, SPLITS), data.split(made, SPLITS.model_copy(update={"seed": 8}))
    assert np.array_equal(data.split(made, SPLITS)[Part.SEARCH], again[Part.SEARCH])
    assert not np.array_equal(other[Part.SEARCH], again[Part.SEARCH])


def test_added_or_reordered_items_move_none(tmp_path):
    few = write(tmp_path, x=numbers(100), id=np.arange(100))
    more = write(tmp_path, "more.npz", x=numbers(200), id=np.arange(200)[::-1])
    for part in Part:
        before = {few.ids[i] for i in data.split(few, SPLITS)[part]}
        after = {more.ids[i] for i in data.split(more, SPLITS)[part]}
        assert before <= after


def test_clusters_stay_together(tmp_path):
    made = write(tmp_path, x=numbers(300), cluster=np.repeat(np.arange(60), 5))
    calibrate, search, confirm = ({made.clusters[i] for i in rows} for rows in data.split(made, SPLITS).values())
    assert len(calibrate) + len(search) + len(confirm) == 60


def test_parts_that_the_data_brings_are_kept(tmp_path):
    made = write(tmp_path, x=numbers(3), split=np.array(["search", "confirm", "calibrate"]))
    assert {part: rows.tolist() for part, rows in data.split(made, SPLITS).items()} == {
        Part.CALIBRATE: [2],
        Part.SEARCH: [0],
        Part.CONFIRM: [1],
    }


def test_by_default_every_item_certifies(tmp_path):
    made = write(tmp_path, x=numbers(50))
    assert len(data.split(made, Splits())[Part.CONFIRM]) == 50


def test_an_empty_part_that_was_asked_for_is_told(tmp_path):
    with pytest.raises(UsageError, match="items and gets none"):
        data.split(write(tmp_path, x=numbers(1)), SPLITS)


def test_items_that_appear_in_two_files_are_found(tmp_path):
    first = write(tmp_path, x=numbers(4), id=np.array(list("abcd")))
    second = write(tmp_path, "calibration.npz", x=numbers(4)[[3, 1]] * np.array([[1], [2]], np.float32))
    assert data.overlap(first, second) == ("d",)


@pytest.mark.parametrize(
    ("values", "dtype", "told"),
    [
        (
            numbers().astype(np.float64) * 1e300,
            np.float32,
            "x of item 0 is 1e+300; the model takes float32, which holds",
        ),
        (numbers() + 65_490, np.float16, "x of item 5 is 65505; the model takes float16, which holds -65504 to 65504"),
        (np.array([1, 2**31]), np.int32, "x of item 1 is 2.14748e+09; the model takes int32"),
        (numbers().astype(np.float64), np.float32, None),
        (np.array([1, 2**31]), np.float32, None),
    ],
)
def test_values_that_the_models_type_does_not_hold_are_refused(tmp_path, values, dtype, told):
    items = write(tmp_path, x=values)
    with pytest.raises(UsageError, match=re.escape(told)) if told else contextlib.nullcontext():
        data.check_values(items, "x", np.dtype(dtype))
