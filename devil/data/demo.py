"""The demo clip that ships in the package: a scene of the held-out split, larger and playable anywhere."""

from __future__ import annotations

import json
import os
from pathlib import Path

from devil.data.clips import picture_size
from devil.data.scene import make_scene
from devil.data.writer import chat_record, write_scene
from devil.files import write_text

SEED = 132  # of the held-out split; chosen for looking good, and because devil-tiny answers it well
SIDE = 252  # pixels of the shorter side: nine of the vision encoder's tokens
_CODEC = {"crf": "20", "preset": "veryslow"}


def write_demo(folder: str | os.PathLike, seed: int = SEED) -> Path:
    """Writes `demo.mp4` and its chat record `demo.json` into `folder`, and returns the path of the clip.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    scene = make_scene(seed, "heldout")
    size = picture_size(scene, SIDE)
    video = folder / "demo.mp4"
    write_scene(video, scene, size, pixels="yuv420p", options=_CODEC)
    records = [chat_record(scene, scene.queries[0], video.name, size)]
    write_text(folder / "demo.json", json.dumps(records, indent=1) + "\n")
    return video
