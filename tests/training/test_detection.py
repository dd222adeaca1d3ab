"""The detector's whole loss: every decoder layer followed through its clip, and the proposals of each frame alone."""

import pytest
import torch

from devil.model.detector.decoder import LayerOutput
from devil.model.detector.detector import DetectorOutput
from devil.model.detector.proposals import Proposals
from devil.training.detection import detection_loss
from devil.training.losses import Slots, tube_losses, weighted

CLIPS, FRAMES, STATE = 2, 5, 8


def boxes(*shape, draw):
    return torch.rand(*shape, 4, generator=draw) * 0.4 + 0.2


def slots(queries, draw):
    """Queries that keep their place: in every frame of a clip, state q is near what it was before."""
    states = torch.randn(CLIPS, 1, queries, STATE, generator=draw) * 3
    states = states + torch.randn(CLIPS, FRAMES, queries, STATE, generator=draw) * 0.05
    return Slots(torch.randn(CLIPS, FRAMES, queries, generator=draw), boxes(CLIPS, FRAMES, queries, draw=draw), states)


def shuffled(aligned, draw):
    """The same queries in another order in every frame behind the first."""
    values = [value.clone() for value in (aligned.logits, aligned.boxes, aligned.embeddings)]
    for clip in range(CLIPS):
        for frame in range(1, FRAMES):
            order = torch.randperm(aligned.logits.shape[2], generator=draw)
            for value in values:
                value[clip, frame] = value[clip, frame, order]
    return Slots(*values)


@pytest.fixture(scope="module", params=[0, 1, 2])
def case(request):
    """Two layers of 6 and 3 queries, 9 proposals per frame, and a target that is absent from some frames."""
    draw = torch.Generator().manual_seed(request.param)
    layers = [slots(6, draw), slots(3, draw)]
    proposals = torch.randn(CLIPS * FRAMES, 9, generator=draw), boxes(CLIPS * FRAMES, 9, draw=draw)
    present = torch.rand(CLIPS, FRAMES, generator=draw) < 0.7
    target = boxes(CLIPS, FRAMES, draw=draw)
    target[~present] = torch.nan
    return layers, proposals, target, present, draw


def output(layers, proposals):
    flat = (LayerOutput(*(value.flatten(0, 1) for value in vars(layer).values())) for layer in layers)
    return DetectorOutput(tuple(flat), Proposals(*proposals))


def test_layers_and_proposals_are_summed(case):
    layers, (logits, found), target, present, _ = case
    of_layers = sum(float(weighted(tube_losses(layer, target, present))) for layer in layers)
    here = torch.ones(1, 1, dtype=torch.bool)
    alone = [
        float(weighted(tube_losses(Slots(logits[k][None, None], found[k][None, None]), box[None, None], here)))
        for k, box in enumerate(target.flatten(0, 1))
        if present.flatten()[k]
    ]
    assert len(alone) > 3
    loss = detection_loss(output(layers, (logits, found)), target, present)
    assert float(loss) == pytest.approx(of_layers + sum(alone) / len(alone), rel=1e-5)


def test_the_order_of_queries_in_a_frame_does_not_matter(case):
    layers, proposals, target, present, draw = case
    mixed = [shuffled(layer, draw) for layer in layers]
    loss = detection_loss(output(layers, proposals), target, present)
    assert float(detection_loss(output(mixed, proposals), target, present)) == pytest.approx(float(loss), rel=1e-5)
    untracked = sum(float(weighted(tube_losses(layer, target, present))) for layer in mixed)
    tracked = sum(float(weighted(tube_losses(layer, target, present))) for layer in layers)
    assert abs(untracked - tracked) > 0.1  # it would matter if queries were not followed


def test_gradients_reach_the_queries_that_were_moved(case):
    layers, proposals, target, present, draw = case
    mixed = shuffled(layers[0], draw)
    for value in vars(mixed).values():
        value.requires_grad_()
    detection_loss(output([mixed], proposals), target, present).backward()
    touched = mixed.boxes.grad.abs().sum((-1, -2)) > 0
    assert torch.equal(touched, present)
    assert all(torch.isfinite(value.grad).all() for value in vars(mixed).values())
