"""What flags become in the builder's configuration, on a stand-in for TensorRT that keeps what it is told."""

from enum import Enum
from types import SimpleNamespace

import pytest

from devil.contract import GraphSpec, TensorSpec
from devil.engine_profile import Profile, Range
from devil.errors import EngineError
from devil.export.tensorrt import child
from devil.export.tensorrt.config import builder_config, read_times, write_times
from devil.export.tensorrt.job import BuildJob
from devil.export.tensorrt.messages import Messages

SPEC = GraphSpec(
    "grounder",
    (TensorSpec("features", "float", ("N", "L", 4), ""), TensorSpec("level_shapes", "int64", (4, 2), "")),
    (),
)
PROFILE = Profile("frames", {"N": Range(1, 2, 3), "L": Range(85, 85, 85), "H": Range.fixed(64), "W": Range.fixed(64)})


class Capability(Enum):
    SM86 = 0
    SM89 = 1


TRT = SimpleNamespace(
    __version__="10.3.0",
    BuilderFlag=SimpleNamespace(TF32="tf32", VERSION_COMPATIBLE="compatible"),
    ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
    MemoryPoolType=SimpleNamespace(WORKSPACE="workspace", TACTIC_DRAM="tactics"),
    HardwareCompatibilityLevel=SimpleNamespace(AMPERE_PLUS="ampere"),
    ComputeCapability=Capability,
)


class Times:
    """A timing cache: the names of what was measured."""

    def __init__(self, stored):
        self.names = set(stored.decode().split())

    def combine(self, other, ignore_mismatch):
        assert not ignore_mismatch
        if "foreign" in other.names:
            return False
        self.names |= other.names
        return True

    def serialize(self):
        return " ".join(sorted(self.names)).encode()


class Config:
    def __init__(self):
        self.flags, self.pools, self.capabilities, self.profiles = {"tf32"}, {}, {}, []

    def clear_flag(self, flag):
        self.flags.discard(flag)

    def set_flag(self, flag):
        self.flags.add(flag)

    def set_memory_pool_limit(self, pool, size):
        self.pools[pool] = size

    def set_compute_capability(self, capability, index):
        self.capabilities[index] = capability

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)
        return len(self.profiles) - 1 if profile else -1

    def create_timing_cache(self, stored):
        return None if stored.startswith(b"broken") else Times(stored)

    def set_timing_cache(self, times, ignore_mismatch):
        assert not ignore_mismatch
        if "foreign" in times.names:
            return False
        self.times = times
        return True

    def get_timing_cache(self):
        return self.times


class Added(dict):
    def set_shape(self, name, *shapes):
        self[name] = shapes

    def set_shape_input(self, name, *values):
        self[name] = values


def configured(**wanted):
    config = Config()
    builder = SimpleNamespace(create_builder_config=lambda: config, create_optimization_profile=Added)
    inputs = [
        SimpleNamespace(name=tensor.name, is_shape_tensor=tensor.name == "level_shapes") for tensor in SPEC.inputs
    ]
    network = SimpleNamespace(num_inputs=len(inputs), get_input=inputs.__getitem__)
    return builder_config(TRT, builder, network, SPEC, BuildJob("b", "grounder", "tensorrt", (PROFILE,), "o", **wanted))


def test_nothing_asked_leaves_tensorrts_defaults_but_float32_stays_float32():
    config = configured()
    assert (config.flags, config.pools, config.capabilities) == (set(), {}, {})
    assert not hasattr(config, "builder_optimization_level")
    assert not hasattr(config, "hardware_compatibility_level")
    assert config.profiling_verbosity == "detailed"


def test_what_was_asked_is_set():
    config = configured(memory=5, effort=1, version_compatible=True, hardware="ampere+", capabilities=("sm86", "sm89"))
    assert config.pools == {"workspace": 5, "tactics": 5}
    assert config.builder_optimization_level == 1
    assert config.flags == {"compatible"}
    assert config.hardware_compatibility_level == "ampere"
    assert (config.num_compute_capabilities, config.capabilities) == (2, {0: Capability.SM86, 1: Capability.SM89})


def test_a_compatibility_that_this_tensorrt_lacks_is_refused():
    with pytest.raises(EngineError, match=r"10\.3\.0 has no --hardware same-capability"):
        configured(hardware="same-capability")


def test_inputs_get_shapes_and_shape_tensors_get_values():
    [added] = configured().profiles
    assert added["features"] == ((1, 85, 4), (2, 85, 4), (3, 85, 4))
    assert added["level_shapes"] == ((8, 8, 4, 4, 2, 2, 1, 1),) * 3


def test_measured_times_of_two_builds_are_kept_together(tmp_path):
    path = tmp_path / "timing" / "times.cache"
    first, second = Config(), Config()
    for config in (first, second):
        read_times(config, path)
    first.times.names, second.times.names = {"conv"}, {"gemm"}
    write_times(first, path)
    write_times(second, path)
    third = Config()
    read_times(third, path)
    assert third.times.names == {"conv", "gemm"}


@pytest.mark.parametrize("content", [b"broken", b"foreign"])
def test_a_broken_cache_of_times_and_one_of_another_gpu_are_replaced(tmp_path, content):
    path = tmp_path / "times.cache"
    path.write_bytes(content)
    config = Config()
    read_times(config, path)
    config.times.names = {"conv"}
    write_times(config, path)
    assert path.read_bytes() == b"conv"


@pytest.mark.parametrize(
    ("handle", "creator", "line"),
    [(None, None, "does not load as a TensorRT plugin"), (1, None, "holds no plugin MultiScale"), (1, 2, None)],
)
def test_a_plugin_library_that_does_not_fit_is_refused(handle, creator, line):
    registry = SimpleNamespace(load_library=lambda _path: handle, get_creator=lambda *_: creator)
    trt = SimpleNamespace(get_plugin_registry=lambda: registry)
    if line is None:
        child._load_plugin(trt, "p.so", Messages())
        return
    with pytest.raises(EngineError, match=rf"p\.so {line}.*: build the plugin again"):
        child._load_plugin(trt, "p.so", Messages())
