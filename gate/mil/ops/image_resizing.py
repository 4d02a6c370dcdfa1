# SPDX-License-Identifier: Apache-2.0
"""Images sampled between their pixels.

`x` is (…, height, width). A sampling mode says where along an axis the samples lie; coremltools' documentation of
`resize_bilinear` has the formulas, and `_positions` is them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from gate.mil.ops.registry import Ints, bounded, kernel

IOS17 = "CoreML7"


@kernel(exact=True, fresh=True)
def upsample_nearest_neighbor(x: Tensor, scale_factor_height: float = 1.0, scale_factor_width: float = 1.0) -> Tensor:
    """Scale both axes; the factor is recomputed from the whole size that it leads to."""
    size = _scaled(x.shape[-2], scale_factor_height), _scaled(x.shape[-1], scale_factor_width)
    return resize_nearest_neighbor(x, *size)


@kernel(exact=True, fresh=True)
def resize_nearest_neighbor(x: Tensor, target_size_height: int, target_size_width: int) -> Tensor:
    _bounded(x, target_size_height, target_size_width)
    return _nearest(_nearest(x, -1, target_size_width), -2, target_size_height)  # whole rows are moved last


@kernel()
def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1.0,
    scale_factor_width: float = 1.0,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """Scale both axes; the factor is recomputed from the whole size that it leads to."""
    centers = not align_corners if half_pixel_centers is None else half_pixel_centers
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if centers else "DEFAULT"
    size = (_scaled(x.shape[-2], scale_factor_height), _scaled(x.shape[-1], scale_factor_width))
    return _resize_bilinear(x, size, mode)


@kernel()
def resize_bilinear(
    x: Tensor, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT"
) -> Tensor:
    return _resize_bilinear(x, (target_size_height, target_size_width), sampling_mode)


@kernel()
def resize(
    x: Tensor, shape: Ints, resized_dims: int, interpolation_mode: str = "LINEAR", sampling_mode: str = "DEFAULT"
) -> Tensor:
    """Resize the last `resized_dims` axes; a size of 0 keeps the axis as it is."""
    axes = range(-resized_dims, 0)
    sizes = [shape[axis] or x.shape[axis] for axis in axes]
    bounded([*x.shape[: x.dim() - resized_dims], *sizes])
    if interpolation_mode == "LINEAR" and len(sizes) == 2:
        return _resize_bilinear(x, (sizes[0], sizes[1]), sampling_mode)
    for axis, size in zip(axes, sizes, strict=True):
        positions = _positions(sampling_mode, x.shape[axis], size)
        if interpolation_mode == "LINEAR":
            x = _interpolate(x, axis, positions)
        else:
            x = x.index_select(axis, (positions + 0.5).long().clamp(max=x.shape[axis] - 1))
    return x


@kernel(exact=True)
def crop(x: Tensor, crop_height: Ints, crop_width: Ints) -> Tensor:
    (top, bottom), (left, right) = crop_height, crop_width
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


@kernel()
def crop_resize(
    x: Tensor,
    roi: Tensor,
    target_height: int = 1,
    target_width: int = 1,
    normalized_coordinates: bool = False,
    spatial_scale: float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: float = 0.0,
) -> Tensor:
    """Crop each box of `roi` (n, 1, 4 or 5, 1, 1) from every image, or from the one that its fifth number names."""
    bounded([roi.shape[0], *x.shape[:-2], target_height, target_width])
    boxes = roi.reshape(roi.shape[0], -1)
    corners = _corners(x, boxes[:, -4:], normalized_coordinates, spatial_scale, box_coordinate_mode)
    rows, columns = _box_positions(corners, target_height, target_width, sampling_mode)
    if boxes.shape[1] == 5:
        return _sample_boxes(x[boxes[:, 0].long()], rows, columns, pad_value)[:, None]
    crops = [_sample_boxes(image.expand(len(boxes), -1, -1, -1), rows, columns, pad_value) for image in x[:, None]]
    return torch.stack(crops, 1)


@kernel("crop_resize", since=IOS17)
def crop_resize_ios17(
    x: Tensor,
    boxes: Tensor,
    box_indices: Tensor | None = None,
    target_height: int = 1,
    target_width: int = 1,
    normalized_coordinates: bool = False,
    spatial_scale: float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: float = 0.0,
) -> Tensor:
    """Crop box i of `boxes` (n, 4) from image `box_indices[i]`."""
    bounded([len(boxes), *x.shape[1:-2], target_height, target_width])
    images = torch.arange(len(boxes)) if box_indices is None else box_indices.long()
    corners = _corners(x, boxes, normalized_coordinates, spatial_scale, box_coordinate_mode)
    rows, columns = _box_positions(corners, target_height, target_width, sampling_mode)
    return _sample_boxes(x[images], rows, columns, pad_value)


@kernel()
def affine(
    x: Tensor,
    transform_matrix: Tensor,
    output_height: int,
    output_width: int,
    sampling_mode: str = "bilinear",
    padding_mode: str = "constant",
    padding_value: float = 0.0,
    coordinates_mode: str = "normalized_minus_one_to_one",
    align_corners: bool = True,
) -> Tensor:
    """Sample where one matrix (or one for each image) sends the pixels of the output."""
    _bounded(x, output_height, output_width)
    matrices = transform_matrix.reshape(-1, 2, 3).expand(x.shape[0], 2, 3)
    where = F.affine_grid(matrices, [*x.shape[:2], output_height, output_width], align_corners)
    return resample(x, where, sampling_mode, padding_mode, padding_value, coordinates_mode, align_corners)


@kernel()
def resample(
    x: Tensor,
    coordinates: Tensor,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    """Sample each image at `coordinates` (n, height, width, 2), given as (column, row)."""
    height, width = x.shape[-2:]
    torch_mode = GRID_PADDING.get((padding_mode, align_corners)) if coordinates_mode == GRID_COORDINATES else None
    if torch_mode and sampling_mode == "bilinear" and padding_value == 0 and _sampled_by_torch(x, coordinates):
        return F.grid_sample(x, coordinates, "bilinear", torch_mode, align_corners)
    columns, rows = coordinates.float().unbind(-1)
    columns = _pixel(columns, width, coordinates_mode, align_corners)
    rows = _pixel(rows, height, coordinates_mode, align_corners)
    if padding_mode != "constant":
        columns, rows = _fold(columns, width, padding_mode), _fold(rows, height, padding_mode)
    if sampling_mode == "nearest":
        return _pick(x, rows.round(), columns.round(), padding_value)
    return _sample(x, rows, columns, padding_value)


# What torch's sampling of grids can do, which takes places outside for zeros, and from which pixels or edges it mirrors.
GRID_COORDINATES = "normalized_minus_one_to_one"
GRID_PADDING = {
    ("constant", True): "zeros",
    ("constant", False): "zeros",
    ("border", True): "border",
    ("border", False): "border",
    ("reflection", True): "reflection",
    ("symmetric", False): "reflection",
}


def _sampled_by_torch(x: Tensor, coordinates: Tensor) -> bool:
    """Say whether torch may sample these; for coordinates that are no numbers it invents places."""
    floats = x.dtype is coordinates.dtype is torch.float32
    return floats and x.dim() == 4 and x.numel() > 0 and bool(coordinates.isfinite().all())


# --- where samples lie


def _positions(mode: str, size: int, count: int) -> Tensor:
    """Return `count` positions along an axis of `size` pixels."""
    start, end = torch.zeros(1), torch.full((1,), size - 1.0)
    return _between(mode, start, end, count)[0].clamp(0, size - 1)


def _between(mode: str, start: Tensor, end: Tensor, count: int) -> Tensor:
    """Return (n, count) positions from pixel `start` to pixel `end`, each (n,)."""
    i = torch.arange(count, dtype=torch.float32)
    start, end = start[:, None], end[:, None]
    pixels = end - start + 1
    match mode:
        case "ALIGN_CORNERS" if count == 1:
            return (start + end) / 2
        case "ALIGN_CORNERS" | "STRICT_ALIGN_CORNERS":
            return start + (end - start) * (i / max(count - 1, 1))
        case "DEFAULT":
            return start + i * pixels / count
        case "OFFSET_CORNERS":
            return start + (i + 0.5) * (end - start).clamp(min=1) / count
        case "UNALIGN_CORNERS":
            return start + (i + 0.5) * pixels / count - 0.5
    raise ValueError(f"sampling mode {mode!r} is not known")


def _bounded(x: Tensor, height: int, width: int) -> None:
    """Refuse a size that no honest model asks for, before positions of it are made."""
    bounded([*x.shape[:-2], height, width])


def _scaled(size: int, scale: float) -> int:
    """Return the size after scaling, forgiving the error of a float32 factor."""
    return math.floor(size * scale + 1e-5 * scale)


def _pixel(at: Tensor, size: int, mode: str, align_corners: bool) -> Tensor:
    """Turn coordinates into pixels."""
    match mode:
        case "unnormalized":
            return at
        case "normalized_minus_one_to_one":
            unit = (at + 1) / 2
        case "normalized_zero_to_one":
            unit = at
        case _:
            raise ValueError(f"coordinates mode {mode!r} is not known")
    return unit * (size - 1) if align_corners else unit * size - 0.5


def _fold(at: Tensor, size: int, mode: str) -> Tensor:
    """Bring pixels back into the image: `border` clamps; `reflection` mirrors at the outer pixels, `symmetric` at their edges."""
    if mode == "border":
        return at.clamp(0, size - 1)
    low, high = {"reflection": (0.0, size - 1.0), "symmetric": (-0.5, size - 0.5)}[mode]
    if high == low:
        return torch.zeros_like(at)
    period = 2 * (high - low)
    distance = (at - low).remainder(period)
    return (low + torch.minimum(distance, period - distance)).clamp(0, size - 1)


def _corners(x: Tensor, boxes: Tensor, normalized: bool, scale: float, mode: str) -> Tensor:
    """Return boxes (n, 4) as first row, first column, last row, last column, in pixels."""
    boxes = boxes.float() * scale
    if mode.endswith("WIDTH_FIRST"):
        boxes = boxes[:, [1, 0, 3, 2]]
    if mode.startswith("CENTER_SIZE"):
        center, half = boxes[:, :2], boxes[:, 2:] / 2
        boxes = torch.cat([center - half, center + half], 1)
    if normalized:
        last = [float(x.shape[-2] - 1), float(x.shape[-1] - 1)]
        boxes = boxes * torch.tensor(last + last)
    return boxes


def _box_positions(corners: Tensor, height: int, width: int, mode: str) -> tuple[Tensor, Tensor]:
    top, left, bottom, right = corners.unbind(1)
    return _between(mode, top, bottom, height), _between(mode, left, right, width)


# --- sampling


def _resize_bilinear(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize the last two axes; torch knows two of the modes."""
    _bounded(x, *size)
    if mode in ("STRICT_ALIGN_CORNERS", "UNALIGN_CORNERS") and x.is_floating_point():
        images = x.reshape(1, -1, *x.shape[-2:])
        resized = F.interpolate(images, size=size, mode="bilinear", align_corners=mode == "STRICT_ALIGN_CORNERS")
        return resized.reshape(*x.shape[:-2], *size)
    for axis, count in zip((-2, -1), size, strict=True):
        x = _interpolate(x, axis, _positions(mode, x.shape[axis], count))
    return x


def _nearest(x: Tensor, axis: int, count: int) -> Tensor:
    """Resize an axis by repeating or leaving out."""
    size = x.shape[axis]
    if 0 < size <= count and count % size == 0:
        return x.repeat_interleave(count // size, axis)
    return x.index_select(axis, _positions("DEFAULT", size, count).long())


def _interpolate(x: Tensor, axis: int, positions: Tensor) -> Tensor:
    low = positions.floor()
    share = (positions - low).reshape([-1] + [1] * (-axis - 1))
    before = x.index_select(axis, low.long())
    after = x.index_select(axis, (low.long() + 1).clamp(max=x.shape[axis] - 1))
    return before * (1 - share) + after * share


def _sample_boxes(x: Tensor, rows: Tensor, columns: Tensor, padding: float) -> Tensor:
    """Sample image i at each of its rows and columns; what lies outside the image is padding."""
    shape = (len(x), rows.shape[1], columns.shape[1])
    rows, columns = rows[:, :, None].expand(shape), columns[:, None, :].expand(shape)
    inside = _within(rows, x.shape[-2]) & _within(columns, x.shape[-1])
    return torch.where(inside[:, None], _sample(x, rows, columns, padding), padding)


def _sample(x: Tensor, rows: Tensor, columns: Tensor, padding: float) -> Tensor:
    """Interpolate between the four pixels around each place (n, height, width)."""
    top, left = rows.floor(), columns.floor()
    down, right = (rows - top)[:, None], (columns - left)[:, None]
    upper = _pick(x, top, left, padding) * (1 - right) + _pick(x, top, left + 1, padding) * right
    lower = _pick(x, top + 1, left, padding) * (1 - right) + _pick(x, top + 1, left + 1, padding) * right
    return upper * (1 - down) + lower * down


def _pick(x: Tensor, rows: Tensor, columns: Tensor, padding: float) -> Tensor:
    """Take whole pixels: (n, channels, height, width)."""
    height, width = x.shape[-2:]
    inside = _within(rows, height) & _within(columns, width)
    flat = (rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)).long()
    index = flat.reshape(len(x), 1, -1).expand(-1, x.shape[1], -1)
    picked = x.flatten(2).gather(2, index).reshape(*x.shape[:2], *rows.shape[1:])
    return torch.where(inside[:, None], picked, padding)


def _within(at: Tensor, size: int) -> Tensor:
    return (at >= 0) & (at <= size - 1)
