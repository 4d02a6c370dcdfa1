# SPDX-License-Identifier: Apache-2.0
"""`non_maximum_suppression`: which boxes remain, best score first?

coremltools keeps the op in `tensor_operation`; it has a module here because it is the only one with a search in it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gate.mil.ops.registry import kernel

NOTHING = -1  # what pads the indices


@kernel(batch=False)
def non_maximum_suppression(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    score_threshold: float,
    max_boxes: int,
    per_class_suppression: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Take boxes (n, boxes, 4) and scores (n, boxes, classes); pad with 0, and -1 for the index."""
    kept = [
        _kept(b, s, iou_threshold, score_threshold, max_boxes, per_class_suppression)
        for b, s in zip(boxes, scores, strict=True)
    ]
    chosen_boxes = torch.stack([_padded(b[k], max_boxes, 0) for b, k in zip(boxes, kept, strict=True)])
    chosen_scores = torch.stack([_padded(s[k], max_boxes, 0) for s, k in zip(scores, kept, strict=True)])
    indices = torch.stack([_padded(k, max_boxes, NOTHING) for k in kept])
    return chosen_boxes, chosen_scores, indices, torch.tensor([len(k) for k in kept])


@kernel("non_maximum_suppression", since="CoreML7", batch=False)
def non_maximum_suppression_ios17(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_boxes: int, per_class_suppression: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Do the same with the boxes in the last axis, without a threshold of scores or a count."""
    chosen, values, indices, _ = non_maximum_suppression(
        boxes.mT, scores.mT, iou_threshold, -torch.inf, max_boxes, per_class_suppression
    )
    return chosen.mT, values.mT, indices


def _kept(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_boxes: int, per_class: bool
) -> Tensor:
    """Return the indices of one image's boxes that remain; at least the best box does, as with Core ML."""
    best, label = scores.max(-1)
    order = best.argsort(descending=True, stable=True)
    left = order[best[order] >= score_threshold]
    kept: list[Tensor] = []
    while len(left) and len(kept) < max_boxes:
        first, left = left[0], left[1:]
        kept.append(first)
        covered = _iou(boxes[first], boxes[left]) > iou_threshold
        if per_class:
            covered &= label[left] == label[first]
        left = left[~covered]
    return torch.stack(kept) if kept else order[:1]


def _iou(box: Tensor, others: Tensor) -> Tensor:
    """Return intersection over union of (column, row, width, height) with the center first."""
    low = torch.maximum(box[:2] - box[2:] / 2, others[:, :2] - others[:, 2:] / 2)
    high = torch.minimum(box[:2] + box[2:] / 2, others[:, :2] + others[:, 2:] / 2)
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / (box[2:].prod() + others[:, 2:].prod(-1) - shared)


def _padded(x: Tensor, count: int, value: int) -> Tensor:
    missing = x.new_full((count - len(x), *x.shape[1:]), value)
    return torch.cat([x, missing])
