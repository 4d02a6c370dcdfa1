# SPDX-License-Identifier: Apache-2.0
"""Which items is the model judged on, with which answers, and which of them may be used for what?

Items come as `.npz`, JSON lines or a folder of images; what a `path.py:function` yields, the worker writes as `.npz`. Each has an
id, perhaps a label, a slice (a part of the data to be told apart) and a cluster (items that share a source, so that they count
less than independent ones). What a metric makes of labels is not known here, only that they are whole and finite.

Everything wrong with the data is the user's to mend: UsageError, exit code 2, with the place and the item.
"""

import csv
import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gate.config import RESERVED, ImageFolder, Input, Splits
from gate.errors import UsageError
from gate.files import is_lfs_pointer, sha256_file
from gate.quantity import size

Array = npt.NDArray[Any]

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
NPY: Any = np.lib.format  # numpy ships no types for it
PADDING = -1  # fills up labels of unequal length, such as lists of boxes; no class is negative
_CHUNK_BYTES = 64_000_000


class Part(StrEnum):
    """What an item may be used for."""

    CALIBRATE = "calibrate"
    SEARCH = "search"
    CONFIRM = "confirm"


class Rows(Protocol):
    """Items of one input: an array, or something that reads items when they are asked for."""

    def __len__(self) -> int:
        """How many items."""
        ...

    def __getitem__(self, index: Array) -> Array:
        """The items at these positions."""
        ...


@dataclass(frozen=True, eq=False)
class Batch:
    """Some items, ready to be handed to a model."""

    index: Array
    ids: tuple[str, ...]
    inputs: dict[str, Array]
    labels: Array | None


@dataclass(frozen=True, eq=False)
class Dataset:
    """The items, in the order of the file; sequences are as long as there are items."""

    where: str
    inputs: Mapping[str, Rows]
    labels: Array | None
    ids: tuple[str, ...]
    slices: tuple[str, ...] | None
    clusters: tuple[str, ...] | None
    parts: tuple[str, ...] | None
    digest: str

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, index: Array) -> Batch:
        """Return the items at these positions."""
        labels = None if self.labels is None else self.labels[index]
        inputs = {name: np.asarray(rows[index]) for name, rows in self.inputs.items()}
        return Batch(index, tuple(self.ids[i] for i in index), inputs, labels)

    def subset(self, index: Array) -> "Dataset":
        """Return a data set of the items at these positions."""

        def chosen(values: Sequence[str] | None) -> tuple[str, ...] | None:
            return None if values is None else tuple(values[i] for i in index)

        ids = tuple(self.ids[i] for i in index)
        return Dataset(
            where=self.where,
            inputs={name: _Chosen(rows, index) for name, rows in self.inputs.items()},
            labels=None if self.labels is None else self.labels[index],
            ids=ids,
            slices=chosen(self.slices),
            clusters=chosen(self.clusters),
            parts=chosen(self.parts),
            digest=hashlib.sha256("\0".join((self.digest, *ids)).encode()).hexdigest(),
        )


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Some of the items of an input, still unread."""

    rows: Rows
    index: Array

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Array) -> Array:
        return self.rows[self.index[index]]


def load(
    source: str | ImageFolder, folder: Path, inputs: Sequence[Input] = (), *, items: Path | None = None
) -> Dataset:
    """Read what gate.yml names as data; for `path.py:function`, `items` is the .npz that the worker wrote."""
    if isinstance(source, ImageFolder):
        return load_images(source, folder, inputs)
    if ".py:" in source:
        if items is None:
            raise UsageError(f"dataset {source}: its items have not been made")
        return load_npz(items, where=source)
    path = folder / source
    if path.suffix == ".npz":
        return load_npz(path, where=source)
    if path.suffix in (".jsonl", ".ndjson"):
        return load_json_lines(path, inputs, where=source)
    raise UsageError(f"dataset {source}: expected a .npz or .jsonl file, path.py:function, or {{images: folder}}")


def _require_file(path: Path, where: str) -> None:
    if not path.is_file():
        raise UsageError(f"dataset {where}: no such file")
    if is_lfs_pointer(path):
        raise UsageError(f"dataset {where}: found a Git LFS pointer, not the data; fetch it with git lfs pull")


def from_items(
    where: str, inputs: Sequence[Mapping[str, Array]], labels: Sequence[Any], side: Mapping[str, Sequence[str]]
) -> Dataset:
    """Make a data set of items one by one; labels that are all None mean that there are none."""
    if not inputs:
        raise UsageError(f"dataset {where}: no items")
    columns = {name: _column([item[name] for item in inputs], name, where) for name in inputs[0]}
    extra = {name: np.array(values) for name, values in side.items() if values}
    if any(label is not None for label in labels):
        extra["label"] = _padded(
            [label.tolist() if isinstance(label, np.ndarray) else label for label in labels], where
        )
    return _assemble(where, columns, extra)


# --- .npz --------------------------------------------------------------------------------------------------------------


def load_npz(path: Path, where: str | None = None) -> Dataset:
    """Read one array per model input, `label`, and perhaps `id`, `slice`, `cluster` and `split`."""
    where = where or path.name
    _require_file(path, where)
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {name.removesuffix(".npy"): _member(path, archive, name, where) for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise UsageError(f"dataset {where}: not a readable .npz file: {error}") from None
    return _assemble(where, {k: v for k, v in arrays.items() if k not in RESERVED}, arrays)


def _member(path: Path, archive: zipfile.ZipFile, name: str, where: str) -> Array:
    """Read one array: mapped from the file where it is stored as it is, so that a large set needs no memory."""
    info = archive.getinfo(name)
    name = name.removesuffix(".npy")
    if info.filename == name:
        raise UsageError(f"dataset {where}: found {name}, expected only arrays (.npy), as numpy.savez writes them")
    try:
        with archive.open(info) as stream:
            version = NPY.read_magic(stream)
            read_header = NPY.read_array_header_1_0 if version == (1, 0) else NPY.read_array_header_2_0
            shape, fortran, dtype = read_header(stream)
            header = stream.tell()
        if dtype.hasobject:
            raise UsageError(
                f"dataset {where}: {name} is an object array (a pickle); store numbers or fixed-width text"
            )
        claimed = header + math.prod(shape) * dtype.itemsize
        if claimed > info.file_size:
            raise UsageError(
                f"dataset {where}: {name}: its header says {dtype} {list(shape)}, {size(claimed)}, but the file holds "
                f"{size(info.file_size)} of it; save the arrays again"
            )
        if info.compress_type == zipfile.ZIP_STORED and not fortran and info.file_size > _CHUNK_BYTES:
            return np.memmap(path, dtype, "r", _data_offset(path, info) + header, shape)
        with archive.open(info) as stream:
            return np.asarray(NPY.read_array(stream, allow_pickle=False))
    except (ValueError, MemoryError) as error:
        raise UsageError(f"dataset {where}: {name}: not a readable array: {error}") from None


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Return where a stored member's bytes begin: after its local header, whose lengths may differ from the directory's."""
    with path.open("rb") as stream:
        stream.seek(info.header_offset + 26)
        return (
            info.header_offset
            + 30
            + int.from_bytes(stream.read(2), "little")
            + int.from_bytes(stream.read(2), "little")
        )


# --- JSON lines --------------------------------------------------------------------------------------------------------


def load_json_lines(path: Path, inputs: Sequence[Input] = (), where: str | None = None) -> Dataset:
    """Read one item per line: {"input": [...], "label": 3, "id": "a"}; an image input is the path of a file."""
    where = where or path.name
    _require_file(path, where)
    records = list(_json_records(path, where))
    if not records:
        raise UsageError(f"dataset {where}: no items")
    for number, record in enumerate(records, 1):
        if record.keys() != records[0].keys():
            raise UsageError(f"dataset {where}:{number}: found keys {sorted(record)}, expected {sorted(records[0])}")
    images = {given.name: given for given in inputs if given.image is not None}
    rows: dict[str, Rows] = {}
    for name in records[0].keys() - set(RESERVED):
        column = [record[name] for record in records]
        if name in images:
            rows[name] = _images([path.parent / _file(value, name, where) for value in column], images[name], where)
        else:
            rows[name] = _column(column, name, where)
    extra = {name: [record[name] for record in records] for name in RESERVED if name in records[0]}
    side = {name: _padded(values, where) if name == "label" else np.array(values) for name, values in extra.items()}
    return _assemble(where, rows, side)


def _file(value: Any, name: str, where: str) -> str:
    """Text alone names a file: the prepare step finds the files of a data set by it (`limits.rested_on`)."""
    if not isinstance(value, str):
        raise UsageError(f"dataset {where}: {name}: found {str(value)[:80]}, expected the path of an image")
    return value


def _json_records(path: Path, where: str) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise UsageError(f"dataset {where}:{number}: not JSON: {error}") from None
            if not isinstance(record, dict):
                raise UsageError(f"dataset {where}:{number}: found {type(record).__name__}, expected an object")
            yield record


def _column(values: list[Any], name: str, where: str) -> Array:
    """Make an array of equal items; whole numbers become int32, others float32, as Core ML takes them."""
    try:
        array = np.array(values)
    except ValueError:
        raise UsageError(f"dataset {where}: {name}: items have unequal shapes; pad them to one shape") from None
    if array.dtype.kind not in "iufb":
        raise UsageError(f"dataset {where}: {name}: found {array.dtype}, expected numbers")
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32)


def _padded(values: list[Any], where: str) -> Array:
    """Make an array of labels; lists of unequal length (boxes, tokens) are filled up with PADDING."""
    if not any(isinstance(value, list) for value in values):
        return np.array(values)
    arrays = [np.array(value, dtype=float) if value else np.zeros((0,)) for value in values]
    tail = max((a.shape[1:] for a in arrays), key=len)
    if any(a.shape[1:] != tail for a in arrays if len(a)):
        raise UsageError(f"dataset {where}: label: items have unequal shapes beyond their length")
    padded = np.full((len(arrays), max(len(a) for a in arrays), *tail), float(PADDING))
    for row, array in zip(padded, arrays, strict=True):
        if len(array):
            row[: len(array)] = array
    return padded


# --- folders of images -------------------------------------------------------------------------------------------------


def load_images(source: ImageFolder, folder: Path, inputs: Sequence[Input]) -> Dataset:
    """Read images by a table of labels, or by the subfolders that they lie in."""
    target = [given for given in inputs if given.image is not None]
    if len(target) != 1 or len(inputs) != 1:
        raise UsageError(
            f"dataset {source.images}: a folder of images needs a model with one input, declared as an image: "
            "inputs: [{name: …, image: [height, width]}]"
        )
    root = folder / source.images
    if not root.is_dir():
        raise UsageError(f"dataset {source.images}: no such folder")
    table = _label_table(folder / source.labels, root) if source.labels else _label_folders(root, source.images)
    where = source.labels or source.images
    if not table["file"]:
        raise UsageError(f"dataset {where}: no items")
    files = [root / name for name in table["file"]]
    side = {name: np.array(values) for name, values in table.items() if name in RESERVED}
    side.setdefault("id", np.array(table["file"]))
    side["label"] = _as_numbers(side["label"])
    return _assemble(where, {target[0].name: _images(files, target[0], where)}, side)


def _label_table(path: Path, root: Path) -> dict[str, list[str]]:
    _require_file(path, path.name)
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    columns = set(rows[0]) if rows else {"file", "label"}
    known = {"file", *RESERVED}
    if not {"file", "label"} <= columns or not columns <= known:
        raise UsageError(
            f"dataset {path.name}: found columns {sorted(map(str, columns))}, expected file, label and perhaps "
            f"{', '.join(sorted(known - {'file', 'label'}))}"
        )
    for number, row in enumerate(rows, 2):
        if None in row.values() or not row["label"]:
            raise UsageError(f"dataset {path.name}:{number}: a value is missing")
        if not (root / row["file"]).resolve().is_relative_to(root.resolve()):
            raise UsageError(f"dataset {path.name}:{number}: {row['file']} lies outside the folder of images")
    return {name: [row[name] for row in rows] for name in columns}


def _label_folders(root: Path, where: str) -> dict[str, list[str]]:
    files = sorted(p for p in root.glob("*/*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    if not files and any(p.suffix.lower() in IMAGE_SUFFIXES for p in root.iterdir()):
        raise UsageError(
            f"dataset {where}: images without labels; put each in a subfolder named by its label, or give labels:"
        )
    return {"file": [p.relative_to(root).as_posix() for p in files], "label": [p.parent.name for p in files]}


def _as_numbers(labels: Array) -> Array:
    """Read labels as class numbers where all of them are."""
    return labels.astype(np.int64) if all(str(label).isdigit() for label in labels) else labels


@dataclass(frozen=True)
class _ImageRows:
    """Images that are decoded when they are asked for: uint8 RGB (n, height, width, 3), or grey (n, height, width)."""

    files: tuple[Path, ...]
    size: tuple[int, int]
    mode: str

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Array) -> Array:
        return np.stack([self._decode(self.files[i]) for i in index])

    def _decode(self, file: Path) -> Array:
        from PIL import Image

        height, width = self.size
        try:
            with Image.open(file) as image:
                return np.asarray(image.convert(self.mode).resize((width, height), Image.Resampling.BILINEAR))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise UsageError(f"dataset: {file.name}: not a readable image: {error}") from None


def _images(files: list[Path], given: Input, where: str) -> _ImageRows:
    for file in files:
        _require_file(file, f"{where}: {file.name}")
    assert given.image is not None
    return _ImageRows(tuple(files), given.image, "L" if given.color == "GRAYSCALE" else "RGB")


# --- what every form must satisfy --------------------------------------------------------------------------------------


def _assemble(where: str, inputs: Mapping[str, Rows], side: Mapping[str, Array]) -> Dataset:
    """Check the arrays and make a data set of them."""
    if not inputs:
        raise UsageError(
            f"dataset {where}: found only {', '.join(sorted(side)) or 'nothing'}, expected an array per model input"
        )
    arrays = {**inputs, **{name: side[name] for name in RESERVED if name in side}}
    _check_lengths(where, arrays)
    for name, values in arrays.items():
        if isinstance(values, np.ndarray):
            _check_values(where, name, values)
    count = len(next(iter(inputs.values())))
    ids = _texts(side.get("id")) or tuple(str(i) for i in range(count))
    _check_ids(where, ids)
    labels, parts, clusters = side.get("label"), _texts(side.get("split")), _texts(side.get("cluster"))
    _check_parts(where, parts, clusters)
    labels = labels.astype(np.int64) if labels is not None and labels.dtype.kind == "b" else labels
    return Dataset(where, inputs, labels, ids, _texts(side.get("slice")), clusters, parts, _digest(arrays))


def _texts(values: Array | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(str(value) for value in values.tolist())


def _check_lengths(where: str, arrays: Mapping[str, Rows]) -> None:
    for name, rows in arrays.items():
        if isinstance(rows, np.ndarray) and rows.ndim == 0:
            raise UsageError(f"dataset {where}: {name} is a single number, expected one value per item")
    lengths = {name: len(rows) for name, rows in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in sorted(lengths.items()))
        raise UsageError(f"dataset {where}: arrays have unequal numbers of items: {told}")
    if not any(lengths.values()):
        raise UsageError(f"dataset {where}: no items")


def _check_values(where: str, name: str, values: Array) -> None:
    """Refuse what is neither number nor text, and numbers that are not finite."""
    if values.dtype.kind not in "iufbUS":
        raise UsageError(f"dataset {where}: {name} has type {values.dtype}, expected numbers or text")
    if values.dtype.kind in "US" and name not in RESERVED:
        raise UsageError(f"dataset {where}: {name} is text; a model input takes numbers")
    if values.dtype.kind == "f":
        for start, chunk in _chunks(values):
            bad = ~np.isfinite(chunk.reshape(len(chunk), -1)).all(axis=1)
            if bad.any():
                raise UsageError(f"dataset {where}: {name} of item {start + int(bad.argmax())} is NaN or infinite")


def _chunks(values: Array) -> Iterator[tuple[int, Array]]:
    rows = max(1, _CHUNK_BYTES * len(values) // max(1, values.nbytes))
    for start in range(0, len(values), rows):
        yield start, np.ascontiguousarray(values[start : start + rows])


def _check_ids(where: str, ids: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for position, name in enumerate(ids):
        if name in first:
            raise UsageError(f"dataset {where}: id {name!r} appears twice, as items {first[name]} and {position}")
        first[name] = position


def _check_parts(where: str, parts: Sequence[str] | None, clusters: Sequence[str] | None) -> None:
    unknown = set(parts or ()) - set(Part)
    if unknown:
        raise UsageError(f"dataset {where}: split: found {sorted(unknown)[0]!r}, expected {', '.join(Part)}")
    part_of: dict[str, str] = {}
    for cluster, part in zip(clusters or (), parts or (), strict=False):
        if part_of.setdefault(cluster, part) != part:
            raise UsageError(
                f"dataset {where}: cluster {cluster!r} is in both {part_of[cluster]} and {part}; its items are not independent"
            )


def _digest(arrays: Mapping[str, Rows]) -> str:
    """Return a digest of names, types, shapes and values, in the order of the names."""
    state = hashlib.sha256()
    for name in sorted(arrays):
        rows = arrays[name]
        if isinstance(rows, np.ndarray):
            state.update(f"{name}:{rows.dtype.str}:{rows.shape}\0".encode())
            for _, chunk in _chunks(rows):
                state.update(chunk.tobytes())
        elif isinstance(rows, _ImageRows):
            state.update(f"{name}:{rows.mode}:{rows.size}\0".encode())
            state.update("".join(map(sha256_file, rows.files)).encode())
    return state.hexdigest()


def check_inputs(dataset: Dataset, expected: Mapping[str, Sequence[int | None] | None]) -> None:
    """Compare names and shapes with the model's: what is None may be any, and a leading 1 may be left out."""
    missing = expected.keys() - dataset.inputs.keys()
    if missing:
        raise UsageError(
            f"dataset {dataset.where}: no array for input {', '.join(sorted(missing))}; found "
            f"{', '.join(sorted(dataset.inputs))}, expected {', '.join(sorted(expected))}"
        )
    for name, sizes in expected.items():
        found = dataset.inputs[name][np.arange(min(1, len(dataset)))].shape[1:]
        if sizes is not None and not _fits(found, tuple(sizes)):
            shape = tuple("any" if one is None else one for one in sizes)
            raise UsageError(f"dataset {dataset.where}: an item of {name} has shape {found}, the model takes {shape}")


def check_values(dataset: Dataset, name: str, dtype: np.dtype[Any]) -> None:
    """Refuse values of an input that the model's own type does not hold: a cast would make them infinite, or others."""
    rows, count = dataset.inputs[name], len(dataset)
    first = rows[np.arange(min(1, count))]
    if np.can_cast(first.dtype, dtype) or dtype.kind not in "iuf":
        return
    held = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    size_of_part = max(1, _CHUNK_BYTES // max(1, first.nbytes))
    for start in range(0, count, size_of_part):
        values = rows[np.arange(start, min(start + size_of_part, count))].reshape(-1, max(1, first.size))
        beyond = (values < held.min) | (values > held.max)
        if beyond.any():
            item = int(beyond.any(axis=1).argmax())
            raise UsageError(
                f"dataset {dataset.where}: {name} of item {dataset.ids[start + item]} is {values[item][beyond[item]][0]:g}; "
                f"the model takes {dtype}, which holds {float(held.min):g} to {float(held.max):g}"
            )


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    if len(shape) == len(expected) - 1 and expected[0] in (1, None):
        expected = expected[1:]
    return len(shape) == len(expected) and all(e in (None, s) for s, e in zip(shape, expected, strict=True))


# --- parts that never overlap --------------------------------------------------------------------------------------------


def split(dataset: Dataset, splits: Splits) -> dict[Part, Array]:
    """Return the positions of each part: as the data says, else by seed and id, whole clusters together.

    An item's part depends on nothing but the seed and its own id (or cluster), so adding items moves none from a part that was
    searched to the one that certifies. The sizes are therefore met on average, not exactly.
    """
    assigned = dataset.parts or [_part_of(name, splits) for name in dataset.clusters or dataset.ids]
    parts = {part: np.array([i for i, p in enumerate(assigned) if p == part], dtype=np.int64) for part in Part}
    asked = {Part.CALIBRATE: splits.calibrate, Part.SEARCH: splits.search, Part.CONFIRM: splits.confirm}
    for part, share in asked.items():
        if dataset.parts is None and share > 0 and not len(parts[part]):
            raise UsageError(
                f"splits: {part} asks for {share:.0%} of {len(dataset)} items and gets none; use more items or another seed"
            )
    return parts


def _part_of(name: str, splits: Splits) -> Part | None:
    place = int.from_bytes(hashlib.sha256(f"{splits.seed}\0{name}".encode()).digest()[:8], "big") / 2**64
    for part, share in (
        (Part.CALIBRATE, splits.calibrate),
        (Part.SEARCH, splits.search),
        (Part.CONFIRM, splits.confirm),
    ):
        if place < share:
            return part
        place -= share
    return None


def overlap(first: Dataset, second: Dataset) -> tuple[str, ...]:
    """Return the ids of `first` whose inputs also appear in `second`, such as calibration items that would certify."""
    known = set(_item_digests(second))
    return tuple(name for name, digest in zip(first.ids, _item_digests(first), strict=True) if digest in known)


def _item_digests(dataset: Dataset) -> Iterator[bytes]:
    for position in range(len(dataset)):
        inputs = dataset.batch(np.array([position])).inputs
        yield hashlib.sha256(b"".join(inputs[name].tobytes() for name in sorted(inputs))).digest()
