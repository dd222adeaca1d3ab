"""Parts of the GPU engines that need no GPU: bf16, padded decoding steps, the CUDA provider's code on the CPU."""

import ml_dtypes
import numpy as np
import pytest

from devil.bundle import open_bundle
from devil.contract import contract
from devil.errors import EngineError
from devil.gpu import Driver
from devil.runtime.engines import half, onnxruntime_cuda
from devil.runtime.engines.base import AsyncRunner
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine
from devil.runtime.engines.onnxruntime_cuda import CudaRow, OnnxRuntimeCudaEngine
from devil.runtime.engines.tensorrt.decode import StepSizes, padded
from devil.runtime.pipeline import Grounder
from tests.qwen2 import CONFIGS, causal_feeds, language_runner

SENTENCES = ["the red circle", "a blue square that appears"]


def test_bf16_rounds_as_the_reference_does():
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(size=1000), [0, -0.0, np.inf, -np.inf, 1e-40, 3.3e38, 1.00390625]])
    values = values.astype(np.float32)
    expected = values.astype(ml_dtypes.bfloat16)
    found = half.stored(values, "bfloat16")
    np.testing.assert_array_equal(found, expected.view(np.uint16))
    np.testing.assert_array_equal(half.read(found, "bfloat16"), expected.astype(np.float32))
    hollow_nan = np.array([0x7F800001], np.uint32).view(np.float32)
    assert np.isnan(half.read(half.stored(hollow_nan, "bfloat16"), "bfloat16")).all()


def step(start, tokens, slots):
    ids = np.arange(5, 5 + tokens)[None]
    feeds = causal_feeds(ids, np.array([start]), np.array([tokens]))
    assert feeds["mask"].shape[3] == slots
    return feeds | {"visual_table": np.zeros((1, 48), np.float32), "output_index": np.arange(tokens)[None, -2:]}


@pytest.mark.parametrize("tokens", [1, 3, 5])
def test_a_padded_step_says_the_same_and_leaves_the_cache_usable(tokens, tmp_path):
    runner = language_runner(tmp_path, CONFIGS["head_dim 8"])
    plain, larger = runner.cache(1, 512), runner.cache(1, 512)
    for cache in (plain, larger):
        cache.run(step(0, 7, 7))
    feeds = step(7, tokens, 7 + tokens)
    sizes = StepSizes.of(feeds, 512)
    assert sizes == StepSizes({1: 1, 3: 4, 5: 8}[tokens], 256)
    expected, found = plain.run(feeds), larger.run(padded(feeds, sizes))
    asked = feeds["output_index"].shape[1]
    np.testing.assert_allclose(found["logits"][:, :asked], expected["logits"], atol=1e-5)
    assert np.isfinite(found["logits"]).all()
    follow = step(7 + tokens, 2, 9 + tokens)
    np.testing.assert_allclose(larger.run(follow)["logits"], plain.run(follow)["logits"], atol=1e-5)


def test_what_is_no_decoding_step_is_not_padded():
    assert StepSizes.of(step(0, 40, 40), 512) is None  # a prompt
    assert StepSizes.of(step(7, 3, 10), 10) is None  # no room for the padding
    assert StepSizes.of(step(7, 2, 9) | {"visual_table": np.zeros((3, 48), np.float32)}, 512) is None
    assert StepSizes.of(step(250, 8, 258), 300) == StepSizes(8, 300)


@pytest.fixture(scope="module")
def on_cpu(bundle):
    """The CUDA provider's engine with its tensors on the CPU."""
    return Grounder(open_bundle(bundle), OnnxRuntimeCudaEngine(threads=1, device="cpu"))


def test_the_cuda_engine_answers_as_the_cpu_engine(on_cpu, bundle, clip_path):
    assert isinstance(on_cpu.backbone, AsyncRunner)
    video = on_cpu.encode(clip_path)
    reference = Grounder(open_bundle(bundle), OnnxRuntimeEngine(threads=1)).encode(clip_path)
    for options in ({}, {"dense": True}):
        pairs = zip(video.ground_many(SENTENCES, **options), reference.ground_many(SENTENCES, **options), strict=True)
        for ours, theirs in pairs:
            assert ours.text == theirs.text
            np.testing.assert_allclose(ours.rst, theirs.rst, atol=1e-5)
            np.testing.assert_allclose(ours.tube.boxes, theirs.tube.boxes, atol=1e-2)
    assert all(isinstance(row, CudaRow) for row in video.tubes.features.values())


def test_a_submitted_run_that_fails_says_so_when_it_is_waited_for(on_cpu):
    pending = on_cpu.backbone.submit({"frames": np.zeros((1, 64, 64, 4), np.uint8)})
    with pytest.raises(EngineError, match=r"backbone.frames has shape \(1, 64, 64, 4\)"):
        pending.wait()


def test_without_a_gpu_the_driver_is_named_before_the_package(monkeypatch):
    missing = Driver(problem="no NVIDIA driver", mend="for a GPU, install NVIDIA's driver")
    monkeypatch.setattr(onnxruntime_cuda, "read_driver", lambda: missing)
    with pytest.raises(EngineError, match="no NVIDIA driver: for a GPU"):
        OnnxRuntimeCudaEngine().check()


def test_a_missing_provider_is_named(monkeypatch):
    monkeypatch.setattr(onnxruntime_cuda, "read_driver", lambda: Driver())
    with pytest.raises(EngineError, match=r"has no CUDAExecutionProvider: pip install 'devil-deploy\[gpu\]'"):
        OnnxRuntimeCudaEngine().check()


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_falls_back_to_the_cpu_is_refused(bundle, monkeypatch):
    """As ONNX Runtime does where cuDNN is missing or the driver is too old: without a word."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime_cuda, "read_driver", lambda: Driver())
    found = open_bundle(bundle)
    with pytest.raises(EngineError, match="CUDA provider does not start: pip install"):
        OnnxRuntimeCudaEngine().load(found.path("vision"), contract(found.config)["vision"], "fp32")


def test_bf16_is_refused_by_the_cuda_engine(bundle):
    found = open_bundle(bundle)
    with pytest.raises(EngineError, match="run bf16 with TensorRT, or export fp16"):
        OnnxRuntimeCudaEngine().load(found.path("vision"), contract(found.config)["vision"], "bf16")
