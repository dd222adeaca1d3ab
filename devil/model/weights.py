"""Where a checkpoint's tensors lie, one at a time: names, shapes and types first, values only when asked for."""

from __future__ import annotations

import os
from pathlib import Path

from devil.config_json import read_json
from devil.errors import CheckpointError
from devil.model.adapters import base_of, is_unmerged, open_unmerged
from devil.model.hub import local_folder
from devil.model.layouts import LAYOUTS, Rename
from devil.model.sources.base import COPY_AGAIN, Entry, Place, WeightSource
from devil.model.sources.pickle_file import PickleFile
from devil.model.sources.renamed import Renamed
from devil.model.sources.safetensors_file import SafetensorsFile
from devil.model.sources.shards import open_shards
from devil.model.stream import WEIGHTS

__all__ = ["Entry", "Place", "WeightSource", "open_weights"]

_FORMATS = {WEIGHTS: SafetensorsFile, "pytorch_model.bin": PickleFile}


def open_weights(folder: str | os.PathLike, base: str | os.PathLike | None = None) -> WeightSource:
    """The weights of a folder by DEViL's keys, without reading any.

    Safetensors (every entry has its place) and pickles, in one file or shards with an index; an unmerged folder with
    its LoRA adapter is merged while it is read. The config.json tells whose names the files use, see `LAYOUTS`.

    Args:
        folder: a folder, or an id of the Hub.
        base: of an unmerged folder, where it lies elsewhere than its adapter_config.json says.

    Raises:
        CheckpointError: no weights are there, their files are broken, or the adapter does not fit its base.
    """
    folder = local_folder(folder)
    if not is_unmerged(folder):
        return Renamed(open_files(folder), _layout(folder))
    if _format(folder) is not None:
        raise CheckpointError(f"{folder} holds an adapter and whole weights", "keep them in folders of their own")
    return open_unmerged(folder, open_weights(base or base_of(folder)))


def open_files(folder: Path) -> WeightSource:
    """The weights of a folder under the names that its files have, safetensors before pickles.

    Raises:
        CheckpointError: no weights are there, or their files are broken.
    """
    name = _format(folder)
    if name is None:
        raise _nothing(folder)
    return open_shards(folder, name, _FORMATS[name])


def _format(folder: Path) -> str | None:
    found = (name for name in _FORMATS if (folder / name).is_file() or (folder / f"{name}.index.json").is_file())
    return next(found, None)


def _layout(folder: Path) -> Rename:
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type not in LAYOUTS:
        raise CheckpointError(
            f"{folder} has weights of model_type {model_type!r}", f"known are {', '.join(sorted(LAYOUTS))}"
        )
    return LAYOUTS[model_type]


def _nothing(folder: Path) -> CheckpointError:
    shards = sorted(path.name for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern))
    if shards:
        return CheckpointError(f"{folder} holds {shards[0]} but no index of its shards", COPY_AGAIN)
    return CheckpointError(f"{folder} holds no weights (no {' or '.join(_FORMATS)})", COPY_AGAIN)
