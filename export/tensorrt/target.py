"""What engines are built with and for, from what was asked for and what this machine has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devil.engine_key import Backend
from devil.errors import EngineError, MissingPackageError, UsageError
from devil.export.tensorrt import process
from devil.export.tensorrt.options import EngineOptions
from devil.files import sha256
from devil.gpu import Driver, read_driver
from devil.plugins.loader import TENSORRT_LIBRARY, candidates
from devil.tensorrt_api import EXTRAS, MODULES, installed


@dataclass(frozen=True)
class Target:
    """What engines are built with and for.

    Attributes:
        backend, version: the TensorRT.
        capabilities: the GPUs.
        ahead: they are named to the builder because it must not look for a GPU here.
        device: name of the GPU here, where the engine is bound to its model.
        plugin: the plugin library, or None where the graphs' own function is built.
    """

    backend: Backend
    version: str
    capabilities: tuple[str, ...]
    ahead: bool = False
    device: str = ""
    plugin: Path | None = None

    @property
    def plugin_hash(self) -> str:
        return sha256(self.plugin) if self.plugin else ""


@dataclass(frozen=True)
class NoEngines:
    """Why none are built although nothing is wrong."""

    reason: str


@dataclass(frozen=True)
class Machine:
    """What this machine has; `of_here` looks."""

    driver: Driver
    kinds: Sequence[Backend]
    plugins: Sequence[Path]
    describe: Callable[[Backend], dict[str, Any]] = process.describe

    @classmethod
    def of_here(cls) -> Machine:
        return cls(read_driver(), installed(), candidates(TENSORRT_LIBRARY))


def choose(options: EngineOptions, machine: Machine | None = None) -> Target | NoEngines:
    """What to build with and for.

    Args:
        machine: what there is; this machine is looked at by default.

    Raises:
        MissingPackageError: the TensorRT that was asked for is not installed.
        EngineError: there is no GPU that it needs, or it does not know the ones that were named.
        UsageError: flags that contradict each other, or lack a --target.
    """
    options.check()
    machine = machine or Machine.of_here()
    backend = _automatic(options, machine) if options.backend == "auto" else options.backend
    if isinstance(backend, NoEngines):
        return backend
    if backend == "onnxruntime":
        return NoEngines("ONNX Runtime needs no engines")
    if backend not in machine.kinds:
        raise MissingPackageError(MODULES[backend].replace("_", "-"), f"--backend {backend}", EXTRAS[backend])
    chosen = _ahead_of_time if backend == "tensorrt-rtx" else _on_this_gpu
    return chosen(options, machine, machine.describe)


def _automatic(options: EngineOptions, machine: Machine) -> Backend | NoEngines:
    gpus, named = machine.driver.gpus, options.capabilities
    here = bool(gpus) and named in ((), (gpus[0].capability,))
    if here and "tensorrt" in machine.kinds:
        return "tensorrt"
    if (gpus or named) and "tensorrt-rtx" in machine.kinds:
        return "tensorrt-rtx"
    if named:
        raise EngineError(
            f"nothing here builds engines for {', '.join(named)}", "pip install 'devil-deploy[tensorrt-rtx]'"
        )
    if not gpus:
        return NoEngines(f"no GPU here ({machine.driver.problem})")
    return NoEngines("neither TensorRT nor TensorRT-RTX is installed")


def _on_this_gpu(options: EngineOptions, machine: Machine, describe: Callable[[Backend], dict[str, Any]]) -> Target:
    driver, named = machine.driver, options.capabilities
    elsewhere = "build on the machine that runs the engines, or use --backend tensorrt-rtx --target"
    if not driver.gpus:
        raise EngineError(f"TensorRT builds on a GPU, and there is none here ({driver.problem})", elsewhere)
    gpu = driver.gpus[0]
    if named not in ((), (gpu.capability,)):
        raise EngineError(f"TensorRT builds for the GPU here, {gpu.capability}, not for {', '.join(named)}", elsewhere)
    version = describe("tensorrt")["version"]
    device = gpu.name if options.hardware == "none" else ""
    plugin = next(iter(machine.plugins), None)
    return Target("tensorrt", version, (gpu.capability,), device=device, plugin=plugin)


def _ahead_of_time(
    options: EngineOptions, machine: Machine, describe: Callable[[Backend], dict[str, Any]]
) -> Target | NoEngines:
    if options.hardware != "none":
        raise UsageError("--hardware is TensorRT's", "TensorRT-RTX engines run on every GPU of their capabilities")
    if options.version_compatible:
        raise UsageError("--version-compatible is TensorRT's", "TensorRT-RTX runs the engines of its own version alone")
    named = options.capabilities or tuple(gpu.capability for gpu in machine.driver.gpus[:1])
    if not named:
        raise UsageError(f"no GPU here ({machine.driver.problem})", "name GPUs to build for: --target sm89 sm120")
    described = describe("tensorrt-rtx")
    unknown = [name for name in named if name not in described["capabilities"]]
    if unknown:
        known, what = ", ".join(described["capabilities"]), f"TensorRT-RTX {described['version']} knows no {unknown[0]}"
        if options.backend == "auto" and not options.capabilities:
            return NoEngines(what)  # nobody asked for it
        raise EngineError(what, f"it builds for {known}")
    # Its custom plugins abort while parsing, so that deformable attention is the graphs' own function.
    return Target("tensorrt-rtx", described["version"], named, ahead=True)
