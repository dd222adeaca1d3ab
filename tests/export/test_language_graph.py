"""The language graph against transformers' Qwen2 with the same random weights."""

import numpy as np
import onnx
import pytest
import torch

from devil.config import DevilConfig, LanguageConfig
from devil.contract import PRECISIONS, contract
from devil.errors import CheckpointError
from devil.export.language import build_language
from devil.export.onnx_file import save_model
from tests.qwen2 import CONFIGS, build, causal_feeds, expected, language_runner, prompt

CAPACITY = 96


def step(cache, ids, starts, lengths, table):
    feeds = causal_feeds(np.asarray(ids), np.asarray(starts), np.asarray(lengths))
    return cache.run({**feeds, "visual_table": table})


def tolerance(config, precision, ids, table):
    """fp32: the project's figure. fp16: what PyTorch itself loses on this very prompt, and half as much again."""
    if precision == "fp32":
        return 1e-4
    half, full = (expected(config, ids, table, dtype) for dtype in (torch.float16, torch.float32))
    return 1.5 * max(np.abs(ours - theirs).max() for ours, theirs in zip(half, full, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_prefill_and_32_decoding_steps_equal_the_reference(name, precision, tmp_path):
    config = CONFIGS[name]
    ids, table = prompt(config, 53, 17)
    logits, hidden = expected(config, ids, table)
    cache = language_runner(tmp_path, config, precision).cache(rows=1, capacity=CAPACITY)
    errors = []
    for start, end in [(0, 21), *((last, last + 1) for last in range(21, 53))]:
        outputs = step(cache, ids[None, start:end], [start], [end - start], table)
        assert outputs["logits"].dtype == outputs["hidden"].dtype == np.float32
        errors.append(np.abs(outputs["logits"][0, 0] - logits[end - 1]).max())
        errors.append(np.abs(outputs["hidden"][0, 0] - hidden[end - 1]).max())
    assert max(errors) <= tolerance(config, precision, ids, table)


def test_every_asked_position_is_read_out(tmp_path):
    config = CONFIGS["head_dim 8"]
    ids, table = prompt(config, 19, 5)
    logits, hidden = expected(config, ids, table)
    cache = language_runner(tmp_path, config).cache(rows=1, capacity=19)
    asked = np.array([[18, 0, 7, 7]])
    feeds = causal_feeds(ids[None], np.array([0]), np.array([19])) | {"output_index": asked, "visual_table": table}
    outputs = cache.run(feeds)
    np.testing.assert_allclose(outputs["logits"][0], logits[asked[0]], atol=1e-4)
    np.testing.assert_allclose(outputs["hidden"][0], hidden[asked[0]], atol=1e-4)


@pytest.mark.parametrize("name", ["head_dim 8", "head_dim 16, tied"])
def test_rows_of_unequal_length_equal_each_row_alone(name, tmp_path):
    config = CONFIGS[name]
    rows = [prompt(config, length, 5, seed)[0] for seed, length in enumerate([31, 8, 17])]
    table = prompt(config, 8, 5)[1]
    lengths = np.array([20, 7, 11])  # prefilled; the rest follows one token at a time
    padded = np.zeros((3, 20), np.int64)
    for row, ids, length in zip(padded, rows, lengths, strict=True):
        row[:length] = ids[:length]
    cache = language_runner(tmp_path, config).cache(rows=3, capacity=CAPACITY)
    outputs = [step(cache, padded, np.zeros(3, np.int64), lengths, table)]
    for turn in range(11):
        # A row that has ended goes on with any token: what it says is not read.
        now = np.array([[ids[min(length + turn, len(ids) - 1)]] for ids, length in zip(rows, lengths, strict=True)])
        outputs.append(step(cache, now, lengths + turn, np.ones(3, np.int64), table))
    for row, ids in enumerate(rows):
        logits, _ = expected(config, ids, table)
        for turn in range(len(ids) - lengths[row] + 1):
            found = outputs[turn]["logits"][row, 0]
            np.testing.assert_allclose(found, logits[lengths[row] + turn - 1], atol=1e-4)


def test_the_cache_may_hold_nothing_but_the_row(tmp_path):
    config = CONFIGS["head_dim 64"]
    ids, table = prompt(config, 5, 1)
    cache = language_runner(tmp_path, config).cache(rows=1, capacity=5)
    outputs = step(cache, ids[None], [0], [5], table)
    np.testing.assert_allclose(outputs["logits"][0, 0], expected(config, ids, table)[0][-1], atol=1e-4)


def test_an_unbound_run_returns_the_cache_that_a_bound_run_writes(tmp_path):
    config = CONFIGS["head_dim 8"]
    runner = language_runner(tmp_path, config)
    ids, table = prompt(config, 11, 3)
    feeds = causal_feeds(ids[None], np.array([0]), np.array([11])) | {"visual_table": table}
    past = {
        tensor.name: np.zeros((1, config.kv_heads, 16, config.head_dim), np.float32)
        for tensor in runner.spec.inputs
        if tensor.name.startswith("past_")
    }
    unbound = runner.run(feeds | past)
    bound = runner.cache(rows=1, capacity=16)
    np.testing.assert_array_equal(bound.run(feeds)["logits"], unbound["logits"])
    again = np.array([[5]])
    follow = causal_feeds(again, np.array([11]), np.array([1])) | {"visual_table": table}
    carried = {name: unbound[name.replace("past_", "present_")] for name in past}
    np.testing.assert_array_equal(bound.run(follow)["logits"], runner.run(follow | carried)["logits"])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["head_dim 8", "head_dim 16, tied"])
def test_the_file_is_valid_and_follows_the_contract(name, precision, tmp_path):
    config = CONFIGS[name]
    path, data = save_model(build(config, precision), tmp_path / "language.onnx")
    onnx.checker.check_model(str(path), full_check=True)  # infers every type and shape, strictly
    model = onnx.load(str(path))
    spec = contract(DevilConfig(language=config))["language"]
    for values, tensors in ((model.graph.input, spec.inputs), (model.graph.output, spec.outputs)):
        assert [value.name for value in values] == [tensor.name for tensor in tensors]
        for value, tensor in zip(values, tensors, strict=True):
            kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            assert kind.name == tensor.numpy_dtype(precision)
            shape = tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
            assert shape == tensor.shape
    floats = {value.data_type for value in model.graph.initializer if len(value.dims) == 2}
    assert {onnx.helper.tensor_dtype_to_np_dtype(kind).name for kind in floats} == {
        {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[precision]
    }
    names = [value.name for value in model.graph.initializer]
    assert len(names) == len(set(names))
    assert data.exists()
    # TensorRT's parser refuses softmax_precision, and misreads is_causal beside a cache.
    assert not any(node.attribute for node in model.graph.node if node.op_type == "Attention")
    assert sum(node.op_type == "Transpose" for node in model.graph.node) == 4 * config.layers  # heads; never weights


def test_weights_are_read_only_when_the_file_is_written_and_once_each(tmp_path):
    config = CONFIGS["head_dim 16, tied"]
    asked = []

    def weights(key):
        asked.append(key)
        shapes = {"embed_tokens": (97, 48), "gate_proj": (67, 48), "up_proj": (67, 48), "down_proj": (48, 67)}
        part = key.split(".")[-2]
        rows = 16 if part in ("k_proj", "v_proj") else 48
        return np.zeros(shapes.get(part, (rows, 48) if part.endswith("_proj") and "bias" not in key else (rows,)))

    model = build_language(config, weights, "fp16")
    assert not asked
    save_model(model, tmp_path / "language.onnx")
    assert len(asked) == len(set(asked)) == 2 + 12 * config.layers


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (np.zeros((48, 49), np.float32), r"embed_tokens.weight has shape \(48, 49\), config.json says \(97, 48\)"),
        (np.full((97, 48), 1e5, np.float32), "embed_tokens.weight has values that fp16 cannot hold"),
        (np.full((97, 48), np.nan, np.float32), "embed_tokens.weight has values that fp16 cannot hold"),
    ],
)
def test_a_weight_that_does_not_fit_is_named(values, complaint):
    config = LanguageConfig(hidden=48, layers=1, heads=3, kv_heads=1, mlp=67, vocab=97, tied=True)
    model = build_language(config, lambda _key: values, "fp16")
    with pytest.raises(CheckpointError, match=complaint):
        model.graph.initializers["model.embed_tokens.weight"].const_value.numpy()
