# SPDX-License-Identifier: Apache-2.0
"""Do the quick routes of a kernel, which small rows of the op table never take, compute what the plain one does?

The plain one is numpy, or the kernel's own, reached by an input that the quick one leaves alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gate.mil.batch import Stack
from gate.mil.ops import scatter_gather
from gate.mil.ops.image_resizing import resample, resize_nearest_neighbor
from gate.mil.ops.registry import PLANS
from gate.mil.ops.tensor_operation import WORTH_SELECTING, band_part, pad, topk
from tests.mil.programs import one_op, run_op, same

SPECIAL = [math.nan, math.inf, -math.inf, 0.0, -0.0, -math.nan]


def random(kind: str, *shape: int) -> Tensor:
    """Return values of a kind: `special` are those that compare unlike others, `ties` are few."""
    generator = torch.Generator().manual_seed(math.prod(shape))
    x = torch.randn(shape, generator=generator)
    match kind:
        case "ties":
            return (3 * x).round()
        case "special":
            chosen = torch.randint(0, 12, shape, generator=generator)
            return torch.where(chosen < 6, torch.tensor(SPECIAL)[chosen % 6], x.round())
        case "int":
            return torch.randint(-(2**31), 2**31, shape, generator=generator).int()
        case "bool":
            return x > 0
    return x


KINDS = ("floats", "ties", "special", "int", "bool")


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.int32) if x.is_floating_point() else x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((5000,), 0), ((3, 2000), -1), ((2, 2000, 3), 1), ((400, 5, 6), -3)])
def test_topk_of_many_is_the_head_of_a_stable_sort(kind: str, ascending: bool, shape: Any, axis: int) -> None:
    x = random(kind, *shape)
    assert x.numel() >= WORTH_SELECTING
    values, indices = torch.sort(x, dim=axis, descending=not ascending, stable=True)
    for k in (0, 1, 100, shape[axis] // 2, shape[axis], -1):
        count = shape[axis] if k == -1 else k
        found = topk(x, k, axis, ascending)
        assert torch.equal(bits(found[0]), bits(values.narrow(axis, 0, count)))
        assert torch.equal(found[1], indices.narrow(axis, 0, count))


def test_topk_of_more_than_there_are_is_an_error() -> None:
    for k in (WORTH_SELECTING + 1, -2):
        with pytest.raises(RuntimeError):
            topk(torch.zeros(WORTH_SELECTING), k, 0)


NUMPYS = {"reflect": "reflect", "replicate": "edge", "symmetric": "symmetric"}
PADDED: list[tuple[tuple[int, ...], list[int]]] = [
    ((7,), [3, 2]),
    ((4, 7), [0, 0, 6, 1]),
    ((2, 5, 6), [4, 0, 1, 5]),
    ((2, 3, 4, 5), [1, 2, 3, 1, 0, 4]),
    ((2, 3, 4, 5), [0, 0, 1, 1, 2, 0, 0, 0]),
    ((2, 2, 3, 4, 5), [1, 1, 1, 0, 2, 2, 0, 1, 4, 4]),
    ((2, 3, 4), [0, 0, 0, 0]),
    ((1, 1, 3), [9, 7]),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", NUMPYS)
@pytest.mark.parametrize(("shape", "amounts"), PADDED)
def test_padding_is_numpys(kind: str, mode: str, shape: tuple[int, ...], amounts: list[int]) -> None:
    x = random(kind, *shape)
    pairs = [(0, 0)] * (x.dim() - len(amounts) // 2) + list(zip(amounts[::2], amounts[1::2], strict=True))
    wanted = torch.from_numpy(np.pad(x.numpy(), pairs, NUMPYS[mode]))  # type: ignore[call-overload]
    assert torch.equal(bits(pad(x, amounts, mode)), bits(wanted))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("lower", "upper"), [(-1, -1), (0, -1), (-1, 0), (1, 2), (9, 9), (0, 0)])
def test_a_band_is_numpys(kind: str, lower: int, upper: int) -> None:
    x = random(kind, 2, 4, 6)
    wanted = np.tril(x, upper) if upper >= 0 else x.numpy()
    wanted = np.triu(wanted, -lower) if lower >= 0 else wanted
    assert torch.equal(bits(band_part(x, lower, upper)), bits(torch.from_numpy(wanted)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(8, 15), (4, 10), (12, 5), (1, 41 * 5), (4, 5), (7, 3), (0, 5)])
def test_the_nearest_pixel_is_the_one_before(kind: str, height: int, width: int) -> None:
    x = random(kind, 2, 4, 5)
    rows, columns = (torch.arange(n) * old // max(n, 1) for n, old in ((height, 4), (width, 5)))
    assert torch.equal(bits(resize_nearest_neighbor(x, height, width)), bits(x[:, rows][:, :, columns]))


@pytest.mark.parametrize("kind", ["floats", "special", "int"])
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", ["constant", "border", "reflection", "symmetric"])
@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (1, 1, 1, 1), (1, 2, 5, 1)])
@pytest.mark.parametrize("reach", [0.5, 3.0, 40.0])
def test_a_grid_is_sampled_alike_by_torch(kind: str, align: bool, padding: str, shape: Any, reach: float) -> None:
    x, at = random(kind, *shape), reach * random("floats", shape[0], 4, 11, 2)
    at[0, 0, 0], at[0, 0, 1] = 1.0, -1.0  # the corners
    if padding in ("constant", "border"):
        at[0, 1, 2] = 1e20  # where a mirror would have no digits left
    options = ("bilinear", padding, 0.0, "normalized_minus_one_to_one", align)
    found, plain = resample(x, at, *options), resample(x, at.double(), *options)
    rounding = 4e-7 * reach * max(shape) * 8  # of where the sample lies
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=rounding, equal_nan=True)


def test_coordinates_that_are_no_numbers_are_still_told() -> None:
    """torch would take the first pixel."""
    at = torch.zeros(1, 1, 2, 2)
    at[0, 0, 0, 0] = math.nan
    for padding in ("constant", "border"):
        with pytest.raises(RuntimeError, match="out of bounds"):
            resample(torch.ones(1, 1, 3, 3), at, "bilinear", padding, 0.0, "normalized_minus_one_to_one", True)


MODES = ("update", "add", "sub", "mul", "div", "max", "min")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["ties", "special", "int"])
def test_scattering_inside_needs_no_spare_place(mode: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, updates = random(kind, 5, 4), random(kind, 6, 4)
    slices, elements = torch.tensor([0, 3, 3, 4, 1, 0]).int(), torch.arange(24).reshape(6, 4).int() % 5
    pairs = torch.stack([elements, torch.arange(24).reshape(6, 4).int() // 6], -1)

    def scattered() -> list[Tensor]:
        found = [scatter_gather.scatter_ios17(data, slices, updates, 0, mode)]
        found += [scatter_gather.scatter_along_axis_ios17(data, elements, updates, 0, mode)]
        found += [scatter_gather.scatter_nd_ios17(data, slices[:, None], updates, mode)]
        return [*found, scatter_gather.scatter_nd_ios17(data, pairs, updates, mode)]

    found = scattered()
    monkeypatch.setattr(scatter_gather, "_all_inside", lambda *_: False)
    for quick, plain in zip(found, scattered(), strict=True):
        assert torch.equal(bits(quick), bits(plain))


@pytest.mark.parametrize("bad", [-1, 5, 2**31 - 1, -(2**31), math.nan])
def test_one_index_outside_writes_nothing_and_spares_the_others(bad: float) -> None:
    data, indices = torch.zeros(5), torch.tensor([1, bad, 4])
    indices = indices if math.isnan(bad) else indices.int()
    for kernel in (scatter_gather.scatter_ios17, scatter_gather.scatter_along_axis_ios17):
        assert kernel(data, indices, torch.ones(3)).tolist() == [0, 1, 0, 0, 1]
        with pytest.raises((IndexError, ValueError)):
            kernel(data, indices, torch.ones(3), validate_indices=True)
    assert scatter_gather.scatter_nd_ios17(data, indices[:, None], torch.ones(3)).tolist() == [0, 1, 0, 0, 1]


SLICES = {
    "rows": np.s_[1:3],
    "inner": np.s_[:, 1:-1],
    "steps": np.s_[..., ::2],
    "column": np.s_[:, :, 4],
    "some": np.s_[1::2, 2, 1:4],
}


@pytest.mark.parametrize("opset", ["CoreML5", "CoreML7"])
@pytest.mark.parametrize("part", SLICES.values(), ids=SLICES.keys())
def test_an_assigned_slice_is_numpys(part: Any, opset: str) -> None:
    wanted, places = random("special", 4, 5, 6).numpy(), np.arange(120).reshape(4, 5, 6)[part].ravel()
    data, updates = wanted.copy().ravel(), np.arange(float(places.size), dtype=np.float32)
    wanted[part] = updates.reshape(wanted[part].shape)
    inputs = {"data": data, "indices": places.tolist(), "updates": updates, "mode": "update"}
    assert PLANS[scatter_gather.scatter]([120], torch.from_numpy(places), mode="update")
    (found,) = run_op("scatter", inputs, (torch.from_numpy(wanted).flatten(),), opset=opset)
    assert torch.equal(bits(found), bits(torch.from_numpy(wanted).flatten()))


@pytest.mark.parametrize(
    "places", [[0, 1, 2, 1, 2, 3], [2, 1, 0], [0, 1, 3], [0, 2, 3, 4], [0, 2, 5, 6], [0, 0], [3], [5, 6, 7], [-1, 0]]
)
def test_places_that_make_no_slice_are_written_one_by_one(places: list[int]) -> None:
    assert PLANS[scatter_gather.scatter]([7], torch.tensor(places).int(), mode="update") is None
    updates, wanted = np.arange(1.0, len(places) + 1), torch.zeros(7)
    for place, value in zip(places, updates, strict=True):
        if 0 <= place < 7:
            wanted[place] = value
    inputs = {"data": np.zeros(7), "indices": places, "updates": updates, "mode": "update"}
    (found,) = run_op("scatter", inputs, (wanted,), opset="CoreML7")
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("place", [[2, 0], [-3, 0], [0, 9]])
def test_before_ios17_a_place_outside_is_an_error(place: list[int]) -> None:
    with pytest.raises(RuntimeError):
        scatter_gather.scatter_nd(torch.zeros(2, 3), torch.tensor([place]).int(), torch.ones(1))


def test_nothing_to_scatter() -> None:
    data, none = torch.ones(3, 2), torch.zeros(0).int()
    assert torch.equal(scatter_gather.scatter_ios17(data, none, torch.zeros(0, 2)), data)


LARGE = random("ties", 3, 2000).numpy()
GRID = random("floats", 1, 4, 4, 2).numpy()
WHERE = {
    "sampling_mode": "bilinear",
    "padding_mode": "border",
    "padding_value": 0.0,
    "coordinates_mode": "normalized_minus_one_to_one",
    "align_corners": False,
}
STACKED: dict[str, tuple[dict[str, Any], Callable[..., Any]]] = {
    "topk": ({"x": LARGE, "k": 9, "axis": 1}, lambda x: topk(x, 9, 1)),
    "pad": ({"x": LARGE, "pad": [2, 7], "mode": "reflect"}, lambda x: pad(x, [2, 7], "reflect")),
    "band_part": ({"x": LARGE, "lower": 1, "upper": 3}, lambda x: band_part(x, 1, 3)),
    "upsample_nearest_neighbor": (
        {"x": LARGE[None], "scale_factor_height": 2.0, "scale_factor_width": 3.0},
        lambda x: resize_nearest_neighbor(x, 6, 6000),
    ),
    "resample": (
        {"x": LARGE[None, None], "coordinates": GRID, **WHERE},
        lambda x, coordinates: resample(x, coordinates, **WHERE),
    ),
    "scatter": (
        {"data": LARGE, "indices": [2, 0], "updates": LARGE[:2]},
        lambda data, updates: scatter_gather.scatter_ios17(data, torch.tensor([2, 0]), updates),
    ),
    "scatter_along_axis": (
        {"data": LARGE, "indices": np.zeros((1, 2000), np.int32), "updates": LARGE[:1]},
        lambda data, indices, updates: scatter_gather.scatter_along_axis_ios17(data, indices, updates),
    ),
}


@pytest.mark.parametrize("op", STACKED)
def test_a_run_and_a_stack_take_the_same_routes(op: str) -> None:
    inputs, kernel = STACKED[op]
    computed = {name: torch.from_numpy(x) for name, x in inputs.items() if isinstance(x, np.ndarray)}
    result = kernel(*computed.values())
    expected = result if isinstance(result, tuple) else (result,)
    found = run_op(op, inputs, tuple(x.int() if x.dtype is torch.int64 else x for x in expected))
    function, plan, _ = one_op(op, inputs, found)
    samples = [{n: x if x.dtype is torch.int32 else scale * x for n, x in computed.items()} for scale in (1, 2)]
    for column, one in zip(Stack(plan, function).run(samples).values(), found, strict=True):
        assert same(column[0], one)
