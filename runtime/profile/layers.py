"""Where the time of one run goes, layer by layer, as the engine itself tells it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from devil.runtime.engines.base import KVCache
from devil.runtime.pipeline import Grounder
from devil.runtime.profile.workload import Workload


@dataclass(frozen=True)
class Layer:
    """One layer of a graph, as the engine runs it: often several nodes in one.

    Attributes:
        name: in the engine.
        kind: type of operator or of layer.
        seconds: of one run, median.
        types: of its outputs, such as "float16"; empty where the engine does not tell.
    """

    name: str
    kind: str
    seconds: float
    types: str = ""


def layers_of(
    grounder: Grounder, workload: Workload, case: str, times: int, cache: KVCache | None = None, threads: int = 0
) -> list[dict[str, Any]] | None:
    """The layers of a case as JSON values, the slowest first; None where the engine does not tell.

    ONNX Runtime's CUDA provider is such a one: its profiler times when kernels are sent, not how long they run.

    Args:
        times: how many runs the median is taken of.
        cache: of the language graph, filled with the workload's prefix.
        threads: CPU threads.

    Raises:
        EngineError: what it tells cannot be read.
    """
    from devil.runtime.engines.onnxruntime import OnnxRuntimeRunner
    from devil.runtime.engines.tensorrt.runner import TensorRtRunner
    from devil.runtime.profile import layers_onnxruntime, layers_tensorrt

    chosen = workload.case(case)
    runner = getattr(grounder, chosen.graph)
    if isinstance(runner, TensorRtRunner):
        run = cache.run_uncaptured if chosen.graph == "language" else runner.run
        found = layers_tensorrt.trace(runner, lambda: run(chosen.feeds), times)
    elif type(runner) is OnnxRuntimeRunner:
        found = layers_onnxruntime.trace(grounder.bundle, workload, case, times, threads)
    else:
        return None
    return [asdict(layer) for layer in sorted(found, key=lambda layer: -layer.seconds)]


def by_kind(layers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Seconds and number of the layers of each kind, the slowest first."""
    kinds: dict[str, list[float]] = {}
    for layer in layers:
        kinds.setdefault(layer["kind"], []).append(layer["seconds"])
    rows = [{"kind": kind, "layers": len(seconds), "seconds": sum(seconds)} for kind, seconds in kinds.items()]
    return sorted(rows, key=lambda row: -row["seconds"])


def typical(runs: Sequence[dict[str, tuple[str, float, str]]]) -> list[Layer]:
    """Layers of several runs, each told as name → (kind, seconds, types): the median of their times."""
    if not runs:
        return []
    return [
        Layer(name, kind, median(run[name][1] for run in runs if name in run), types)
        for name, (kind, _, types) in runs[-1].items()
    ]
