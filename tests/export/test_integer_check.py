"""Language graphs with integer weights are held against PyTorch with the same integers."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch

from devil.assets import reference_checkpoint
from devil.errors import ExportFidelityError
from devil.export.graphs import GraphBuilder
from devil.export.integer_check import stored_weights, verify_integers
from devil.export.plan import Plan
from devil.export.write import write_graph
from devil.model.checkpoint import load_model
from devil.model.weights import open_weights


@pytest.fixture(scope="module")
def shipped():
    folder = reference_checkpoint()
    return GraphBuilder(load_model(folder), source=open_weights(folder))


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_the_shipped_model_s_graph_is_the_model_with_its_integers(shipped, precision, tmp_path):
    plan = Plan.of(precision)
    write_graph(tmp_path, "language", shipped, plan)
    before = {name: weight.clone() for name, weight in shipped.model.state_dict().items()}
    found = verify_integers(tmp_path / "language.onnx", shipped, plan)
    assert found.accepted == ()
    assert "with the stored integers: relative" in found.method
    assert found.measures["relative"] > 0.02  # rounding costs something, and that is what is told
    assert all(torch.equal(weight, before[name]) for name, weight in shipped.model.state_dict().items())


def test_with_fp32_activations_the_graph_is_exact(shipped, tmp_path):
    plan = dataclasses.replace(Plan.of("int4"), language="fp32")
    write_graph(tmp_path, "language", shipped, plan)
    found = verify_integers(tmp_path / "language.onnx", shipped, plan)
    relative = float(found.method.split("relative ")[1].split(",")[0])
    assert relative < 1e-4


@pytest.mark.parametrize("bits", [4, 8])
def test_stored_weights_are_codes_times_scales(shipped, bits, tmp_path):
    plan = Plan.of(f"int{bits}")
    write_graph(tmp_path, "language", shipped, plan)
    path, name = tmp_path / "language.onnx", "model.layers.1.mlp.down_proj"
    tensors = {
        tensor.name: onnx.numpy_helper.to_array(tensor, str(tmp_path))
        for tensor in onnx.load(path, load_external_data=False).graph.initializer
        if tensor.name.startswith((f"{name}.weight", "model.embed_tokens.weight"))
    }
    codes, scales = tensors[f"{name}.weight.int{bits}"].astype(np.float64), tensors[f"{name}.weight.scales"]
    table, rows = tensors[f"model.embed_tokens.weight.rows{bits}"], tensors["model.embed_tokens.weight.row_scales"]
    with stored_weights(path, shipped.model):
        weight = shipped.model.get_submodule(name).weight.numpy()
        word = shipped.model.model.embed_tokens.weight[300].numpy()
    for output, place in ((0, 0), (17, 65), (255, 400)):
        wanted = codes[place, output] * scales[place // plan.scheme.block, output].astype(np.float64)
        assert weight[output, place] == pytest.approx(wanted, rel=1e-3, abs=1e-7)
    for place in (0, 127, 128, 255):
        code = int(table[300, place] if bits == 8 else (table[300, place % 128] >> 4 * (place // 128)) & 15)
        wanted = (code - 2 ** (bits - 1)) * float(rows[300, place // plan.scheme.block])
        assert word[place] == pytest.approx(wanted, rel=1e-3, abs=1e-7)


def test_integers_of_another_layer_are_refused(shipped, tmp_path):
    plan = Plan.of("int8")
    write_graph(tmp_path, "language", shipped, plan)
    path = tmp_path / "language.onnx"
    model = onnx.load(path, load_external_data=False)
    one, two = (
        next(t for t in model.graph.initializer if t.name == f"model.layers.{layer}.mlp.up_proj.weight.int8")
        for layer in (0, 1)
    )
    places = [next(entry for entry in tensor.external_data if entry.key == "offset") for tensor in (one, two)]
    places[0].value, places[1].value = places[1].value, places[0].value
    onnx.save(model, path)
    with pytest.raises(ExportFidelityError, match="is not the checkpoint's"):
        verify_integers(path, shipped, plan)
