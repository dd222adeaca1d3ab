"""Memory that a graph's inputs and outputs travel through; allocated once, whatever is asked later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from devil.runtime.engines.cuda_device import CudaDevice, DeviceMemory

_ALIGNMENT = 256


class Staging:
    """Pinned memory for one run's tensors, side by side.

    Args:
        sizes: most bytes of each.
    """

    def __init__(self, device: CudaDevice, sizes: Mapping[str, int]):
        self._offsets, total = {}, 0
        for name, size in sizes.items():
            self._offsets[name] = total
            total += -(-size // _ALIGNMENT) * _ALIGNMENT
        self._block = device.pinned(total)
        self.free: Any = None  # event behind the last copy out of it; None: nothing was copied yet

    def bytes(self, name: str, size: int) -> np.ndarray:
        """The first `size` bytes of a tensor's place, uint8."""
        start = self._offsets[name]
        return self._block[start : start + size]

    def fill(self, name: str, array: np.ndarray) -> np.ndarray:
        """Copies a contiguous array to its place and returns that as bytes."""
        place = self.bytes(name, array.nbytes)
        place[:] = array.reshape(-1).view(np.uint8)
        return place


class Inputs:
    """Device memory of a graph's inputs, and as many stagings as runs were ever under way at once.

    Args:
        sizes: most bytes of each input.
        purpose: for the message where memory runs out.
    """

    def __init__(self, device: CudaDevice, sizes: Mapping[str, int], purpose: str):
        self.memory = {name: device.allocate(size, purpose) for name, size in sizes.items()}
        self._device, self._sizes = device, dict(sizes)
        self._stagings: list[Staging] = []

    def upload(self, arrays: Mapping[str, np.ndarray], stream: Any) -> None:
        """Sends arrays to the device on a stream; they may change as soon as this returns."""
        staging = self._free_staging()
        for name, array in arrays.items():
            if array.nbytes:
                place = staging.fill(name, array)
                self._device.cuda.memcpy_htod_async(self.memory[name].address, place, stream)
        staging.free = self._device.event()
        staging.free.record(stream)

    def _free_staging(self) -> Staging:
        for staging in self._stagings:
            if staging.free is None or staging.free.query():
                return staging
        self._stagings.append(Staging(self._device, self._sizes))
        return self._stagings[-1]


class Outputs:
    """Device and pinned memory of outputs that are read back after every run; it grows to the largest and stays."""

    def __init__(self, device: CudaDevice, purpose: str):
        self._device, self._purpose = device, purpose
        self._memory: dict[str, DeviceMemory] = {}
        self._pinned: dict[str, np.ndarray] = {}

    def memory(self, name: str, size: int) -> DeviceMemory:
        """At least `size` bytes for an output."""
        held = self._memory.get(name)
        if held is None or held.bytes < size:
            self._memory.pop(name, None)  # freed before its successor is taken
            self._memory[name] = self._device.allocate(size, self._purpose)
        return self._memory[name]

    def download(self, name: str, memory: DeviceMemory, size: int, stream: Any) -> np.ndarray:
        """Begins to copy an output's first bytes to the host: uint8 [size], complete once the stream is."""
        held = self._pinned.get(name)
        if held is None or len(held) < size:
            held = self._pinned[name] = self._device.pinned(size)
        place = held[:size]
        if size:
            self._device.cuda.memcpy_dtoh_async(place, memory.address, stream)
        return place
