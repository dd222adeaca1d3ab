"""The bundle of the shipped checkpoint, exported once into the user's cache."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

from devil.assets import CHECKPOINT, reference_checkpoint
from devil.bundle import open_bundle, read_manifest
from devil.cache import cache_folder, made_once
from devil.config import DevilConfig
from devil.config_json import load_config
from devil.errors import BundleError, EngineError
from devil.files import digest_of
from devil.progress import Progress

PRECISION = "fp32"  # the fastest on a CPU, and exact


def reference_bundle(progress: Progress) -> Path:
    """The cached bundle; runs `devil-export` in a process of its own when there is none of this checkpoint.

    Raises:
        EngineError: the export failed, for example because its packages are not installed.
        OutputError: the cache cannot be written.
    """

    def export(folder: Path) -> None:
        progress("exporting devil-tiny", 0, 1)
        command = [sys.executable, "-m", "devil.export", "--precision", PRECISION, "--output", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            mend = "name a bundle with --bundle"
            raise EngineError(f"the reference checkpoint could not be exported ({reason})", mend)
        progress("exporting devil-tiny", 1, 1)

    version = metadata.version("devil-deploy")
    key = digest_of(path for path in reference_checkpoint().iterdir() if path.is_file())[:12]
    return made_once(cache_folder() / f"{CHECKPOINT}-{PRECISION}-{version}-{key}", _is_whole, export)


def config_of(bundle: Path | None) -> DevilConfig:
    """The config of a bundle; without one that of the shipped checkpoint, whose bundle need not be there yet.

    Raises:
        BundleError: no bundle.
    """
    return load_config(reference_checkpoint()) if bundle is None else read_manifest(bundle).config


def _is_whole(folder: Path) -> bool:
    """Whether a whole bundle that this version can open lies there; a stale or broken one is exported anew."""
    try:
        open_bundle(folder, verify=False)
    except BundleError:
        return False
    return True
