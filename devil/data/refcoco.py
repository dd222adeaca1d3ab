"""RefCOCO, RefCOCO+ and RefCOCOg as COCO-style JSON: each entry of `images` is one picture with one caption."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from devil.data.annotation import (
    BrokenRecordError,
    MediaFolder,
    Problem,
    Record,
    collected,
    corners_of_sized,
    part,
    read_json,
    sentence_of,
    shown,
    size,
    stacked,
)
from devil.errors import AnnotationError


def read_refcoco(path: str | os.PathLike, root: str | os.PathLike) -> tuple[list[Record], list[Problem]]:
    """Reads a COCO-style file.

    Its `images` have id, file_name, width, height and caption, its `annotations` image_id and bbox. A picture that
    several sentences are about is listed once per sentence, each time under another id.

    Args:
        root: folder with the pictures, at any depth.

    Returns:
        The usable records, and a problem for each of the others.

    Raises:
        AnnotationError: the file has no such two lists.
    """
    values = read_json(Path(path), dict)
    if not all(isinstance(values.get(key), list) for key in ("images", "annotations")):
        raise AnnotationError(f"{path} lacks the lists images and annotations", "give a COCO-style file")
    boxes: dict[int | str, list[Any]] = {}
    for annotation in values["annotations"]:
        if isinstance(annotation, dict) and isinstance(annotation.get("image_id"), (int, str)):
            boxes.setdefault(annotation["image_id"], []).append(annotation.get("bbox"))
    folder = MediaFolder(Path(root))
    return collected(values["images"], lambda image: _record(image, boxes, folder))


def _record(image: Any, boxes: dict[int | str, list[Any]], folder: MediaFolder) -> Record:
    sentence = sentence_of(image, "caption")
    width, height = size(image, "width"), size(image, "height")
    found = boxes.get(image["id"], []) if isinstance(image.get("id"), (int, str)) else []
    if len(found) != 1:
        raise BrokenRecordError(f"not exactly one box: {len(found)} for {shown(sentence)}")
    track = stacked([corners_of_sized(found[0], width, height)])
    path = folder.named(part(image, "file_name", str))
    return Record(path, sentence, "", True, 1.0, (0, 0), 0, 0, track)
