"""Which TensorRT is here, and what it says when something goes wrong."""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devil.engine_key import Backend, Host
from devil.errors import EngineError
from devil.files import sha256
from devil.plugins.loader import TENSORRT_LIBRARY, candidates
from devil.runtime.engines.cuda_device import CudaDevice, room_mend
from devil.tensorrt_api import import_tensorrt

# TensorRT's names of types as NumPy has them.
DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8",
    "BOOL": "bool",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Api:
    """One of the two TensorRTs.

    Attributes:
        backend: which.
        trt: its module.
        version: whole, such as "10.9.0.34".
        complaints: what it logged as an error, the last ones.
    """

    backend: Backend
    trt: Any
    version: str
    logger: Any
    complaints: deque[str]

    @contextlib.contextmanager
    def explained(self, what: str, mend: str = "") -> Iterator[None]:
        """Adds what TensorRT logged to whatever is raised inside: its calls only say that they failed.

        Raises:
            EngineError: instead of TensorRT's own exceptions, and of None or False where `wanted` met one.
        """
        self.complaints.clear()
        try:
            yield
        except (RuntimeError, TypeError, ValueError) as error:
            reasons = "; ".join(self.complaints) or " ".join(str(error).split())
            raise EngineError(f"{what} ({reasons})", mend or room_mend(reasons)) from error

    @staticmethod
    def wanted(value: Any, call: str) -> Any:
        """`value`, unless it is how a call of TensorRT says that it failed."""
        if value is None or value is False:
            raise ValueError(f"{call} failed")
        return value


@functools.cache
def open_api(backend: Backend) -> Api:
    """
    Raises:
        MissingPackageError: this TensorRT is not installed.
        EngineError: it does not load, or is too old.
    """
    trt = import_tensorrt(backend)
    complaints: deque[str] = deque(maxlen=3)
    return Api(backend, trt, trt.__version__, _logger(trt, complaints), complaints)


def host(api: Api, device: CudaDevice) -> Host:
    """What engines are looked up by on this machine."""
    plugin = plugin_library()
    return Host(api.backend, api.version, device.capability, sha256(plugin) if plugin else "", device.gpu.name)


def plugin_library() -> Path | None:
    """The library with the plugin for deformable attention, where it was built."""
    return next(iter(candidates(TENSORRT_LIBRARY)), None)


@functools.cache
def load_plugin(api: Api) -> None:
    """Makes the plugin known to TensorRT, which keeps it until the process ends.

    Raises:
        EngineError: it is not there, or of another TensorRT.
    """
    path = plugin_library()
    if path is None:
        raise EngineError(f"{TENSORRT_LIBRARY} is missing, and the engine needs it", "build it (plugins/README.md)")
    with api.explained(f"TensorRT refuses the plugin {path}", "build it again for this TensorRT (plugins/README.md)"):
        api.wanted(api.trt.get_plugin_registry().load_library(str(path)), "load_library")


def _logger(trt: Any, complaints: deque[str]) -> Any:
    class Collector(trt.ILogger):
        """Keeps errors for the message; nothing is printed."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                complaints.append(" ".join(msg.split()))

    return Collector()
