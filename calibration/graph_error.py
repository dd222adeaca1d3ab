"""How far the outputs of a graph are from those of the same graph in floats: one number, for choosing between two."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from devil.fidelity import match_slots

Arrays = Mapping[str, np.ndarray]


def graph_error(graph: str, found: Arrays, expected: Arrays) -> float:
    """0 for none, infinite where something is no number.

    Args:
        graph: vision, backbone or grounder.
        found, expected: its outputs by name.
    """
    if graph == "grounder":
        return detection_error(found, expected)
    (name,) = expected
    return relative_error(found[name], expected[name])


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square of the error over that of the values."""
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    size = np.sqrt(np.mean(expected**2))
    error = np.sqrt(np.mean((found - expected) ** 2)) / max(size, 1e-30)
    return float(error) if np.isfinite(error) else float("inf")


def detection_error(found: Arrays, expected: Arrays) -> float:
    """1 − the mean IoU of the expected boxes with those found for them, weighted by how likely each is meant.

    Queries have no order of their own: rounding swaps those that nearly tie. So each is compared with the one that lies
    nearest to it in box and embedding, as the linker would follow it.

    Args:
        found, expected: logits [N, Q], boxes [N, Q, 4] cxcywh, embeddings [N, Q, C].
    """
    lost = weight = 0.0
    for frame in range(len(expected["logits"])):
        ours, theirs = ({name: side[name][frame].astype(np.float64) for name in side} for side in (found, expected))
        _, columns, overlap = match_slots(ours, theirs)
        if np.isnan(overlap).any():
            return float("inf")
        meant = 1 / (1 + np.exp(-theirs["logits"][columns]))
        lost += float((meant * (1 - overlap)).sum())
        weight += float(meant.sum())
    return lost / max(weight, 1e-30)
