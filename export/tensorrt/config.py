"""The builder's configuration: profiles, capabilities, compatibility, memory, measured times."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from devil.contract import GraphSpec
from devil.engine_key import Hardware
from devil.errors import EngineError
from devil.export.tensorrt.job import BuildJob
from devil.export.tensorrt.profiles import level_shape_values
from devil.files import atomic_file

_LEVELS: dict[Hardware, str] = {"same-capability": "SAME_COMPUTE_CAPABILITY", "ampere+": "AMPERE_PLUS"}


def builder_config(trt: ModuleType, builder: Any, network: Any, spec: GraphSpec, job: BuildJob) -> Any:
    """What a job asks for as an IBuilderConfig.

    Raises:
        EngineError: this TensorRT has no such GPU or compatibility, or refuses a profile.
    """
    config = builder.create_builder_config()
    # The graph's float32 parts are float32 on purpose: positions, statistics, scores.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # names and types of layers for the inspector
    if job.memory:
        for pool in (trt.MemoryPoolType.WORKSPACE, trt.MemoryPoolType.TACTIC_DRAM):
            config.set_memory_pool_limit(pool, job.memory)
    if job.effort is not None:
        config.builder_optimization_level = job.effort
    if job.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if job.hardware != "none":
        level = getattr(trt.HardwareCompatibilityLevel, _LEVELS[job.hardware], None)
        if level is None:
            raise EngineError(f"TensorRT {trt.__version__} has no --hardware {job.hardware}", "use ampere+ or none")
        config.hardware_compatibility_level = level
    if job.capabilities:
        _set_capabilities(trt, config, job.capabilities)
    for profile in job.profiles:
        _add_profile(builder, config, network, spec, profile)
    return config


def read_times(config: Any, path: Path) -> None:
    """Gives the builder what was measured before; a cache of another TensorRT or GPU is ignored."""
    for stored in (path.read_bytes() if path.is_file() else b"", b""):
        times = config.create_timing_cache(stored)  # none of broken bytes
        if times is not None and config.set_timing_cache(times, False):
            return


def write_times(config: Any, path: Path) -> None:
    """Keeps what was measured, with what another process wrote meanwhile."""
    times = config.get_timing_cache()
    others = config.create_timing_cache(path.read_bytes()) if path.is_file() else None
    if others is not None:
        times.combine(others, False)
    with atomic_file(path) as scratch:
        scratch.write_bytes(memoryview(times.serialize()))


def _set_capabilities(trt: ModuleType, config: Any, capabilities: tuple[str, ...]) -> None:
    config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        config.set_compute_capability(trt.ComputeCapability.__members__[name.upper()], index)


def _add_profile(builder: Any, config: Any, network: Any, spec: GraphSpec, profile: Any) -> None:
    added = builder.create_optimization_profile()
    shapes = profile.shapes(spec)
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.is_shape_tensor:
            added.set_shape_input(tensor.name, *level_shape_values(profile))
        else:
            added.set_shape(tensor.name, *shapes[tensor.name])
    if config.add_optimization_profile(added) < 0:
        raise EngineError(f"TensorRT refuses profile {profile.name!r} of graph {spec.name!r}", "choose other sizes")
