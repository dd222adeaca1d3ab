"""One safetensors file: its header gives every tensor's place, and the values are mapped, not read."""

from __future__ import annotations

import json
import math
import mmap
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from devil.errors import CheckpointError
from devil.model.sources.base import COPY_AGAIN, Entry, Place
from devil.model.sources.finite import all_finite

SUFFIX = ".safetensors"

# What is written to a weight stays out of its file. Linux refuses such a mapping of a file beyond its memory unless
# told (by MAP_NORESERVE, which Python does not name) that hardly any of it will be written.
_MAPPING = {"flags": mmap.MAP_PRIVATE | 0x4000} if sys.platform == "linux" else {"access": mmap.ACCESS_COPY}

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class SafetensorsFile:
    """The tensors of one file; every entry has its place.

    Raises:
        CheckpointError: the file is absent, truncated, or no safetensors file.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with safe_open(path, "np"):  # checks the header against itself and against the file's size
                pass
            self._header, self._start = _header(path)
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, **_MAPPING)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read ({error})", COPY_AGAIN) from error
        self.entries = {key: self._entry(key, value) for key, value in self._header.items()}

    def read(self, key: str) -> Tensor:
        entry, dtype = self.entries[key], _DTYPES[self._header[key]["dtype"]]
        count = math.prod(entry.shape)
        if count == 0:
            return torch.empty(entry.shape, dtype=dtype)
        tensor = torch.frombuffer(self._bytes, dtype=dtype, count=count, offset=entry.place.offset).view(entry.shape)
        if not all_finite(tensor):
            raise CheckpointError(f"{self.path} holds values that are no numbers in {key}", COPY_AGAIN)
        return tensor

    def _entry(self, key: str, value: dict) -> Entry:
        if value["dtype"] not in _DTYPES:
            raise CheckpointError(f"{self.path} holds {key} as {value['dtype']}", "save its weights as float16")
        begin, end = value["data_offsets"]
        dtype = str(_DTYPES[value["dtype"]]).removeprefix("torch.")
        return Entry(tuple(value["shape"]), dtype, Place(self.path, self._start + begin, end - begin))


def _header(path: Path) -> tuple[dict[str, dict], int]:
    """What the file says of each tensor, and where its values begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {key: value for key, value in header.items() if key != "__metadata__"}, 8 + length
