"""What runs write, as it lies in memory and as arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from devil.runtime.engines import half
from devil.runtime.engines.cuda_device import CudaDevice, DeviceMemory
from devil.runtime.engines.tensorrt.rows import DeviceRow, rows_of


@dataclass(frozen=True)
class Output:
    """What a run writes, or has written once its stream got there.

    Attributes:
        kind: its type, by the contract's name.
    """

    memory: DeviceMemory
    shape: tuple[int, ...]
    kind: str

    @property
    def bytes(self) -> int:
        return tensor_bytes(self.shape, self.kind)


class TensorRtPending:
    """A run that was sent to the device; see `devil.runtime.engines.base.Pending`.

    Args:
        name: of the graph.
        done: event behind the run.
        kept: what must stay alive until then.
    """

    def __init__(self, device: CudaDevice, name: str, outputs: Mapping[str, Output], done: Any, kept: Sequence[Any]):
        self._device, self._name, self._outputs, self._done, self._kept = device, name, outputs, done, kept

    def rows(self, output: str) -> list[DeviceRow]:
        found = self._outputs[output]
        return rows_of(self._device, found.memory, found.shape, found.kind, self._done)

    def wait(self) -> None:
        with self._device.explained(f"graph {self._name!r} failed on the GPU"):
            self._done.synchronize()
        self._kept = ()


def tensor_bytes(shape: Sequence[int], kind: str) -> int:
    return math.prod(shape) * half.stored_dtype(kind).itemsize


def as_array(place: np.ndarray, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """A copy of bytes as the array that they are."""
    return half.read(place[: tensor_bytes(shape, kind)].view(half.stored_dtype(kind)).reshape(shape).copy(), kind)
