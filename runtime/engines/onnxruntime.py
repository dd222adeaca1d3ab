"""ONNX Runtime: the engine that every machine has."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from devil import plugins
from devil.contract import GraphSpec, Precision
from devil.errors import EngineError, MissingPackageError
from devil.runtime.engines.base import Arrays, Feeds, checked_feeds
from devil.runtime.engines.onnxruntime_form import check_contract

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"
_SILENT = 4  # log severity: failures come back as exceptions, which become one line


@dataclass(frozen=True)
class OnnxRuntimeEngine:
    """Loads graphs into ONNX Runtime's CPU provider.

    Attributes:
        threads: CPU threads of one graph; 0 lets ONNX Runtime take the physical cores.
        lean: run the nodes as they stand: slower, in less memory, and without the rounding that fused kernels allow
            themselves.
    """

    threads: int = 0
    name: str = "onnxruntime"
    lean: bool = False

    def load(self, path: Path, spec: GraphSpec, precision: Precision) -> OnnxRuntimeRunner:
        """Raises EngineError: the precision or the file does not work here."""
        ort = import_onnxruntime()
        if precision == "bf16":
            raise EngineError("ONNX Runtime's CPU kernels have no bf16", "bf16 needs a GPU engine; export fp16 or fp32")
        with explained(f"ONNX Runtime cannot load {path}", "export the bundle again"):
            session = self._session(ort, path)
        check_contract(session, spec, precision, path)
        return OnnxRuntimeRunner(session, spec, precision)

    def _session(self, ort: Any, path: Path) -> onnxruntime.InferenceSession:
        options = self.options(ort)
        try:
            return ort.InferenceSession(str(path), options, providers=[CPU])
        except _failures() as error:
            if "float8" not in str(error):
                raise
        # ONNX Runtime gives 8-bit floats to its integer kernels, and then refuses the graph that it made.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        return ort.InferenceSession(str(path), options, providers=[CPU])

    def options(self, ort: Any) -> onnxruntime.SessionOptions:
        """What sessions of every provider are opened with."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = _SILENT
        # A plan is kept for every combination of input shapes; with a cache that grows by one slot per step that is a
        # new plan per token.
        options.enable_mem_pattern = False
        # Threads that wait by spinning fight over the cores with video decoding and with the other graphs' threads:
        # on two busy cores decoding took 2.5 times as long.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self.lean:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.enable_cpu_mem_arena = False
            options.add_session_config_entry("session.disable_prepacking", "1")
        if self.operators is not None:
            options.register_custom_ops_library(str(self.operators))
        return options

    @property
    def operators(self) -> Path | None:
        """The library with the operator for deformable attention; without one, graphs run the function they carry."""
        return plugins.library()


class OnnxRuntimeRunner:
    """One graph in one ONNX Runtime session.

    Args:
        device: where its KV caches lie, "cpu" or "cuda".
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, spec: GraphSpec, precision: Precision, device: str = "cpu"
    ):
        self.session = session
        self.spec = spec
        self.precision = precision
        self.device = device

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        names = [tensor.name for tensor in self.spec.outputs]
        feeds = checked_feeds(self.spec, self.precision, feeds)
        with explained(f"graph {self.spec.name!r} failed"):
            values = self.session.run(names, feeds)
        return dict(zip(names, values, strict=True))

    def cache(self, rows: int, capacity: int) -> OnnxRuntimeCache:
        return OnnxRuntimeCache(self, rows, capacity)


class OnnxRuntimeCache:
    """KV cache bound to the inputs `past_*` and, the same memory, to the outputs `present_*`."""

    def __init__(self, runner: OnnxRuntimeRunner, rows: int, capacity: int):
        self.rows = rows
        self.capacity = 0
        self._runner = runner
        self._binding = runner.session.io_binding()
        self._read = [tensor.name for tensor in runner.spec.outputs if not tensor.name.startswith("present_")]
        for name in self._read:  # first, so that they lead what get_outputs returns
            self._binding.bind_output(name)
        self._values: dict[str, onnxruntime.OrtValue] = {}
        self.grow(capacity)

    def run(self, feeds: Arrays) -> dict[str, np.ndarray]:
        runner, binding = self._runner, self._binding
        for name, array in checked_feeds(runner.spec, runner.precision, feeds, without="past_").items():
            binding.bind_cpu_input(name, array)
        for name in self._read:  # a bound output keeps the shape of the last run
            binding.bind_output(name)
        with explained(f"graph {runner.spec.name!r} failed"):
            runner.session.run_with_iobinding(binding)
        values = binding.get_outputs()
        return {name: values[index].numpy() for index, name in enumerate(self._read)}

    def grow(self, capacity: int) -> None:
        ort = import_onnxruntime()
        if capacity <= self.capacity:
            return
        used, self.capacity = self.capacity, capacity
        for tensor in self._runner.spec.inputs:
            if not tensor.name.startswith("past_"):
                continue
            _, heads, _, dim = tensor.shape
            # Zeros: a slot that no row has written may lie under the mask, and 0 · NaN would still be NaN.
            array = np.zeros((self.rows, heads, capacity, dim), tensor.numpy_dtype(self._runner.precision))
            if used:
                array[:, :, :used] = self._values[tensor.name].numpy()
            value = ort.OrtValue.ortvalue_from_numpy(array, self._runner.device, 0)
            self._values[tensor.name] = value
            self._binding.bind_ortvalue_input(tensor.name, value)
            self._binding.bind_ortvalue_output(tensor.name.replace("past_", "present_", 1), value)


def import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingPackageError("onnxruntime", "running a bundle", "cpu") from None
    return onnxruntime


@functools.cache
def _failures() -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions; they share no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = (kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
    return (*own, RuntimeError)


@contextlib.contextmanager
def explained(what: str, mend: str = "") -> Iterator[None]:
    """Turns ONNX Runtime's exceptions into one line."""
    try:
        yield
    except _failures() as error:
        reason = " ".join(str(error).split(":", 3)[-1].split())
        raise EngineError(f"{what} ({reason})", mend) from error
