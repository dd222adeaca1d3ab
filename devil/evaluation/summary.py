"""From answers to figures: means, intervals, the constant baseline, breakdowns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from devil.data.annotation import Problem, summary
from devil.errors import AnnotationError
from devil.evaluation.datasets import Dataset
from devil.evaluation.samples import Asked
from devil.metrics import METRICS, Sample, bootstrap, box_iou, constant_answer, scores, span_iou, true_span_box_iou

BOX_IOU = "box_iou"
TUBE_METRICS = (*METRICS, BOX_IOU)
TEMPORAL_METRICS = ("mIoU", "R1@0.3", "R1@0.5", "R1@0.7")
CONTROL = "control_moved"


def summarise(dataset: Dataset, asked: Sequence[Asked]) -> dict[str, Any]:
    """All figures of an evaluation as JSON values (docs/evaluation.md); 0–1 throughout.

    Raises:
        AnnotationError: nothing could be asked.
    """
    answered = [one for one in asked if one.sample is not None]
    if not answered:
        reasons = ", ".join(f"{count} × {reason}" for reason, count in skipped(dataset, asked).items())
        first = next((f"; the first: {one.problem}" for one in asked), "")
        raise AnnotationError(
            f"nothing of {dataset.name} could be asked ({reasons}{first})", "check --root and the file"
        )
    names, score = (TEMPORAL_METRICS, temporal_table) if dataset.is_temporal else (TUBE_METRICS, tube_table)
    samples = [one.sample for one in answered]
    table = score(samples)
    labels = [[label for label in (one.kind, one.form) if label] for one in answered]
    values = {
        "metrics": _means(names, table),
        "intervals": _intervals(names, table),
        "baseline": _means(names, score(constant_answer(samples))),
        "by_type": {
            label: {**_means(names, table[rows]), "samples": len(rows)}
            for label in sorted({label for found in labels for label in found})
            if (rows := [row for row, found in enumerate(labels) if label in found])
        },
        "samples": len(answered),
        "skipped": skipped(dataset, asked),
    }
    if dataset.control:
        moved = np.array([[follows_sentence(one)] for one in answered if follows_sentence(one) is not None], float)
        values["control"] = {
            "moved": _means((CONTROL,), moved)[CONTROL],
            "interval": _intervals((CONTROL,), moved)[CONTROL],
            "judged": len(moved),
        }
    return values


def skipped(dataset: Dataset, asked: Sequence[Asked]) -> dict[str, int]:
    """How many records were not counted, by reason."""
    return summary([*dataset.problems, *(Problem(one.index, one.problem) for one in asked if one.problem)])


def tube_table(samples: Sequence[Sample]) -> np.ndarray:
    """What each sample adds to `TUBE_METRICS`, float64 [N, 6]; box_iou is nan where no true frame has a box."""
    boxes = [true_span_box_iou(sample) for sample in samples]
    return np.column_stack([scores(samples), boxes])


def temporal_table(samples: Sequence[Sample]) -> np.ndarray:
    """What each sample adds to `TEMPORAL_METRICS`, float64 [N, 4]."""
    overlaps = np.array([span_iou(sample.true_span, sample.span) for sample in samples])
    return np.column_stack([overlaps, *(overlaps >= bound for bound in (0.3, 0.5, 0.7))])


def follows_sentence(asked: Asked) -> bool | None:
    """Of a control clip: whether the answer's boxes overlap the named object more than the other one.

    All sampled frames in which both are visible count; None where there is none. No box is no.
    """
    named, other = asked.rivals
    judged = ~np.isnan(named).any(axis=1)
    if not judged.any():
        return None
    near, far = (box_iou(asked.sample.boxes[judged], rival[judged]).mean() for rival in (named, other))
    return bool(near > far)


def _means(names: Sequence[str], table: np.ndarray) -> dict[str, float | None]:
    return _by_column(names, table, lambda column: float(column.mean()))


def _intervals(names: Sequence[str], table: np.ndarray) -> dict[str, list[float] | None]:
    """95 % bootstrap intervals of the means; columns whose values are known in the same rows are drawn together."""
    found: dict[str, list[float] | None] = dict.fromkeys(names)
    known = ~np.isnan(table)
    for rows in np.unique(known, axis=1).T:
        columns = np.flatnonzero((known == rows[:, None]).all(axis=0))
        if rows.any():
            ends = np.column_stack(bootstrap(table[np.ix_(rows, columns)]))
            found |= {names[column]: pair for column, pair in zip(columns, ends.tolist(), strict=True)}
    return found


def _by_column(names: Sequence[str], table: np.ndarray, of: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    """A figure of each column's known values; None where it has none."""
    known = [column[~np.isnan(column)] for column in table.T]
    return {name: of(column) if len(column) else None for name, column in zip(names, known, strict=True)}
