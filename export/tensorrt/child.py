"""The process that builds: a job on stdin, lines of JSON on stdout. TensorRT may take it down without harm."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from devil.bundle import Bundle, read_manifest
from devil.contract import contract
from devil.engine_key import capability_number
from devil.errors import DevilError, EngineError
from devil.export.tensorrt.config import builder_config, read_times, write_times
from devil.export.tensorrt.job import BuildJob
from devil.export.tensorrt.messages import Messages
from devil.export.tensorrt.monitor import monitor
from devil.export.tensorrt.network import check_network, parsed_network
from devil.export.tensorrt.prepared import DEFORMABLE, prepare
from devil.tensorrt_api import import_tensorrt


def main() -> None:
    """Reads `{"describe": backend}` or `{"build": job}`, answers with `{"done": …}` or `{"error": …}`."""
    answers = _own_stdout()

    def say(kind: str, value: Any) -> None:
        answers.write(json.dumps({kind: value}) + "\n")
        answers.flush()

    try:
        request = json.load(sys.stdin)
        if "describe" in request:
            say("done", describe(request["describe"]))
        else:
            job = BuildJob.loads(request["build"])
            say("done", build(job, lambda phase, percent: say("progress", [phase, percent])))
    except DevilError as error:
        say("error", [error.message, error.mend])


def describe(backend: Any) -> dict[str, Any]:
    """Version of a TensorRT, and the compute capabilities that it builds for ahead of time."""
    trt = import_tensorrt(backend)
    known = getattr(getattr(trt, "ComputeCapability", None), "__members__", {})
    return {
        "version": trt.__version__,
        "capabilities": sorted((name.lower() for name in known if name.startswith("SM")), key=capability_number),
    }


def build(job: BuildJob, told: Any) -> dict[str, Any]:
    """Builds the engine and writes it; returns what the sidecar says of it.

    Raises:
        EngineError: TensorRT refuses the graph, makes another network of it, or fails.
    """
    trt, messages, start = import_tensorrt(job.backend), Messages(), time.perf_counter()
    bundle = Bundle(Path(job.bundle), read_manifest(job.bundle))
    spec, path = contract(bundle.config)[job.graph], bundle.path(job.graph)
    prepared = prepare(path, spec, bundle.manifest.graph_precision(job.graph), job.fixed or {}, bool(job.plugin))
    try:
        builder = trt.Builder(messages.logger(trt))
    except TypeError as error:  # what the binding makes of a builder that could not be created
        reason = messages.reason()
        raise EngineError(f"TensorRT {trt.__version__} does not start ({reason})", "update the GPU's driver") from error
    if job.plugin:
        _load_plugin(trt, job.plugin, messages)
    network = parsed_network(trt, builder, prepared, path, messages)
    layers = check_network(network, prepared, path)
    config = builder_config(trt, builder, network, spec, job)
    config.progress_monitor = shown = monitor(trt, told)
    if job.timing_cache:
        read_times(config, Path(job.timing_cache))
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        mend = "lower --batch, --max-frame or --context, or raise --builder-memory, if memory is short"
        raise EngineError(f"TensorRT {trt.__version__} cannot build graph {job.graph!r} ({messages.reason()})", mend)
    del shown
    with open(job.output, "wb") as file:
        file.write(memoryview(engine))
        os.fsync(file.fileno())
    if job.timing_cache:
        write_times(config, Path(job.timing_cache))
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(time.process_time(), 2),
        "peak_bytes": _peak_bytes(),
        "layers": layers,
        "checked_types": len(prepared.types),
        "warnings": messages.warnings,
    }


def _load_plugin(trt: Any, path: str, messages: Messages) -> None:
    registry, mend = trt.get_plugin_registry(), "build the plugin again for this TensorRT (docs/tensorrt.md)"
    handle = registry.load_library(path)
    if handle is None:
        raise EngineError(f"{path} does not load as a TensorRT plugin ({messages.reason()})", mend)
    if registry.get_creator(DEFORMABLE, "1", "") is None:
        raise EngineError(f"{path} holds no plugin {DEFORMABLE}", mend)


def _own_stdout() -> TextIO:
    """Standard output for answers alone: whatever native code prints goes to standard error."""
    own = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(own, "w", encoding="utf-8")


def _peak_bytes() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
