"""The KV cache on the GPU: written in place by every run, and used again by the next video."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from devil.errors import EngineError
from devil.runtime.engines import half
from devil.runtime.engines.base import Arrays, checked_feeds
from devil.runtime.engines.cuda_device import DeviceMemory
from devil.runtime.engines.tensorrt.bound import Bound
from devil.runtime.engines.tensorrt.decode import DecodeSteps
from devil.runtime.engines.tensorrt.form import PAST, PRESENT

if TYPE_CHECKING:
    from devil.runtime.engines.tensorrt.runner import TensorRtRunner


@dataclass
class CacheMemory:
    """The memory of one cache, and the decoding steps that were captured on it."""

    rows: int
    memory: dict[str, DeviceMemory]
    bound: Bound
    steps: DecodeSteps

    def clear(self, runner: TensorRtRunner) -> None:
        """Zeros: a slot that no row has written may lie under the mask, and 0 · NaN would still be NaN."""
        for memory in self.memory.values():
            runner.device.cuda.memset_d8_async(memory.address, 0, memory.bytes, runner.stream)


class CachePool:
    """Caches that nobody uses at the moment. Memory and captured steps outlive the video they were made for."""

    def __init__(self, runner: TensorRtRunner):
        self._runner = runner
        self._free: list[CacheMemory] = []

    @property
    def capacity(self) -> int:
        """Slots per row: the engine's, which is built for one number of them."""
        return self._runner.most("M", {})

    def take(self, rows: int) -> CacheMemory:
        """An empty cache.

        Raises:
            EngineError: the GPU has no room for it, or the engine takes fewer rows.
        """
        self._runner.profile({"B": rows})
        memory = next((free for free in self._free if free.rows == rows), None) or self._new(rows)
        self._free = [free for free in self._free if free is not memory]
        with self._runner.device.explained("the KV cache cannot be cleared"):
            memory.clear(self._runner)
        return memory

    def put(self, memory: CacheMemory) -> None:
        self._free.append(memory)

    def _new(self, rows: int) -> CacheMemory:
        runner, memory, shapes = self._runner, {}, {}
        for tensor in runner.spec.inputs:
            if tensor.name.startswith(PAST):
                _, heads, _, dim = tensor.shape
                shapes[tensor.name] = (rows, heads, self.capacity, dim)
                size = int(np.prod(shapes[tensor.name]))
                size *= half.stored_dtype(tensor.numpy_dtype(runner.precision)).itemsize
                memory[tensor.name] = runner.device.allocate(size, "KV cache")
        addresses = {name: memory[name].address for name in memory}
        addresses |= {name.replace(PAST, PRESENT, 1): memory[name].address for name in memory}
        bound = Bound(addresses, shapes, {"M": self.capacity})
        return CacheMemory(rows, memory, bound, DecodeSteps(runner, bound))


class TensorRtCache:
    """KV cache of some rows; see `devil.runtime.engines.base.KVCache`. Its capacity is the engine's from the start."""

    def __init__(self, runner: TensorRtRunner, pool: CachePool, rows: int):
        self.rows, self.capacity = rows, pool.capacity
        self._runner = runner
        self._memory = pool.take(rows)
        weakref.finalize(self, pool.put, self._memory)

    def run(self, feeds: Arrays) -> dict[str, np.ndarray]:
        arrays = checked_feeds(self._runner.spec, self._runner.precision, feeds, without=PAST)
        found = self._memory.steps.run(arrays)
        return found if found is not None else self.run_uncaptured(feeds)

    def run_uncaptured(self, feeds: Arrays) -> dict[str, np.ndarray]:
        """As `run`, kernel by kernel: TensorRT's profiler sees nothing of a captured step."""
        return self._runner.run_bound(feeds, self._memory.bound)

    def grow(self, capacity: int) -> None:
        if capacity > self.capacity:
            raise EngineError(
                f"{capacity} slots of the KV cache are needed, the engine was built for {self.capacity}",
                f"devil-build --context {capacity} builds one that has them",
            )
