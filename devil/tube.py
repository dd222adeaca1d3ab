"""From per-frame detections and a span to a tube (reference §2.11)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from devil.answer import HALF_PRINTED, Span
from devil.linker import Linker


@dataclass(frozen=True)
class Detections:
    """The detector's queries on T frames.

    Attributes:
        logits: float32 [T, Q]
        boxes: float32 [T, Q, 4], cx, cy, w, h as fractions of the frame
        embeddings: float32 [T, Q, C]
    """

    logits: np.ndarray
    boxes: np.ndarray
    embeddings: np.ndarray

    def __post_init__(self) -> None:
        frames, queries = self.logits.shape
        if self.boxes.shape != (frames, queries, 4) or self.embeddings.shape[:2] != (frames, queries):
            raise ValueError(
                f"detections disagree: logits {self.logits.shape}, boxes {self.boxes.shape}, "
                f"embeddings {self.embeddings.shape}"
            )


@dataclass(frozen=True)
class Tube:
    """One box per frame of an object.

    Attributes:
        frames: int64 [T], indices into the video's frames, increasing
        times: float64 [T], their times in seconds from the first frame
        boxes: float32 [T, 4], x0, y0, x1, y1 in pixels, inside the picture
        scores: float32 [T], 0–1
    """

    frames: np.ndarray
    times: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.frames)
        if (
            count == 0
            or self.times.shape != (count,)
            or self.boxes.shape != (count, 4)
            or self.scores.shape != (count,)
        ):
            raise ValueError("a tube needs one time, box and score per frame")
        if not (np.isfinite(self.boxes).all() and (self.boxes[:, :2] <= self.boxes[:, 2:]).all()):
            raise ValueError("a tube's boxes are finite and ordered")

    @property
    def score(self) -> float:
        return float(self.scores.mean())

    def at(self, rows: np.ndarray) -> Tube:
        """The same tube in some of its frames, int [R], increasing."""
        return Tube(self.frames[rows], self.times[rows], self.boxes[rows], self.scores[rows])


def frames_in_span(times: np.ndarray, span: Span | None) -> np.ndarray:
    """Rows of `times` [T] (seconds, increasing) inside the span; all without a span.

    The answer's times are printed with one decimal, so a frame counts when its printed time could be inside. A span
    that falls between two frames gets the one nearest to its middle: a tube is never empty.
    """
    if span is None:
        return np.arange(len(times))
    rows = np.flatnonzero((times >= span.start - HALF_PRINTED) & (times <= span.end + HALF_PRINTED))
    if len(rows) == 0:
        rows = np.array([np.abs(times - (span.start + span.end) / 2).argmin()])
    return rows


class SlotTracker:
    """Links frames as they come and keeps only each slot's boxes and scores, so a long clip costs little memory."""

    def __init__(self) -> None:
        self._linker = Linker()
        self._boxes: list[np.ndarray] = []  # per frame [Q, 4], in slot order
        self._scores: list[np.ndarray] = []  # per frame [Q]

    def add(self, detections: Detections) -> None:
        """The next frames of the clip, in order of time."""
        for logits, boxes, embeddings in zip(detections.logits, detections.boxes, detections.embeddings, strict=True):
            order = self._linker.step(embeddings, logits)
            self._boxes.append(boxes[order])
            self._scores.append(_sigmoid(logits[order]))

    def track(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The slot with the highest mean score over the frames `rows` (int [R]).

        Returns:
            boxes float32 [T, 4] (cx, cy, w, h fractions) and scores float32 [T] of that slot in all T frames.
        """
        slot = int(np.stack([self._scores[row] for row in rows]).mean(0).argmax())
        return np.stack([boxes[slot] for boxes in self._boxes]), np.stack([scores[slot] for scores in self._scores])


def to_pixels(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """cx, cy, w, h fractions [T, 4] to x0, y0, x1, y1 pixels, clipped to the picture."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    corners = np.concatenate([centre - half, centre + half], 1).clip(0, 1)
    return (corners * np.array([width, height, width, height])).astype(np.float32)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-values.astype(np.float64)))).astype(np.float32)
