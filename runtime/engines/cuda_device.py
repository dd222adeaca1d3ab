"""The GPU through pycuda: memory, pinned memory, streams and events, and what it says when it has no more of them."""

from __future__ import annotations

import atexit
import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from devil.errors import EngineError, MissingPackageError
from devil.gpu import Driver, Gpu, read_driver

_ROOM = "close other programs on the GPU, or lower --max-frames, --context or the sizes given to devil-build"
_NO_ROOM = re.compile("out ?of ?memory|memory could not be allocated|alloc_failed", re.IGNORECASE)
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: nothing here waits for the legacy default stream


class Explains(Protocol):
    """A library that turns its exceptions into one line, as `CudaDevice.explained` does."""

    def explained(self, what: str, mend: str = "") -> contextlib.AbstractContextManager[None]: ...


class DeviceMemory:
    """Memory on the GPU; freed with its last reference.

    Attributes:
        address: of its first byte, a multiple of 256.
        bytes: its size.
    """

    def __init__(self, device: CudaDevice, allocation: Any, size: int, purpose: str):
        self.bytes, self.address = size, int(allocation)
        self._device, self._allocation, self._purpose = device, allocation, purpose
        self._users: list[Any] = []

    def used_until(self, event: Any) -> None:
        """The memory is not freed before `event`, which was recorded behind its last user."""
        self._users = [event]

    def __del__(self) -> None:
        for event in self._users:
            with contextlib.suppress(*self._device.failures):  # a context that died has nothing to wait for
                event.synchronize()
        self._device.taken[self._purpose] -= self.bytes


class CudaDevice:
    """The first GPU that CUDA shows (CUDA_VISIBLE_DEVICES chooses another), in its primary context.

    All calls come from the thread that opened it.

    Attributes:
        gpu: what it is.
        driver: what the driver says.
        taken: bytes that this process holds, by purpose.
    """

    def __init__(self, cuda: Any, driver: Driver):
        self.cuda, self.driver, self.gpu = cuda, driver, driver.gpus[0]
        self.failures: tuple[type[Exception], ...] = (cuda.Error,)
        self.taken: dict[str, int] = {}

    @property
    def capability(self) -> str:
        return self.gpu.capability

    def allocate(self, size: int, purpose: str) -> DeviceMemory:
        """Memory whose content is arbitrary.

        Args:
            size: bytes; 0 gives an address too.
            purpose: for the message where there is not enough.

        Raises:
            EngineError: the GPU has no such room.
        """
        size = max(size, 1)
        try:
            allocation = self.cuda.mem_alloc(size)
        except self.cuda.MemoryError as error:
            told = f"the GPU has no room: {purpose} needs {_gigabytes(size)}, {self._state()}"
            raise EngineError(told, _ROOM) from error
        self.taken[purpose] = self.taken.get(purpose, 0) + size
        return DeviceMemory(self, allocation, size, purpose)

    def shortage(self, size: int) -> str:
        """What there is too little of and what helps, where so many bytes are not free; empty where they are."""
        if size <= self.cuda.mem_get_info()[0]:
            return ""
        return f"it needs more than {_gigabytes(size)} of the GPU, {self._state()}; {_ROOM}"

    def pinned(self, size: int) -> np.ndarray:
        """uint8 [size] in memory that the GPU copies from and to by itself.

        Raises:
            EngineError: the machine has no such room.
        """
        with self.explained(f"no {_gigabytes(size)} of pinned memory", "free some of the machine's memory"):
            return self.cuda.pagelocked_empty(max(size, 1), np.uint8)

    def stream(self) -> Any:
        return self.cuda.Stream(_NON_BLOCKING)

    def event(self) -> Any:
        """An event that measures no time: recording it costs less."""
        return self.cuda.Event(self.cuda.event_flags.DISABLE_TIMING)

    @contextlib.contextmanager
    def explained(self, what: str, mend: str = "") -> Iterator[None]:
        """Turns CUDA's exceptions into one line."""
        try:
            yield
        except self.failures as error:
            reason = " ".join(str(error).split())
            raise EngineError(f"{what} ({reason})", mend or room_mend(reason)) from error

    @contextlib.contextmanager
    def explained_with(self, library: Explains, what: str) -> Iterator[None]:
        """`explained`, for calls of a library on CUDA too."""
        with self.explained(what), library.explained(what):
            yield

    def _state(self) -> str:
        free, total = self.cuda.mem_get_info()
        held = ", ".join(f"{purpose} {_gigabytes(size)}" for purpose, size in self.taken.items() if size)
        return f"{_gigabytes(free)} of {_gigabytes(total)} are free" + (f"; held here: {held}" if held else "")


@functools.cache
def open_device() -> CudaDevice:
    """The GPU; one per process.

    Raises:
        MissingPackageError: pycuda is not installed.
        EngineError: no GPU, no driver, or one that does not start.
    """
    driver = read_driver()
    if driver.problem:
        raise EngineError(driver.problem, driver.mend)
    try:
        import pycuda.driver as cuda
    except ModuleNotFoundError:
        raise MissingPackageError("pycuda", "running TensorRT engines", "cuda") from None
    except ImportError as error:  # built against another CUDA or NumPy
        raise EngineError(f"pycuda does not load ({' '.join(str(error).split())})", "install it again") from error
    try:
        cuda.init()
        # The primary context is the one that TensorRT and every library on the CUDA runtime use.
        context = cuda.Device(0).retain_primary_context()
        context.push()
    except cuda.Error as error:
        raise EngineError(f"CUDA does not start ({' '.join(str(error).split())})", _newer(driver)) from error
    atexit.register(context.pop)
    return CudaDevice(cuda, driver)


def room_mend(reason: str) -> str:
    """What helps where a library says that the GPU's memory is too small; empty where it says something else."""
    return _ROOM if _NO_ROOM.search(reason) else ""


def gpu_name(gpu: Gpu) -> str:
    return f"{gpu.name} ({gpu.capability})"


def _newer(driver: Driver) -> str:
    serves = f", this one serves CUDA {driver.cuda[0]}.{driver.cuda[1]}" if driver.cuda else ""
    return f"install a driver that serves the CUDA that pycuda was built with{serves}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
