"""HC-STVG v1 and v2: one JSON object that maps file names of 20-second clips to a caption and a person's boxes."""

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
    collected,
    corners_of_sized,
    frame,
    part,
    read_json,
    sentence_of,
    shown,
    size,
    stacked,
)

_SECONDS = 20  # every clip's length, whatever its file says


def read_hcstvg(path: str | os.PathLike, root: str | os.PathLike) -> tuple[list[Record], list[Problem]]:
    """Reads `train.json`, `test.json` (v1), `trainv2.json` or `valv2.json` as they are published.

    v1 gives `caption`, `width` and `height`; v2 gives `English` and `img_size` [height, width]. In both, `bbox` lists
    [left, top, width, height] of consecutive frames from `st_frame` on, which is counted from 1, and frames are
    numbered at `img_num` / 20 per second.

    Args:
        root: folder with the videos, at any depth.

    Returns:
        The usable records, and a problem for each of the others.

    Raises:
        AnnotationError: the file is not such an object.
    """
    folder = MediaFolder(Path(root))
    return collected(read_json(Path(path), dict).items(), lambda entry: _record(*entry, folder))


def _record(name: str, values: Any, folder: MediaFolder) -> Record:
    sentence = sentence_of(values, "English" if isinstance(values, dict) and "English" in values else "caption")
    count = size(values, "img_num")
    width, height = _size(values)
    boxes = part(values, "bbox", list)
    start = frame(values, "st_frame") - 1
    end = start + len(boxes) - 1
    check_span(start, end, (0, count - 1), count)
    track = stacked(corners_of_sized(box, width, height) for box in boxes)
    path = folder.named(name)
    return Record(path, sentence, "", False, count / _SECONDS, (0, count - 1), start, end, track, form="declarative")


def _size(values: dict[str, Any]) -> tuple[int, int]:
    """Width and height."""
    if "img_size" not in values:
        return size(values, "width"), size(values, "height")
    sides = part(values, "img_size", list)
    if len(sides) != 2:
        raise BrokenRecordError(f"img_size is not [height, width]: {shown(sides)}")
    named = dict(zip(("height", "width"), sides, strict=True))
    return size(named, "width"), size(named, "height")
