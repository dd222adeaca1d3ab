"""From what the detector says of whole clips to one loss: every decoder layer, and the encoder's proposals."""

from __future__ import annotations

import torch
from torch import Tensor

from devil.linker import link
from devil.model.detector.detector import DetectorOutput
from devil.training.losses import REFERENCE, LossWeights, Slots, tube_losses, weighted


def detection_loss(output: DetectorOutput, target: Tensor, present: Tensor, weights: LossWeights = REFERENCE) -> Tensor:
    """The detector's loss (reference §5), a scalar.

    The queries of a layer are first tracked through their clip, so that a slot means the same thing in every frame;
    proposals are not tracked, so each frame has its own best one.

    Args:
        output: of V·T frames, the frames of a clip next to each other.
        target: [V, T, 4] boxes (cx, cy, w, h); rows of frames without a box are ignored.
        present: bool [V, T], the frames that count: inside the true span and with a box.
    """
    clips, frames = present.shape
    total = target.new_zeros(())
    for layer in output.layers:
        slots = Slots(*(values.unflatten(0, (clips, frames)) for values in layer))
        total = total + weighted(tube_losses(_tracked(slots), target, present, weights), weights)
    proposals = Slots(output.proposals.logits[:, None], output.proposals.boxes[:, None])
    alone = tube_losses(proposals, target.flatten(0, 1)[:, None], present.flatten()[:, None], weights)
    return total + weighted(alone, weights)


def _tracked(slots: Slots) -> Slots:
    """Queries permuted, frame by frame, to the slots of their clip's first frame."""
    if slots.logits.shape[1] == 1:
        return slots
    states, logits = slots.embeddings.detach().float().cpu().numpy(), slots.logits.detach().float().cpu().numpy()
    order = torch.stack([torch.from_numpy(link(*clip)) for clip in zip(states, logits, strict=True)])
    order = order.to(slots.logits.device)

    def permuted(values: Tensor) -> Tensor:
        index = order.reshape(*order.shape, *[1] * (values.dim() - 3)).expand_as(values)
        return values.gather(2, index)

    return Slots(permuted(slots.logits), permuted(slots.boxes), permuted(slots.embeddings))
