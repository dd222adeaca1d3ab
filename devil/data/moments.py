"""Temporal grounding: sentences with a span and no boxes, as Charades-STA and ActivityNet Captions publish them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devil.data.annotation import (
    BrokenRecordError,
    MediaFolder,
    Problem,
    check_text,
    collected,
    is_number,
    number,
    read_json,
    read_text,
    shown,
)

_SLACK = 1.0  # seconds by which annotated ends may pass the told duration


@dataclass(frozen=True)
class Moment:
    """A sentence and the span of the video, in seconds, that it describes; and its number in the file, from 0."""

    path: Path
    sentence: str
    span: tuple[float, float]
    number: int = 0


def read_charades(path: str | os.PathLike, root: str | os.PathLike) -> tuple[list[Moment], list[Problem]]:
    """Reads lines of the form `VIDEO START END##sentence`.

    Args:
        root: folder with the videos, at any depth.

    Returns:
        The usable moments, and a problem for each of the other lines.

    Raises:
        AnnotationError: the file cannot be read.
    """
    folder = MediaFolder(Path(root))
    lines = [line for line in read_text(Path(path)).splitlines() if line.strip()]
    return collected(lines, lambda line: _from_line(line, folder))


def read_activitynet(path: str | os.PathLike, root: str | os.PathLike) -> tuple[list[Moment], list[Problem]]:
    """Reads a JSON object that maps video ids to `duration`, `timestamps` [[start, end], …] and `sentences`.

    Arguments, result and errors are those of `read_charades`; problems are numbered by sentence, in reading order.
    """
    folder = MediaFolder(Path(root))
    entries = [
        (name, values, index)
        for name, values in read_json(Path(path), dict).items()
        for index in range(_sentences(values))
    ]
    return collected(entries, lambda entry: _from_entry(*entry, folder))


def _from_line(line: str, folder: MediaFolder) -> Moment:
    head, mark, sentence = line.partition("##")
    words = head.split()
    if not mark or len(words) != 3 or not sentence.strip():
        raise BrokenRecordError(f"not 'video start end##sentence': {shown(line)}")
    try:
        start, end = float(words[1]), float(words[2])
    except ValueError:
        raise BrokenRecordError(f"span is not two numbers: {shown(head)}") from None
    return Moment(folder.named(words[0]), " ".join(sentence.split()), _span(start, end))


def _sentences(values: Any) -> int:
    """How many sentences an entry has; 1, to be reported, where it has no list of them."""
    listed = values.get("sentences") if isinstance(values, dict) else None
    return len(listed) if isinstance(listed, list) else 1


def _from_entry(name: str, values: Any, index: int, folder: MediaFolder) -> Moment:
    duration = number(values, "duration", positive=True)
    try:
        (start, end), sentence = values["timestamps"][index], values["sentences"][index]
    except (KeyError, IndexError, TypeError, ValueError):
        raise BrokenRecordError(f"no timestamps for sentence: {index} of {name}") from None
    if not isinstance(sentence, str) or not sentence.strip():
        raise BrokenRecordError(f"sentence is empty: {index} of {name}")
    check_text(sentence)
    if not (is_number(start) and is_number(end)) or end > duration + _SLACK:
        raise BrokenRecordError(f"span outside the clip: {shown(start)} to {shown(end)} of {duration:g} s")
    return Moment(folder.named(name), " ".join(sentence.split()), _span(start, end))


def _span(start: float, end: float) -> tuple[float, float]:
    if not (is_number(start) and is_number(end)) or start < 0:
        raise BrokenRecordError(f"span outside the clip: {start} to {end}")
    if start >= end:
        raise BrokenRecordError(f"span ends before it starts: {start} to {end}")
    return float(start), float(end)
