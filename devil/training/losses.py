"""The detector's losses on one matched slot per clip, with tube-mined temporal regularisation (reference §5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from devil.training.boxes import overlaps
from devil.training.matching import FOCAL_ALPHA, FOCAL_GAMMA, MATCHING, MatchWeights, match_slots


@dataclass(frozen=True)
class LossWeights:
    """Weights of the detector's losses; the matching has weights of its own."""

    focal: float = 1.0
    l1: float = 3.0
    giou: float = 3.0
    feature: float = 2.0  # TTReg: embeddings of the tube change little between frames
    geometry: float = 3.0  # TTReg: boxes of the tube change little between frames
    matching: MatchWeights = MATCHING


REFERENCE = LossWeights()


@dataclass(frozen=True)
class Slots:
    """Queries of V clips of T frames, slots aligned over the frames of each clip.

    Shapes: logits [V, T, Q], boxes [V, T, Q, 4], embeddings [V, T, Q, C] or None (encoder proposals have none).
    """

    logits: Tensor
    boxes: Tensor
    embeddings: Tensor | None = None


def focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Sigmoid focal loss, elementwise; `target` is 0 or 1."""
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    missed = probability * (1 - target) + (1 - probability) * target
    alpha = FOCAL_ALPHA * target + (1 - FOCAL_ALPHA) * (1 - target)
    return alpha * missed**FOCAL_GAMMA * entropy


def tube_losses(slots: Slots, target: Tensor, present: Tensor, weights: LossWeights = REFERENCE) -> dict[str, Tensor]:
    """Unweighted losses of one decoder layer.

    Args:
        slots: the layer's queries.
        target: [V, T, 4] boxes; rows of frames without a box are ignored.
        present: bool [V, T]: frames inside the true span that have a box. No other frame is used.

    Returns:
        `focal`, `l1`, `giou` per present frame, and `feature`, `geometry` per adjacent pair of present frames; all 0
        for a clip without present frames.
    """
    logits, boxes = slots.logits.float(), slots.boxes.float()
    chosen = match_slots(logits, boxes, target, present, weights.matching)  # [V]
    frames = present.sum().clamp(min=1)
    label = F.one_hot(chosen, logits.shape[-1]).to(logits.dtype)[:, None].expand_as(logits)
    tube = _slot(boxes, chosen)  # [V, T, 4]
    losses = {
        "focal": (focal_loss(logits, label).sum(-1) * present).sum() / frames,
        "l1": ((tube - target).abs().sum(-1) * present).nan_to_num(0.0).sum() / frames,
        "giou": ((1 - overlaps(tube, torch.where(present[..., None], target, 0.5))[1]) * present).sum() / frames,
    }
    if slots.embeddings is not None:
        pairs = present[:, :-1] & present[:, 1:]
        count = pairs.sum().clamp(min=1)
        states = _slot(slots.embeddings.float(), chosen)  # [V, T, C]
        turn = 1 - F.cosine_similarity(states[:, :-1], states[:, 1:], dim=-1)
        shift = 1 - overlaps(tube[:, :-1], tube[:, 1:])[1]
        losses["feature"] = (turn * pairs).sum() / count
        losses["geometry"] = (shift * pairs).sum() / count
    return losses


def weighted(losses: dict[str, Tensor], weights: LossWeights = REFERENCE) -> Tensor:
    """The weighted sum of the losses of one layer."""
    return sum(getattr(weights, name) * value for name, value in losses.items())


def _slot(values: Tensor, chosen: Tensor) -> Tensor:
    """[V, T, Q, D] and slot numbers [V] → [V, T, D]."""
    index = chosen[:, None, None, None].expand(-1, values.shape[1], 1, values.shape[3])
    return values.gather(2, index)[:, :, 0]
