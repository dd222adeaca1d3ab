"""The TensorRT engine on fakes of pycuda and TensorRT (tests/fake_*.py): what it computes, keeps and refuses."""

import json
import shutil
import subprocess
import sys
import types
from importlib import metadata

import numpy as np
import pytest

from devil.bundle import open_bundle
from devil.contract import contract
from devil.engine_store import EngineStore
from devil.errors import EngineError, MissingPackageError, VideoError
from devil.gpu import Driver
from devil.runtime.engines import choice, cuda_device
from devil.runtime.engines.gate import NumericGate
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine
from devil.runtime.engines.tensorrt import api
from devil.runtime.engines.tensorrt.engine import TensorRtEngine
from devil.runtime.engines.tensorrt.rows import DeviceRow
from devil.runtime.pipeline import Grounder
from tests import engines, fake_cuda, fake_tensorrt

SENTENCES = ["the red circle", "a blue square that appears"]
RTX = "1.7.1.116"
pytestmark = pytest.mark.usefixtures("gpu")


@pytest.fixture(scope="module")
def gpu():
    """A machine with a fake GPU and a fake TensorRT."""
    with pytest.MonkeyPatch.context() as patch:
        machine, library = fake_cuda.install(patch)
        trt = fake_tensorrt.install(patch, machine)
        fake_tensorrt.install(patch, machine, RTX, rtx=True)
        yield types.SimpleNamespace(machine=machine, library=library, trt=trt)
    cuda_device.open_device.cache_clear()
    api.open_api.cache_clear()


def copied(bundle, folder):
    shutil.copytree(bundle, folder)
    return open_bundle(folder)


@pytest.fixture(scope="module")
def built(bundle, tmp_path_factory):
    """A bundle with engines."""
    found = copied(bundle, tmp_path_factory.mktemp("built") / "bundle")
    engines.add_engines(found)
    return found


@pytest.fixture(scope="module")
def grounder(built):
    return Grounder(built, TensorRtEngine(built, "tensorrt", NumericGate()))


@pytest.fixture(scope="module")
def expected(built, clip_path):
    """Call for ONNX Runtime's answers."""
    video = Grounder(built, OnnxRuntimeEngine(threads=1)).encode(clip_path)
    return lambda **options: video.ground_many(SENTENCES, **options)


def alike(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.text == theirs.text
        np.testing.assert_allclose(ours.rst, theirs.rst, atol=1e-5)
        np.testing.assert_allclose(ours.tube.boxes, theirs.tube.boxes, atol=1e-2)  # pixels


def one_line(error):
    return "\n" not in str(error.value)


# What it computes


def test_answers_are_those_of_onnx_runtime(grounder, gpu, clip_path, expected):
    video = grounder.encode(clip_path)
    alike(video.ground_many(SENTENCES), expected())
    assert all(isinstance(row, DeviceRow) for row in video.tubes.features.values())
    assert gpu.machine.launches > 0, "no decoding step was captured"
    alike(video.ground_many(SENTENCES, dense=True), expected(dense=True))
    alike(video.ground_many(SENTENCES, span_only=True), expected(span_only=True))


def test_the_backbone_works_while_the_language_model_speaks(grounder, clip_path):
    """Its runs are sent before the first word and nobody waits for them until the words are there."""
    video = grounder.encode(clip_path)
    waiting = []
    video.ground(SENTENCES[0], on_text=lambda *_: waiting.append(len(grounder.backbone.stream.queue)))
    assert waiting
    assert min(waiting) > 0


def test_many_sentences_and_videos_take_no_more_memory(grounder, gpu, clip_path):
    held = []
    for _ in range(4):
        video = grounder.encode(clip_path)
        for sentence in SENTENCES:
            video.ground(sentence)
        del video
        held.append((gpu.machine.used, len(gpu.machine.pinned)))
    assert held[-1] == held[1]


def test_two_videos_have_caches_of_their_own(grounder, clip_path, expected):
    first, second = grounder.encode(clip_path), grounder.encode(clip_path)
    second.ground_many(SENTENCES)
    alike(first.ground_many(SENTENCES), expected())


def test_a_step_that_cannot_be_captured_is_sent_kernel_by_kernel(built, gpu, clip_path, expected, caplog, monkeypatch):
    monkeypatch.setattr(gpu.library, "refuses", 900)
    launches = gpu.machine.launches
    grounder = Grounder(built, TensorRtEngine(built, "tensorrt", NumericGate()))
    alike(grounder.encode(clip_path).ground_many(SENTENCES), expected())
    assert gpu.machine.launches == launches
    assert caplog.text.count("cuGraphInstantiateWithFlags failed with CUDA error 900") == 1


def test_rows_are_read_where_they_are_or_gathered(grounder):
    size = grounder.config.detector.min_side
    frames = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    rows = grounder.backbone.submit({"frames": frames}).rows("features")
    shapes = np.array([[8, 8], [4, 4], [2, 2], [1, 1]]) * size // 64
    rest = {"level_shapes": shapes, "rst": np.ones(grounder.config.language.hidden, np.float32)}
    whole = grounder.grounder.run({"features": rows, **rest})
    turned = grounder.grounder.run({"features": rows[::-1], **rest})
    by_host = grounder.grounder.run({"features": np.stack([np.asarray(row) for row in rows]), **rest})
    for name, array in whole.items():
        np.testing.assert_array_equal(by_host[name], array)
        np.testing.assert_allclose(turned[name][::-1], array, atol=1e-4)


@pytest.mark.parametrize("changes", [{"host": ["level_shapes"]}, {"derives": False}], ids=["host", "allocator"])
def test_values_read_on_the_host_and_sizes_told_by_the_run(bundle, tmp_path, changes):
    graph = "grounder" if "host" in changes else "backbone"
    small = copied(bundle, tmp_path / "bundle")
    ranges, spec = engines.profiles(small.config)[graph], contract(small.config)[graph]
    values = json.loads(fake_tensorrt.content(small.path(graph), ranges, spec)) | changes
    engines.add_engine(small, graph, json.dumps(values).encode())
    TensorRtEngine(small, "tensorrt", NumericGate()).load(small.path(graph), spec, "fp32")  # the gate compares
    (gate,) = EngineStore(small).engines()[0].gates.values()
    assert gate["passed"]


def test_outputs_whose_size_the_run_tells_are_not_kept(bundle, tmp_path, gpu):
    small = copied(bundle, tmp_path / "bundle")
    ranges, spec = engines.profiles(small.config)["backbone"], contract(small.config)["backbone"]
    values = json.loads(fake_tensorrt.content(small.path("backbone"), ranges, spec)) | {"derives": False}
    engines.add_engine(small, "backbone", json.dumps(values).encode())
    runner = TensorRtEngine(small, "tensorrt", NumericGate(trust=True)).load(small.path("backbone"), spec, "fp32")
    side, held = small.config.detector.min_side, []
    for _ in range(3):
        pending = runner.submit({"frames": np.zeros((1, side, side, 3), np.uint8)})
        pending.wait()
        assert np.isfinite(np.asarray(pending.rows("features")[0])).all()
        del pending
        held.append(gpu.machine.used)
    assert held[2] == held[0]


# What it refuses


def language(small, gate):
    """The language graph's engine, loaded."""
    spec = contract(small.config)["language"]
    return TensorRtEngine(small, "tensorrt", gate).load(small.path("language"), spec, "fp32")


@pytest.fixture
def small(bundle, tmp_path):
    """A bundle without engines."""
    return copied(bundle, tmp_path / "bundle")


def wrong_engine(small):
    ranges, spec = engines.profiles(small.config)["language"], contract(small.config)["language"]
    content = fake_tensorrt.content(small.path("language"), ranges, spec, wrong=0.01)
    return engines.add_engine(small, "language", content)


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
    with pytest.raises(EngineError, match=r"failed .*an illegal memory access") as error:
        video.ground(SENTENCES[0])
    assert one_line(error)


# Which engine


@pytest.fixture
def no_gpu(monkeypatch):
    missing = Driver(problem="no NVIDIA driver", mend="for a GPU, install NVIDIA's driver")
    for module in (cuda_device, choice):
        monkeypatch.setattr(module, "read_driver", lambda: missing)
    cuda_device.open_device.cache_clear()
    yield
    cuda_device.open_device.cache_clear()


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_the_cpu_is_chosen_and_tensorrt_refused(built):
    assert isinstance(choice.open_engine(built, "auto", threads=1), OnnxRuntimeEngine)
    with pytest.raises(EngineError, match="no NVIDIA driver: for a GPU"):
        choice.open_engine(built, "tensorrt")


def test_with_a_gpu_the_engines_that_are_there_are_chosen(built, bundle, monkeypatch):
    monkeypatch.setattr(choice, "read_driver", lambda: Driver((fake_cuda.GPU,)))
    assert isinstance(choice.open_engine(built), TensorRtEngine)
    assert isinstance(choice.open_engine(open_bundle(bundle)), OnnxRuntimeEngine)
    with pytest.raises(EngineError, match=r"has no tensorrt-rtx engines: devil-build .* --backend tensorrt-rtx"):
        choice.open_engine(built, "tensorrt-rtx")


def test_an_engine_that_was_found_wrong_here_is_not_chosen_and_named_if_asked_for(small, monkeypatch):
    engines.add_engines(small)
    wrong_engine(small)
    with pytest.raises(EngineError, match="computes something else"):
        language(small, NumericGate())
    monkeypatch.setattr(choice, "read_driver", lambda: Driver((fake_cuda.GPU,)))
    assert isinstance(choice.open_engine(small), OnnxRuntimeEngine)
    with pytest.raises(EngineError, match=r"language-tensorrt-.*\.engine: it computes .* has relative 0\.01"):
        choice.open_engine(small, "tensorrt")


def test_graphs_without_an_engine_run_on_onnx_runtime_if_asked(small, clip_path, expected):
    ranges = engines.profiles(small.config)
    for graph in ("backbone", "grounder"):
        engines.add_engine(small, graph, graph_profiles=ranges[graph])
    with pytest.raises(EngineError, match="no tensorrt engine of graph 'vision'"):
        choice.open_engine(small, "tensorrt")
    engine = choice.open_engine(small, "mixed", threads=1, trust=True)
    assert engine.name == "tensorrt+onnxruntime"
    alike(Grounder(small, engine).encode(clip_path).ground_many(SENTENCES), expected())


def test_a_missing_package_is_named(built, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycuda", None)
    monkeypatch.setitem(__import__("sys").modules, "pycuda.driver", None)
    held = cuda_device.open_device()
    cuda_device.open_device.cache_clear()
    with pytest.raises(MissingPackageError, match=r"pycuda.*pip install 'devil-deploy\[tensorrt\]'"):
        TensorRtEngine(built, "tensorrt", NumericGate())
    assert held is not None


def test_tensorrt_rtx_captures_by_itself_and_its_kernels_are_kept(small, gpu):
    stored = engines.add_engine(small, "language", backend="tensorrt-rtx", version=RTX)
    launches, spec = gpu.machine.launches, contract(small.config)["language"]
    engine = TensorRtEngine(small, "tensorrt-rtx", NumericGate())
    runner = engine.load(small.path("language"), spec, "fp32")  # the gate decodes
    assert gpu.machine.launches == launches
    config = runner.contexts.of(1).strategy
    assert (config.cuda_graph_strategy, config.allocation) == ("WHOLE_GRAPH_CAPTURE", "USER_MANAGED")
    assert stored.path.with_suffix(".jit").read_bytes() == b"compiled"
    again = engine.load(small.path("language"), spec, "fp32")
    assert again.contexts.of(1).strategy.cache.kernels == b"compiled, compiled"


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


def skip_without_rtx():
    """The module is faked in this process, so whether it is installed is asked by its distribution."""
    try:
        metadata.version("tensorrt-rtx-cu13-bindings")
    except metadata.PackageNotFoundError:
        pytest.skip("TensorRT-RTX is not installed")


REAL = """
from devil.errors import EngineError
from devil.runtime.engines.tensorrt.allocator import output_allocator
from devil.runtime.engines.tensorrt.api import DTYPES, open_api
api = open_api("tensorrt-rtx")
trt = api.trt
assert set(DTYPES) <= set(trt.DataType.__members__)
assert trt.ExecutionContextAllocationStrategy.USER_MANAGED and trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
assert trt.TensorLocation.HOST and trt.TensorIOMode.INPUT
runtime = api.wanted(trt.Runtime(api.logger), "Runtime")
try:
    with api.explained("it cannot be loaded", "build it again"):
        api.wanted(runtime.deserialize_cuda_engine(bytes(4096)), "deserialize_cuda_engine")
    raise AssertionError("zeros were taken for an engine")
except EngineError as error:
    assert "magicTag" in str(error) and "build it again" in str(error), error
output_allocator(api, "x")
"""


@pytest.mark.tensorrt
def test_the_real_bindings_take_what_we_give_them_and_say_what_is_wrong():
    skip_without_rtx()
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.tensorrt
@pytest.mark.parametrize("name", ["ICudaEngine", "IExecutionContext", "IRuntimeConfig", "IRuntimeCache"])
def test_the_fake_has_no_call_that_the_bindings_lack(name):
    skip_without_rtx()
    code = f"import json, tensorrt_rtx as trt; print(json.dumps(dir(trt.{name})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = {call for call in vars(getattr(fake_tensorrt, name)) if not call.startswith("_")} - {"kernels"}
    assert own <= set(json.loads(done.stdout))
