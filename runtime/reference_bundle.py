"""The bundle of the shipped checkpoint, exported once into the user's cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from devil.assets import CHECKPOINT, reference_checkpoint
from devil.bundle import open_bundle
from devil.errors import BundleError, EngineError, OutputError
from devil.files import digest_of, replace_directory
from devil.progress import Progress

PRECISION = "fp32"  # the fastest on a CPU, and exact


def cache_folder() -> Path:
    """Where this user's machine keeps what can be made again."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "devil-deploy"


def reference_bundle(progress: Progress) -> Path:
    """The cached bundle; runs `devil-export` in a process of its own when there is none of this checkpoint.

    Raises:
        EngineError: the export failed, for example because its packages are not installed.
        OutputError: the cache cannot be written.
    """
    version = metadata.version("devil-deploy")
    key = digest_of(path for path in reference_checkpoint().iterdir() if path.is_file())[:12]
    folder = cache_folder() / f"{CHECKPOINT}-{PRECISION}-{version}-{key}"
    if _usable(folder):
        return folder
    progress("exporting devil-tiny", 0, 1)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            exported = _exported(Path(scratch) / folder.name)
            if not _usable(folder):  # another process may have been faster, and be reading its bundle
                replace_directory(exported, folder)
    except OSError as error:
        mend = "set XDG_CACHE_HOME to a folder you may write to, or name a bundle with --bundle"
        raise OutputError(f"cannot write the cache {folder.parent} ({error.strerror})", mend) from error
    progress("exporting devil-tiny", 1, 1)
    return folder


def _exported(folder: Path) -> Path:
    """`folder`, once the reference checkpoint's bundle is there."""
    command = [sys.executable, "-m", "devil.export", "--precision", PRECISION, "--output", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EngineError(f"the reference checkpoint could not be exported ({reason})", "name a bundle with --bundle")
    return folder


def _usable(folder: Path) -> bool:
    """Whether a whole bundle that this version can open lies there; a stale or broken one is exported anew."""
    try:
        open_bundle(folder, verify=False)
    except BundleError:
        return False
    return True
