"""Execution contexts of one engine; they share the memory of their activations, because they run one after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from devil.runtime.engines.cuda_device import CudaDevice
from devil.runtime.engines.tensorrt.api import Api
from devil.runtime.engines.tensorrt.jit_cache import JitCache


class Contexts:
    """Makes contexts.

    Attributes:
        capturable: runs are to be captured as CUDA graphs here, until one cannot be.

    Args:
        engine: TensorRT's.
        stream: the one that all of them run on.
        purpose: whose activations they are, for the message where memory runs out.
        repeats: runs come again in the same sizes, so that CUDA graphs pay.
        compiled: file for the kernels that TensorRT-RTX compiles.
    """

    def __init__(
        self, api: Api, engine: Any, device: CudaDevice, stream: Any, purpose: str, repeats: bool, compiled: Path
    ):
        self._api, self._engine, self._stream, self._purpose = api, engine, stream, purpose
        self.repeats = repeats
        self._shared: dict[int, Any] = {}
        self._scratch = device.allocate(engine.device_memory_size_v2, f"activations of {purpose}")
        self._allocation = api.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._config = self._compiled = None
        if api.backend == "tensorrt-rtx":
            self._configure(compiled)
        self.capturable = repeats and self._config is None

    def of(self, profile: int) -> Any:
        """The context that plain runs of a profile share."""
        if profile not in self._shared:
            self._shared[profile] = self.another(profile)
        return self._shared[profile]

    def another(self, profile: int) -> Any:
        """A context of its own. A captured run needs one: it breaks when its context is given other shapes.

        Raises:
            EngineError: TensorRT has no more of them.
        """
        api = self._api
        with api.explained(f"graph {self._purpose!r} cannot be prepared", "close other programs on the GPU"):
            context = api.wanted(self._created(), "create_execution_context")
            context.set_device_memory(self._scratch.address, self._scratch.bytes)
            api.wanted(context.set_optimization_profile_async(profile, self._stream.handle), "profile")
        return context

    def keep_compiled(self) -> None:
        """Writes the kernels that were compiled so far, where that is how the engine works."""
        if self._compiled:
            self._compiled.save()

    def _configure(self, compiled: Path) -> None:
        """TensorRT-RTX compiles kernels for the shapes it meets, and keeps CUDA graphs of its own."""
        api = self._api
        with api.explained(f"graph {self._purpose!r} cannot be prepared"):
            self._config = api.wanted(self._engine.create_runtime_config(), "create_runtime_config")
            self._config.set_execution_context_allocation_strategy(self._allocation)
            if self.repeats:
                self._config.cuda_graph_strategy = api.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            self._compiled = JitCache(self._config, compiled)

    def _created(self) -> Any:
        return self._engine.create_execution_context(self._config or self._allocation)
