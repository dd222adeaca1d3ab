"""Which engine runs a bundle, on machines with and without a GPU."""

import pytest

from devil.bundle import open_bundle
from devil.errors import EngineError
from devil.gpu import Driver
from devil.runtime.engines import choice, cuda_device
from devil.runtime.engines.gate import NumericGate
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine
from devil.runtime.engines.tensorrt.engine import TensorRtEngine
from devil.runtime.pipeline import Grounder
from tests import engines, fake_cuda
from tests.engines import SENTENCES, alike, language, wrong_engine

pytestmark = pytest.mark.usefixtures("gpu")


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
    for name in ("tensorrt", "tensorrt-rtx", "cuda", "mixed"):
        told = rf"--engine {name} runs on NVIDIA GPUs, and there is none \(no NVIDIA driver\): for a GPU"
        with pytest.raises(EngineError, match=told):
            choice.open_engine(built, name)
    with pytest.raises(EngineError, match="no NVIDIA driver: for a GPU"):
        TensorRtEngine(built, "tensorrt", NumericGate())


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


def test_the_first_run_with_a_wrong_engine_takes_another_and_says_so(small, clip_path, monkeypatch, caplog):
    """Nobody has judged it yet: the gate does so while the graphs are loaded."""
    engines.add_engines(small)
    stored = wrong_engine(small)
    monkeypatch.setattr(choice, "read_driver", lambda: Driver((fake_cuda.GPU,)))
    grounder = Grounder.open(small.folder, threads=1)
    assert grounder.engine.name == "onnxruntime"
    assert f"tensorrt is not used: {stored.path.name}: it computes something else" in caplog.text
    assert grounder.encode(clip_path).ground(SENTENCES[0]).tube
    with pytest.raises(EngineError, match="computes something else"):
        Grounder.open(small.folder, threads=1, engine="tensorrt")


def test_where_no_engine_takes_a_bundle_the_best_ones_reason_is_told(small, monkeypatch):
    engines.add_engines(small)
    wrong_engine(small)
    monkeypatch.setattr(choice, "read_driver", lambda: Driver((fake_cuda.GPU,)))
    monkeypatch.setattr("devil.runtime.pipeline.available_memory", lambda: 1000)
    with pytest.raises(EngineError, match="computes something else"):
        Grounder.open(small.folder, threads=1)


def test_graphs_without_an_engine_run_on_onnx_runtime_if_asked(small, clip_path, expected, monkeypatch):
    monkeypatch.setattr(choice, "read_driver", lambda: Driver((fake_cuda.GPU,)))
    ranges = engines.profiles(small.config)
    for graph in ("backbone", "grounder"):
        engines.add_engine(small, graph, graph_profiles=ranges[graph])
    with pytest.raises(EngineError, match="no tensorrt engine of graph 'vision'"):
        choice.open_engine(small, "tensorrt")
    engine = choice.open_engine(small, "mixed", threads=1, trust=True)
    assert engine.name == "tensorrt+onnxruntime"
    alike(Grounder(small, engine).encode(clip_path).ground_many(SENTENCES), expected())
