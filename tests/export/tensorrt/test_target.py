"""What builds the engines, on machines of every kind."""

import pytest

from devil.errors import EngineError, MissingPackageError, UsageError
from devil.export.tensorrt.options import EngineOptions
from devil.export.tensorrt.target import Machine, NoEngines, Target, choose
from devil.gpu import Driver, Gpu

NO_GPU = Driver(problem="no NVIDIA driver")
L4 = Driver((Gpu("NVIDIA L4", "sm89", 24 << 30),), (12, 8), "570")
HOPPER = Driver((Gpu("NVIDIA H200", "sm90", 141 << 30),), (12, 8), "570")
BOTH = ("tensorrt", "tensorrt-rtx")


def describe(backend):
    known = {"tensorrt": [], "tensorrt-rtx": ["sm86", "sm89", "sm120"]}
    return {"version": {"tensorrt": "10.9.0.34", "tensorrt-rtx": "1.7.1.116"}[backend], "capabilities": known[backend]}


def chosen(driver, kinds, plugins=(), **options):
    return choose(EngineOptions(**options), Machine(driver, kinds, plugins, describe))


@pytest.mark.parametrize(
    ("driver", "kinds", "options", "backend"),
    [
        (L4, BOTH, {}, "tensorrt"),
        (L4, ("tensorrt-rtx",), {}, "tensorrt-rtx"),
        (L4, BOTH, {"target": ("sm89",)}, "tensorrt"),
        (L4, BOTH, {"target": ("sm120",)}, "tensorrt-rtx"),
        (NO_GPU, BOTH, {"target": ("sm120",)}, "tensorrt-rtx"),
        (HOPPER, BOTH, {"backend": "tensorrt"}, "tensorrt"),
    ],
)
def test_the_backend_fits_the_machine_and_the_target(driver, kinds, options, backend):
    assert chosen(driver, kinds, **options).backend == backend


@pytest.mark.parametrize(
    ("driver", "kinds", "options", "reason"),
    [
        (NO_GPU, BOTH, {}, "no NVIDIA driver"),
        (L4, (), {}, "neither TensorRT"),
        (L4, BOTH, {"backend": "onnxruntime"}, "ONNX Runtime"),
        (HOPPER, ("tensorrt-rtx",), {}, "knows no sm90"),
    ],
)
def test_where_there_is_nothing_to_build_with_nothing_is_built(driver, kinds, options, reason):
    found = chosen(driver, kinds, **options)
    assert isinstance(found, NoEngines)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("driver", "kinds", "options", "error", "line"),
    [
        (NO_GPU, BOTH, {"backend": "tensorrt"}, EngineError, "builds on a GPU, and there is none here"),
        (L4, BOTH, {"backend": "tensorrt", "target": ("sm90",)}, EngineError, "for the GPU here, sm89, not for sm90"),
        (L4, (), {"backend": "tensorrt"}, MissingPackageError, "devil-deploy[tensorrt]"),
        (L4, ("tensorrt",), {"backend": "tensorrt-rtx"}, MissingPackageError, "devil-deploy[tensorrt-rtx]"),
        (NO_GPU, ("tensorrt-rtx",), {"backend": "tensorrt-rtx"}, UsageError, "--target sm89 sm120"),
        (
            HOPPER,
            ("tensorrt-rtx",),
            {"backend": "tensorrt-rtx"},
            EngineError,
            "knows no sm90: it builds for sm86, sm89, sm120",
        ),
        (NO_GPU, (), {"target": ("sm89",)}, EngineError, "nothing here builds engines for sm89"),
        (L4, BOTH, {"backend": "tensorrt-rtx", "hardware": "ampere+"}, UsageError, "--hardware is TensorRT's"),
        (L4, BOTH, {"backend": "tensorrt-rtx", "version_compatible": True}, UsageError, "of its own version alone"),
        (L4, BOTH, {"target": ("ampere",)}, UsageError, "--target"),
    ],
)
def test_what_cannot_be_built_is_refused_before_any_work(driver, kinds, options, error, line):
    with pytest.raises(error) as refused:
        chosen(driver, kinds, **options)
    assert line in str(refused.value)


def test_an_engine_is_bound_to_the_gpu_model_unless_compatibility_is_asked_for(tmp_path):
    plugin = tmp_path / "plugin.so"
    plugin.write_bytes(b"plugin")
    bound = chosen(L4, BOTH, (plugin,))
    assert bound == Target("tensorrt", "10.9.0.34", ("sm89",), device="NVIDIA L4", plugin=plugin)
    assert len(bound.plugin_hash) == 64
    assert chosen(L4, BOTH, hardware="same-capability").device == ""


def test_rtx_engines_are_built_without_looking_at_a_gpu_and_without_plugins(tmp_path):
    found = chosen(NO_GPU, BOTH, (tmp_path / "plugin.so",), target=("sm120", "sm86"))
    assert found == Target("tensorrt-rtx", "1.7.1.116", ("sm86", "sm120"), ahead=True)
