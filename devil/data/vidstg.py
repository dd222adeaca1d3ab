"""VidSTG: sentences about segments of VidOR videos; the boxes come from VidOR's own annotation of each video."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from devil.data.annotation import (
    BrokenRecordError,
    MediaFolder,
    Problem,
    Record,
    check_span,
    collected,
    corners_of,
    frame,
    label,
    number,
    part,
    read_json,
    sentence_of,
    size,
    stacked,
)
from devil.errors import AnnotationError


def read_vidstg(
    path: str | os.PathLike, root: str | os.PathLike, vidor: str | os.PathLike
) -> tuple[list[Record], list[Problem]]:
    """Reads `train_annotations.json`, `val_annotations.json` or `test_annotations.json` as published.

    Each entry has declarative `captions` and interrogative `questions`; both kinds become records of that form. Frame
    ids count from 0 in the whole video, and the ends of `used_segment` and `temporal_gt` are excluded.

    Args:
        root: folder with VidOR's videos, at any depth.
        vidor: folder with VidOR's annotations, one `<video id>.json` per video, at any depth.

    Returns:
        The usable records, and a problem for each unusable sentence, numbered in reading order.

    Raises:
        AnnotationError: the file is not a JSON list.
    """
    folder = MediaFolder(Path(root))
    tracks = {file.stem: file for file in sorted(Path(vidor).rglob("*.json"))}
    entries = (
        (entry, query, form)
        for entry in read_json(Path(path), list)
        for key, form in (("captions", "declarative"), ("questions", "interrogative"))
        for query in _queries(entry, key)
    )
    return collected(entries, lambda found: _record(*found, folder, tracks))


def _queries(entry: Any, key: str) -> list[Any]:
    """An entry's sentences; one empty stand-in, to be reported, where the list itself is broken."""
    queries = entry.get(key, []) if isinstance(entry, dict) else None
    return queries if isinstance(queries, list) else [None]


def _record(entry: Any, query: Any, form: str, folder: MediaFolder, tracks: dict[str, Path]) -> Record:
    sentence, target = sentence_of(query, "description"), frame(query, "target_id")
    name = part(entry, "vid", str)
    width, height, count = (size(entry, key) for key in ("width", "height", "frame_count"))
    used, truth = part(entry, "used_segment", dict), part(entry, "temporal_gt", dict)
    segment = frame(used, "begin_fid"), frame(used, "end_fid") - 1
    start, end = frame(truth, "begin_fid"), frame(truth, "end_fid") - 1
    fps = number(entry, "fps", positive=True)
    check_span(start, end, segment, count)
    if name not in tracks:
        raise BrokenRecordError(f"VidOR annotation missing: {name}")
    frames = _trajectories(tracks[name])
    if end >= len(frames):
        raise BrokenRecordError(f"VidOR annotation too short: {len(frames)} frames for a span to {end}")
    boxes = (frames[index].get(target) for index in range(start, end + 1))
    track = stacked(corners_of(box, width, height) for box in boxes)
    kind = label(query, "type")
    return Record(folder.named(name), sentence, "", False, fps, segment, start, end, track, kind, form)


@lru_cache(maxsize=2)  # sentences about one video stand together
def _trajectories(path: Path) -> list[dict[int, Any]]:
    """For each frame of a video, its objects' boxes by id."""
    try:
        frames = part(read_json(path, dict), "trajectories", list)
        return [{frame(box, "tid"): part(box, "bbox", dict) for box in boxes} for boxes in frames]
    except (AnnotationError, TypeError) as error:
        raise BrokenRecordError(f"VidOR annotation unreadable: {error}") from None
