"""What every annotation file is turned into, and the checks that decide which of its records can be used."""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from devil.errors import AnnotationError

SIDES = ("xmin", "ymin", "xmax", "ymax")
_SLACK = 1.0  # pixels by which annotated boxes may leave the picture: datasets count pixels from 0 or 1
_NOT_MEDIA = {".json", ".jsonl", ".txt", ".csv", ".md", ""}
_LARGEST = 2**31  # no pixel, frame, rate or second of a video is more; what is computed from it stays in float64
_KINDS = {dict: "an object", list: "a list", str: "a string"}  # as JSON calls them
Found = TypeVar("Found")


@dataclass(frozen=True)
class Record:
    """One sentence about one video or image, and where its object is.

    Attributes:
        path: the file.
        sentence: what to find.
        answer: text of the annotated answer, [BOX] included; empty where the data set has none.
        is_image: whether it is a single picture, annotated with one box.
        fps: frames per second of the annotation's frame numbers; 1 for an image.
        segment: first and last frame of the file that the annotation is about, both included.
        start, end: first and last frame of the event, both included, counted from the file's first frame.
        boxes: x1, y1, x2, y2 as fractions, float32 [end - start + 1, 4]; nan where the object is not annotated.
        kind, form: type of the sentence, for reports; empty where unknown.
        number: of the record in its file, counted from 0; those that were left out count too.
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
    number: int = 0

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


class BrokenRecordError(Exception):
    """Why one record cannot be used; never leaves a reader."""


def summary(problems: Sequence[Problem]) -> dict[str, int]:
    """How many records were left out, by reason, most frequent first.

    What follows a colon differs between records and is dropped.
    """
    return dict(Counter(problem.reason.split(":")[0] for problem in problems).most_common())


def collected(entries: Iterable[Any], read: Callable[[Any], Found]) -> tuple[list[Found], list[Problem]]:
    """`read` of each entry, numbered, where it succeeds, and a problem where it finds the entry broken.

    Args:
        read: makes a dataclass that has a `number`.
    """
    found, problems = [], []
    for index, entry in enumerate(entries):
        try:
            found.append(replace(read(entry), number=index))
        except BrokenRecordError as reason:
            problems.append(Problem(index, str(reason)))
    return found, problems


def read_text(path: Path) -> str:
    """The text of an annotation file.

    Raises:
        AnnotationError: there is none.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read ({error.strerror})", "check the path") from None
    except UnicodeDecodeError:
        raise AnnotationError(f"{path} is not UTF-8 text", "check the path") from None


def read_json(path: Path, kind: type[Found]) -> Found:
    """The JSON value in a file.

    Raises:
        AnnotationError: it is not readable as JSON, or not of the wanted kind.
    """
    try:
        value = parsed(read_text(path))
    except ValueError as error:
        raise AnnotationError(f"{path} is not JSON ({error})", "copy it again") from None
    if not isinstance(value, kind):
        found = _KINDS.get(type(value), "a single value")
        raise AnnotationError(f"{path} holds {found}, not {_KINDS[kind]}", "check the data set")
    return value


def parsed(text: str) -> Any:
    """The JSON value that a text is.

    Raises:
        ValueError: it is not JSON, or more than can be read.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError):  # Python reads whole numbers of some thousand digits, no longer ones
        raise ValueError("too many lists or objects in each other, or a number of too many digits") from None


def shown(value: Any) -> str:
    """A value for a message, cut short, however long or deep it is."""
    return reprlib.repr(value)[:60]


class MediaFolder:
    """The videos or images below a folder. Looking for one raises BrokenRecordError unless exactly one fits."""

    def __init__(self, root: Path):
        self.root = root

    def at(self, path: Any) -> Path:
        """The file at a path relative to the folder."""
        if not isinstance(path, str) or not path:
            raise BrokenRecordError("no video or image named")
        try:
            found = (self.root / path).is_file()
        except (OSError, ValueError):  # a name that no file can have, a folder that may not be read
            found = False
        if not found:
            raise BrokenRecordError(f"file missing: {path[:200]}")
        return self.root / path

    def named(self, name: str) -> Path:
        """The file with this name, or with this name before its extension, at any depth."""
        fitting = self._by_name.get(name, [])
        if not fitting:
            raise BrokenRecordError(f"file missing: {name[:200]}")
        if len(fitting) > 1:
            raise BrokenRecordError(f"several files fit: {name}")
        return fitting[0]

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        names: dict[str, list[Path]] = {}
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and path.suffix not in _NOT_MEDIA:
                for name in (path.name, path.stem):
                    names.setdefault(name, []).append(path)
        return names


def part(values: Any, key: str, kind: type[Found]) -> Found:
    """`values[key]`, checked to be of `kind`."""
    value = values.get(key) if isinstance(values, dict) else None
    if not isinstance(value, kind):
        raise BrokenRecordError(f"{key} is missing or not {_KINDS[kind]}: {shown(value)}")
    return value


def sentence_of(values: Any, key: str) -> str:
    sentence = " ".join(part(values, key, str).split())
    if not sentence:
        raise BrokenRecordError(f"{key} is empty")
    check_text(sentence)
    return sentence


def check_text(text: str) -> None:
    """Refuses what JSON can hold and no file: halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BrokenRecordError(f"half a character in the text: {shown(text)}") from None


def label(values: Any, key: str) -> str:
    """A word for reports; empty where there is none that they could show."""
    word = values.get(key)
    return word if isinstance(word, str) and word.isprintable() else ""


def number(values: Any, key: str, positive: bool = False) -> float:
    value = values.get(key) if isinstance(values, dict) else None
    if not is_number(value) or (positive and value < 1 / _LARGEST):
        raise BrokenRecordError(f"{key} is not a {'positive ' if positive else ''}number: {shown(value)}")
    return float(value)


def frame(values: Any, key: str) -> int:
    value = values.get(key) if isinstance(values, dict) else None
    if not is_number(value) or value != int(value):
        raise BrokenRecordError(f"{key} is not a whole number: {shown(value)}")
    return int(value)


def size(values: Any, key: str) -> int:
    """How many pixels or frames there are: at least one."""
    value = frame(values, key)
    if value < 1:
        raise BrokenRecordError(f"{key} is not positive: {value}")
    return value


def is_number(value: Any) -> bool:
    """Whether a value is a number that something in a video can have; JSON has larger ones than a float."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST


def check_span(start: int, end: int, segment: tuple[int, int], count: int) -> None:
    """All ends included: 0 ≤ segment < count, and the span ordered and inside the segment."""
    if not 0 <= segment[0] <= segment[1] < count:
        raise BrokenRecordError(f"segment outside the video: {segment[0]} to {segment[1]} of {count} frames")
    if start > end:
        raise BrokenRecordError(f"span ends before it starts: {start} to {end}")
    if start < segment[0] or end > segment[1]:
        raise BrokenRecordError(f"span outside the clip: {start} to {end} of {segment[0]} to {segment[1]}")


def corners_of(box: Any, width: float, height: float) -> np.ndarray:
    """A box given as an object of four sides in pixels → fractions float32 [4]; nan for None."""
    if box is None:
        return np.full(4, np.nan, np.float32)
    corners = [box.get(side) for side in SIDES] if isinstance(box, dict) else [None]
    if not all(is_number(corner) for corner in corners):
        raise BrokenRecordError(f"box is not an object of {', '.join(SIDES)} in pixels: {shown(box)}")
    x1, y1, x2, y2 = corners
    if not (x1 < x2 and y1 < y2):
        raise BrokenRecordError(f"box without area: {corners}")
    if x1 < -_SLACK or y1 < -_SLACK or x2 > width + _SLACK or y2 > height + _SLACK:
        raise BrokenRecordError(f"box outside the picture: {corners} in {width:g}×{height:g}")
    return np.clip(np.array(corners) / (width, height, width, height), 0, 1).astype(np.float32)


def corners_of_sized(box: Any, width: float, height: float) -> np.ndarray:
    """As `corners_of`, for a box given as a list of left, top, width and height."""
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
        raise BrokenRecordError(f"box is not four numbers: {shown(box)}")
    x, y, w, h = box
    return corners_of(dict(zip(SIDES, (x, y, x + w, y + h), strict=True)), width, height)


def stacked(boxes: Iterable[np.ndarray]) -> np.ndarray:
    """Boxes of a whole event; at least one must be there."""
    track = np.stack(list(boxes))
    if np.isnan(track).all():
        raise BrokenRecordError("no box in the whole span")
    return track
