"""Memory for outputs whose size only the run itself knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from devil.errors import EngineError
from devil.runtime.engines.cuda_device import DeviceMemory
from devil.runtime.engines.tensorrt.api import Api


def output_allocator(api: Api, name: str, memory: Callable[[str, int], DeviceMemory]) -> Any:
    """An IOutputAllocator for one output and one run.

    Args:
        memory: gives memory by the output's name and size in bytes.

    Returns:
        TensorRT's object; `memory` and `shape` tell, after the run was sent, what it got and how large the output is.
    """

    class Allocator(api.trt.IOutputAllocator):
        def __init__(self) -> None:
            api.trt.IOutputAllocator.__init__(self)
            self.memory: DeviceMemory | None = None
            self.shape: tuple[int, ...] = ()

        # TensorRT passes by position: name, current memory, size, alignment, stream.
        def reallocate_output_async(self, _name: str, _held: int, size: int, _alignment: int, _stream: int) -> int:
            return self._address(size)

        def reallocate_output(self, _name: str, _held: int, size: int, _alignment: int) -> int:
            return self._address(size)

        def notify_shape(self, _name: str, shape: Any) -> None:
            self.shape = tuple(shape)

        def _address(self, size: int) -> int:
            try:
                self.memory = memory(name, size)
            except EngineError as error:  # an exception would be lost between C++ and here; 0 fails the run
                api.complaints.append(str(error))
                return 0
            return self.memory.address

    return Allocator()
