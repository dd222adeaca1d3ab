"""Weight-only quantisation against NumPy by hand and against PyTorch models with the same rounded weights."""

import copy
import json
import os

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from devil.config import DevilConfig, LanguageConfig
from devil.contract import contract
from devil.errors import CheckpointError, ConfigError, UsageError
from devil.export import quantised
from devil.export.language import build_language
from devil.export.onnx_file import save_model
from devil.export.options import ExportOptions
from devil.export.plan import Plan
from devil.export.quantisation import nearest
from devil.export.scheme import Scheme
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine
from tests.qwen2 import causal_feeds, expected, prompt, reference

CONFIG = LanguageConfig(hidden=128, layers=2, heads=4, kv_heads=2, mlp=192, vocab=211, context=512)
TIED = LanguageConfig(hidden=64, layers=1, heads=2, kv_heads=1, mlp=64, vocab=98, context=512, tied=True)


def dequantised(codes, scales, block):
    """codes [N, K] and scales [N, K / block] as the weight they stand for, by NumPy."""
    return np.asarray(codes, np.float32) * np.repeat(np.asarray(scales, np.float32), block, 1)


def write(folder, config, scheme, precision="fp32", weights=None):
    weights = weights or reference(config).state_dict().__getitem__
    return save_model(build_language(config, weights, precision, scheme), folder / "language.onnx")[0]


def run(path, config, ids, table, accurate=False):
    """Logits and hidden states of every position; `accurate` keeps activations in floats inside the products."""
    options = onnxruntime.SessionOptions()
    if accurate:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = causal_feeds(ids[None], np.array([0]), np.array([len(ids)]))
    feeds |= {"output_index": np.arange(len(ids))[None], "visual_table": table}
    cache = np.zeros((1, config.kv_heads, len(ids), config.head_dim), np.float32)
    feeds |= {spec.name: cache for spec in session.get_inputs() if spec.name.startswith("past_")}
    logits, hidden = session.run(["logits", "hidden"], feeds)
    return logits[0], hidden[0]


@pytest.mark.parametrize("block", [32, 64, 128])
@pytest.mark.parametrize("bits", [4, 8])
def test_codes_are_the_weights_over_their_scales_rounded(bits, block):
    weight = torch.from_numpy(np.random.default_rng(bits).normal(size=(5, 256)).astype(np.float32))
    codes, scales = nearest("w", weight, bits, block, torch.float16)
    top = 2 ** (bits - 1) - 1
    assert scales.dtype == torch.float16
    assert scales.shape == (5, 256 // block)
    repeated = np.repeat(scales.numpy().astype(np.float32), block, 1)
    np.testing.assert_array_equal(codes, np.clip(np.rint(weight.numpy() / repeated), -top - 1, top))


@pytest.mark.parametrize("bits", [4, 8])
def test_searched_scales_are_no_worse_than_the_largest_weights(bits):
    weight = np.random.default_rng(0).standard_t(4, size=(64, 256)).astype(np.float32)
    codes, scales = nearest("w", torch.from_numpy(weight), bits, 64, torch.float32)
    error = np.square(dequantised(codes, scales, 64) - weight).sum()
    blocks = weight.reshape(-1, 64)
    plain = np.abs(blocks).max(1, keepdims=True) / (2 ** (bits - 1) - 1)
    plain_error = np.square(np.rint(blocks / plain) * plain - blocks).sum()
    assert error <= plain_error * (0.85 if bits == 4 else 1.0)


def test_the_search_finds_what_an_exhaustive_one_finds():
    weight = np.random.default_rng(1).normal(size=(40, 32)).astype(np.float32)
    codes, scales = nearest("w", torch.from_numpy(weight), 4, 32, torch.float32)
    error = np.square(dequantised(codes, scales, 32) - weight).sum(1)
    tried = np.abs(weight).max(1)[:, None] / 7 * np.linspace(0.6, 1.05, 400)  # [rows, scales]
    rounded = np.clip(np.rint(weight[:, None] / tried[..., None]), -8, 7) * tried[..., None]
    best = np.square(rounded - weight[:, None]).sum(-1).min(1)
    assert error.sum() <= 1.05 * best.sum()


def test_a_block_of_zeros_and_one_of_tiny_weights_have_usable_scales():
    weight = torch.zeros(1, 64)
    weight[0, 32:] = 1e-9
    codes, scales = nearest("w", weight, 4, 32, torch.float16)
    assert (scales > 0).all()
    assert not codes.any()


@pytest.mark.parametrize(("bits", "kind"), [(4, "INT4"), (8, "INT8")])
def test_the_file_holds_the_codes_by_columns_in_front_of_a_product(bits, kind, tmp_path):
    path = write(tmp_path, CONFIG, Scheme(bits, 32))
    model = onnx.load(path)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    key = "model.layers.1.mlp.down_proj.weight"
    stored = tensors[f"{key}.int{bits}"]
    assert onnx.TensorProto.DataType.Name(stored.data_type) == kind
    codes, scales = nearest(key, reference(CONFIG).state_dict()[key], bits, 32, torch.float32)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(stored).astype(np.int8), codes.numpy().T)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensors[f"{key}.scales"]), scales.numpy().T)
    [node] = [node for node in model.graph.node if stored.name in node.input]
    assert {attribute.name: attribute.i for attribute in node.attribute} == {"axis": 0, "block_size": 32}
    [product] = [other for other in model.graph.node if node.output[0] in other.input]
    assert product.op_type == "MatMul"
    onnx.checker.check_model(path, full_check=True)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("bits", [4, 8])
def test_onnxruntime_fuses_every_quantised_layer_into_its_kernel(bits, precision, tmp_path):
    path = write(tmp_path, CONFIG, Scheme(bits, 64, head_bits=bits), precision)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("MatMulNBits") == 7 * CONFIG.layers + 1
    assert "DequantizeLinear" not in kinds


@pytest.mark.parametrize(
    ("config", "scheme"),
    [
        (CONFIG, Scheme(4, 64, embedding_bits=4, head_bits=4)),
        (CONFIG, Scheme(8, 32, embedding_bits=8, head_bits=8)),
        (CONFIG, Scheme(4, 32, embedding_bits=8, head_bits=16)),
        (TIED, Scheme(4, 64, embedding_bits=4, head_bits=8)),
        (TIED, Scheme(8, 64)),
    ],
    ids=["int4", "int8", "mixed", "tied, both", "tied, neither"],
)
def test_the_graph_equals_pytorch_with_the_same_rounded_weights(config, scheme, tmp_path):
    exact = reference(config).state_dict()
    rounded = dict(exact)
    table, head = "model.embed_tokens.weight", "lm_head.weight"
    for key, weight in exact.items():
        name = key.removesuffix(".weight")
        bits = scheme.embedding_bits if key == table else scheme.bits_of(name)
        if weight.ndim == 2 and bits != 16:
            source = exact[table] if config.tied and key == head else weight
            codes, scales = nearest(key, source, bits, scheme.block, torch.float32)
            rounded[key] = torch.from_numpy(dequantised(codes, scales, scheme.block))
    ids, visual = prompt(config, 40, 9)
    logits, hidden = fake_quantised(config, rounded, ids, visual)
    found = run(write(tmp_path, config, scheme), config, ids, visual, accurate=True)
    np.testing.assert_allclose(found[1], hidden, atol=2e-4)
    np.testing.assert_allclose(found[0], logits, atol=2e-3)
    assert np.abs(logits - expected(config, ids, visual)[0]).max() > 0.01  # rounding was there to be seen


@torch.no_grad()
def fake_quantised(config, weights, ids, table):
    """The reference with other weights; its readout may differ from its embedding even where they are tied."""
    model = copy.deepcopy(reference(config))
    head = torch.nn.Linear(config.hidden, config.vocab, bias=False)
    model.lm_head = head
    model.load_state_dict(weights)
    rows = torch.cat([weights["model.embed_tokens.weight"], torch.from_numpy(table)])
    states = model.model(inputs_embeds=rows[torch.from_numpy(ids)][None]).last_hidden_state[0]
    return head(states).numpy(), states.numpy()


def test_another_quantiser_takes_the_place_of_rounding(tmp_path):
    asked = []

    def zeros(key, weight, _bits, block, scale_type, _first):
        asked.append(key)
        shape = (len(weight), weight.shape[1] // block)
        return torch.zeros(weight.shape, dtype=torch.int8), torch.ones(shape, dtype=scale_type)

    weights = reference(CONFIG).state_dict().__getitem__
    model = build_language(CONFIG, weights, "fp32", Scheme(4, 64), zeros)
    path, _ = save_model(model, tmp_path / "language.onnx")
    assert len(asked) == len(set(asked)) == 7 * CONFIG.layers  # each weight once, codes and scales together
    ids, table = prompt(CONFIG, 9, 2)
    _, hidden = run(path, CONFIG, ids, table)
    embedded = np.concatenate([weights("model.embed_tokens.weight"), table])[ids]
    normed = embedded / np.sqrt(np.square(embedded).mean(-1, keepdims=True) + CONFIG.eps)
    # Neither attention nor MLP adds anything: the embedding arrives as it was.
    np.testing.assert_allclose(hidden, normed * weights("model.norm.weight").numpy(), atol=1e-4)


def test_blocks_that_do_not_divide_a_layer_are_refused_with_one_that_does():
    config = LanguageConfig(hidden=64, layers=1, heads=2, kv_heads=1, mlp=96, vocab=100)
    with pytest.raises(ConfigError, match=r"blocks of 64 do not divide the 96 inputs of .*down_proj.*--block-size 32"):
        build_language(config, lambda _key: None, "fp16", Scheme(4, 64))


@pytest.mark.parametrize(("value", "complaint"), [(np.nan, "no numbers"), (1e7, "too large for fp16 scales")])
def test_a_weight_that_cannot_be_quantised_is_named(value, complaint, tmp_path):
    state = dict(reference(CONFIG).state_dict())
    state["model.layers.0.mlp.up_proj.weight"] = torch.full((192, 128), value)
    with pytest.raises(CheckpointError, match=rf"layers\.0\.mlp\.up_proj\.weight has .*{complaint}"):
        write(tmp_path, CONFIG, Scheme(4, 64), "fp16", state.__getitem__)


def test_flags_choose_the_scheme():
    assert ExportOptions(precision="fp16").scheme is None
    assert ExportOptions(precision="int4").scheme == Scheme(4, 64, 4, 4) == Plan.of("int4").scheme
    chosen = ExportOptions(precision="int8", block_size=32, embedding_bits=16, head_bits=4, activations="fp32")
    assert chosen.scheme == Scheme(8, 32, 16, 4)
    assert Plan.of_options(chosen).floats("language") == "fp32"
    assert Plan.of_options(ExportOptions(precision="int8")) == Plan.of("int8")
    assert Plan.of_options(chosen).floats("vision") == "fp16"
    with pytest.raises(UsageError, match="leave --link-weights out"):
        Plan.of_options(ExportOptions(precision="int4", link_weights=True))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize(
    "given", [{"block_size": 64}, {"activations": "fp16"}, {"head_bits": 8}, {"embedding_bits": 4}]
)
def test_flags_of_integers_are_refused_where_weights_stay_floats(precision, given):
    flag = "--" + next(iter(given)).replace("_", "-")
    with pytest.raises(UsageError, match=rf"{flag} is for int8 and int4, not {precision}: leave {flag} out"):
        Plan.of_options(ExportOptions(precision=precision, **given))


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (3, 3), (96, 8)])
def test_threads_are_the_usable_cores_up_to_a_number_that_memory_bears(cores, threads, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(cores)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 500)
    assert quantised._threads() == threads


def test_the_manifest_can_say_the_scheme():
    values = json.loads(json.dumps(Plan.of("int4").manifest))
    assert values["quantisation"]["language"]["weights"] == {
        "bits": 4,
        "block": 64,
        "embedding_bits": 4,
        "head_bits": 4,
    }
    assert values["graph_precisions"]["language"] == "fp16"


def test_the_runtime_loads_an_int4_graph(tmp_path):
    path = write(tmp_path, CONFIG, Scheme(4, 64, 4, 4), "fp16")
    spec = contract(DevilConfig(language=CONFIG))["language"]
    cache = OnnxRuntimeEngine(threads=1).load(path, spec, "fp16").cache(rows=1, capacity=16)
    ids, table = prompt(CONFIG, 11, 3)
    feeds = causal_feeds(ids[None], np.array([0]), np.array([11])) | {"visual_table": table}
    assert np.isfinite(cache.run(feeds)["logits"]).all()


def test_excepted_layers_have_bits_of_their_own():
    scheme = Scheme(4, 64, 16, 8, exceptions=(("model.layers.0.mlp.up_proj", 16), ("model.layers.1.mlp.up_proj", 8)))
    bits = [scheme.bits_of(f"model.layers.{layer}.mlp.up_proj") for layer in (0, 1, 2)]
    assert bits == [16, 8, 4]
    assert scheme.bits_of("lm_head") == 8
    weights = reference(CONFIG).state_dict().__getitem__
    stored = build_language(CONFIG, weights, "fp32", scheme).graph.initializers
    assert {"model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight.int8"} <= stored.keys()
    assert json.loads(json.dumps(scheme.record("s")))["weights"]["exceptions"][1] == ["model.layers.1.mlp.up_proj", 8]
    assert "exceptions" not in Scheme(4).record("s")["weights"]
