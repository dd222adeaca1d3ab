"""Exports that are compared with PyTorch by layers and samples, because they are too large for it."""

from dataclasses import replace

import onnx
import pytest
import torch

from devil.config_json import load_config
from devil.errors import ExportFidelityError
from devil.export import opening
from devil.export.graphs import GraphBuilder
from devil.export.layer_check import verify_layers
from devil.export.opening import open_builder
from devil.export.options import ExportOptions
from devil.export.plan import Plan
from devil.export.scheme import Scheme
from devil.export.spot_check import check_stored
from devil.export.write import write_graph
from devil.model.checkpoint import save_model
from devil.model.devil import DevilModel
from devil.model.fitting import empty_model
from devil.model.weights import open_weights
from tests.tiny import tiny_config

QUANTISED = Plan("int4", "fp16", Scheme(4, 32, embedding_bits=4, head_bits=4))


@pytest.mark.parametrize("plan", [Plan.of("fp32"), Plan.of("fp16"), QUANTISED], ids=lambda plan: plan.precision)
def test_a_model_too_large_for_pytorch_is_checked_by_layers_and_samples(plan, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "WHOLE", 0)
    wide = widened(checkpoint, tmp_path)
    graphs = open_builder(ExportOptions(model=wide, output=tmp_path / "bundle"))
    assert graphs.model.lm_head.weight.is_meta
    write_graph(tmp_path, "language", graphs, plan)
    found = verify_layers(tmp_path / "language.onnx", graphs, plan)
    assert found.method.startswith("first and last of 2 layers")
    assert found.measures["cosine"] > {"fp32": 0.99999, "fp16": 0.9999, "int4": 0.9}[plan.precision]


@pytest.mark.parametrize("plan", [Plan.of("fp32"), QUANTISED], ids=lambda plan: plan.precision)
def test_samples_notice_every_weight_that_lies_elsewhere(plan, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "WHOLE", 0)
    graphs = open_builder(ExportOptions(model=widened(checkpoint, tmp_path), output=tmp_path / "bundle"))
    write_graph(tmp_path, "language", graphs, plan)
    path = tmp_path / "language.onnx"
    model, written = onnx.load(path, load_external_data=False), path.read_bytes()
    weights = [tensor for tensor in model.graph.initializer if tensor.external_data and "scales" not in tensor.name]
    assert len(weights) >= 8
    for tensor in weights:
        [offset] = [entry for entry in tensor.external_data if entry.key == "offset"]
        before, offset.value = offset.value, str(int(offset.value) + 64 if tensor is weights[0] else 0)
        if before != offset.value:
            onnx.save(model, path)
            with pytest.raises(ExportFidelityError, match="is not the checkpoint's"):
                verify_layers(path, graphs, plan)
        offset.value = before
    path.write_bytes(written)
    verify_layers(path, graphs, plan)


@pytest.mark.parametrize("size", [0.0, 1e-9, 3e-7, 2e-6])
@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_words_that_were_never_trained_pass_the_samples(size, precision, checkpoint, tmp_path):
    bits = Scheme.of(precision).bits
    plan = Plan(precision, "fp16", Scheme(bits, 32, embedding_bits=bits, head_bits=bits))
    source = open_weights(widened(checkpoint, tmp_path, last_word=size))
    graphs = GraphBuilder(empty_model(load_config(tmp_path / "wide")), source=source)
    write_graph(tmp_path, "language", graphs, plan)
    check_stored(tmp_path / "language.onnx", source, plan.scheme)


def widened(checkpoint, folder, last_word=None):
    """The checkpoint with an MLP whose width blocks of 32 divide, all weights random; the last word's can be scaled."""
    config = tiny_config()
    torch.manual_seed(0)
    model = DevilModel(replace(config, language=replace(config.language, mlp=64))).eval()
    if last_word is not None:
        with torch.no_grad():
            model.model.embed_tokens.weight[-1] *= last_word
            model.lm_head.weight[-1] *= last_word
    save_model(model, folder / "wide", checkpoint / "tokenizer.json", torch.float32)
    return folder / "wide"
