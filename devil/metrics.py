"""How good a span or a tube is (reference §6). Spans are (start, end) in seconds, boxes x1, y1, x2, y2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from devil.answer import HALF_PRINTED

Span = tuple[float, float]

_PICKS = 1 << 16  # rows picked at once by `bootstrap`

METRICS = ("m_tIoU", "m_vIoU", "vIoU@0.3", "vIoU@0.5", "exact_span")


def span_iou(one: Span | None, two: Span | None) -> float:
    """Overlap of two spans over their union, 0–1.

    A reversed span is read the other way round, a missing one scores 0, and two equal moments score 1.
    """
    if one is None or two is None:
        return 0.0
    (a, b), (c, d) = sorted(one), sorted(two)
    shared, total = max(0.0, min(b, d) - max(a, c)), (b - a) + (d - c)
    if total == 0:
        return float(a == c)
    return shared / (total - shared)


def box_iou(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Overlap over union of boxes [..., 4] that broadcast; 0 where either box is nan or has no area."""
    one, two = np.broadcast_arrays(np.asarray(one, np.float64), np.asarray(two, np.float64))

    def area(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        return np.maximum(high - low, 0).prod(axis=-1)

    shared = area(np.maximum(one[..., :2], two[..., :2]), np.minimum(one[..., 2:], two[..., 2:]))
    union = area(one[..., :2], one[..., 2:]) + area(two[..., :2], two[..., 2:]) - shared
    return np.divide(shared, union, out=np.zeros_like(union), where=union > 0)


@dataclass(frozen=True)
class Sample:
    """One sentence about one clip of T sampled frames: the truth and an answer. Boxes are fractions of the frame.

    Attributes:
        times: seconds of each frame, rising, float [T].
        true_span: timestamps of the event's first and last sampled frame.
        true_boxes: [T, 4]; nan where the object has no box. Only those inside the span count.
        span: the answer's; None where it tells none.
        boxes: the answer's boxes [T, 4]; nan where it gives none.
        kind: type of sentence, for the breakdown.

    Raises:
        ValueError: the shapes disagree.
    """

    times: np.ndarray
    true_span: Span
    true_boxes: np.ndarray
    span: Span | None
    boxes: np.ndarray
    kind: str = ""

    def __post_init__(self) -> None:
        wanted = (len(self.times), 4)
        if self.true_boxes.shape != wanted or self.boxes.shape != wanted:
            raise ValueError(f"boxes are {self.true_boxes.shape} and {self.boxes.shape}, not {wanted}")


def frames_inside(times: np.ndarray, span: Span | None) -> np.ndarray:
    """Which frames' printed times lie in a span (reversed ones are swapped), bool [T]; none without a span."""
    if span is None:
        return np.zeros(len(times), bool)
    start, end = sorted(span)
    return (times >= start - HALF_PRINTED) & (times <= end + HALF_PRINTED)


def tube_iou(sample: Sample) -> float:
    """vIoU: summed box IoU of the frames in both spans, over the number of frames in either span; 0 if there are none.

    "Either" is a union. An early public evaluator ended it at the earlier of the two ends, which inflates the score.
    """
    true, told = frames_inside(sample.times, sample.true_span), frames_inside(sample.times, sample.span)
    union = int((true | told).sum())
    if union == 0:
        return 0.0
    return float(box_iou(sample.true_boxes, sample.boxes)[true & told].sum()) / union


def is_exact(sample: Sample) -> bool:
    """Whether the answer's span covers exactly the sampled frames that the true one covers, and at least one."""
    true, told = frames_inside(sample.times, sample.true_span), frames_inside(sample.times, sample.span)
    return bool(told.any() and (true == told).all())


def true_span_box_iou(sample: Sample) -> float:
    """Mean box IoU over the true span's frames that have a box, wherever the answer's span lies; nan without any."""
    inside = frames_inside(sample.times, sample.true_span) & ~np.isnan(sample.true_boxes).any(axis=1)
    return float(box_iou(sample.true_boxes, sample.boxes)[inside].mean()) if inside.any() else float("nan")


def scores(samples: Sequence[Sample]) -> np.ndarray:
    """What each sample adds to each of `METRICS`, float64 [N, 5]; their columns' means are the metrics."""
    rows = np.zeros((len(samples), len(METRICS)))
    for row, sample in zip(rows, samples, strict=True):
        tube = tube_iou(sample)
        row[:] = span_iou(sample.true_span, sample.span), tube, tube > 0.3, tube > 0.5, is_exact(sample)
    return rows


def bootstrap(table: np.ndarray, draws: int = 2000, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of the column means of `table` [N ≥ 1, M], by resampling rows: low [M] and high [M].

    Memory holds a few draws at a time; which rows they take does not depend on how many.
    """
    random, size = np.random.RandomState(0), len(table)
    columns = np.ascontiguousarray(table.T)  # summed one by one: a column's interval is the same beside any other
    means = []
    for start in range(0, draws, at_once := max(_PICKS // size, 1)):
        few = min(at_once, draws - start)
        picks = random.randint(size, size=(few, size)) + size * np.arange(few)[:, None]
        counts = np.bincount(picks.ravel(), minlength=few * size).reshape(few, size).astype(np.float64)
        means.append(np.column_stack([counts @ column for column in columns]) / size)
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def constant_answer(samples: Sequence[Sample], steps: int = 15) -> list[Sample]:
    """The samples as answered by someone who sees neither video nor sentence but knows all the truths.

    The answer is the one stretch of the clip, in `steps` parts of its duration, with the best m_tIoU, and the median
    true box in every frame. A model that does not beat it has learned nothing.
    """
    lengths = np.array([sample.times[-1] for sample in samples])
    truths = np.sort([sample.true_span for sample in samples], axis=1) / np.maximum(lengths, 1e-9)[:, None]
    grid = np.linspace(0, 1, steps + 1)
    candidates = [(start, end) for start in grid for end in grid if start < end]
    best = max(candidates, key=lambda span: sum(span_iou(span, truth) for truth in truths.tolist()))
    inside = [sample.true_boxes[frames_inside(sample.times, sample.true_span)] for sample in samples]
    boxes = np.concatenate(inside)
    boxes = boxes[~np.isnan(boxes).any(axis=1)]
    box = np.median(boxes, axis=0) if len(boxes) else np.full(4, np.nan)
    return [
        Sample(
            sample.times, sample.true_span, sample.true_boxes, (best[0] * length, best[1] * length),
            np.tile(box, (len(sample.times), 1)), sample.kind,
        )
        for sample, length in zip(samples, lengths.tolist(), strict=True)
    ]  # fmt: skip
