"""Which engine runs a bundle: the one that was asked for, or the best that this machine has everything for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

from devil.bundle import Bundle
from devil.contract import GRAPHS
from devil.engine_key import BACKENDS, Backend
from devil.engine_store import EngineStore
from devil.errors import DevilError, EngineError
from devil.gpu import read_driver
from devil.runtime.engines.base import Engine
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine

EngineName = Literal["auto", "onnxruntime", "cuda", "tensorrt", "tensorrt-rtx"]
_log = logging.getLogger(__name__)


def open_engine(bundle: Bundle, name: EngineName = "auto", threads: int = 0, trust: bool = False) -> Engine:
    """The engine for a bundle.

    Args:
        name: `auto` takes, where there is a GPU, TensorRT or TensorRT-RTX if the bundle has engines of all graphs for
            it, else ONNX Runtime's CUDA provider; and ONNX Runtime's CPU kernels otherwise. `devil-doctor BUNDLE`
            tells why.
        threads: CPU threads of ONNX Runtime; 0 takes all cores.
        trust: run TensorRT engines that were not judged on this machine (see `devil.runtime.engines.gate`).

    Raises:
        EngineError: the engine that was asked for does not run here.
        MissingPackageError: its packages are not installed.
    """
    openers = _openers(bundle, threads, trust)
    if name != "auto":
        return openers[name]()
    if not read_driver().problem:
        for candidate in (*BACKENDS, "cuda"):
            try:
                return openers[candidate]()
            except DevilError as error:
                _log.info("%s does not run here: %s", candidate, error)
    return openers["onnxruntime"]()


def _openers(bundle: Bundle, threads: int, trust: bool) -> dict[str, Callable[[], Engine]]:
    return {
        "onnxruntime": lambda: OnnxRuntimeEngine(threads=threads),
        "cuda": lambda: _cuda(threads),
        "tensorrt": lambda: _tensorrt(bundle, "tensorrt", trust),
        "tensorrt-rtx": lambda: _tensorrt(bundle, "tensorrt-rtx", trust),
    }


def _cuda(threads: int) -> Engine:
    from devil.runtime.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine

    engine = OnnxRuntimeCudaEngine(threads=threads)
    engine.check()
    return engine


def _tensorrt(bundle: Bundle, backend: Backend, trust: bool) -> Engine:
    from devil.runtime.engines.gate import NumericGate
    from devil.runtime.engines.tensorrt.engine import TensorRtEngine

    store = EngineStore(bundle)
    if not any(engine.key.backend == backend for engine in store.engines()):  # said before CUDA is started
        raise EngineError(
            f"{bundle.folder} has no {backend} engines", f"devil-build {bundle.folder} --backend {backend}"
        )
    engine = TensorRtEngine(bundle, backend, NumericGate(trust))
    for graph in GRAPHS:
        store.find(graph, engine.host)
    return engine
