"""A network that is not what the graph says is refused, and the line names the layer."""

from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import pytest

from devil.errors import EngineError
from devil.export.tensorrt.messages import Messages
from devil.export.tensorrt.network import check_network, parsed_network
from devil.export.tensorrt.prepared import Prepared

PATH = Path("language.onnx")


class Type(Enum):
    FLOAT = 0
    HALF = 1
    INT64 = 2


def tensor(name, kind):
    return SimpleNamespace(name=name, dtype=Type[kind])


class Layer:
    """As the binding hands it out: attention only after the layer was given its own class."""

    def __init__(self, kind, name, *outputs):
        self.type, self.name, self.outputs, self.num_outputs = SimpleNamespace(name=kind), name, outputs, len(outputs)

    def get_output(self, index):
        return self.outputs[index]


class AttentionLayer(Layer):
    @property
    def attention(self):
        return self.outputs[0]


class Network:
    def __init__(self, layers, inputs=("x",), outputs=("y",)):
        self.layers = layers
        self.inputs = [tensor(name, "HALF") for name in inputs]
        self.outputs = [tensor(name, "FLOAT") for name in outputs]
        self.num_layers, self.num_inputs, self.num_outputs = len(layers), len(inputs), len(outputs)

    def get_layer(self, index):
        return self.layers[index]

    def get_input(self, index):
        return self.inputs[index]

    def get_output(self, index):
        return self.outputs[index]


def prepared(**layers):
    types = {"x": "float16", "h": "float16", "y": "float32"}
    return Prepared(b"graph", types, layers, ("x",), ("y",))


def good():
    return [Layer("MATRIX_MULTIPLY", "mm", tensor("h", "HALF")), Layer("CAST", "cast", tensor("y", "FLOAT"))]


def test_a_network_as_the_graph_says_is_counted():
    assert check_network(Network(good()), prepared(CAST=1), PATH) == {"CAST": 1, "MATRIX_MULTIPLY": 1}


def test_a_layer_of_another_type_is_named():
    layers = [Layer("MATRIX_MULTIPLY", "mm_7", tensor("h", "FLOAT")), good()[1]]
    with pytest.raises(EngineError, match=r"'mm_7' \(MATRIX_MULTIPLY\) of language.onnx makes 'h' float32 .* float16"):
        check_network(Network(layers), prepared(), PATH)


def test_integers_and_unknown_tensors_are_not_judged():
    layers = [*good(), Layer("SHAPE", "s", tensor("shape", "INT64")), Layer("CONSTANT", "c", None)]
    assert check_network(Network(layers), prepared(), PATH)["SHAPE"] == 1


@pytest.mark.parametrize("kind", ["PLUGIN_V3", "ATTENTION_INPUT", "KV_CACHE_UPDATE", "ROTARY_EMBEDDING", "GRID_SAMPLE"])
def test_missing_layers_are_named_with_their_number(kind):
    with pytest.raises(EngineError, match=f"0 layers of type {kind} and not 2"):
        check_network(Network(good()), prepared(**{kind: 2}), PATH)


def test_a_lost_input_is_named():
    with pytest.raises(EngineError, match="lost x"):
        check_network(Network(good(), inputs=("z",)), prepared(), PATH)


class ParserError:
    def __init__(self, node, operator, reason):
        self.node_name, self.node_operator, self.desc = (lambda: node), (lambda: operator), (lambda: reason)


class Parser:
    """Parses into the layers that a test wants, or refuses."""

    def __init__(self, network, _logger):
        self.network, self.flags, self.num_errors = network, [], len(self.refused)

    refused = ()

    def set_flag(self, flag):
        self.flags.append(flag)

    def parse(self, _model, _path):
        self.network.flags_when_parsed = list(self.flags)
        return not self.refused

    def get_error(self, index):
        return self.refused[index]


def fake_tensorrt(parser, **more):
    logger = type("ILogger", (), {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2})
    return SimpleNamespace(
        __version__="10.13.3", OnnxParser=parser, ILogger=logger, IAttentionInputLayer=AttentionLayer,
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        OnnxParserFlag=SimpleNamespace(**more),
    )  # fmt: skip


def builder_of(network):
    created = []
    return SimpleNamespace(create_network=lambda flags: created.append(flags) or network, created=created)


def test_networks_are_strongly_typed_and_attention_may_be_decomposed():
    attention = SimpleNamespace(decomposable=False)
    network = Network([Layer("ATTENTION_INPUT", "attention", attention)])
    builder = builder_of(network)
    parsed_network(fake_tensorrt(Parser), builder, prepared(), PATH, Messages())
    assert builder.created == [1 << 1]
    assert attention.decomposable


@pytest.mark.parametrize(("layers", "flags"), [({"PLUGIN_V3": 6}, ["override"]), ({"GRID_SAMPLE": 24}, [])])
def test_plugins_override_functions_of_their_name_where_this_parser_can(layers, flags):
    network = Network(good())
    trt = fake_tensorrt(Parser, ENABLE_PLUGIN_OVERRIDE="override")
    parsed_network(trt, builder_of(network), prepared(**layers), PATH, Messages())
    assert network.flags_when_parsed == flags


@pytest.mark.parametrize(
    ("operator", "mend"), [("TensorScatter", "needs TensorRT 10.15 or newer; --graphs"), ("Add", "export the bundle")]
)
def test_a_refused_node_is_named_with_what_helps(operator, mend):
    parser = type(
        "Refusing",
        (Parser,),
        {"refused": (ParserError("node_5", operator, "no\n  such thing\n\n[x] CUDA driver version is insufficient"),)},
    )
    with pytest.raises(EngineError) as refused:
        parsed_network(fake_tensorrt(parser), builder_of(Network([])), prepared(), PATH, Messages())
    line = str(refused.value)
    assert "TensorRT 10.13.3 refuses node_5 of language.onnx (no such thing)" in line
    assert mend in line


def test_messages_tell_a_reason_and_noise_only_where_there_is_no_other():
    messages = Messages()
    assert messages.reason() == "it gave no reason"
    messages.heard(True, "CUDA driver version is insufficient")
    assert messages.reason() == "CUDA driver version is insufficient"
    messages.heard(True, "Error Code 4:\n  tensor x")
    messages.heard(True, "CUDA driver version is insufficient for CUDA runtime version")
    messages.heard(False, "Make sure input x has Int64 binding.")
    assert messages.reason() == "Error Code 4: tensor x"
    assert messages.warnings == []
