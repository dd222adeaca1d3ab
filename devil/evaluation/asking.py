"""Asks everything in a data set, one question after the other, and keeps what was said."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from devil.data.annotation import Record
from devil.data.moments import Moment
from devil.errors import AnnotationError, SentenceError, VideoError
from devil.evaluation.answerers import Answerer
from devil.evaluation.datasets import Dataset, shown_objects
from devil.evaluation.samples import Asked, SampleLog
from devil.evaluation.truth import segment_of, truth_of
from devil.metrics import Sample
from devil.progress import Progress
from devil.video import probe

_SKIPPED = {
    VideoError: "video unreadable",
    SentenceError: "sentence refused",
    AnnotationError: "annotation does not fit the video",
}


def run_values(answerer: Answerer, dataset: Dataset) -> dict[str, Any]:
    """What an evaluation is of, for its folder: two runs may share one only where these agree."""
    return {"model": dict(answerer.identity), "dataset": {"name": dataset.name, "digest": dataset.digest}}


def ask_all(dataset: Dataset, answerer: Answerer, log: SampleLog, limit: int | None, progress: Progress) -> list[Asked]:
    """Asks what the log does not have yet.

    Answers are kept by the record's number in its file: that stays when other records become usable, or cease to be.

    Args:
        limit: only the first so many questions of those that the data set has.
        progress: called with (stage, done, total).

    Returns:
        The answers to the wanted questions, in order; what cannot be asked has a `problem`.

    Raises:
        OutputError: the log cannot be written.
    """
    cases = dataset.cases[:limit]
    for done, case in enumerate(cases):
        progress("asking", done, len(cases))
        if not log.has(case.number, case.path, case.sentence):
            log.add(ask(case.number, case, answerer, dataset.control))
    progress("asking", len(cases), len(cases))
    return [log.asked[case.number] for case in cases]


def ask(index: int, case: Record | Moment, answerer: Answerer, control: bool = False) -> Asked:
    """One question, kept as number `index`; where video, sentence or annotation cannot be used it is a skipped one."""
    labels: Mapping[str, str] = {} if isinstance(case, Moment) else {"kind": case.kind, "form": case.form}
    about = {"index": index, "path": os.path.abspath(case.path), "sentence": case.sentence, **labels}
    try:
        info = probe(case.path)
        segment = segment_of(case, info)
        reply = answerer.ask(case.path, case.sentence, segment)
    except tuple(_SKIPPED) as error:
        reason = next(words for kind, words in _SKIPPED.items() if isinstance(error, kind))
        return Asked(**about, problem=f"{reason}: {error}")
    truth = truth_of(case, info, segment, reply.frames)
    # An image is a clip of one frame; when it happens goes without saying.
    span = (0.0, 0.0) if info.is_image else reply.span
    sample = Sample(reply.times, truth.span, truth.boxes, span, reply.boxes, labels.get("kind", ""))
    rivals = np.stack(shown_objects(case, reply.frames)) if control else None
    return Asked(**about, text=reply.text, frames=tuple(reply.frames.tolist()), sample=sample, rivals=rivals)
