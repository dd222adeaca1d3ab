"""The bundle of the shipped checkpoint, exported once into the user's cache."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from devil.assets import CHECKPOINT, reference_checkpoint
from devil.bundle import read_manifest
from devil.errors import BundleError, EngineError
from devil.files import sha256

PRECISION = "fp32"  # the fastest on a CPU, and exact


def cache_folder() -> Path:
    """Where this user's machine keeps what can be made again."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "devil-deploy"


def reference_bundle(progress: Callable[[str, int, int], None]) -> Path:
    """The cached bundle; runs `devil-export` in a process of its own when there is none of this checkpoint.

    Raises:
        EngineError: the export failed, for example because its packages are not installed.
    """
    key = sha256(reference_checkpoint() / "model.safetensors")[:12]
    folder = cache_folder() / f"{CHECKPOINT}-{PRECISION}-{key}"
    if _usable(folder):
        return folder
    progress("exporting devil-tiny", 0, 1)
    command = [sys.executable, "-m", "devil.export", "--precision", PRECISION, "--output", str(folder), "--force"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EngineError(f"the reference checkpoint could not be exported ({reason})", "name a bundle with --bundle")
    progress("exporting devil-tiny", 1, 1)
    return folder


def _usable(folder: Path) -> bool:
    """Whether a bundle that this version can open lies there; a stale or broken one is exported anew."""
    try:
        read_manifest(folder)
    except BundleError:
        return False
    return True
