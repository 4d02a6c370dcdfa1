# SPDX-License-Identifier: Apache-2.0
"""Bounds of one weight, below, at and above what rounding allows; and parameters that somebody made up."""

import numpy as np
import pytest

from gate.compress import entry
from gate.compress.encode import Axes, encode
from gate.compress.encoded import Encoded, Form, Tensor, decode
from gate.compress.invariants import Kept, bounds, problem, promised_zeros
from gate.policy import Palettize, Prune, Quantize

AXES = Axes(inputs=1, outputs=0)
INT8 = Quantize(dtype="int8")
FOUR_BITS = Palettize(bits=4)
HALF = Prune(sparsity="50 %")


def weight(shape=(32, 64), scale=1.0, dtype=np.float16) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=shape) * scale).astype(dtype)


def made(array, *actions) -> Encoded:
    result, reasons = encode(array, actions, AXES)
    assert reasons == (None,) * len(actions)
    return result


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e-3, 1e-6, 1e-7])
@pytest.mark.parametrize("dtype_name", ["int8", "uint8", "int4"])
@pytest.mark.parametrize("mode", ["linear", "linear_symmetric"])
def test_quantization_keeps_its_bound_at_every_magnitude(dtype, scale, dtype_name, mode):
    """Also where the scale is a subnormal float16, or zero: dead channels are common and no damage."""
    array = weight(scale=scale, dtype=dtype)
    action = Quantize(dtype=dtype_name, mode=mode)
    assert problem(array, made(array, action), [action]) is None


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
@pytest.mark.parametrize("mode", ["kmeans", "uniform"])
@pytest.mark.parametrize("shape", [(32, 64), (64, 256)], ids=["by scikit-learn", "exact"])
def test_palettes_keep_their_bound(bits, mode, shape):
    array = weight(shape)
    action = Palettize(bits=bits, mode=mode)
    assert problem(array, made(array, action), [action]) is None


def test_a_value_off_by_one_step_breaks_the_bound():
    array = weight()
    good = made(array, INT8)
    kept = Kept.of(good)
    moved = decode(good)
    assert all(bound.holds for bound in bounds(array, moved, kept, [INT8]))
    moved[3, 5] += kept.scale[3, 0]
    (broken,) = (bound for bound in bounds(array, moved, kept, [INT8]) if not bound.holds)
    assert broken.what == "largest error, in half scales and rounding"


def test_a_survivor_off_by_one_bit_breaks_the_bound():
    array = weight()
    moved = decode(made(array, HALF))
    assert all(bound.holds for bound in bounds(array, moved, Kept(16), [HALF]))
    row, column = np.argwhere(moved)[0]
    moved[row, column] = np.nextafter(moved[row, column], np.float16(100))
    (broken,) = (bound for bound in bounds(array, moved, Kept(16), [HALF]) if not bound.holds)
    assert str(broken) == "surviving values that changed: 1, promised at most 0"


def test_pruning_other_values_than_the_smallest_breaks_the_bound():
    array = weight()
    moved = array.copy()
    moved[:, ::2] = 0
    (broken,) = (bound for bound in bounds(array, moved, Kept(16), [HALF]) if not bound.holds)
    assert broken.what == "largest value that was pruned"


def test_nan_breaks_every_bound_that_it_touches():
    array = weight()
    good = made(array, INT8)
    moved = decode(good)
    moved[0, 0] = np.nan
    assert not all(bound.holds for bound in bounds(array, moved, Kept.of(good), [INT8]))


def replaced(encoded: Encoded, **parts: np.ndarray) -> Encoded:
    made = {name: Tensor.of(array, encoded.parts[name].dtype) for name, array in parts.items()}
    return Encoded(encoded.form, encoded.shape, {**encoded.parts, **made}, encoded.axis)


def test_a_table_that_somebody_made_up_is_found_by_its_means():
    """Every value is its nearest entry, so the bounds hold; but no clustering gives such a table."""
    array = weight((64, 256))
    table = np.linspace(-8, 8, 16).astype(np.float16)
    nearest = np.abs(array[..., None].astype(np.float32) - table).argmin(-1).astype(np.uint8)
    bad = replaced(made(array, FOUR_BITS), indices=nearest, lut=table.reshape(1, 1, 16, 1))
    assert all(bound.holds for bound in bounds(array, decode(bad), Kept.of(bad), [FOUR_BITS]))
    assert problem(array, bad, [FOUR_BITS]).startswith("table entry, against the mean of its values")


def test_a_scale_that_somebody_made_up_is_found_by_the_range():
    array = weight()
    good = made(array, INT8)
    scale = good.parts["scale"].array * np.float16(4)
    data = np.round(array / scale).astype(np.int8)
    assert problem(array, replaced(good, data=data, scale=scale), [INT8]).startswith("scale, against that of its range")


@pytest.mark.parametrize(
    ("encoded", "said"),
    [
        (Encoded(Form.PALETTE, (1, 1), {}), "it has shape"),
        (
            Encoded(
                Form.LINEAR,
                (32, 64),
                {"data": Tensor.of(np.zeros((2, 2), np.int8)), "scale": Tensor.of(np.ones((3, 1), np.float16))},
            ),
            "it cannot be decoded",
        ),
    ],
    ids=["shape", "parts"],
)
def test_parts_that_do_not_fit_are_told(encoded, said):
    assert problem(weight(), encoded, [INT8]).startswith(said)


@pytest.mark.parametrize(
    ("shape", "action", "zeros"),
    [
        ((10, 10), Prune(sparsity="50 %"), 49.5),
        ((4, 8), Prune(sparsity="50 %", n_m=(2, 4)), 16),
        ((4, 10), Prune(sparsity="50 %", n_m=(3, 4)), 4 * (6 + 1)),  # of the last two channels one must go
    ],
    ids=str,
)
def test_the_least_number_of_zeros(shape, action, zeros):
    assert promised_zeros(shape, action) == zeros
    array = weight(shape)
    if shape[1] >= 8:
        after = decode(made(array, action))
        assert after.size - np.count_nonzero(after) >= zeros


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param({"lut": Tensor.of(np.zeros((0, 1, 16, 1), np.float16))}, "does not divide", id="no tables"),
        pytest.param({"lut": Tensor.of(np.zeros((3, 1, 16, 1), np.float16))}, "does not divide", id="rows left over"),
        pytest.param(
            {"indices": Tensor.of(np.zeros((32, 64), np.uint8))}, "indices of 8 bits", id="wider indices than promised"
        ),
    ],
)
def test_an_entry_of_another_form_than_the_policys_is_refused(change, told):
    array = weight()
    good = made(array, FOUR_BITS)
    assert told in problem(array, Encoded(good.form, good.shape, {**good.parts, **change}), [FOUR_BITS])


def test_vectors_where_single_values_were_promised_are_refused():
    array = weight()
    pairs = Palettize(bits=4, cluster_dim=2)
    assert problem(array, made(array, pairs), [pairs]) is None
    assert "vectors of 2" in problem(array, made(array, pairs), [FOUR_BITS])


def test_a_mask_of_another_type_is_refused():
    array = weight()
    good = made(array, HALF)
    mask = Tensor.of(good.parts["mask"].array)
    assert "mask is uint8" in problem(array, Encoded(good.form, good.shape, {**good.parts, "mask": mask}), [HALF])


@pytest.mark.parametrize("axis", ["x", 2, -1, True])
def test_an_entry_with_an_axis_that_is_none_cannot_be_read(axis, tmp_path):
    good = made(weight(), FOUR_BITS)
    entry.save(tmp_path / "w", Encoded(good.form, good.shape, good.parts, axis))
    with pytest.raises(ValueError, match="axis"):
        entry.load(tmp_path / "w")
