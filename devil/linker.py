"""Query tracking: which of a frame's queries continues which slot (reference §4). Causal, so it streams."""

from __future__ import annotations

import numpy as np

SMOOTHING = 0.1  # α of reference §4


class Linker:
    """Follows Q slots through a clip, one frame at a time.

    Slot s of the first frame is its query s. A later frame's queries are assigned to slots by the smallest total
    cosine distance to the slots' memories; a memory then moves towards its new query, faster the more confident it is.
    """

    def __init__(self, smoothing: float = SMOOTHING):
        self.smoothing = smoothing
        self._memory: np.ndarray | None = None  # [Q, C]

    def step(self, embeddings: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """
        Args:
            embeddings: float [Q, C], the frame's query states.
            logits: float [Q], their match with the sentence.

        Returns:
            int64 [Q]: entry s is the query that continues slot s.
        """
        from scipy.optimize import linear_sum_assignment  # takes longer to import than all the rest of the runtime

        embeddings = np.asarray(embeddings, np.float64)
        if self._memory is None:
            self._memory = embeddings.copy()
            return np.arange(len(embeddings))
        similarity = _unit(self._memory) @ _unit(embeddings).T
        order = linear_sum_assignment(-similarity)[1]
        weight = self.smoothing * _spread(np.asarray(logits, np.float64))[order, None]
        self._memory = (1 - weight) * self._memory + weight * embeddings[order]
        return order


def link(embeddings: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The whole clip at once: embeddings [T, Q, C] and logits [T, Q] to int64 [T, Q] (see `Linker.step`)."""
    linker = Linker()
    steps = [linker.step(frame, scores) for frame, scores in zip(embeddings, logits, strict=True)]
    return np.stack(steps) if steps else np.zeros(logits.shape, np.int64)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _spread(values: np.ndarray) -> np.ndarray:
    """Min-max normalised to 0–1; all zero where the values do not differ."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
