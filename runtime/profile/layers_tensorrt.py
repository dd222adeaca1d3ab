"""TensorRT's own profiler, and what its engine inspector says of the layers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from devil.errors import EngineError
from devil.runtime.profile.layers import Layer, typical

if TYPE_CHECKING:
    from devil.runtime.engines.tensorrt.runner import TensorRtRunner

_OF_PROFILE = re.compile(r" \[profile \d+\]$")  # behind the names of all but the first profile's layers


def trace(runner: TensorRtRunner, run: Callable[[], object], times: int) -> list[Layer]:
    """The layers of what `run` does, and the median of their times.

    Args:
        runner: of the graph.
        run: runs it once, kernel by kernel: what was captured as a CUDA graph reports nothing.

    Raises:
        EngineError: TensorRT reports no times, or says nothing that can be read about its layers.
    """
    contexts = [runner.contexts.of(index) for index in range(len(runner.profiles))]
    described = describe(runner.api.trt, contexts[0].engine)
    runs = []
    with _timed(runner.api.trt, contexts) as profiler:
        for _ in range(times + 1):  # one to warm up
            profiler.seconds = {}
            run()
            runs.append({name: (*_told(described, name), seconds) for name, seconds in profiler.seconds.items()})
    if not runs[-1]:
        raise EngineError(f"{runner.api.backend} reports no layer's time here", "leave out --layers")
    return typical(
        [{name: (kind, seconds, types) for name, (kind, types, seconds) in found.items()} for found in runs[1:]]
    )


def describe(trt: Any, engine: Any) -> dict[str, tuple[str, str]]:
    """Kind and output types per layer; empty strings for an engine that was built with its layers' names alone.

    Raises:
        EngineError: what the inspector says cannot be read.
    """
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        layers = json.loads(text)["Layers"]
        return dict(_described(layer) for layer in layers)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(
            f"what TensorRT says about its layers cannot be read ({error})", "leave out --layers"
        ) from error


def _described(layer: str | Mapping[str, Any]) -> tuple[str, tuple[str, str]]:
    if isinstance(layer, str):
        return layer, ("", "")
    outputs = layer.get("Outputs") or ()
    types = sorted({str(output.get("Format/Datatype") or output.get("Datatype") or "") for output in outputs} - {""})
    return layer["Name"], (str(layer.get("LayerType", "")), ", ".join(types))


def _told(described: Mapping[str, tuple[str, str]], name: str) -> tuple[str, str]:
    kind, types = described.get(name) or described.get(_OF_PROFILE.sub("", name)) or ("", "")
    return kind or "?", types


@contextmanager
def _timed(trt: Any, contexts: list[Any]) -> Iterator[Any]:
    """A profiler that the contexts report to inside the block."""

    class Profiler(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.seconds: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.seconds[layer_name] = self.seconds.get(layer_name, 0.0) + ms / 1e3

    profiler = Profiler()
    try:
        for context in contexts:
            context.profiler = profiler
        yield profiler
    finally:
        for context in contexts:
            context.profiler = None
