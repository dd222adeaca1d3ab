"""Engines of a bundle's graphs, built into its store: what is there and fits is kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from devil.bundle import Bundle, Manifest
from devil.contract import contract
from devil.engine_key import EngineKey
from devil.engine_store import EngineStore, StoredEngine
from devil.export.tensorrt import process
from devil.export.tensorrt.job import BuildJob
from devil.export.tensorrt.options import EngineOptions
from devil.export.tensorrt.prepared import has_deformable_attention
from devil.export.tensorrt.profiles import Sizes
from devil.export.tensorrt.target import NoEngines, Target
from devil.files import check_room
from devil.gpu_precisions import check_graph
from devil.progress import Progress, no_progress

_ROOM = 1.3  # bytes of an engine per byte of weights, and a little for what is not weights
_LEAST_ROOM = 100 << 20


@dataclass(frozen=True)
class Built:
    """An engine, and whether it was there already."""

    engine: StoredEngine
    reused: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a request for engines: what they were built with, or why none were; and the engines."""

    target: Target | NoEngines
    engines: tuple[Built, ...] = ()


def build_engines(
    bundle: Bundle, options: EngineOptions, target: Target | NoEngines, progress: Progress = no_progress
) -> Outcome:
    """Builds the engines that are asked for.

    Args:
        bundle: opened, so that its files are known to be whole.
        target: what `choose` says of these options and this machine.

    Raises:
        UsageError: sizes that the model cannot have; nothing was built then.
        EngineError: a GPU does not compute in a graph's precision, nothing was built then; or the builder refuses a
            graph, fails or dies: engines of other graphs may have been built.
        OutputError: the store cannot be written.
    """
    if isinstance(target, NoEngines):
        return Outcome(target)
    check_gpus(bundle.manifest, options, target.capabilities)
    sizes = Sizes(bundle.config, bundle.manifest.frame_size, options, tuned=target.backend == "tensorrt")
    # All jobs first: sizes are refused before any work.
    jobs = [_job(bundle, graph, options, target, sizes) for graph in options.chosen_graphs]
    return Outcome(target, tuple(_built(bundle, key, job, options, progress) for key, job in jobs))


def check_gpus(manifest: Manifest, options: EngineOptions, capabilities: Iterable[str]) -> None:
    """
    Raises:
        EngineError: a GPU does not compute in the precision of a graph that is asked for.
    """
    for capability in capabilities:
        for graph in options.chosen_graphs:
            check_graph(graph, manifest, capability)


def _job(
    bundle: Bundle, graph: str, options: EngineOptions, target: Target, sizes: Sizes
) -> tuple[EngineKey, BuildJob]:
    plugin = target.plugin if target.plugin and has_deformable_attention(bundle.path(graph)) else None
    key = EngineKey(
        graph,
        bundle.graph_hash(graph),
        target.backend,
        target.version,
        target.capabilities,
        sizes.profiles(graph),
        target.plugin_hash if plugin else "",
        options.hardware,
        target.device,
        options.version_compatible,
    )
    store = EngineStore(bundle)
    times = store.timing_cache(target.backend, target.version, target.capabilities[0])
    dimensions = {size for tensor in contract(bundle.config)[graph].inputs for size in tensor.shape}
    job = BuildJob(
        bundle=str(bundle.folder.resolve()),
        graph=graph,
        backend=target.backend,
        profiles=key.profiles,
        output="",
        capabilities=target.capabilities if target.ahead else (),
        fixed={name: size for name, size in sizes.fixed.items() if name in dimensions},
        plugin=str(plugin.resolve()) if plugin else "",
        hardware=options.hardware,
        version_compatible=options.version_compatible,
        memory=int((options.builder_memory or 0) * 1e9),
        effort=options.effort,
        timing_cache="" if target.ahead else str(times.resolve()),
    )
    return key, job


def _built(bundle: Bundle, key: EngineKey, job: BuildJob, options: EngineOptions, progress: Progress) -> Built:
    store, stage = EngineStore(bundle), f"building {key.graph}"
    progress(stage, 0, 100)

    def waiting() -> None:
        progress(f"waiting for {key.graph}", 0, 100)

    with store.building(key, waiting) as scratch:
        there = None if options.rebuild else store.get(key)
        if there is not None:
            return Built(there, reused=True)
        check_room(scratch, int(_ROOM * bundle.manifest.graph_bytes(key.graph)) + _LEAST_ROOM)
        told = process.build(
            replace(job, output=str(scratch.resolve())), lambda _phase, percent: progress(stage, percent, 100)
        )
        progress(stage, 100, 100)
        return Built(store.add(key, scratch, told), reused=False)
