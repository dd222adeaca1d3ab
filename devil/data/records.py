"""Chat records: the annotation format that DEViL is trained on (reference §5), for videos and images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from devil.data.annotation import (
    BrokenRecordError,
    MediaFolder,
    Problem,
    Record,
    check_span,
    check_text,
    collected,
    corners_of,
    frame,
    is_number,
    label,
    number,
    parsed,
    read_text,
    shown,
    stacked,
)
from devil.errors import AnnotationError, VideoError
from devil.prompt import QUERY_END, QUERY_START
from devil.video import probe


def read_records(path: str | os.PathLike, root: str | os.PathLike | None = None) -> tuple[list[Record], list[Problem]]:
    """Reads a JSON list, or one JSON object per line, of chat records.

    The last frames that a record names, `end_time` and `used_segment.end_fid`, are taken as included. A segment that
    ends at `frame_count`, behind the last frame, excludes its end and is read as the one that ends at the last frame.

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
    folder = MediaFolder(Path(root) if root is not None else path.parent)
    return collected(_values(path), lambda values: _record(values, folder))


def _values(path: Path) -> list[Any]:
    text = read_text(path)
    try:
        if text.lstrip().startswith("["):
            return parsed(text)
        return [parsed(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise AnnotationError(f"{path} is not JSON ({error})", "give a JSON list or one JSON object per line") from None


def _record(values: Any, folder: MediaFolder) -> Record:
    if not isinstance(values, dict):
        raise BrokenRecordError("not a JSON object")
    is_image = "image" in values
    named = values.get("image" if is_image else "video")
    file = folder.at(named[0] if isinstance(named, list) and named else named)
    sentence, answer = _conversation(values.get("conversations"))
    truth = values.get("ground_truth")
    if not isinstance(truth, dict) or not isinstance(truth.get("bboxs"), list):
        raise BrokenRecordError("no ground truth with boxes")
    width, height, count = _shape(values, file)
    if is_image:
        fps, start, end, segment = 1.0, 0, 0, (0, 0)
    else:
        fps = number(values, "fps", positive=True)
        start, end = frame(truth, "start_time"), frame(truth, "end_time")
        segment = _segment(values.get("used_segment"), count)
        check_span(start, end, segment, count)
    boxes = stacked(corners_of(box, width, height) for box in _aligned(truth["bboxs"], start, end, segment))
    kind, form = label(values, "kind"), label(values, "form")
    return Record(file, sentence, answer, is_image, fps, segment, start, end, boxes, kind, form)


def _conversation(turns: Any) -> tuple[str, str]:
    """The sentence in the first human turn, and the answer in the first turn of the model."""
    said: dict[str, str] = {}
    for turn in turns if isinstance(turns, list) else []:
        if isinstance(turn, dict) and all(isinstance(turn.get(key), str) for key in ("from", "value")):
            said.setdefault(turn["from"], turn["value"])
    if "human" not in said or "gpt" not in said:
        raise BrokenRecordError("no question with an answer")
    before, _, rest = said["human"].partition(QUERY_START)
    sentence, closed, _ = rest.partition(QUERY_END)
    if not closed or not sentence.strip():
        raise BrokenRecordError(f"no sentence between query marks: {shown(before)}")
    check_text(sentence)
    check_text(said["gpt"])
    return " ".join(sentence.split()), said["gpt"]


def _shape(values: dict[str, Any], file: Path) -> tuple[int, int, int]:
    """Width, height and number of frames: as the record tells them, else from the file."""
    told = [values.get(key) for key in ("width", "height", "frame_count")]
    if all(isinstance(value, int) and is_number(value) and value > 0 for value in told):
        return tuple(told)
    try:
        info = probe(file)
    except VideoError as error:
        raise BrokenRecordError(f"file unreadable: {error}") from None
    return info.width, info.height, len(info)


def _segment(value: Any, count: int) -> tuple[int, int]:
    if value is None:
        return 0, count - 1
    if not isinstance(value, dict):
        raise BrokenRecordError("used_segment is not an object")
    end = frame(value, "end_fid")
    return frame(value, "begin_fid"), end - 1 if end == count else end


def _aligned(boxes: list[Any], start: int, end: int, segment: tuple[int, int]) -> list[Any]:
    """The boxes of the event's frames, from a list that covers the event or the whole segment."""
    if len(boxes) == end - start + 1:
        return boxes
    if len(boxes) == segment[1] - segment[0] + 1:
        return boxes[start - segment[0] : end - segment[0] + 1]
    raise BrokenRecordError(f"number of boxes fits neither span nor segment: {len(boxes)} for {start} to {end}")
