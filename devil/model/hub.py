"""Model folders by name: a path, or an id of the Hugging Face Hub. Only files are fetched; no code of theirs runs."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from devil.errors import CheckpointError

_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_WANTED = ("*.json", "*.safetensors", "*.bin", "*.pth")
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
    sys.stderr.write(f"fetching {text} from the Hugging Face Hub\n")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(text, allow_patterns=list(_WANTED), ignore_patterns=list(_UNWANTED)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise CheckpointError(
            f"{text} is no folder here and cannot be fetched from the Hub ({type(error).__name__})",
            f"fetch it where there is a connection (hf download {text} --local-dir DIR), copy DIR here and name it",
        ) from error
