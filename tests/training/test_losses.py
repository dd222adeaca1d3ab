"""The detector's losses and slot matching against plain loops over single boxes."""

import math

import numpy as np
import pytest
import torch

from devil.training.boxes import overlaps
from devil.training.losses import LossWeights, Slots, tube_losses, weighted
from devil.training.matching import MatchWeights, match_slots, slot_costs


def plain_iou_giou(a, b):
    ax0, ay0, ax1, ay1 = a[0] - a[2] / 2, a[1] - a[3] / 2, a[0] + a[2] / 2, a[1] + a[3] / 2
    bx0, by0, bx1, by1 = b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2
    inter = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
    union = a[2] * a[3] + b[2] * b[3] - inter
    hull = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
    return inter / union, inter / union - (hull - union) / hull


def plain_focal(logit, label):
    p = 1 / (1 + math.exp(-logit))
    return -0.25 * (1 - p) ** 2 * math.log(p) if label else -0.75 * p**2 * math.log(1 - p)


def plain_cost(logits, boxes, target, present, slot):
    frames = [t for t in range(len(present)) if present[t]]
    if not frames:
        return 0.0
    cost = 0.0
    for t in frames:
        cost += plain_focal(logits[t][slot], True) - plain_focal(logits[t][slot], False)
        cost += 5 * sum(abs(boxes[t][slot][i] - target[t][i]) for i in range(4))
        cost -= 3 * plain_iou_giou(boxes[t][slot], target[t])[1]
    cost /= len(frames)
    pairs = [t for t in range(len(present) - 1) if present[t] and present[t + 1]]
    steady = [plain_iou_giou(boxes[t][slot], boxes[t + 1][slot])[1] for t in pairs]
    return cost - (2 * sum(steady) / len(steady) if steady else 0.0)


def plain_losses(logits, boxes, states, target, present, chosen):
    """Sums over clips of every loss, divided by how many frames or pairs they cover."""
    sums = dict.fromkeys(("focal", "l1", "giou", "feature", "geometry"), 0.0)
    frames = pairs = 0
    for v in range(len(present)):
        slot = chosen[v]
        for t in range(len(present[v])):
            if not present[v][t]:
                continue
            frames += 1
            sums["focal"] += sum(plain_focal(logit, q == slot) for q, logit in enumerate(logits[v][t]))
            sums["l1"] += sum(abs(boxes[v][t][slot][i] - target[v][t][i]) for i in range(4))
            sums["giou"] += 1 - plain_iou_giou(boxes[v][t][slot], target[v][t])[1]
            if t + 1 < len(present[v]) and present[v][t + 1]:
                pairs += 1
                a, b = states[v][t][slot], states[v][t + 1][slot]
                sums["feature"] += 1 - np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
                sums["geometry"] += 1 - plain_iou_giou(boxes[v][t][slot], boxes[v][t + 1][slot])[1]
    return {name: value / max(1, pairs if name in ("feature", "geometry") else frames) for name, value in sums.items()}


def case(seed, clips, frames, queries, keep):
    random = np.random.default_rng(seed)
    boxes = np.concatenate(
        [random.uniform(0.2, 0.8, (clips, frames, queries, 2)), random.uniform(0.05, 0.4, (clips, frames, queries, 2))],
        -1,
    )
    target = boxes[:, :, 0] * random.uniform(0.8, 1.2, (clips, frames, 4))
    present = random.uniform(size=(clips, frames)) < keep
    states = random.normal(size=(clips, frames, queries, 5))
    logits = random.normal(size=(clips, frames, queries)) * 3
    target[~present] = np.nan  # what is absent must not matter
    return logits, boxes, states, target, present


def tensors(*arrays):
    return [torch.from_numpy(np.asarray(array)).float() for array in arrays]


@pytest.mark.parametrize(
    ("clips", "frames", "queries", "keep"), [(3, 7, 5, 0.6), (1, 1, 1, 1.0), (2, 1, 4, 1.0), (2, 5, 3, 0.0)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_costs_and_losses_equal_plain_loops(seed, clips, frames, queries, keep):
    logits, boxes, states, target, present = case(seed, clips, frames, queries, keep)
    shown = torch.from_numpy(present)
    as_tensors = tensors(logits, boxes, states, target)
    costs = slot_costs(as_tensors[0], as_tensors[1], as_tensors[3], shown)
    plain = [[plain_cost(logits[v], boxes[v], target[v], present[v], q) for q in range(queries)] for v in range(clips)]
    np.testing.assert_allclose(costs.numpy(), plain, rtol=1e-4, atol=1e-5)

    losses = tube_losses(Slots(*as_tensors[:3]), as_tensors[3], shown)
    expected = plain_losses(logits, boxes, states, target, present, np.argmin(plain, 1))
    for name, value in expected.items():
        np.testing.assert_allclose(float(losses[name]), value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_weights_are_those_of_the_reference():
    unit = dict.fromkeys(("focal", "l1", "giou", "feature", "geometry"), torch.tensor(1.0))
    assert float(weighted(unit)) == 1 + 3 + 3 + 2 + 3
    assert MatchWeights() == MatchWeights(focal=1, l1=5, giou=3, temporal=2)
    assert LossWeights().matching == MatchWeights()


def test_one_slot_serves_the_whole_clip_even_where_another_is_better_in_some_frames():
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.2, 0.2]]).repeat(4, 1, 1)
    target = torch.tensor([0.5, 0.5, 0.2, 0.2]).repeat(4, 1)
    boxes[3] = boxes[3].flip(0)  # in the last frame slot 1 sits on the target
    chosen = match_slots(torch.zeros(4, 2), boxes, target, torch.ones(4, dtype=torch.bool))
    assert int(chosen) == 0


def test_between_equal_slots_the_steadier_one_wins():
    target = torch.tensor([0.5, 0.5, 0.2, 0.2]).repeat(4, 1)
    shift = torch.tensor([0.02, -0.02, 0.02, -0.02])
    boxes = target[:, None].repeat(1, 2, 1)
    boxes[:, 0, 0] += shift  # wobbles; the other keeps the same distance from the target
    boxes[:, 1, 0] += 0.02
    chosen = match_slots(torch.zeros(4, 2), boxes, target, torch.ones(4, dtype=torch.bool))
    assert int(chosen) == 1


def test_absent_clip_gives_zero_loss_and_zero_gradient():
    logits, boxes, states, target, present = case(3, 2, 4, 3, 0.0)
    values = tensors(logits, boxes, states)
    for value in values:
        value.requires_grad_()
    loss = weighted(tube_losses(Slots(*values), tensors(target)[0], torch.from_numpy(present)))
    loss.backward()
    assert float(loss) == 0
    assert all(not value.grad.any() for value in values)


def test_identical_and_empty_boxes_have_finite_overlaps_and_gradients():
    boxes = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.2, 0.2], [0.3, 0.3, 0.1, 0.0]], requires_grad=True)
    iou, giou = overlaps(boxes, boxes)
    (iou + giou).sum().backward()
    assert torch.allclose(iou, torch.tensor([0.0, 1.0, 0.0]), atol=1e-5)
    assert torch.isfinite(giou).all()
    assert torch.isfinite(boxes.grad).all()
