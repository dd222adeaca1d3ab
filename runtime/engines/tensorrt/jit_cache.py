"""Kernels that TensorRT-RTX compiled on this machine, kept beside the engine: the next process starts without that."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from devil.errors import OutputError
from devil.files import atomic_file

_log = logging.getLogger(__name__)


class JitCache:
    """The cache of one engine.

    Args:
        config: TensorRT-RTX's IRuntimeConfig, which every context of the engine is made with.
        path: the file; one of another version or driver is not taken, and is written anew.
    """

    def __init__(self, config: Any, path: Path):
        self._path, self._cache = path, config.create_runtime_cache()
        if path.is_file() and not self._cache.deserialize(path.read_bytes()):
            _log.info("%s is of another TensorRT-RTX or driver", path)
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Writes what was compiled so far. A disk that cannot be written costs time and nothing else."""
        try:
            with atomic_file(self._path) as temporary:
                temporary.write_bytes(bytes(memoryview(self._cache.serialize())))
        except OutputError as error:
            _log.warning("compiled kernels are not kept: %s", error)
