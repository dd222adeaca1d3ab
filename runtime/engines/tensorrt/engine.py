"""TensorRT as an engine of the runtime: engines from a bundle's store, each judged before it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from devil.bundle import Bundle
from devil.contract import GraphSpec, Precision
from devil.engine_key import Backend
from devil.engine_sidecar import StoredEngine
from devil.engine_store import EngineStore
from devil.gpu import machine_name
from devil.runtime.engines.cuda_device import open_device
from devil.runtime.engines.tensorrt.api import host, load_plugin, open_api
from devil.runtime.engines.tensorrt.runner import TensorRtRunner

Gate = Callable[[EngineStore, StoredEngine, TensorRtRunner, Path, str], None]


class TensorRtEngine:
    """Loads the engines that `devil-build` built for this GPU.

    Args:
        bundle: whose engines.
        backend: which TensorRT.
        gate: refuses an engine that computes something else than the graph (`devil.runtime.engines.gate`).

    Attributes:
        host: what engines are looked up by.
        machine: what verdicts on engines hold for.

    Raises:
        MissingPackageError: this TensorRT or pycuda is not installed.
        EngineError: there is no GPU, or TensorRT does not start on it.
    """

    def __init__(self, bundle: Bundle, backend: Backend, gate: Gate):
        self.name = backend
        self.device = open_device()  # first: without a GPU everything else is beside the point
        self.api = open_api(backend)
        self.host = host(self.api, self.device)
        self.machine = machine_name(self.device.gpu, self.device.driver, f"{backend} {self.host.version}")
        self._store, self._gate = EngineStore(bundle), gate
        mend = "install a driver that serves this TensorRT's CUDA"
        if self.device.driver.cuda:
            mend += f"; this one serves CUDA {'.'.join(map(str, self.device.driver.cuda))}"
        with self.api.explained(f"{backend} {self.api.version} does not start", mend):
            self._runtime = self.api.wanted(self.api.trt.Runtime(self.api.logger), "Runtime")

    def load(self, path: Path, spec: GraphSpec, precision: Precision) -> TensorRtRunner:
        """The stored engine of a graph; `path`, its ONNX file, is only read to judge it.

        Raises:
            EngineError: no engine here runs on this machine, or it is broken or computes something else.
        """
        stored = self._store.find(spec.name, self.host)
        if stored.key.plugin:
            load_plugin(self.api)
        content = stored.read()
        # A version-compatible engine carries the runtime that built it, which TensorRT does not run unasked.
        self._runtime.engine_host_code_allowed = stored.key.version_compatible
        mend = self.device.shortage(stored.bytes) or "remove it and build it again"
        with self.api.explained(f"{self.name} cannot load {stored.path.name}", mend):
            engine = self.api.wanted(self._runtime.deserialize_cuda_engine(content), "deserialize_cuda_engine")
        compiled = stored.path.with_suffix(".jit")
        runner = TensorRtRunner(self.api, self.device, engine, spec, precision, stored.key.profiles, compiled)
        self._gate(self._store, stored, runner, path, self.machine)
        if self.machine not in stored.gates:  # the gate has just met every kind of shape
            runner.contexts.keep_compiled()
        return runner
