"""What the TensorRT engine computes and keeps, on fakes of pycuda and TensorRT."""

import json

import numpy as np
import pytest

from devil.contract import contract
from devil.engine_store import EngineStore
from devil.runtime.engines.gate import NumericGate
from devil.runtime.engines.tensorrt.engine import TensorRtEngine
from devil.runtime.engines.tensorrt.rows import DeviceRow
from devil.runtime.pipeline import Grounder
from tests import engines, fake_tensorrt
from tests.engines import SENTENCES, alike, copied

pytestmark = pytest.mark.usefixtures("gpu")


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
