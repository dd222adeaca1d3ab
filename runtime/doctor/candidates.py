"""The engines that could run a bundle here, best first, with all that is in the way of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from devil.bundle import Bundle
from devil.contract import GRAPHS
from devil.engine_key import Host, capability_number
from devil.engine_store import EngineStore
from devil.errors import EngineError
from devil.files import sha256
from devil.gpu_precisions import check_graph
from devil.runtime.doctor.bundle import here
from devil.runtime.doctor.facts import Facts, Obstacle
from devil.runtime.doctor.judgement import (
    FROM_JETPACK,
    INSTALL_CPU,
    INSTALL_GPU,
    INSTALL_PYCUDA,
    INSTALL_RTX,
    INSTALL_TENSORRT,
)
from devil.runtime.doctor.software import TensorRt
from devil.runtime.memory_plan import plan
from devil.tensorrt_api import version_numbers

EngineName = Literal["tensorrt", "tensorrt-rtx", "cuda", "onnxruntime"]
PREFERRED: tuple[EngineName, ...] = ("tensorrt", "tensorrt-rtx", "cuda", "onnxruntime")

# The first whose parser knows all operators of the language model's graph (docs/tensorrt.md).
OLDEST_TENSORRT = (10, 15)
OLDEST_GPU = 75
LEAST_DRIVER = {11: "450", 12: "525", 13: "580"}  # branch of the driver, by major version of CUDA
MIXED = "or build those that it can read (--graphs vision backbone grounder) and take --engine mixed"


@dataclass(frozen=True)
class Candidate:
    """One engine on this machine.

    Attributes:
        name: as `--engine` takes it.
        obstacles: nothing where it runs.
        remark: what its user should know all the same.
    """

    name: EngineName
    obstacles: tuple[Obstacle, ...]
    remark: str = ""


def candidates(facts: Facts, bundle: Bundle | None = None) -> list[Candidate]:
    """All engines, best first; with a bundle also whether they take it."""
    first = "" if bundle else "a bundle's engines must be built first: devil-build"
    found = [Candidate(kind, tuple(_tensorrt(kind, facts, bundle)), first) for kind in PREFERRED[:2]]
    found.append(Candidate("cuda", tuple(_cuda(facts, bundle))))
    remark = ""
    if bundle and bundle.precision == "fp16":
        remark = "its CPU kernels compute in fp32: an fp32 bundle is the faster one there"
    found.append(Candidate("onnxruntime", tuple(_cpu(facts, bundle)), remark))
    return found


def chosen(found: list[Candidate]) -> Candidate | None:
    """The best that nothing is in the way of."""
    return next((candidate for candidate in found if not candidate.obstacles), None)


def _tensorrt(kind: str, facts: Facts, bundle: Bundle | None) -> Iterator[Obstacle]:
    if not facts.driver.gpus:
        yield _no_gpu(facts)  # nothing that could be installed helps
        return
    yield from _gpu(facts, bundle)
    installed = next((tensorrt for tensorrt in facts.software.tensorrts if tensorrt.kind == kind), None)
    if installed is None:
        mend = INSTALL_RTX if kind == "tensorrt-rtx" else INSTALL_TENSORRT
        yield Obstacle("not installed", FROM_JETPACK if facts.system.jetson else mend)
    elif not installed.version:
        yield Obstacle(f"cannot be imported ({installed.problem})", "install it again")
    elif kind == "tensorrt" and version_numbers(installed.version) < OLDEST_TENSORRT:
        least = ".".join(map(str, OLDEST_TENSORRT))
        update = "update to JetPack 7.2" if facts.system.jetson else f"install TensorRT {least} or newer"
        mend = f"{update}; {MIXED}"
        yield Obstacle(f"version {installed.version} cannot read the language model's graph, {least} can", mend)
    elif installed.cuda:
        yield from _driver(facts, installed.cuda)
    if not facts.software.pycuda:
        yield Obstacle("pycuda is not installed", INSTALL_PYCUDA)
    elif facts.software.pycuda_problem:
        yield Obstacle(f"pycuda does not start ({facts.software.pycuda_problem})", "install it again")
    if bundle:
        yield from _forms(facts, bundle)
    if installed and installed.version and bundle:
        yield from _engines(installed, facts, bundle)


def _forms(facts: Facts, bundle: Bundle) -> Iterator[Obstacle]:
    """The first graph whose numbers this GPU does not compute with."""
    for graph in GRAPHS:
        try:
            check_graph(graph, bundle.manifest, facts.driver.gpus[0].capability)
        except EngineError as error:
            yield Obstacle(error.message, "devil-export --precision fp16")
            return


def _engines(installed: TensorRt, facts: Facts, bundle: Bundle) -> Iterator[Obstacle]:
    """Graphs without an engine that this machine may run."""
    store, host = EngineStore(bundle), host_of(installed, facts)
    lookups = {graph: store.lookup(graph, host) for graph in GRAPHS}
    machine = here(facts, host.backend)
    for graph, lookup in lookups.items():
        if lookup.engine and not lookup.engine.gates.get(machine, {}).get("passed", True):
            mend = "build it again with another TensorRT or with the plugin (docs/tensorrt.md)"
            yield Obstacle(f"the engine of {graph} computes something else than the graph", mend)
    missing = [graph for graph, lookup in lookups.items() if lookup.engine is None]
    if missing:
        refused = [str(refusal) for graph in missing for refusal in lookups[graph].refused]
        against = f" ({'; '.join(refused)})" if refused else ""
        mend = f"devil-build {bundle.folder} --backend {installed.kind}"
        if len(missing) < len(GRAPHS):
            mend += "; or take --engine mixed"
        yield Obstacle(f"no engine for {', '.join(missing)}{against}", mend)


def host_of(installed: TensorRt, facts: Facts) -> Host:
    """What engines are looked up by, for the first GPU."""
    gpu = facts.driver.gpus[0]
    plugin = sha256(installed.plugin) if installed.plugin else ""
    return Host(installed.kind, installed.version, gpu.capability, plugin, gpu.name)


def _cuda(facts: Facts, bundle: Bundle | None) -> Iterator[Obstacle]:
    if not facts.driver.gpus:
        yield _no_gpu(facts)
        return
    yield from _gpu(facts, bundle)
    onnxruntime = facts.software.onnxruntime
    if onnxruntime is None or onnxruntime.problem or "CUDAExecutionProvider" not in onnxruntime.works:
        yield Obstacle("this ONNX Runtime has no CUDA provider", INSTALL_GPU)
    elif not onnxruntime.works["CUDAExecutionProvider"]:
        major = int(onnxruntime.cuda.split(".")[0]) if onnxruntime.cuda else 0
        old = list(_driver(facts, major))
        needed = f"CUDA {major}" if major else "CUDA"
        yield from old or [Obstacle("its CUDA provider does not start", f"install {needed} and cuDNN 9")]

    if bundle and "bf16" in _floats(bundle):
        yield Obstacle("ONNX Runtime has too few kernels for bf16", "devil-export --precision fp16")


def _floats(bundle: Bundle) -> set[str]:
    return {bundle.manifest.graph_precision(graph) for graph in GRAPHS}


def _driver(facts: Facts, cuda: int) -> Iterator[Obstacle]:
    """Whether the driver serves a major version of CUDA."""
    served = facts.driver.cuda
    if served and served[0] < cuda:
        least = LEAST_DRIVER.get(cuda)
        mend = f"update the driver to {least} or newer" if least else "update the driver"
        yield Obstacle(f"it was built for CUDA {cuda} and the driver serves up to {served[0]}.{served[1]}", mend)


def _no_gpu(facts: Facts) -> Obstacle:
    return Obstacle(facts.driver.problem or "no GPU", facts.driver.mend)


def _gpu(facts: Facts, bundle: Bundle | None) -> Iterator[Obstacle]:
    number = capability_number(facts.driver.gpus[0].capability)
    if number < OLDEST_GPU:
        yield Obstacle(f"the GPU has sm{number}, the oldest that is served is sm{OLDEST_GPU}")
    if bundle is None:
        return
    weights, room = sum(map(bundle.manifest.graph_bytes, GRAPHS)), facts.driver.gpus[0].bytes
    if weights > room:
        told = f"the weights alone take {weights / 1e9:.1f} GB, the GPU has {room / 1e9:.1f} GB"
        yield Obstacle(told, "devil-export --precision int4, or a larger GPU")


def _cpu(facts: Facts, bundle: Bundle | None) -> Iterator[Obstacle]:
    onnxruntime = facts.software.onnxruntime
    if onnxruntime is None:
        yield Obstacle("not installed", INSTALL_CPU)
    elif onnxruntime.problem or not onnxruntime.works.get("CPUExecutionProvider"):
        yield Obstacle(f"cannot be used ({onnxruntime.problem or 'no CPU provider'})", "install it again")
    if bundle is None:
        return
    if "bf16" in _floats(bundle):
        yield Obstacle("ONNX Runtime's CPU kernels have no bf16", "devil-export --precision fp32")
    yield from _memory(facts, bundle)


def _memory(facts: Facts, bundle: Bundle) -> Iterator[Obstacle]:
    needed = plan(bundle.manifest, bundle.config)
    if facts.system.memory is not None and needed.total > facts.system.memory:
        told = f"a full video is estimated to need {needed}, and {facts.system.memory / 1e9:.1f} GB are free"
        yield Obstacle(told, "use --max-frames, a smaller precision or a larger machine")
