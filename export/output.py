"""What may be replaced by a bundle: nothing but a bundle."""

from __future__ import annotations

from pathlib import Path

from devil.bundle import bundle_files
from devil.errors import OutputError
from devil.files import check_folder_writable


def check_output(path: Path, force: bool) -> None:
    """Refuses to replace anything but a bundle, and a bundle only by `force`.

    Raises:
        OutputError: with what lies there; or the folder around it cannot be written.
    """
    check_folder_writable(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    known = bundle_files(path)
    foreign = sorted({entry.name for entry in path.iterdir()} - known) if known else []
    if not known:
        raise OutputError(f"{path} exists and is not a bundle", "choose another --output")
    if foreign:
        raise OutputError(f"{path} also holds {foreign[0]}, which is no part of the bundle", "move it elsewhere")
    if not force:
        raise OutputError(f"{path} already holds a bundle", "pass --force to replace it or choose another --output")
