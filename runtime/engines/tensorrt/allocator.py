"""Memory for outputs whose size only the run itself knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from devil.errors import EngineError
from devil.runtime.engines.cuda_device import DeviceMemory
from devil.runtime.engines.tensorrt.api import Api

Allocate = Callable[[str, int], DeviceMemory]  # an output's name and bytes → memory


def output_allocator(api: Api, name: str) -> Any:
    """An IOutputAllocator for one output of one context, which keeps it as long as it lives itself.

    Returns:
        TensorRT's object. `begin(allocate)` before a run says what gives memory, by the output's name and size in
        bytes; `end()` after the run was sent tells what it got and how large the output is, and lets go of it.
    """

    class Allocator(api.trt.IOutputAllocator):
        def __init__(self) -> None:
            api.trt.IOutputAllocator.__init__(self)
            self.begin(_nothing)

        def begin(self, allocate: Allocate) -> None:
            self._allocate: Allocate = allocate
            self._memory: DeviceMemory | None = None
            self._shape: tuple[int, ...] = ()

        def end(self) -> tuple[DeviceMemory, tuple[int, ...]]:
            memory, shape = api.wanted(self._memory, f"reallocate_output of {name}"), self._shape
            self.begin(_nothing)
            return memory, shape

        # TensorRT passes by position: name, current memory, size, alignment, stream.
        def reallocate_output_async(self, _name: str, _held: int, size: int, _alignment: int, _stream: int) -> int:
            return self._address(size)

        def reallocate_output(self, _name: str, _held: int, size: int, _alignment: int) -> int:
            return self._address(size)

        def notify_shape(self, _name: str, shape: Any) -> None:
            self._shape = tuple(shape)

        def _address(self, size: int) -> int:
            try:
                self._memory = self._allocate(name, size)
            except EngineError as error:  # an exception would be lost between C++ and here; 0 fails the run
                api.complaints.append(str(error))
                return 0
            return self._memory.address

    return Allocator()


def _nothing(name: str, _size: int) -> DeviceMemory:
    raise EngineError(f"no run has output {name!r} now")
