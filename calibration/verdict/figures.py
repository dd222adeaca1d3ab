"""From answers to what a candidate costs: its scores, and question by question how far it is from the original."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from devil.calibration.verdict.asking import Replies
from devil.evaluation.samples import Asked
from devil.evaluation.summary import TUBE_METRICS, tube_table
from devil.metrics import bootstrap, box_iou, frames_inside

AGREEMENTS = ("same_text", "same_span", "rst_cosine", "box_iou")


@dataclass(frozen=True)
class Figure:
    """A mean over questions with its 95 % bootstrap interval; None where nothing could be counted."""

    value: float | None
    low: float | None = None
    high: float | None = None
    count: int = 0

    @classmethod
    def of(cls, values: np.ndarray) -> Figure:
        """Of one value per question; nan where a question has none."""
        known = values[~np.isnan(values)]
        if not len(known):
            return cls(None)
        low, high = bootstrap(known[:, None])
        return cls(float(known.mean()), float(low[0]), float(high[0]), len(known))


def score_figures(replies: Replies) -> dict[str, Figure]:
    """The metrics of `devil.evaluation` against the truth."""
    table = tube_table([asked.sample for asked in replies.asked])
    return {name: Figure.of(column) for name, column in zip(TUBE_METRICS, table.T, strict=True)}


def change_figures(candidate: Replies, original: Replies) -> dict[str, Figure]:
    """The metrics' changes, question by question: intervals of these are much narrower than those of the metrics."""
    ours, theirs = zip(*_pairs(candidate, original), strict=True)
    change = tube_table([asked.sample for asked in ours]) - tube_table([asked.sample for asked in theirs])
    return {name: Figure.of(column) for name, column in zip(TUBE_METRICS, change.T, strict=True)}


def agreement_figures(candidate: Replies, original: Replies) -> dict[str, Figure]:
    """How often and how far a candidate says what the original said.

    Boxes are compared in the frames of the original's span, RSTs where both answers have one.
    """
    measures: dict[str, Callable[[Asked, Asked], float]] = {
        "same_text": lambda one, two: float(one.text == two.text),
        "same_span": lambda one, two: float(one.sample.span == two.sample.span),
        "rst_cosine": lambda one, two: _cosine(candidate.rsts.get(one.index), original.rsts.get(two.index)),
        "box_iou": box_agreement,
    }
    pairs = _pairs(candidate, original)
    return {name: Figure.of(np.array([measure(*pair) for pair in pairs])) for name, measure in measures.items()}


def losses(changes: Mapping[str, Figure], agreements: Mapping[str, Figure]) -> dict[str, float]:
    """What a `Budget` looks at; a loss of points below zero is a gain."""
    found: dict[str, float | None] = {
        "viou": _scaled(changes["m_vIoU"].value, -100),
        "tiou": _scaled(changes["m_tIoU"].value, -100),
        "text": _scaled(agreements["same_text"].value, -100, 100),
        "rst": agreements["rst_cosine"].value,
        "box": agreements["box_iou"].value,
    }
    return {name: value for name, value in found.items() if value is not None}


def box_agreement(one: Asked, two: Asked) -> float:
    """Mean IoU of both answers' boxes in the frames of the second one's span; nan where it has no boxes there."""
    sample = two.sample
    inside = frames_inside(sample.times, sample.span) if sample.span else np.ones(len(sample.times), bool)
    inside &= ~np.isnan(sample.boxes).any(axis=1)
    if not inside.any() or one.sample.boxes.shape != sample.boxes.shape:
        return float("nan")
    return float(box_iou(one.sample.boxes[inside], sample.boxes[inside]).mean())


def figures_json(figures: Mapping[str, Figure]) -> dict[str, Any]:
    return {
        name: {"value": figure.value, "interval": [figure.low, figure.high], "count": figure.count}
        for name, figure in figures.items()
    }


def _pairs(candidate: Replies, original: Replies) -> Sequence[tuple[Asked, Asked]]:
    theirs = {asked.index: asked for asked in original.asked}
    return [(asked, theirs[asked.index]) for asked in candidate.asked if asked.index in theirs]


def _cosine(one: np.ndarray | None, two: np.ndarray | None) -> float:
    if one is None or two is None:
        return float("nan")
    one, two = one.astype(np.float64), two.astype(np.float64)
    return float(one @ two / max(np.linalg.norm(one) * np.linalg.norm(two), 1e-30))


def _scaled(value: float | None, factor: float, offset: float = 0.0) -> float | None:
    return None if value is None else offset + factor * value
