"""The parts that layers play, found in the graphs of the model: checked by the names that their weights had."""

import re

import numpy as np
import onnx_ir as ir
import pytest

from devil.calibration.layers import find_layers
from devil.calibration.rules import KEPT, chosen_by_rule
from devil.export.plan import Plan

# What a weight is called in the checkpoint → the part that its layer plays.
NAMED = {
    "grounder": {
        r"text_layers|fusion_layers|ca_text|llm_feat_map": "text",
        r"sampling_offsets|attention_weights": "offsets",
        r"bbox_embed": "box",
        r"enc_output\.weight": "proposals",
        r"value_proj|output_proj|linear1": "linear",
        r"encoder\.layers.*linear2|decoder\.layers.*linear2": "down",
    },
    "backbone": {r"mlp\.fc1|attn\.qkv|attn\.proj": "linear", r"mlp\.fc2": "down"},
    "vision": {
        r"patch_embedding": "first",
        r"readout": "last",
        r"mlp\.fc2": "down",
        r"mlp\.fc1|_proj": "linear",
    },
}


def key_of(weight, state):
    """The checkpoint's key of a matrix or kernel of the graph, by its values: the graph has it either way round."""
    for key, values in state.items():
        for turned in (values, values.T, values.reshape(len(values), -1).T):
            if turned.shape == weight.shape and np.allclose(turned, weight.astype(np.float32), atol=1e-3):
                return key
    return ""


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("graph", NAMED)
def test_parts_are_told_from_the_graph_alone(builder, graph, precision):
    model = builder.build(graph, Plan.of(precision))
    state = {key: values.numpy() for key, values in builder.model.state_dict().items() if values.dim() in (2, 4)}
    seen = set()
    for layer in find_layers(model):
        key = key_of(model.graph.initializers[layer.weight].const_value.numpy(), state)
        role = next((role for pattern, role in NAMED[graph].items() if re.search(pattern, key)), None)
        if role is not None:
            assert layer.role == role, key
            seen.add(role)
    assert seen == set(NAMED[graph].values())


def test_convolutions_of_the_backbone_see_pixels_or_make_its_output(builder):
    model = builder.build("backbone", Plan.of("fp32"))
    convolutions = {node.name for node in model.graph if node.op_type == "Conv"}
    roles = [layer.role for layer in find_layers(model) if layer.name in convolutions]
    assert roles == ["first", "last", "last", "last", "last"]


def test_everything_on_the_text_token_is_told(builder):
    model = builder.build("grounder", Plan.of("fp32"))
    gemms = {node.name for node in model.graph if node.op_type == "Gemm"}
    assert gemms <= {layer.name for layer in find_layers(model) if layer.role == "text"}


def test_rules_leave_most_of_the_work_to_integers(builder):
    for graph in NAMED:
        layers = find_layers(builder.build(graph, Plan.of("fp32")))
        chosen = chosen_by_rule(layers, "int8")
        assert {layer.role for layer in chosen} == {"linear", "down"}
        assert not set(KEPT) & {layer.role for layer in chosen}


def test_numbers_of_a_layer_are_its_weights(builder):
    model = builder.build("backbone", Plan.of("fp32"))
    for layer in find_layers(model):
        weight: ir.Value = model.graph.initializers[layer.weight]
        assert layer.parameters == weight.const_value.size
        assert weight.const_value.shape[layer.axis] == layer.outputs
