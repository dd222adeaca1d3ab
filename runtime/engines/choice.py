"""Which engine runs a bundle: the one that was asked for, or the best that this machine has everything for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from devil.bundle import Bundle
from devil.contract import GRAPHS
from devil.engine_key import BACKENDS, Backend
from devil.engine_store import EngineStore
from devil.errors import DevilError, EngineError
from devil.gpu import Driver, read_driver
from devil.runtime.engines.base import Engine
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine

if TYPE_CHECKING:
    from devil.runtime.engines.tensorrt.engine import TensorRtEngine

EngineName = Literal["auto", "onnxruntime", "cuda", "tensorrt", "tensorrt-rtx", "mixed"]
_WITHOUT_GPU = ("auto", "onnxruntime")
_log = logging.getLogger(__name__)


def open_engine(bundle: Bundle, name: EngineName = "auto", threads: int = 0, trust: bool = False) -> Engine:
    """The engine for a bundle.

    Args:
        name: `auto` takes, where there is a GPU, TensorRT or TensorRT-RTX if the bundle has engines of all graphs for
            it and none was found wrong here, else ONNX Runtime's CUDA provider; and ONNX Runtime's CPU kernels
            otherwise. `devil-doctor BUNDLE` tells why. `mixed` takes TensorRT for the graphs that have an engine and
            ONNX Runtime for the others.
        threads: CPU threads of ONNX Runtime; 0 takes all cores.
        trust: run TensorRT engines that were not judged on this machine (see `devil.runtime.engines.gate`).

    Raises:
        EngineError: the engine that was asked for does not run here.
        MissingPackageError: its packages are not installed.
    """
    return next(open_engines(bundle, name, threads, trust))


def open_engines(bundle: Bundle, name: EngineName = "auto", threads: int = 0, trust: bool = False) -> Iterator[Engine]:
    """As `open_engine`; with `auto` also those that come next, for where the first ones refuse the bundle's graphs."""
    openers = _openers(bundle, threads, trust)
    if name != "auto":
        check_gpu_here(name)
        yield openers[name]()
        return
    if not read_driver().problem:
        for candidate in (*BACKENDS, "cuda"):
            try:
                engine = openers[candidate]()
            except DevilError as error:
                _log.info("%s does not run here: %s", candidate, error)
            else:
                yield engine
    yield openers["onnxruntime"]()


def check_gpu_here(name: EngineName, driver: Driver | None = None) -> None:
    """Refuses, before any long work, an engine of a GPU where there is none: no package that is missing helps then.

    Args:
        driver: what the driver says; it is asked by default.

    Raises:
        EngineError: with the driver's problem.
    """
    if name in _WITHOUT_GPU:
        return
    driver = driver or read_driver()
    if driver.problem:
        raise EngineError(f"--engine {name} runs on NVIDIA GPUs, and there is none ({driver.problem})", driver.mend)


def _openers(bundle: Bundle, threads: int, trust: bool) -> dict[str, Callable[[], Engine]]:
    return {
        "onnxruntime": lambda: OnnxRuntimeEngine(threads=threads),
        "cuda": lambda: _cuda(threads),
        "tensorrt": lambda: _tensorrt(bundle, "tensorrt", trust),
        "tensorrt-rtx": lambda: _tensorrt(bundle, "tensorrt-rtx", trust),
        "mixed": lambda: _mixed(bundle, threads, trust),
    }


def _cuda(threads: int) -> Engine:
    from devil.runtime.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine

    engine = OnnxRuntimeCudaEngine(threads=threads)
    engine.check()
    return engine


def _tensorrt(bundle: Bundle, backend: Backend, trust: bool) -> Engine:
    """One whose engines are there for all graphs, and were not found wrong here."""
    from devil.runtime.engines.gate import refuse_failed, verdict

    engine = _opened(bundle, backend, trust)
    for graph in GRAPHS:
        stored = EngineStore(bundle).find(graph, engine.host)
        refuse_failed(stored, verdict(stored, engine.machine))
    return engine


def _mixed(bundle: Bundle, threads: int, trust: bool) -> Engine:
    from devil.runtime.engines.mixed import MixedEngine

    built = {engine.key.backend for engine in EngineStore(bundle).engines()}
    backend = next((backend for backend in BACKENDS if backend in built), BACKENDS[0])
    tensorrt = _opened(bundle, backend, trust)
    try:
        others = _cuda(threads)
    except DevilError as error:
        _log.info("graphs without an engine run on the CPU: %s", error)
        others = OnnxRuntimeEngine(threads=threads)
    return MixedEngine(EngineStore(bundle), tensorrt, others)


def _opened(bundle: Bundle, backend: Backend, trust: bool) -> TensorRtEngine:
    from devil.runtime.engines.gate import NumericGate
    from devil.runtime.engines.tensorrt.engine import TensorRtEngine

    if not any(engine.key.backend == backend for engine in EngineStore(bundle).engines()):  # before CUDA is started
        mend = f"devil-build {bundle.folder} --backend {backend}"
        raise EngineError(f"{bundle.folder} has no {backend} engines", mend)
    return TensorRtEngine(bundle, backend, NumericGate(trust))
