"""Chat records: the annotation format of training and evaluation (reference §5), read with every broken one named."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from devil.errors import AnnotationError, VideoError
from devil.prompt import QUERY_END, QUERY_START
from devil.video import probe

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_SLACK = 1.0  # pixels by which annotated boxes may leave the picture: datasets count pixels from 0 or 1


@dataclass(frozen=True)
class Record:
    """One sentence about one video or image, and where its object is.

    Attributes:
        path: the file.
        sentence: what to find.
        answer: text of the annotated answer, [BOX] included.
        is_image: whether it is a single picture, annotated with one box.
        fps: frames per second of the annotation's frame numbers; 1 for an image.
        segment: first and last frame of the file that the annotation is about, both included.
        start, end: first and last frame of the event, both included, counted from the file's first frame.
        boxes: x1, y1, x2, y2 as fractions, float32 [end - start + 1, 4]; nan where the object is not annotated.
        kind, form: type of the sentence, for reports; empty where unknown.
    """

    path: Path
    sentence: str
    answer: str
    is_image: bool
    fps: float
    segment: tuple[int, int]
    start: int
    end: int
    boxes: np.ndarray
    kind: str = ""
    form: str = ""

    def at(self, frames: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The truth in chosen frames of the file [T]: inside the event or not, bool [T], and boxes float32 [T, 4].

        Boxes are nan outside the event and where not annotated.
        """
        frames = np.asarray(frames, np.int64)
        inside = (frames >= self.start) & (frames <= self.end)
        boxes = np.full((len(frames), 4), np.nan, np.float32)
        boxes[inside] = self.boxes[frames[inside] - self.start]
        return inside, boxes


@dataclass(frozen=True)
class Problem:
    """A record that was left out: its number in the file, counted from 0, and why."""

    index: int
    reason: str


class _BrokenError(Exception):
    """Why a record cannot be used."""


def read_records(path: str | os.PathLike, root: str | os.PathLike | None = None) -> tuple[list[Record], list[Problem]]:
    """Reads a JSON list, or one JSON object per line, of chat records.

    Args:
        path: the annotation file.
        root: folder that video and image paths start from; the file's own by default.

    Returns:
        The usable records in the file's order, and a problem for each of the others: missing or unreadable video, fps
        0, boxes outside the picture, span outside the clip, and so on.

    Raises:
        AnnotationError: the file is missing or is not JSON.
    """
    path = Path(path)
    root = Path(root) if root is not None else path.parent
    records, problems = [], []
    for index, values in enumerate(_values(path)):
        try:
            records.append(_record(values, root))
        except _BrokenError as reason:
            problems.append(Problem(index, str(reason)))
    return records, problems


def summary(problems: Sequence[Problem]) -> dict[str, int]:
    """How many records were left out, by reason (what follows a colon differs between records and is dropped)."""
    return dict(Counter(problem.reason.split(":")[0] for problem in problems))


def _values(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path} cannot be read ({error})", "check the path") from None
    try:
        values = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in _lines(text)]
    except ValueError as error:
        raise AnnotationError(f"{path} is not JSON ({error})", "give a JSON list or one JSON object per line") from None
    return values


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _record(values: Any, root: Path) -> Record:
    if not isinstance(values, dict):
        raise _BrokenError("not a JSON object")
    is_image = "image" in values
    file = _file(values.get("image" if is_image else "video"), root)
    sentence, answer = _conversation(values.get("conversations"))
    truth = values.get("ground_truth")
    if not isinstance(truth, dict) or not isinstance(truth.get("bboxs"), list):
        raise _BrokenError("no ground truth with boxes")
    width, height, count = _shape(values, file)
    if is_image:
        fps, start, end, segment = 1.0, 0, 0, (0, 0)
    else:
        fps = _positive(values, "fps")
        start, end = _frame(truth, "start_time"), _frame(truth, "end_time")
        segment = _segment(values.get("used_segment"), count)
        if start > end:
            raise _BrokenError(f"span ends before it starts: {start} to {end}")
        if start < segment[0] or end > segment[1]:
            raise _BrokenError(f"span outside the clip: {start} to {end} of {segment[0]} to {segment[1]}")
    boxes = _aligned(truth["bboxs"], start, end, segment)
    fractions = np.stack([_box(box, width, height) for box in boxes])
    if np.isnan(fractions).all():
        raise _BrokenError("no box in the whole span")
    extras = (str(values.get(key, "")) for key in ("kind", "form"))
    return Record(file, sentence, answer, is_image, fps, segment, start, end, fractions, *extras)


def _file(value: Any, root: Path) -> Path:
    name = value[0] if isinstance(value, list) and value else value
    if not isinstance(name, str) or not name:
        raise _BrokenError("no video or image named")
    if not (root / name).is_file():
        raise _BrokenError(f"file missing: {name}")
    return root / name


def _conversation(turns: Any) -> tuple[str, str]:
    """The sentence in the first human turn, and the answer in the first turn of the model."""
    said: dict[str, str] = {}
    for turn in turns if isinstance(turns, list) else []:
        if isinstance(turn, dict) and isinstance(turn.get("value"), str):
            said.setdefault(turn.get("from", ""), turn["value"])
    if "human" not in said or "gpt" not in said:
        raise _BrokenError("no question with an answer")
    before, _, rest = said["human"].partition(QUERY_START)
    sentence, closed, _ = rest.partition(QUERY_END)
    if not closed or not sentence.strip():
        raise _BrokenError(f"no sentence between query marks: {before[:40]!r}")
    return " ".join(sentence.split()), said["gpt"]


def _shape(values: dict[str, Any], file: Path) -> tuple[int, int, int]:
    """Width, height and number of frames: as the record tells them, else from the file."""
    told = [values.get(key) for key in ("width", "height", "frame_count")]
    if all(isinstance(value, int) and value > 0 for value in told):
        return tuple(told)
    try:
        info = probe(file)
    except VideoError as error:
        raise _BrokenError(f"file unreadable: {error}") from None
    return info.width, info.height, len(info)


def _segment(value: Any, count: int) -> tuple[int, int]:
    if value is None:
        return 0, count - 1
    if not isinstance(value, dict):
        raise _BrokenError("used_segment is not an object")
    begin, end = _frame(value, "begin_fid"), _frame(value, "end_fid")
    if not 0 <= begin <= end < count:
        raise _BrokenError(f"segment outside the video: {begin} to {end} of {count} frames")
    return begin, end


def _aligned(boxes: list[Any], start: int, end: int, segment: tuple[int, int]) -> list[Any]:
    """The boxes of the event's frames, from a list that covers the event or the whole segment."""
    if len(boxes) == end - start + 1:
        return boxes
    if len(boxes) == segment[1] - segment[0] + 1:
        return boxes[start - segment[0] : end - segment[0] + 1]
    raise _BrokenError(f"number of boxes fits neither span nor segment: {len(boxes)} for {start} to {end}")


def _box(value: Any, width: int, height: int) -> np.ndarray:
    """Fractions float32 [4], nan for null."""
    if value is None:
        return np.full(4, np.nan, np.float32)
    corners = [value.get(side) for side in _SIDES] if isinstance(value, dict) else []
    if len(corners) != 4 or not all(_is_number(corner) for corner in corners):
        raise _BrokenError(f"box is not four numbers: {value}")
    x1, y1, x2, y2 = corners
    if not (x1 < x2 and y1 < y2):
        raise _BrokenError(f"box without area: {corners}")
    if x1 < -_SLACK or y1 < -_SLACK or x2 > width + _SLACK or y2 > height + _SLACK:
        raise _BrokenError(f"box outside the picture: {corners} in {width}×{height}")
    return np.clip(np.array(corners) / (width, height, width, height), 0, 1).astype(np.float32)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _positive(values: dict[str, Any], key: str) -> float:
    value = values.get(key)
    if not _is_number(value) or value <= 0:
        raise _BrokenError(f"{key} is not a positive number: {value}")
    return float(value)


def _frame(values: dict[str, Any], key: str) -> int:
    value = values.get(key)
    if not _is_number(value) or value != int(value):
        raise _BrokenError(f"{key} is not a frame number: {value}")
    return int(value)
