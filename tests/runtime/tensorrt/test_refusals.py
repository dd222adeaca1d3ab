"""What the TensorRT engine refuses, on fakes of pycuda and TensorRT: one line that says what and why."""

import json

import pytest

from devil.contract import contract
from devil.errors import EngineError, MissingPackageError, VideoError
from devil.gpu import Driver
from devil.runtime.engines import choice, cuda_device
from devil.runtime.engines.gate import NumericGate
from devil.runtime.engines.tensorrt import api
from devil.runtime.engines.tensorrt.engine import TensorRtEngine
from devil.runtime.pipeline import Grounder
from tests import engines, fake_cuda, fake_tensorrt
from tests.engines import SENTENCES, language, one_line, wrong_engine

pytestmark = pytest.mark.usefixtures("gpu")


def test_a_miscompiled_engine_is_refused_with_tensor_and_figure_and_stays_so(small, monkeypatch):
    stored = wrong_engine(small)
    with pytest.raises(EngineError, match=r"logits of .* has relative 0\.01 \(budget 0\.0001\)") as error:
        language(small, NumericGate())
    assert stored.path.name in str(error.value)
    report = json.loads(stored.sidecar.read_text())["gates"]["Fake GPU sm89, driver 580.1, tensorrt 11.1.0"]
    assert not report["passed"]
    assert report["findings"][0]["broken"]
    monkeypatch.setattr("devil.runtime.engines.gate.judge", None)  # not sought twice, and trust does not overrule it
    with pytest.raises(EngineError, match="computes something else"):
        language(small, NumericGate(trust=True))


def test_trust_lets_an_engine_through_that_nobody_judged(small):
    stored = wrong_engine(small)
    language(small, NumericGate(trust=True))
    assert not json.loads(stored.sidecar.read_text())["gates"]


def test_an_engine_that_cannot_be_judged_is_not_run(small, monkeypatch):
    wrong_engine(small)
    monkeypatch.setattr("devil.runtime.engines.gate.available_memory", lambda: 1000)
    with pytest.raises(EngineError, match=r"judging it takes .* free some; or --trust-engines"):
        language(small, NumericGate())


def test_missing_foreign_and_altered_engines_are_named(small):
    with pytest.raises(EngineError, match=r"holds none.*devil-build .* --backend tensorrt"):
        language(small, NumericGate())
    engines.add_engine(small, "language", b"x", version="10.9.0")
    engines.add_engine(small, "language", b"x", capabilities=("sm90",))
    with pytest.raises(EngineError, match=r"built by tensorrt 10\.9\.0, this is 11\.1\.0.*built for sm90") as error:
        language(small, NumericGate())
    assert one_line(error)
    stored = engines.add_engine(small, "language", b"not an engine")
    with pytest.raises(EngineError, match=r"cannot load language-tensorrt.*magic tag does not match"):
        language(small, NumericGate())
    stored.path.write_bytes(b"not an eng1ne")
    with pytest.raises(EngineError, match="was altered after it was built"):
        language(small, NumericGate())


def test_what_a_library_said_stays_behind_the_error_for_whoever_debugs(small, monkeypatch):
    monkeypatch.setattr(choice, "read_driver", lambda: Driver((fake_cuda.GPU,)))
    engines.add_engines(small)
    engines.add_engine(small, "language", b"not an engine")
    with pytest.raises(EngineError, match="magic tag") as error:
        Grounder.open(small.folder, threads=1, engine="tensorrt")
    assert error.value.__cause__ is not None


def test_code_for_the_cpu_is_run_of_version_compatible_engines_alone(small):
    ranges, spec = engines.profiles(small.config)["language"], contract(small.config)["language"]
    content = fake_tensorrt.content(small.path("language"), ranges, spec, host_code=True)
    stored = engines.add_engine(small, "language", content)
    with pytest.raises(EngineError, match="the plan has host code, which is not allowed"):
        language(small, NumericGate())
    stored.path.unlink()
    engines.add_engine(small, "language", content, version="11.0.1", version_compatible=True)
    language(small, NumericGate())


def test_an_engine_of_another_form_is_refused(small):
    other = contract(small.config)["language"]
    ranges = engines.profiles(small.config)["language"]
    content = fake_tensorrt.content(small.path("language"), ranges, other)
    engines.add_engine(small, "language", content, ranges[:1])
    with pytest.raises(EngineError, match="2 profiles instead of 1 differ"):
        language(small, NumericGate())


def test_a_video_beyond_the_profiles_says_which_flag_raises_it(small, clip_path):
    side = small.config.detector.min_side
    engines.add_engines(small, side=side)
    grounder = Grounder(small, TensorRtEngine(small, "tensorrt", NumericGate(trust=True)))
    with pytest.raises(
        EngineError, match=r"[HW] is \d+ and profile 'frames' takes at most 64, which --max-frame"
    ) as error:
        grounder.encode(clip_path)
    assert one_line(error)


def test_a_prompt_beyond_the_engines_cache_says_so(small, clip_path):
    engines.add_engines(small, slots=48)
    grounder = Grounder(small, TensorRtEngine(small, "tensorrt", NumericGate(trust=True)))
    with pytest.raises(VideoError, match=r"the engine holds 48: .*or build engines with devil-build --context \d+"):
        grounder.encode(clip_path)


def test_too_little_gpu_memory_says_what_needs_how_much(built, gpu, monkeypatch):
    monkeypatch.setattr(gpu.machine, "total", gpu.machine.used + 10_000)
    with pytest.raises(
        EngineError, match=r"the GPU has no room: .* needs 0\.\d\d GB, .* are free; held here: "
    ) as error:
        Grounder(built, TensorRtEngine(built, "tensorrt", NumericGate()))
    assert one_line(error)


def test_an_engine_that_the_gpu_has_no_room_for_says_how_much_there_is(small, gpu, monkeypatch):
    engines.add_engine(small, "language", b"not an engine")
    monkeypatch.setattr(gpu.machine, "total", gpu.machine.used + 5)
    with pytest.raises(EngineError, match=r"cannot load .*it needs more than 0\.00 GB of the GPU, .* are free.* close"):
        language(small, NumericGate())


def test_a_fault_on_the_gpu_is_one_line(grounder, gpu, clip_path, monkeypatch):
    video = grounder.encode(clip_path)
    monkeypatch.setattr(gpu.machine, "broken", "cuStreamSynchronize failed: an illegal memory\naccess")
    with pytest.raises(EngineError, match=r"failed .*an illegal memory access\)$") as error:
        video.ground(SENTENCES[0])
    assert one_line(error)


def test_a_gpu_whose_memory_runs_out_in_a_run_says_what_would_help(grounder, gpu, clip_path, monkeypatch):
    video = grounder.encode(clip_path)
    monkeypatch.setattr(gpu.machine, "broken", "cuStreamSynchronize failed: out of memory")
    with pytest.raises(EngineError, match=r"failed .*out of memory\): close other programs .*lower --max-frames"):
        video.ground(SENTENCES[0])


@pytest.mark.parametrize(
    ("words", "helps"),
    [
        ("CUDA failure 2: out of memory", True),
        ("[resizingAllocator.cpp] OutOfMemory: Requested amount of GPU memory could not be allocated.", True),
        ("CUBLAS_STATUS_ALLOC_FAILED", True),
        ("an illegal memory access was encountered", False),
    ],
)
def test_libraries_that_have_no_room_are_understood(words, helps):
    assert bool(cuda_device.room_mend(words)) == helps


def test_a_missing_package_is_named(built, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycuda", None)
    monkeypatch.setitem(__import__("sys").modules, "pycuda.driver", None)
    held = cuda_device.open_device()
    cuda_device.open_device.cache_clear()
    with pytest.raises(MissingPackageError, match=r"pycuda.*pip install 'devil-deploy\[cuda\]'"):
        TensorRtEngine(built, "tensorrt", NumericGate())
    assert held is not None


def test_a_driver_too_old_for_tensorrt_is_told_with_what_it_serves(built, gpu, monkeypatch):
    def refuse(logger):
        logger.log(fake_tensorrt.ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("factory function returned nullptr")

    monkeypatch.setattr(gpu.trt, "Runtime", refuse)
    told = r"tensorrt 11\.1\.0 does not start \(CUDA .* error: 35\): install a driver .* this one serves CUDA 13\.0"
    with pytest.raises(EngineError, match=told) as error:
        TensorRtEngine(built, "tensorrt", NumericGate())
    assert one_line(error)


def test_the_plugin_is_loaded_or_refused_by_name(gpu, monkeypatch, tmp_path):
    plugin, opened = tmp_path / "libdevil_msda_tensorrt.so", api.open_api("tensorrt")
    monkeypatch.setattr(api, "candidates", lambda _name: [])
    api.load_plugin.cache_clear()
    with pytest.raises(EngineError, match=r"libdevil_msda_tensorrt\.so is missing, and the engine needs it: build it"):
        api.load_plugin(opened)
    monkeypatch.setattr(api, "candidates", lambda _name: [plugin])
    with pytest.raises(EngineError, match=r"refuses the plugin .*build it again for this TensorRT"):
        api.load_plugin(opened)
    gpu.trt.libraries[str(plugin)] = 1
    api.load_plugin(opened)
    api.load_plugin.cache_clear()
