"""Engines on a real GPU against ONNX Runtime's CPU kernels; skipped where there is none."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from devil.engine_key import BACKENDS
from devil.gpu import read_driver
from devil.runtime.engines.base import AsyncRunner
from devil.runtime.pipeline import Grounder
from devil.tensorrt_api import installed

SENTENCES = ["the red circle", "a blue square that appears"]
pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module", params=["cuda", *BACKENDS])
def on_gpu(request, bundle, tmp_path_factory):
    """The small bundle on one engine; its TensorRT engines are built first."""
    driver, name = read_driver(), request.param
    if driver.problem:
        pytest.skip(driver.problem)
    if name in BACKENDS and name not in installed():
        pytest.skip(f"{name} is not installed")
    onnxruntime = pytest.importorskip("onnxruntime")
    if name == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA provider")
    folder = tmp_path_factory.mktemp(name) / "bundle"
    shutil.copytree(bundle, folder)
    if name in BACKENDS:
        command = [sys.executable, "-m", "devil.export.tensorrt.cli", str(folder), "--backend", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return Grounder.open(folder, engine=name)  # with TensorRT the numeric gate compares every graph


def test_answers_are_those_of_the_cpu(on_gpu, bundle, clip_path):
    reference = Grounder.open(bundle, engine="onnxruntime").encode(clip_path)
    video = on_gpu.encode(clip_path)
    for options in ({}, {"dense": True}, {"span_only": True}):
        found, expected = (each.ground_many(SENTENCES, **options) for each in (video, reference))
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.text == theirs.text
            np.testing.assert_allclose(ours.rst, theirs.rst, atol=1e-3)
            np.testing.assert_allclose(ours.tube.boxes, theirs.tube.boxes, atol=0.1)  # pixels


def test_features_stay_on_the_gpu(on_gpu, clip_path):
    assert isinstance(on_gpu.backbone, AsyncRunner)
    video = on_gpu.encode(clip_path)
    video.ground(SENTENCES[0])
    assert not any(isinstance(row, np.ndarray) for row in video.tubes.features.values())


def test_a_thousand_sentences_take_no_more_memory(on_gpu, clip_path):
    device = getattr(on_gpu.engine, "device", None)
    if not hasattr(device, "taken"):
        pytest.skip("only the TensorRT engine counts what it holds")
    held = []
    for index in range(1000):
        if index % 100 == 0:
            video = on_gpu.encode(clip_path)
        video.ground(SENTENCES[index % 2])
        if index % 100 == 99:
            held.append(sum(device.taken.values()))
    assert held[-1] == held[1]
