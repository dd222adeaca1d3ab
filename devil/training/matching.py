"""Which query slot of a clip is the target's (reference §5): one slot for the whole tube, never one per frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from devil.training.boxes import overlaps

FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0


@dataclass(frozen=True)
class MatchWeights:
    """Weights of the four terms of a slot's cost."""

    focal: float = 1.0
    l1: float = 5.0
    giou: float = 3.0
    temporal: float = 2.0


MATCHING = MatchWeights()


@torch.no_grad()
def slot_costs(
    logits: Tensor, boxes: Tensor, target: Tensor, present: Tensor, weights: MatchWeights = MATCHING
) -> Tensor:
    """The cost of giving each slot to the target.

    Args:
        logits: [..., T, Q], slots already aligned over the T frames.
        boxes: [..., T, Q, 4].
        target: [..., T, 4]; rows of frames without a box are ignored.
        present: bool [..., T], where the target has a box.

    Returns:
        [..., Q]: focal-class, L1 and −GIoU averaged over the present frames, plus −GIoU of the slot's own boxes in
        adjacent present frames (absent with fewer than two such frames).
    """
    probability = logits.float().sigmoid()
    hit = FOCAL_ALPHA * (1 - probability) ** FOCAL_GAMMA * -(probability + 1e-8).log()
    miss = (1 - FOCAL_ALPHA) * probability**FOCAL_GAMMA * -(1 - probability + 1e-8).log()
    target = torch.where(present[..., None], target, 0.5)[..., None, :]
    l1 = (boxes.float() - target).abs().sum(-1)
    giou = overlaps(boxes, target)[1]
    per_frame = weights.focal * (hit - miss) + weights.l1 * l1 - weights.giou * giou  # [..., T, Q]
    cost = _mean_over(per_frame, present)
    if logits.shape[-2] > 1:
        steady = overlaps(boxes[..., :-1, :, :], boxes[..., 1:, :, :])[1]  # [..., T-1, Q]
        cost = cost - weights.temporal * _mean_over(steady, present[..., :-1] & present[..., 1:])
    return cost


def match_slots(
    logits: Tensor, boxes: Tensor, target: Tensor, present: Tensor, weights: MatchWeights = MATCHING
) -> Tensor:
    """The cheapest slot, int64 [...]; arguments as in `slot_costs`. With one target the assignment is an argmin."""
    return slot_costs(logits, boxes, target, present, weights).argmin(-1)


def _mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of [..., T, Q] over the chosen frames [..., T]; 0 when there are none."""
    chosen = chosen[..., None].to(values.dtype)
    return (values * chosen).sum(-2) / chosen.sum(-2).clamp(min=1)
