"""Writing synthetic scenes as video files with their annotations."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from devil.data.clips import picture_size
from devil.data.dice import Dice
from devil.data.scene import Query, Scene, Split, make_scene
from devil.files import atomic_directory, atomic_file
from devil.prompt import stvg_answer, stvg_instruction

ANNOTATIONS = "annotations.json"
CONTROL = "control.json"  # the same clips, each asked about another shape

_LOSSLESS = {"qp": "0", "preset": "fast"}
_SIDES = (98, 112)  # pixels of a clip's shorter side: what the tiny model's token budget lets it see
_BATCH = 64  # frames rendered at a time


def write_dataset(
    folder: str | os.PathLike,
    split: Split = "heldout",
    count: int = 200,
    frames: int = 16,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Writes the split's first `count` clips as lossless H.264 files, with two lists of chat records.

    Args:
        folder: replaced if it exists.
        frames: how many frames the model samples.
        progress: called with the number of clips written so far.

    Returns:
        Path of the annotations: one record per clip, its own question. Beside it lies the control: for each clip that
        has another shape with an event, a record about that shape.

    Raises:
        OutputError: the folder cannot be written.
    """
    records: list[dict[str, Any]] = []
    controls: list[dict[str, Any]] = []
    with atomic_directory(folder) as temporary:
        for seed in range(count):
            scene = make_scene(seed, split, frames)
            side = 2 * Dice(f"size {scene.name}").integer(_SIDES[0] // 2, _SIDES[1] // 2)
            size = picture_size(scene, side)
            video = f"clips/{split}-{seed:04d}.mp4"
            (temporary / video).parent.mkdir(exist_ok=True)
            write_scene(temporary / video, scene, size)
            own, *others = (query for query in scene.queries if query.main)
            records.append(chat_record(scene, own, video, size))
            controls += [chat_record(scene, query, video, size) for query in others[:1]]
            if progress:
                progress(seed + 1)
        for name, listed in ((ANNOTATIONS, records), (CONTROL, controls)):
            (temporary / name).write_text(json.dumps(listed), encoding="utf-8")
    return Path(folder) / ANNOTATIONS


def write_scene(path: str | os.PathLike, scene: Scene, size: tuple[int, int], **codec: Any) -> None:
    """Renders a scene's whole clip into a video file; `codec` goes to `write_video`."""
    clock = scene.clock

    def pictures() -> Iterator[np.ndarray]:
        for start in range(0, clock.count, _BATCH):
            ids = np.arange(start, min(start + _BATCH, clock.count))
            yield from scene.render(ids / float(clock.rate), size)

    write_video(path, pictures(), clock.rate, size, **codec)


def write_video(
    path: str | os.PathLike,
    pictures: Iterator[np.ndarray],
    rate: Fraction,
    size: tuple[int, int],
    pixels: str = "yuv444p",
    options: dict[str, str] | None = None,
) -> None:
    """Encodes uint8 [H, W, 3] pictures as H.264, lossless but for the change to YUV unless `options` say otherwise.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_file(path) as temporary, av.open(str(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options=options or _LOSSLESS)
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        stream.thread_count = 1  # small pictures, and the same bytes everywhere
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def chat_record(scene: Scene, query: Query, video: str, size: tuple[int, int]) -> dict[str, Any]:
    """The annotation of one sentence, in the format of the reference (§5); boxes of every frame of the exact span.

    Beside the published keys stand the picture's size and the sentence's type.
    """
    clock, (height, width) = scene.clock, size
    moments = np.arange(clock.count) / float(clock.rate)
    inside = np.flatnonzero((moments >= query.start) & (moments < query.end))
    boxes, visible = scene.boxes(query.target, moments[inside])
    corners = (boxes * np.array([width, height, width, height])).astype(float).round(2).tolist()
    keys = ("xmin", "ymin", "xmax", "ymax")
    answer = stvg_answer(clock.times[query.first], clock.times[query.last])
    return {
        "video": [video],
        "conversations": [
            {"from": "human", "value": f"<video>\n{stvg_instruction(query.sentence)}"},
            {"from": "gpt", "value": answer},
        ],
        "ground_truth": {
            "start_time": int(inside[0]),
            "end_time": int(inside[-1]),
            "bboxs": [
                dict(zip(keys, box, strict=True)) if seen else None for box, seen in zip(corners, visible, strict=True)
            ],
        },
        "used_segment": {"begin_fid": 0, "end_fid": clock.count - 1},
        "fps": float(clock.rate),
        "width": width,
        "height": height,
        "frame_count": clock.count,
        "kind": query.kind,
        "form": query.form,
    }
