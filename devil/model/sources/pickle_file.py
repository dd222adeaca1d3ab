"""One pickled state dict (.bin, .pth), loaded without running anything that lies in it."""

from __future__ import annotations

import pickle
import re
import zipfile
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from devil.errors import CheckpointError
from devil.model.sources.base import COPY_AGAIN, Entry
from devil.model.sources.finite import all_finite

_WRAPPERS = ("model", "state_dict")  # some savers put the weights under one of these names
_FOREIGN = re.compile(r"GLOBAL (\S+)")


class PickleFile:
    """The tensors of one file. They are mapped; a file from before torch 1.6 is read whole whenever another was last.

    Raises:
        CheckpointError: the file is broken, or holds more than weights.
    """

    def __init__(self, path: Path):
        self.path = path
        self._mapped = _load(path) if zipfile.is_zipfile(path) else None
        self.entries = {
            key: Entry(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for key, tensor in self._tensors().items()
        }

    def read(self, key: str) -> Tensor:
        tensor = self._tensors()[key].detach()
        if not all_finite(tensor):
            raise CheckpointError(f"{self.path} holds values that are no numbers in {key}", COPY_AGAIN)
        return tensor

    def _tensors(self) -> dict[str, Tensor]:
        return _load_old(self.path, self.path.stat().st_mtime_ns) if self._mapped is None else self._mapped


def _load(path: Path, is_mapped: bool = True) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
    except pickle.UnpicklingError as error:
        foreign = _FOREIGN.search(str(error))
        if foreign is None:
            raise CheckpointError(f"{path} is no file of weights", COPY_AGAIN) from error
        raise CheckpointError(
            f"{path} is refused: to load it, {foreign[1]} would have to run", "save its weights as safetensors"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({_first_line(error)})", COPY_AGAIN) from error
    while isinstance(found, dict) and (wrapper := next((name for name in _WRAPPERS if name in found), None)):
        found = found[wrapper]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(f"{path} holds something else than weights by name", "name a file of weights")
    return found


@lru_cache(maxsize=1)
def _load_old(path: Path, _written: int) -> dict[str, Tensor]:
    """Files that cannot be mapped: one of them is in memory at a time."""
    return _load(path, is_mapped=False)


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
