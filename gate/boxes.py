# SPDX-License-Identifier: Apache-2.0
"""How well do detected boxes fit the true ones, by COCO's rules?

Boxes are matched within one image, so an image's matches can be kept and drawn again by a bootstrap; only the ranking goes over all
images. The rules are those of pycocotools' bounding-box evaluation for all areas and without crowd regions, against which the tests
hold this: greedy matching by falling score, precision made monotone, read off at 101 recalls.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

RECALLS = np.linspace(0.0, 1.0, 101)
TRUTH = -1.0  # stands where a detection has its score
_CHUNK = 4_000_000  # weights of objects held at once: 32 MB
NOTHING = -1.0  # class of what fills a row up


def to_corners(boxes: Array, layout: str) -> Array:
    """Return boxes as left, top, right, bottom; layouts are xyxy, xywh (corner) and cxcywh (centre)."""
    if layout == "xyxy":
        return boxes
    first, size = boxes[..., :2], boxes[..., 2:]
    low = first - size / 2 if layout == "cxcywh" else first
    return np.concatenate([low, low + size], axis=-1)


def overlaps(found: Array, true: Array) -> Array:
    """Return intersection over union of every found box with every true one."""
    low = np.maximum(found[:, None, :2], true[None, :, :2])
    high = np.minimum(found[:, None, 2:], true[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    union = _area(found)[:, None] + _area(true)[None, :] - shared
    return np.asarray(shared / np.maximum(union, 1e-12))


def _area(boxes: Array) -> Array:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def match_image(
    found: Array, scores: Array, classes: Array, true: Array, true_classes: Array, ious: Sequence[float], most: int
) -> Array:
    """Return an image's row: per object (class, score, a hit per IoU), flat; true boxes have the score TRUTH and no hits.

    Each detection takes, in the order of falling scores, the free true box of its class that it overlaps most. Of each class the
    `most` best detections count.
    """
    objects = [np.array([float(c), TRUTH, *[0.0] * len(ious)]) for c in true_classes]
    for name in np.unique(classes):
        mine = np.flatnonzero(classes == name)
        mine = mine[np.argsort(-scores[mine], kind="stable")][:most]
        overlap = overlaps(found[mine], true[true_classes == name])
        hits = np.stack([_greedy(overlap, iou) for iou in ious], axis=1)
        objects += [np.array([float(name), float(scores[i]), *hit]) for i, hit in zip(mine, hits, strict=True)]
    return np.concatenate(objects) if objects else np.zeros(0)


def _greedy(overlap: Array, iou: float) -> Array:
    """Say for each detection, best first, whether it hits a true box that no better one took."""
    free = np.ones(overlap.shape[1], dtype=bool)
    hits = np.zeros(len(overlap))
    for row, values in enumerate(overlap):
        candidates = np.where(free & (values >= min(iou, 1 - 1e-10)), values, -1.0)
        if len(candidates) and candidates.max() >= 0:
            # of equal overlaps pycocotools takes the last
            best = len(candidates) - 1 - int(candidates[::-1].argmax())
            free[best], hits[row] = False, 1.0
    return hits


def mean_average_precision(rows: Array, weights: Array, ious: int) -> Array:
    """Return mAP under each row of weights: (images, width) and (resamples, images) → (resamples,).

    A class without true boxes has no precision and is left out, as in pycocotools.
    """
    objects = rows.reshape(len(rows), -1, 2 + ious)
    image, _ = np.nonzero(objects[:, :, 0] != NOTHING)
    objects = objects[objects[:, :, 0] != NOTHING]
    step = max(1, _CHUNK // max(1, len(objects)))
    parts = [_of_weights(objects, image, weights[start : start + step]) for start in range(0, len(weights), step)]
    return np.concatenate(parts)


def _of_weights(objects: Array, image: Array, weights: Array) -> Array:
    found = [_class_precision(objects[chosen], weights[:, image[chosen]]) for chosen in _by_class(objects)]
    if not found:
        return np.full(len(weights), np.nan)
    precisions = np.stack(found)
    known = np.isfinite(precisions)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, precisions, 0).sum(axis=0) / known.sum(axis=0))


def _by_class(objects: Array) -> list[Array]:
    return [np.flatnonzero(objects[:, 0] == name) for name in np.unique(objects[:, 0])]


def _class_precision(objects: Array, weights: Array) -> Array:
    """Return the average precision of one class, over the IoUs, under each row of weights."""
    is_true = objects[:, 1] == TRUTH
    wanted = weights[:, is_true].sum(axis=1)
    order = np.flatnonzero(~is_true)[np.argsort(-objects[~is_true, 1], kind="stable")]
    counted, hits = weights[:, order], objects[order, 2:]
    seen = np.cumsum(counted, axis=1)
    every = np.stack([_precision(counted * hits[:, i], seen, wanted) for i in range(hits.shape[1])])
    return np.asarray(np.where(wanted > 0, every.mean(axis=0), np.nan))


def _precision(hits: Array, seen: Array, wanted: Array) -> Array:
    """Average the precision read off at the 101 recalls, for each row of (resamples, detections); `seen` is cumulative."""
    if not hits.shape[1]:
        return np.zeros(len(hits))
    right = np.cumsum(hits, axis=1)
    precision = np.where(seen > 0, right / np.maximum(seen, 1e-12), 0.0)
    monotone = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = right / np.maximum(wanted, 1e-12)[:, None]
    return np.array([_at_recalls(r, p) for r, p in zip(recall, monotone, strict=True)])


def _at_recalls(recall: Array, precision: Array) -> float:
    place = np.searchsorted(recall, RECALLS, side="left")
    return float(np.append(precision, 0.0)[place].mean())
