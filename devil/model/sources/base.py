"""What every reader of weights offers: names, shapes and types first, one tensor's values at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

COPY_AGAIN = "copy the checkpoint again"


@dataclass(frozen=True)
class Place:
    """Where a tensor's bytes lie unchanged, in row-major order: `length` bytes of `path` from `offset` on."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True)
class Entry:
    """What is known of a tensor before it is read.

    Attributes:
        shape: its sizes.
        dtype: "float32", "float16", "bfloat16", or another of NumPy's names.
        place: its bytes in a file; None where reading computes them (pickles, merged adapters).
    """

    shape: tuple[int, ...]
    dtype: str
    place: Place | None = None


class WeightSource(Protocol):
    """A checkpoint's tensors by key (reference §7), without `model.criterion.*`."""

    @property
    def entries(self) -> Mapping[str, Entry]: ...

    def read(self, key: str) -> Tensor:
        """The tensor as stored (no copy where it can be mapped), on the CPU.

        Raises:
            CheckpointError: its file is broken, or it holds values that are no numbers.
        """
        ...
