"""Model folders by name: a path, or an id of the Hugging Face Hub. Only files are fetched; no code of theirs runs."""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from pathlib import Path

from devil.errors import CheckpointError

_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_WANTED = ("*.json", "*.safetensors")
_PICKLES = ("*.bin", "*.pth")  # many repositories hold the same weights twice
_UNWANTED = ("*/*",)  # folders in the repository hold other formats


def local_folder(name: str | os.PathLike) -> Path:
    """The folder that `name` means: itself, or the local copy of the Hub's `organisation/model`, fetched if need be.

    Raises:
        CheckpointError: it is no folder and cannot be fetched.
    """
    text = os.fspath(name)
    if Path(text).is_dir():
        return Path(text)
    if not _ID.fullmatch(text) or Path(text.partition("/")[0]).exists():  # a path that was mistyped is no id
        raise CheckpointError(f"{text} is not a folder", "name a folder that holds a checkpoint")
    return _fetched(text)


@cache
def _fetched(name: str) -> Path:
    """The local copy of an id's files: configs and safetensors, and pickles where those leave weights out."""
    sys.stderr.write(f"fetching {name} from the Hugging Face Hub\n")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    def fetch(patterns: tuple[str, ...]) -> Path:
        return Path(snapshot_download(name, allow_patterns=list(patterns), ignore_patterns=list(_UNWANTED)))

    try:
        folder = fetch(_WANTED)
        missing = _pickles_needed(folder)
        return fetch(missing) if missing else folder
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise CheckpointError(
            f"{name} is no folder here and cannot be fetched from the Hub ({type(error).__name__})",
            f"fetch it where there is a connection (hf download {name} --local-dir DIR), copy DIR here and name it",
        ) from error


def _pickles_needed(folder: Path) -> tuple[str, ...]:
    """Patterns of what is still missing where all safetensors are there."""
    if not any(folder.glob("*.safetensors")):
        return _PICKLES
    if not (folder / "adapter_config.json").is_file():
        return ()
    parts = ("adapter_model", "non_lora_trainables")
    return tuple(f"{part}.bin" for part in parts if not (folder / f"{part}.safetensors").is_file())
