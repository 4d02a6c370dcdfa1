# SPDX-License-Identifier: Apache-2.0
"""Parts of a weight as bytes: numbers to check by hand, and coremltools' own storage as the second opinion."""

import numpy as np
import pytest
from coremltools.libmilstoragepython import _BlobStorageReader, _BlobStorageWriter

from gate.compress.encoded import Encoded, Form, Tensor, decode, pack
from gate.compress.package import BlobWriter
from gate.mil.blob import BITS, BlobFile, unpack

SUB_BYTE = ["uint1", "uint2", "uint3", "uint4", "uint6", "int4"]


def values(dtype: str, count: int = 37) -> np.ndarray:
    low, high = (-8, 8) if dtype == "int4" else (0, 2 ** BITS[dtype])
    return np.random.default_rng(0).integers(low, high, count).astype(np.int8 if dtype == "int4" else np.uint8)


def test_four_bit_values_are_packed_lowest_first():
    assert pack(np.array([1, 2, 15], np.uint8), 4).tolist() == [0x21, 0x0F]


@pytest.mark.parametrize("dtype", SUB_BYTE)
def test_packing_is_what_unpacking_undoes(dtype):
    array = values(dtype)
    np.testing.assert_array_equal(Tensor.of(array, dtype).array, array)


@pytest.mark.parametrize("dtype", SUB_BYTE)
def test_packed_bytes_are_those_that_coremltools_writes(dtype, tmp_path):
    array = values(dtype)
    writer = _BlobStorageWriter(str(tmp_path / "theirs.bin"))
    offset = getattr(writer, f"write_{dtype}_data")(array)
    del writer
    theirs = BlobFile(tmp_path / "theirs.bin").read(offset)
    np.testing.assert_array_equal(theirs.data, pack(array, BITS[dtype]))


@pytest.mark.parametrize("dtype", [*SUB_BYTE, "int8", "uint8", "float32"])
def test_coremltools_reads_what_we_write(dtype, tmp_path):
    array = values(dtype) if BITS[dtype] < 8 else np.arange(37).astype(dtype)
    with (tmp_path / "ours.bin").open("wb") as stream:
        writer = BlobWriter(stream)
        writer.write("uint8", np.arange(3, dtype=np.uint8), 3)
        offset = writer.write(dtype, pack(array, BITS[dtype]), array.size)
        writer.close()
    reader = _BlobStorageReader(str(tmp_path / "ours.bin"))
    name = "float" if dtype == "float32" else dtype
    np.testing.assert_array_equal(np.array(getattr(reader, f"read_{name}_data")(offset)).reshape(-1), array)
    ours = BlobFile(tmp_path / "ours.bin").read(offset)
    np.testing.assert_array_equal(unpack(ours.data, dtype, array.size), array)


def encoded(form: Form, shape: tuple[int, ...], axis: int | None = None, **parts: tuple[list, str]) -> Encoded:
    made = {name: Tensor.of(np.array(data, _numpy(dtype)), dtype) for name, (data, dtype) in parts.items()}
    return Encoded(form, shape, made, axis)


def _numpy(dtype: str) -> str:
    return {"int4": "int8"}.get(dtype, "uint8" if BITS[dtype] < 8 else dtype)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (
            encoded(
                Form.LINEAR,
                (2, 2),
                data=([[1, 2], [3, 4]], "int8"),
                scale=([[2], [10]], "float16"),
                offset=([[1], [0]], "int8"),
            ),
            [[0, 2], [30, 40]],
        ),
        (
            encoded(Form.LINEAR, (1, 4), data=([[1, 2, 3, -4]], "int4"), scale=([[1, 10]], "float16")),
            [[1, 2, 30, -40]],
        ),
        (
            encoded(Form.PALETTE, (2, 2), indices=([[0, 1], [1, 0]], "uint1"), lut=([[[[5], [7]]]], "float16")),
            [[5, 7], [7, 5]],
        ),
        (
            encoded(Form.PALETTE, (2, 1), indices=([[0], [0]], "uint1"), lut=([[[[5], [7]]], [[[6], [8]]]], "float16")),
            [[5], [6]],
        ),
        (
            encoded(Form.PALETTE, (4, 1), 0, indices=([[0], [1]], "uint1"), lut=([[[[1, 2], [3, 4]]]], "float16")),
            [[1], [2], [3], [4]],
        ),
        (
            encoded(Form.SPARSE, (2, 2), mask=([[0, 1], [1, 0]], "uint1"), nonzero_data=([5, 6], "float16")),
            [[0, 5], [6, 0]],
        ),
        (
            encoded(
                Form.SPARSE_LINEAR,
                (2, 2),
                mask=([[0, 1], [1, 0]], "uint1"),
                nonzero_data=([5, 6], "int8"),
                scale=([[1], [2]], "float16"),
                offset=([[3], [3]], "int8"),
            ),
            [[0, 2], [6, 0]],
        ),
        (
            encoded(
                Form.SPARSE_PALETTE,
                (2, 2),
                mask=([[0, 1], [1, 0]], "uint1"),
                nonzero_data=([1, 0], "uint1"),
                lut=([[[[5], [7]]]], "float16"),
            ),
            [[0, 7], [5, 0]],
        ),
    ],
    ids=["linear", "blocks", "palette", "two tables", "vectors", "sparse", "sparse linear", "sparse palette"],
)
def test_a_form_decodes_to_numbers_that_can_be_checked_by_hand(weight, expected):
    np.testing.assert_array_equal(decode(weight), expected)
    assert decode(weight).dtype == np.float16
