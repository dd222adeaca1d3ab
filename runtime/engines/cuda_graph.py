"""CUDA graphs through the driver's own library: pycuda has no call for them.

A graph is what one run sent to a stream: copies and kernels with their addresses and sizes. Launched again it costs one
call instead of hundreds, which is most of a decoding step's time on a fast GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from devil.errors import EngineError
from devil.gpu import open_library

# cuda.h: CU_STREAM_CAPTURE_MODE_THREAD_LOCAL. What other threads do meanwhile does not spoil the capture.
_THREAD_LOCAL = 1


class CudaGraph:
    """A captured run.

    Args:
        stream: handle of the stream that `enqueue` writes to; nothing else may.
        enqueue: sends the run to the stream. It is not executed.
        library: CUDA's driver library; the process's own by default.

    Raises:
        EngineError: something in the run cannot be captured.
    """

    def __init__(self, stream: int, enqueue: Callable[[], None], library: Any = None):
        self._graph, self._executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._cuda = library or driver_library()
        handle = ctypes.c_void_p(stream)
        self._call("cuStreamBeginCapture_v2", handle, _THREAD_LOCAL)
        try:
            enqueue()
        finally:  # a stream that goes on capturing takes no other work
            ended = self._cuda.cuStreamEndCapture(handle, ctypes.byref(self._graph))
        _check("cuStreamEndCapture", ended)
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), self._graph, ctypes.c_ulonglong(0))

    def launch(self, stream: int) -> None:
        """Runs it on a stream.

        Raises:
            EngineError: an earlier fault on the GPU.
        """
        self._call("cuGraphLaunch", self._executable, ctypes.c_void_p(stream))

    def __del__(self) -> None:
        if self._executable:
            self._cuda.cuGraphExecDestroy(self._executable)
        if self._graph:
            self._cuda.cuGraphDestroy(self._graph)

    def _call(self, function: str, *arguments: Any) -> None:
        _check(function, getattr(self._cuda, function)(*arguments))


def driver_library() -> ctypes.CDLL:
    """
    Raises:
        EngineError: there is none.
    """
    library = open_library()
    if library is None:
        raise EngineError("the driver's CUDA library (libcuda) is missing", "install NVIDIA's driver")
    return library


def _check(function: str, status: int) -> None:
    if status:
        raise EngineError(f"{function} failed with CUDA error {status}")
