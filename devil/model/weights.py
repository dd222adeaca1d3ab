"""Where a checkpoint's tensors lie, one at a time: names, shapes and types first, values only when asked for."""

from __future__ import annotations

import os
from pathlib import Path

from devil.errors import CheckpointError
from devil.model.sources.base import Entry, Place, WeightSource
from devil.model.sources.layered import Without
from devil.model.sources.safetensors_file import SafetensorsFile
from devil.model.sources.shards import open_shards

__all__ = ["Entry", "Place", "WeightSource", "open_weights"]

_TRAINING_ONLY = "model.criterion."


def open_weights(folder: str | os.PathLike) -> WeightSource:
    """The weights of a checkpoint folder, by DEViL's keys, without reading any.

    Raises:
        CheckpointError: no weights are there, or their files are broken.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder", "name a folder that holds a DEViL checkpoint")
    return Without(open_shards(folder, "model.safetensors", SafetensorsFile), _TRAINING_ONLY)
