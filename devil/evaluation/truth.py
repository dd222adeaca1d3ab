"""What is true of the frames that a model sampled."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from devil.answer import parse_span
from devil.data.annotation import Record
from devil.data.moments import Moment
from devil.errors import AnnotationError
from devil.video import VideoInfo, frame_at

_SAME_RATE = 0.02  # relative; annotation and file then count the same frames


@dataclass(frozen=True)
class Truth:
    """The answer that is right.

    Attributes:
        span: seconds from the start of what the model looked at.
        boxes: x1, y1, x2, y2 as fractions in each sampled frame, float64 [T, 4]; nan where there is none.
    """

    span: tuple[float, float]
    boxes: np.ndarray


def segment_of(case: Record | Moment, info: VideoInfo) -> tuple[int, int] | None:
    """First and last frame of the file that the model may look at; None for all of it.

    Raises:
        AnnotationError: the event lies behind the file's end.
    """
    if isinstance(case, Moment) or case.is_image:
        return None
    last = len(info) - 1
    if _file_time(case, info, case.start) >= info.duration:
        raise AnnotationError(f"the event begins at frame {case.start} of a video that has {len(info)}")
    first, final = case.segment
    if not _counts_file_frames(case, info):
        fps = Fraction(case.fps)
        first, final = frame_at(info, first / fps), bisect_left(info.times, (final + 1) / fps) - 1
    final = min(final, last)
    return None if (first, final) == (0, last) else (first, final)


def truth_of(case: Record | Moment, info: VideoInfo, segment: tuple[int, int] | None, frames: np.ndarray) -> Truth:
    """The truth in the sampled frames `frames` of the file, int [T].

    The span is the one that the annotated answer tells, if it tells one: that is what the model was taught to say.
    Otherwise it lasts from the event's first annotated frame to its last.
    """
    if isinstance(case, Moment):
        return Truth(case.span, np.full((len(frames), 4), np.nan))
    _, boxes = case.at(_annotated(case, info, frames))
    told = parse_span(case.answer)
    if case.is_image:
        span = (0.0, 0.0)
    elif told is not None:
        span = (told.start, told.end)
    else:
        begin = info.times[segment[0]] if segment else Fraction(0)
        start, end = (float(_file_time(case, info, frame) - begin) for frame in (case.start, case.end))
        span = (start, end)
    return Truth(span, boxes.astype(np.float64))


def _counts_file_frames(case: Record, info: VideoInfo) -> bool:
    return case.is_image or abs(float(info.rate) / case.fps - 1) < _SAME_RATE


def _file_time(case: Record, info: VideoInfo, frame: int) -> Fraction:
    """Seconds of an annotated frame; those behind the file's end follow at the annotation's rate."""
    if _counts_file_frames(case, info) and frame < len(info):
        return info.times[frame]
    return Fraction(frame) / Fraction(case.fps)


def _annotated(case: Record, info: VideoInfo, frames: np.ndarray) -> np.ndarray:
    """The annotation's numbers of the file's frames, int64 [T]."""
    if _counts_file_frames(case, info):
        return frames
    return np.array([int(info.times[frame] * Fraction(case.fps)) for frame in frames.tolist()], np.int64)
