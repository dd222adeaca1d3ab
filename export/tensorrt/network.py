"""A prepared graph → a strongly typed TensorRT network that was checked layer by layer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

from devil.errors import EngineError
from devil.export.tensorrt.messages import Messages, telling
from devil.export.tensorrt.prepared import FLOATS, Prepared

_TYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
_OLDEST = {"TensorScatter": "10.15", "RotaryEmbedding": "10.15", "RMSNormalization": "10.15", "Attention": "10.14"}


def parsed_network(trt: ModuleType, builder: Any, prepared: Prepared, path: Path, messages: Messages) -> Any:
    """Parses a graph.

    Args:
        trt: the TensorRT package.
        builder: its builder.
        path: where the graph came from: the parser finds its weights beside it.
        messages: what TensorRT said, for the reason of a failure.

    Raises:
        EngineError: TensorRT refuses a node; it says which and why.
    """
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, messages.logger(trt))
    override = getattr(trt.OnnxParserFlag, "ENABLE_PLUGIN_OVERRIDE", None)
    if override is not None and "PLUGIN_V3" in prepared.layers:
        parser.set_flag(override)
    if not parser.parse(prepared.model, str(path)):
        raise _refused(trt, parser, path, messages)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type.name == "ATTENTION_INPUT":
            layer.__class__ = trt.IAttentionInputLayer  # the binding hands out every layer as an ILayer
            # No fused kernel takes float32; where one fits, TensorRT still prefers it.
            layer.attention.decomposable = True
    return network


def check_network(network: Any, prepared: Prepared, path: Path) -> dict[str, int]:
    """Holds a network against the graph it was parsed from; returns its layers by type.

    Inputs and outputs are the graph's; deformable attention, attention, cache updates and rotary embeddings arrived as
    the layers they are meant to be; and every floating tensor has the type that the graph gives it.

    Raises:
        EngineError: a surprise; it names the layer.
    """
    counts: Counter[str] = Counter()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        counts[layer.type.name] += 1
        for output in range(layer.num_outputs):
            tensor = layer.get_output(output)
            if tensor is not None:
                _check_type(tensor, prepared, f"layer {layer.name!r} ({layer.type.name})", path)
    for kind, wanted in prepared.layers.items():
        if counts[kind] != wanted:
            raise EngineError(
                f"the network of {path.name} has {counts[kind]} layers of type {kind} and not {wanted}",
                "this TensorRT changes the graph while parsing it; use another version",
            )
    names = {tensor.name for tensor in _tensors(network)}
    missing = [name for name in (*prepared.inputs, *prepared.outputs) if name not in names]
    if missing:
        raise EngineError(f"the network of {path.name} lost {missing[0]}", "use another version of TensorRT")
    for tensor in _tensors(network):
        _check_type(tensor, prepared, "the network's edge", path)
    return dict(sorted(counts.items()))


def _tensors(network: Any) -> list[Any]:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    return inputs + [network.get_output(index) for index in range(network.num_outputs)]


def _check_type(tensor: Any, prepared: Prepared, where: str, path: Path) -> None:
    wanted, found = prepared.types.get(tensor.name), _TYPES.get(tensor.dtype.name, tensor.dtype.name.lower())
    if wanted in FLOATS and found != wanted:
        raise EngineError(
            f"{where} of {path.name} makes {tensor.name!r} {found} where the graph says {wanted}",
            "this TensorRT changes types while parsing; use another version",
        )


def _refused(trt: ModuleType, parser: Any, path: Path, messages: Messages) -> EngineError:
    """What the parser found first, in one line."""
    if not parser.num_errors:
        return EngineError(f"TensorRT {trt.__version__} cannot parse {path} ({messages.reason()})")
    error = parser.get_error(0)
    operator = getattr(error, "node_operator", "")
    operator = operator() if callable(operator) else operator
    node = error.node_name() or operator or "the file"
    reason = telling(error.desc()) or messages.reason()
    mend = "export the bundle again, or use a newer TensorRT"
    if operator in _OLDEST:
        mend = f"{operator} needs TensorRT {_OLDEST[operator]} or newer; --graphs leaves this graph to ONNX Runtime"
    return EngineError(f"TensorRT {trt.__version__} refuses {node} of {path.name} ({reason})", mend)
