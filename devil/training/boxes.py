"""Box arithmetic that gradients flow through. Boxes are (cx, cy, w, h) fractions unless a name says corners."""

from __future__ import annotations

import torch
from torch import Tensor


def corners(boxes: Tensor) -> Tensor:
    """(cx, cy, w, h) → (x0, y0, x1, y1), any leading shape."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def overlaps(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of boxes of shape [..., 4] that broadcast against each other.

    Empty boxes give IoU 0, and GIoU 0 when both are the same point, never NaN.
    """
    first, second = corners(first.float()), corners(second.float())
    shared = (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])).clamp(0)
    hull = (torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])).clamp(0)
    shared, hull = shared.prod(-1), hull.prod(-1)
    union = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1) - shared
    iou = shared / union.clamp(min=1e-7)
    return iou, iou - (hull - union) / hull.clamp(min=1e-7)
