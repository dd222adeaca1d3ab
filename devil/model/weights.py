"""Where a checkpoint's tensors lie, one at a time: names, shapes and types first, values only when asked for."""

from __future__ import annotations

import os
from pathlib import Path

from devil.errors import CheckpointError
from devil.model.detector.published import own_name
from devil.model.sources.base import COPY_AGAIN, Entry, Place, WeightSource
from devil.model.sources.pickle_file import PickleFile
from devil.model.sources.renamed import Renamed
from devil.model.sources.safetensors_file import SafetensorsFile
from devil.model.sources.shards import open_shards

__all__ = ["Entry", "Place", "WeightSource", "open_weights"]

_FORMATS = {"model.safetensors": SafetensorsFile, "pytorch_model.bin": PickleFile}
_TRAINING_ONLY = "model.criterion."
_DETECTOR = "model.g_dino."


def open_weights(folder: str | os.PathLike) -> WeightSource:
    """The weights of a checkpoint folder, by DEViL's keys, without reading any.

    Raises:
        CheckpointError: no weights are there, or their files are broken.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder", "name a folder that holds a DEViL checkpoint")
    return Renamed(open_files(folder), _devil_key)


def open_files(folder: Path) -> WeightSource:
    """The weights of a folder under the names that its files have, safetensors before pickles.

    Raises:
        CheckpointError: no weights are there, or their files are broken.
    """
    for name, open_file in _FORMATS.items():
        if (folder / name).is_file() or (folder / f"{name}.index.json").is_file():
            return open_shards(folder, name, open_file)
    shards = sorted(path.name for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern))
    if shards:
        raise CheckpointError(f"{folder} holds {shards[0]} but no index of its shards", COPY_AGAIN)
    raise CheckpointError(f"{folder} holds no weights (no {' or '.join(_FORMATS)})", COPY_AGAIN)


def _devil_key(key: str) -> str | None:
    """The key that DEViL's model has for a checkpoint's one; None for what only training needs."""
    if key.startswith(_TRAINING_ONLY):
        return None
    if key.startswith(_DETECTOR):
        name = own_name(key.removeprefix(_DETECTOR))
        return None if name is None else _DETECTOR + name
    return key
