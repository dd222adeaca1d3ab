"""The ONNX Runtime engine: what it loads, what it refuses, and in which words."""

import dataclasses

import numpy as np
import pytest

from devil.config import DevilConfig
from devil.contract import contract
from devil.errors import EngineError, MissingPackageError
from devil.export.onnx_file import save_model
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine
from tests.qwen2 import CONFIGS, build, causal_feeds, language_runner

CONFIG = CONFIGS["head_dim 8"]
SPEC = contract(DevilConfig(language=CONFIG))["language"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_model(build(CONFIG), tmp_path_factory.mktemp("language") / "language.onnx")[0]


@pytest.fixture(scope="module")
def runner(path):
    return OnnxRuntimeEngine(threads=1).load(path, SPEC, "fp32")


def feeds(**changes):
    ids = np.array([[3, 4, 5]])
    return causal_feeds(ids, np.array([0]), np.array([3])) | {"visual_table": np.zeros((1, 48), np.float32)} | changes


def one_line(error):
    return "\n" not in str(error.value)


def test_bf16_is_refused_with_what_to_do(path):
    with pytest.raises(EngineError, match="bf16 needs a GPU engine; export fp16 or fp32"):
        OnnxRuntimeEngine().load(path, SPEC, "bf16")


def test_a_missing_package_is_named(path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'devil-deploy\[cpu\]'"):
        OnnxRuntimeEngine().load(path, SPEC, "fp32")


@pytest.mark.parametrize("content", [None, b"", b"not a graph", "truncated"])
def test_a_file_that_is_no_graph_is_one_line(content, path, tmp_path):
    broken = tmp_path / "language.onnx"
    if content is not None:
        broken.write_bytes(path.read_bytes()[:2000] if content == "truncated" else content)
    with pytest.raises(EngineError, match=r"language\.onnx.*export the bundle again") as error:
        OnnxRuntimeEngine().load(broken, SPEC, "fp32")
    assert one_line(error)


def test_weights_that_are_missing_are_one_line(path, tmp_path):
    alone = tmp_path / "language.onnx"
    alone.write_bytes(path.read_bytes())
    with pytest.raises(EngineError, match=r"cannot load .*language\.onnx") as error:
        OnnxRuntimeEngine().load(alone, SPEC, "fp32")
    assert one_line(error)


def test_a_graph_of_another_model_or_precision_is_refused(path):
    other = contract(DevilConfig(language=CONFIGS["head_dim 16, tied"]))["language"]
    with pytest.raises(EngineError, match=r"is not the fp32 graph 'language' of this model: .*past_key_2"):
        OnnxRuntimeEngine().load(path, other, "fp32")
    larger = contract(DevilConfig(language=dataclasses.replace(CONFIG, vocab=102)))["language"]
    with pytest.raises(EngineError, match="is not the fp32 graph 'language' of this model: logits differ"):
        OnnxRuntimeEngine().load(path, larger, "fp32")
    with pytest.raises(EngineError, match="is not the fp16 graph 'language' of this model"):
        OnnxRuntimeEngine().load(path, SPEC, "fp16")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"extra": np.zeros(1)}, "differ in: extra"),
        ({"token_ids": np.array([3, 4, 5])}, r"language.token_ids has shape \(3,\)"),
        ({"token_ids": np.array([[3, 4, 5]], np.int32)}, "language.token_ids is int32, the contract says int64"),
        ({"visual_table": np.zeros((1, 47), np.float32)}, r"language.visual_table has shape \(1, 47\)"),
        ({"visual_table": np.zeros((1, 48), np.int64)}, "language.visual_table is int64, the contract says float32"),
        ({"token_ids": np.array([[3, 4, 999]])}, "graph 'language' failed"),
        ({"write_index": np.array([2])}, "graph 'language' failed"),
    ],
)
def test_wrong_input_is_one_line_and_harms_nothing(changes, complaint, runner):
    cache = runner.cache(rows=1, capacity=4)
    before = cache.run(feeds())["logits"]
    with pytest.raises(EngineError, match=complaint) as error:
        cache.run(feeds(**changes))
    assert one_line(error)
    np.testing.assert_array_equal(cache.run(feeds())["logits"], before)


def test_a_missing_input_is_named(runner):
    with pytest.raises(EngineError, match="graph 'language' and what it is fed differ in: past_key_0, past_key_1"):
        runner.run(feeds())


def test_the_visual_table_may_come_in_any_float(tmp_path):
    runner = language_runner(tmp_path, CONFIG, "fp16")
    table = np.random.default_rng(0).normal(size=(2, 48)).astype(np.float16)
    ids = {"token_ids": np.array([[3, 101, 102]])}
    given = [runner.cache(1, 4).run(feeds(visual_table=table.astype(kind), **ids))["logits"] for kind in "efd"]
    np.testing.assert_array_equal(given[0], given[1])
    np.testing.assert_array_equal(given[0], given[2])


def test_outputs_stay_valid_after_the_next_run(runner):
    cache = runner.cache(rows=1, capacity=8)
    first = cache.run(feeds())["logits"]
    kept = first.copy()
    cache.run(feeds(token_ids=np.array([[9, 8, 7]])))
    np.testing.assert_array_equal(first, kept)


def test_growing_keeps_the_content_and_never_shrinks(runner):
    roomy, grown = runner.cache(rows=1, capacity=16), runner.cache(rows=1, capacity=3)
    follow = causal_feeds(np.array([[6]]), np.array([3]), np.array([1])) | {
        "visual_table": np.zeros((1, 48), np.float32)
    }
    for cache in (roomy, grown):
        cache.run(feeds())
    grown.grow(16)
    grown.grow(2)
    assert grown.capacity == 16
    np.testing.assert_array_equal(grown.run(follow)["logits"], roomy.run(follow)["logits"])
