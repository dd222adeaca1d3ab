"""CUDA on a machine without a GPU: `pycuda.driver` and the driver's graph calls, with NumPy memory and lazy streams.

What is sent to a stream runs when somebody waits for it and not before, so code that forgets to wait reads old bytes.
Fresh memory is full of NaN and freed memory is overwritten with them, so code that reads either shows it.
"""

import ctypes
import itertools
import sys
import types
from dataclasses import dataclass, field

import numpy as np

from devil.gpu import Driver, Gpu

GPU = Gpu("Fake GPU", "sm89", 8 << 30)
_ALIGNMENT = 256
_NAN = 0xFF  # as bytes of any float


class Error(Exception):
    pass


class MemoryError(Error):
    pass


@dataclass
class Machine:
    """The fake GPU's state."""

    total: int = 1 << 30
    live: dict = field(default_factory=dict)  # address → bytes
    graveyard: list = field(default_factory=list)
    pinned: list = field(default_factory=list)  # (first address, behind the last)
    streams: dict = field(default_factory=dict)  # handle → stream
    launches: int = 0
    broken: str = ""  # message of the failure that every wait meets

    @property
    def used(self):
        return sum(self.live.values())

    def is_pinned(self, address):
        return any(first <= address < last for first, last in self.pinned)


def aligned(size):
    """uint8 [size] at an aligned address, and what keeps it alive."""
    block = np.full(size + _ALIGNMENT, _NAN, np.uint8)
    start = -block.ctypes.data % _ALIGNMENT
    return block[start : start + size]


def at(address, size):
    """The bytes at an address."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)) if size else np.zeros(0, np.uint8)


class Allocation:
    def __init__(self, machine, size):
        if machine.used + size > machine.total:
            raise MemoryError("cuMemAlloc failed: out of memory")
        self._machine, self._block = machine, aligned(size)
        machine.live[int(self)] = size

    def __int__(self):
        return self._block.ctypes.data

    def __del__(self):
        if hasattr(self, "_block"):
            self._machine.live.pop(int(self), None)
            self._block[:] = _NAN
            self._machine.graveyard.append(self._block)  # a late write goes nowhere, a late read finds NaN


class Stream:
    def __init__(self, machine, _flags=0):
        self._machine, self.handle = machine, next(machine_numbers)
        machine.streams[self.handle] = self
        self.queue, self.captured = [], None

    def add(self, work):
        (self.queue if self.captured is None else self.captured).append(work)

    def synchronize(self):
        assert self.captured is None, "a stream that is captured cannot be waited for"
        if self._machine.broken:
            raise Error(self._machine.broken)
        while self.queue:
            self.queue.pop(0)()

    def wait_for_event(self, event):
        self.add(event.synchronize)


class Event:
    def __init__(self):
        self._stream, self._done = None, False

    def record(self, stream):
        self._stream, self._done = stream, False
        stream.add(self._finish)
        return self

    def _finish(self):
        self._done = True

    def query(self):
        return self._done or self._stream is None

    def synchronize(self):
        if self._stream and self._stream._machine.broken:
            raise Error(self._stream._machine.broken)
        while not self.query():
            self._stream.queue.pop(0)()
        return self


machine_numbers = itertools.count(1000)


def make_driver(machine):
    """The module `pycuda.driver`."""
    module = types.ModuleType("pycuda.driver")

    def pagelocked_empty(size, dtype):
        block = aligned(int(size) * np.dtype(dtype).itemsize)
        machine.pinned.append((block.ctypes.data, block.ctypes.data + block.nbytes))
        return block.view(dtype)

    def memcpy_htod_async(to, source, stream):
        # The driver copies ordinary memory at once, and pinned memory when it gets there.
        source = source if machine.is_pinned(source.ctypes.data) else source.copy()
        stream.add(lambda: at(to, source.nbytes).__setitem__(slice(None), source.reshape(-1).view(np.uint8)))

    def memcpy_dtoh_async(to, source, stream):
        assert machine.is_pinned(to.ctypes.data), "a copy to ordinary memory is not asynchronous"
        stream.add(lambda: to.reshape(-1).view(np.uint8).__setitem__(slice(None), at(source, to.nbytes)))

    def memcpy_dtoh(to, source):
        to.reshape(-1).view(np.uint8)[:] = at(source, to.nbytes)

    def memcpy_dtod_async(to, source, size, stream):
        stream.add(lambda: at(to, size).__setitem__(slice(None), at(source, size).copy()))

    def memset_d8_async(to, value, size, stream):
        stream.add(lambda: at(to, size).fill(value))

    class Context:
        def push(self):
            pass

        def pop(self):
            pass

    class Device:
        def __init__(self, index):
            assert index == 0

        def retain_primary_context(self):
            return Context()

    module.Error, module.MemoryError, module.Device = Error, MemoryError, Device
    module.Event = lambda _flags=0: Event()
    module.event_flags = types.SimpleNamespace(DISABLE_TIMING=2)
    module.Stream = lambda flags=0: Stream(machine, flags)
    module.init = lambda: None
    module.mem_alloc = lambda size: Allocation(machine, size)
    module.mem_get_info = lambda: (machine.total - machine.used, machine.total)
    for function in (
        pagelocked_empty, memcpy_htod_async, memcpy_dtoh_async, memcpy_dtoh, memcpy_dtod_async, memset_d8_async,
    ):  # fmt: skip
        setattr(module, function.__name__, function)
    return module


class DriverLibrary:
    """The graph calls of libcuda, which write through pointers and return a status."""

    def __init__(self, machine):
        self._machine, self._graphs = machine, {}
        self.refuses = 0  # status of the next instantiation

    def cuStreamBeginCapture_v2(self, stream, _mode):  # noqa: N802
        self._machine.streams[stream.value].captured = []
        return 0

    def cuStreamEndCapture(self, stream, graph):  # noqa: N802
        captured = self._machine.streams[stream.value]
        graph._obj.value = next(machine_numbers)
        self._graphs[graph._obj.value], captured.captured = captured.captured, None
        return 0

    def cuGraphInstantiateWithFlags(self, executable, graph, _flags):  # noqa: N802
        executable._obj.value = graph.value
        return self.refuses

    def cuGraphLaunch(self, executable, stream):  # noqa: N802
        self._machine.launches += 1
        self._machine.streams[stream.value].queue.extend(self._graphs[executable.value])
        return 0

    def cuGraphExecDestroy(self, _executable):  # noqa: N802
        return 0

    def cuGraphDestroy(self, graph):  # noqa: N802
        self._graphs.pop(graph.value, None)
        return 0


def install(monkeypatch, driver=None):
    """Puts the fakes where the runtime looks; returns the machine and its driver library."""
    from devil.runtime.engines import cuda_device, cuda_graph

    machine = Machine()
    module, library = make_driver(machine), DriverLibrary(machine)
    package = types.ModuleType("pycuda")
    package.driver = module
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", module)
    monkeypatch.setattr(cuda_device, "read_driver", lambda: driver or Driver((GPU,), (13, 0), "580.1"))
    monkeypatch.setattr(cuda_graph, "driver_library", lambda: library)
    cuda_device.open_device.cache_clear()
    return machine, library
