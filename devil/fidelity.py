"""How far two runs of one graph are from each other, and how far they may be."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from devil.contract import BundlePrecision
from devil.metrics import box_iou

Measures = dict[str, float]

# The worst that is let through, per precision.
#   relative     largest error over the reference's largest value
#   cosine       smallest over the vectors of the last axis
#   same_slots   share of slots that find their box again after matching: rounding swaps slots whose scores nearly tie,
#                and lets another query survive the query decay
#   matched_iou  median IoU of the boxes of those slots
#   logit        median error of their logits over the reference's largest
BUDGETS: Mapping[BundlePrecision, Mapping[str, float]] = {
    "fp32": {"relative": 1e-4, "cosine": 0.99999, "matched_iou": 0.999, "same_slots": 0.9, "logit": 1e-4},
    "fp16": {"relative": 0.02, "cosine": 0.999, "matched_iou": 0.97, "same_slots": 0.75, "logit": 0.02},
    "bf16": {"relative": 0.15, "cosine": 0.99, "matched_iou": 0.85, "same_slots": 0.4, "logit": 0.15},
    # The language graph's alone, against PyTorch with the same integers. A model whose weights were rounded to 4 bits
    # amplifies fp16's rounding: ten times in devil-tiny, whose graph is exact to 2e-5 where its activations are fp32.
    "int8": {"relative": 0.02, "cosine": 0.999},
    "int4": {"relative": 0.1, "cosine": 0.995},
}
_AT_LEAST = {"cosine", "matched_iou", "same_slots"}
SAME_SLOT = 0.5  # IoU


def over_budget(measures: Measures, precision: BundlePrecision) -> list[str]:
    """One phrase per measure that is worse than its budget (or is not a number)."""
    phrases = []
    for name, value in measures.items():
        limit = BUDGETS[precision][name]
        good = value >= limit if name in _AT_LEAST else value <= limit
        if not good:
            phrases.append(f"{name} {value:.3g} (budget {limit:g})")
    return phrases


def worst(all_measures: list[Measures]) -> Measures:
    """Each measure's worst value over several comparisons."""
    pick = {name: (np.min if name in _AT_LEAST else np.max) for name in all_measures[0]}
    return {name: float(choose([measures[name] for measures in all_measures])) for name, choose in pick.items()}


def compare_tensors(found: np.ndarray, expected: np.ndarray) -> Measures:
    """relative and cosine of two arrays of one shape."""
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
    cosine = (found * expected).sum(-1) / np.maximum(norms, 1e-30)
    return {
        "relative": float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30)),
        "cosine": float(cosine.min()),
    }


def compare_detections(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> Measures:
    """matched_iou, same_slots and logit, after matching the slots of each frame by boxes and embeddings.

    Args:
        found, expected: logits [N, Q], boxes [N, Q, 4] cxcywh and embeddings [N, Q, C].
    """
    overlaps, errors = [], []
    for frame in range(len(expected["logits"])):
        ours, theirs = ({name: values[frame] for name, values in side.items()} for side in (found, expected))
        rows, columns, overlap = match_slots(ours, theirs)
        if np.isnan(overlap).any():
            return {"matched_iou": 0.0, "same_slots": 0.0, "logit": float("nan")}
        overlaps.append(overlap)
        errors.append(np.abs(ours["logits"][rows] - theirs["logits"][columns]))
    same = np.array(overlaps) >= SAME_SLOT
    if not same.any():
        return {"matched_iou": 0.0, "same_slots": 0.0, "logit": float("nan")}
    scale = max(float(np.abs(expected["logits"]).max()), 1e-30)
    return {
        "matched_iou": float(np.median(np.array(overlaps)[same])),
        "same_slots": float(same.mean()),
        "logit": float(np.median(np.array(errors)[same]) / scale),
    }


def match_slots(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs the slots of one frame by boxes and embeddings.

    Args:
        found, expected: boxes [Q, 4] cxcywh and embeddings [Q, C].

    Returns:
        Slots of `found` [Q], the slots of `expected` [Q] that they are, and the IoU of their boxes [Q]: NaN where
        something is not a number.
    """
    from scipy.optimize import linear_sum_assignment

    distance = np.abs(found["boxes"][:, None] - expected["boxes"][None]).sum(-1)
    cost = distance + 1 - _unit(found["embeddings"]) @ _unit(expected["embeddings"]).T
    if not np.isfinite(cost).all():
        return np.arange(len(cost)), np.arange(len(cost)), np.full(len(cost), np.nan)
    rows, columns = linear_sum_assignment(cost)
    return rows, columns, box_iou(_corners(found["boxes"][rows]), _corners(expected["boxes"][columns]))


def _corners(boxes: np.ndarray) -> np.ndarray:
    """cx, cy, w, h [n, 4] as x0, y0, x1, y1."""
    centres, halves = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centres - halves, centres + halves], 1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
