"""What a user's machine keeps because it can be made again: folders that whichever process comes first makes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from devil.errors import OutputError
from devil.files import replace_directory


def cache_folder() -> Path:
    """Where this user's machine keeps what can be made again."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "devil-deploy"


def made_once(folder: Path, is_whole: Callable[[Path], bool], make: Callable[[Path], object]) -> Path:
    """`folder`, made by `make` beside its place if it is not whole.

    Processes that make it together share the first one's: what one of them already reads is never replaced.

    Args:
        is_whole: whether such a folder is there and can be used; anything else in its place is replaced.
        make: writes the folder whose path it is given.

    Raises:
        OutputError: the cache cannot be written.
    """
    if is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            made = Path(scratch) / folder.name
            make(made)
            if not is_whole(folder):
                replace_directory(made, folder)
    except OSError as error:
        mend = "free some space, or set XDG_CACHE_HOME to a folder you may write to"
        raise OutputError(f"cannot write the cache {folder.parent} ({error.strerror})", mend) from error
    return folder
