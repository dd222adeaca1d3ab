"""ONNX Runtime on an NVIDIA GPU: the same graphs through its CUDA provider; features and KV caches stay on the GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from devil import plugins
from devil.contract import GraphSpec, Precision
from devil.errors import EngineError
from devil.gpu import read_driver
from devil.runtime.engines.base import Feeds, checked_feeds, stacked
from devil.runtime.engines.identity import IDENTITY
from devil.runtime.engines.onnxruntime import (
    CPU,
    OnnxRuntimeEngine,
    OnnxRuntimeRunner,
    explained,
    import_onnxruntime,
)
from devil.runtime.engines.onnxruntime_form import check_contract

if TYPE_CHECKING:
    import onnxruntime

CUDA = "CUDAExecutionProvider"
_INSTALL = "pip install 'devil-deploy[gpu]', the CUDA and cuDNN that it names, and a driver that serves them"
_MEMORY = "if the GPU's memory is too small, lower --max-frames or --context, or close other programs on it"
_NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass(frozen=True)
class OnnxRuntimeCudaEngine:
    """Loads graphs into ONNX Runtime's CUDA provider.

    Attributes:
        threads: CPU threads for what stays on the CPU.
        device: where tensors are kept; "cpu" runs the same code without a GPU, for tests.
    """

    threads: int = 0
    name: str = "onnxruntime-cuda"
    device: str = "cuda"

    def check(self) -> None:
        """
        Raises:
            EngineError: there is no GPU, or this ONNX Runtime has no CUDA provider, or it does not start.
            MissingPackageError: ONNX Runtime is not installed.
        """
        driver = read_driver()
        if driver.problem:
            raise EngineError(driver.problem, driver.mend)
        ort = import_onnxruntime()
        if CUDA not in ort.get_available_providers():
            raise EngineError(f"this ONNX Runtime has no {CUDA}", _INSTALL)
        if hasattr(ort, "preload_dlls"):  # CUDA and cuDNN may come from packages, where no loader looks
            ort.preload_dlls()
        options = _Sessions(threads=self.threads).options(ort)
        with explained("ONNX Runtime's CUDA provider does not start", _INSTALL):
            session = ort.InferenceSession(IDENTITY, options, providers=[CUDA])
        if CUDA not in session.get_providers():
            # It goes on with the CPU alone, without a word, where a library is missing or the driver is too old.
            raise EngineError("ONNX Runtime's CUDA provider does not start", _INSTALL)

    def load(self, path: Path, spec: GraphSpec, precision: Precision) -> CudaRunner:
        """Raises EngineError: the precision, the provider or the file does not work here."""
        ort = import_onnxruntime()
        if precision == "bf16":
            raise EngineError("ONNX Runtime has too few kernels for bf16", "run bf16 with TensorRT, or export fp16")
        options = _Sessions(threads=self.threads).options(ort)
        with explained(f"ONNX Runtime cannot load {path}", f"{_MEMORY}; else export the bundle again"):
            session = ort.InferenceSession(str(path), options, providers=self._providers())
        check_contract(session, spec, precision, path)
        return CudaRunner(session, spec, precision, self.device)

    def _providers(self) -> list[Any]:
        if self.device != "cuda":
            return [CPU]
        self.check()
        # TF32 has a tenth of float32's digits and is on by default; who exports fp32 asks for all of them.
        return [(CUDA, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}), CPU]


class _Sessions(OnnxRuntimeEngine):
    """Options of sessions on the GPU."""

    @property
    def operators(self) -> Path | None:
        return plugins.cuda_library()


class CudaRunner(OnnxRuntimeRunner):
    """One graph in one session; see `devil.runtime.engines.base.AsyncRunner`.

    What is submitted runs on a thread of its own: a session waits for the GPU without Python's lock.
    """

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in self._outputs(feeds, "cpu").items()}

    def submit(self, feeds: Feeds) -> CudaPending:
        length = len(next(iter(feeds.values())))
        return CudaPending(self._thread.submit(self._outputs, dict(feeds), self.device), length)

    def most(self, _dimension: str, _sizes: Mapping[str, int]) -> None:
        """Only memory limits this engine's sizes."""

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, f"devil-{self.spec.name}")

    def _outputs(self, feeds: Feeds, device: str) -> dict[str, onnxruntime.OrtValue]:
        """Runs the graph; outputs by name, on a device."""
        rows = {name: feed for name, feed in feeds.items() if _side_by_side(feed)}
        loose = {name: feed if name in rows else stacked(feed) for name, feed in feeds.items()}
        binding, names = self.session.io_binding(), [tensor.name for tensor in self.spec.outputs]
        for name, array in checked_feeds(self.spec, self.precision, loose, held=rows).items():
            binding.bind_cpu_input(name, array)
        for name, held in rows.items():
            value, shape = held[0].value, (len(held), *held[0].shape)
            place = value.data_ptr() + held[0].index * held[0].bytes
            binding.bind_input(name, self.device, 0, _NUMPY_TYPES[value.data_type()], shape, place)
        for name in names:
            binding.bind_output(name, device)
        with explained(f"graph {self.spec.name!r} failed", _MEMORY):
            self.session.run_with_iobinding(binding)
        return dict(zip(names, binding.get_outputs(), strict=True))


class CudaPending:
    """A run on its runner's thread; see `devil.runtime.engines.base.Pending`.

    Args:
        length: items of its outputs' first axis.
    """

    def __init__(self, future: Future, length: int):
        self._future, self._length = future, length
        self._host: dict[str, np.ndarray] = {}

    def rows(self, output: str) -> list[CudaRow]:
        return [CudaRow(self, output, index) for index in range(self._length)]

    def wait(self) -> None:
        self._future.result()

    def value(self, output: str) -> onnxruntime.OrtValue:
        """An output on the device, once it is there."""
        return self._future.result()[output]

    def host(self, output: str) -> np.ndarray:
        """A copy of an output on the host, made once."""
        if output not in self._host:
            self._host[output] = self.value(output).numpy()
        return self._host[output]


@dataclass(frozen=True)
class CudaRow:
    """One item of an output; whatever is asked of it waits for the run."""

    pending: CudaPending
    output: str
    index: int

    @property
    def value(self) -> onnxruntime.OrtValue:
        return self.pending.value(self.output)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape()[1:])

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(_NUMPY_TYPES[self.value.data_type()])

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self.pending.host(self.output)[self.index]
        return values if dtype is None else values.astype(dtype, copy=bool(copy))


def _side_by_side(feed: np.ndarray | Sequence[Any]) -> bool:
    """Whether a feed is rows that lie one behind the other in one output: they can be read where they are."""
    if isinstance(feed, np.ndarray) or not all(isinstance(row, CudaRow) for row in feed):
        return False
    first = feed[0]
    return all((row.pending, row.index) == (first.pending, first.index + place) for place, row in enumerate(feed))
