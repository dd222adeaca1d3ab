"""ONNX Runtime's own profiler: the time of every node of a run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devil.bundle import Bundle
from devil.contract import contract
from devil.errors import EngineError
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine
from devil.runtime.profile.layers import Layer, typical
from devil.runtime.profile.workload import Workload

if TYPE_CHECKING:
    import onnxruntime

_SUFFIX = "_kernel_time"
_RUN = "model_run"


@dataclass(frozen=True)
class TracingOnnxRuntime(OnnxRuntimeEngine):
    """The same engine, whose sessions write down what every node takes.

    Attributes:
        prefix: of the files they write.
    """

    prefix: str = ""

    def options(self, ort: Any) -> onnxruntime.SessionOptions:
        options = super().options(ort)
        options.enable_profiling = True
        options.profile_file_prefix = self.prefix
        return options


def trace(bundle: Bundle, workload: Workload, name: str, times: int, threads: int = 0) -> list[Layer]:
    """The nodes of a case and the median of their times, in a session made for this.

    Raises:
        EngineError: the profiler wrote nothing that can be read.
    """
    case = workload.case(name)
    with tempfile.TemporaryDirectory(prefix="devil-profile-") as folder:
        tracing = TracingOnnxRuntime(threads, prefix=str(Path(folder) / name))
        spec = contract(bundle.config)[case.graph]
        runner = tracing.load(bundle.path(case.graph), spec, bundle.manifest.graph_precision(case.graph))
        target = runner
        if case.graph == "language":
            target = runner.cache(1, workload.capacity)
            for feeds in workload.prefix:
                target.run(feeds)
        for _ in range(times + 1):  # one to warm up
            target.run(case.feeds)
        return parse(Path(runner.session.end_profiling()), times)


def parse(path: Path, times: int) -> list[Layer]:
    """The nodes of the last `times` runs in a profile of ONNX Runtime, and the median of their times.

    Raises:
        EngineError: it cannot be read, or holds fewer runs.
    """
    try:
        events = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"ONNX Runtime's profile cannot be read ({error})") from error
    spans = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event.get("name") == _RUN)
    if len(spans) < times:
        raise EngineError(f"ONNX Runtime's profile holds {len(spans)} runs, not {times}")
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX)]
    return typical([_within(nodes, *span) for span in spans[-times:]])


def _within(nodes: Iterable[Mapping[str, Any]], start: int, end: int) -> dict[str, tuple[str, float, str]]:
    """Nodes that ran in a stretch of time (microseconds); one that ran several times counts all of them."""
    found: dict[str, tuple[str, float, str]] = {}
    for node in nodes:
        if start <= node["ts"] <= end:
            name, details = node["name"].removesuffix(_SUFFIX), node["args"]
            before = found[name][1] if name in found else 0.0
            types = sorted({kind for output in details.get("output_type_shape", ()) for kind in output})
            found[name] = (details.get("op_name", "?"), before + node["dur"] / 1e6, ", ".join(types))
    return found
