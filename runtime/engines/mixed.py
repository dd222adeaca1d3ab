"""TensorRT for the graphs that have an engine, ONNX Runtime for the others.

TensorRT before 10.15, as on Jetsons with JetPack 6, cannot read the language model's graph but builds the other three.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from devil.contract import GraphSpec, Precision
from devil.engine_store import EngineStore
from devil.runtime.engines.base import Engine, GraphRunner
from devil.runtime.engines.tensorrt.engine import TensorRtEngine


@dataclass(frozen=True)
class MixedEngine:
    """Two engines side by side. What one leaves on the GPU travels through the host to the other.

    Attributes:
        store: whose engines `tensorrt` runs.
        others: runs the graphs that have none for this GPU.
    """

    store: EngineStore
    tensorrt: TensorRtEngine
    others: Engine

    @property
    def name(self) -> str:
        return f"{self.tensorrt.name}+{self.others.name}"

    def load(self, path: Path, spec: GraphSpec, precision: Precision) -> GraphRunner:
        built = self.store.lookup(spec.name, self.tensorrt.host).engine is not None
        engine = self.tensorrt if built else self.others
        return engine.load(path, spec, precision)
