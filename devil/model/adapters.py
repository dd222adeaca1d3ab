"""Unmerged folders: a LoRA adapter, the weights that were trained whole, and the base that both belong to."""

from __future__ import annotations

import re
from pathlib import Path

from devil.config_json import read_json
from devil.errors import CheckpointError
from devil.model.hub import local_folder
from devil.model.layouts import devil_key
from devil.model.sources.base import COPY_AGAIN, WeightSource
from devil.model.sources.joined import Joined
from devil.model.sources.lora import MARK, LoraScaling, MergedLora
from devil.model.sources.pickle_file import PickleFile
from devil.model.sources.renamed import Renamed
from devil.model.sources.safetensors_file import SafetensorsFile

CONFIG = "adapter_config.json"

_PREFIX = "base_model.model."
_WRAPPERS = re.compile(r"\.(?:base_layer|modules_to_save\.default)(?=\.)")  # PEFT's own modules on the way to a weight


def is_unmerged(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def open_unmerged(folder: Path, base: WeightSource) -> WeightSource:
    """The adapter of `folder` merged into `base` while it is read, and the weights that were trained whole.

    Raises:
        CheckpointError: a file is missing or broken, or the adapter is of an unknown kind or for another base.
    """
    scaling = LoraScaling.of(read_json(folder / CONFIG), folder)
    adapter = _open_one(folder, "adapter_model")
    if adapter is None:
        raise CheckpointError(f"{folder} lacks adapter_model.safetensors", COPY_AGAIN)
    trained = _open_one(folder, "non_lora_trainables")
    whole = [base, *(Renamed(files, _whole_name) for files in (trained, adapter) if files is not None)]
    return MergedLora(Joined(whole), Renamed(adapter, _adapter_name), scaling, folder)


def base_of(folder: Path) -> Path:
    """The folder of the adapter's base: where its config says, or of that name beside it, or on the Hub.

    Raises:
        CheckpointError: it is nowhere.
    """
    name = read_json(folder / CONFIG).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{folder / CONFIG} names no base_model_name_or_path", "write the base's folder there")
    candidates = (Path(name), folder / name, folder.absolute().parent / Path(name).name)
    found = next((path for path in candidates if path.is_dir()), None)
    if found is not None:
        return found
    try:
        return local_folder(name)
    except CheckpointError as error:
        raise CheckpointError(
            f"the base {name} of the adapter in {folder} is not here", f"put its folder beside {folder}"
        ) from error


def _open_one(folder: Path, name: str) -> WeightSource | None:
    for suffix, open_file in ((".safetensors", SafetensorsFile), (".bin", PickleFile)):
        if (folder / f"{name}{suffix}").is_file():
            return open_file(folder / f"{name}{suffix}")
    return None


def _whole_name(key: str) -> str | None:
    """The weight that a key holds whole: trained beside the adapter, or a module that PEFT was told to save."""
    return None if MARK in key else devil_key(_WRAPPERS.sub("", key.removeprefix(_PREFIX)))


def _adapter_name(key: str) -> str | None:
    return key.removeprefix(_PREFIX) if MARK in key else None
