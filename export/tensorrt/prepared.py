"""A bundle's graph as TensorRT's parser gets it, and what a network made of it must look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devil.contract import GraphSpec, Precision, TensorSpec
from devil.errors import EngineError, MissingPackageError

if TYPE_CHECKING:
    import onnx

CUSTOM = "devil"  # the domain of our operator
DEFORMABLE = "MultiScaleDeformableAttention"
FLOATS = ("float32", "float16", "bfloat16")

# Operators that must arrive in the network as one layer each: those that TensorRT has fast kernels for whole, and those
# that say where integers and 8-bit floats are.
NATIVE = {
    "Attention": "ATTENTION_INPUT",
    "TensorScatter": "KV_CACHE_UPDATE",
    "RotaryEmbedding": "ROTARY_EMBEDDING",
    "QuantizeLinear": "QUANTIZE",
    "DequantizeLinear": "DEQUANTIZE",
}
_AGAIN = "export the bundle again"


@dataclass(frozen=True)
class Prepared:
    """A graph to parse.

    Attributes:
        model: the serialised graph; its weights stay in the files beside the original.
        types: of the floating tensors, by name, as the graph's own types imply them.
        layers: how many layers of which TensorRT type the network must have.
        inputs, outputs: names, in order.
    """

    model: bytes
    types: Mapping[str, str]
    layers: Mapping[str, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def prepare(path: Path, spec: GraphSpec, precision: Precision, fixed: Mapping[str, int], plugin: bool) -> Prepared:
    """Reads the graph at `path`, holds it against the contract and fixes what TensorRT wants fixed.

    Args:
        fixed: named dimensions and their numbers.
        plugin: deformable attention is a plugin; the file's function of that name is left out, because the parser of
            older versions would prefer it without a word.

    Raises:
        EngineError: the file is not the graph that the contract describes, or its operator has no body.
    """
    model = _loaded(path)
    _check_contract(model, spec, precision, path)
    _fix(model, fixed)
    nodes = Counter(node.op_type for node in model.graph.node)
    layers = {layer: nodes[kind] for kind, layer in NATIVE.items() if nodes[kind]}
    layers |= _deformable(model, plugin, path)
    types = _float_types(model)
    inputs, outputs = ([value.name for value in values] for values in (model.graph.input, model.graph.output))
    if plugin:
        kept = [function for function in model.functions if not _is_deformable(function)]
        del model.functions[:]
        model.functions.extend(kept)
    return Prepared(model.SerializeToString(), types, layers, tuple(inputs), tuple(outputs))


def has_deformable_attention(path: Path) -> bool:
    """Whether the graph at `path` has our operator.

    Raises:
        EngineError: it is no ONNX graph.
    """
    return any(map(_is_deformable, _loaded(path).graph.node))


def _loaded(path: Path) -> onnx.ModelProto:
    onnx = _import_onnx()
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own class of errors differs between its versions
        raise EngineError(f"{path} is no ONNX graph ({type(error).__name__})", _AGAIN) from error


def _is_deformable(node: onnx.NodeProto | onnx.FunctionProto) -> bool:
    kind = node.name if hasattr(node, "node") else node.op_type
    return node.domain == CUSTOM and kind == DEFORMABLE


def _import_onnx():
    try:
        import onnx
    except ImportError:
        raise MissingPackageError("onnx", "building engines", "tensorrt") from None
    return onnx


def _check_contract(model: onnx.ModelProto, spec: GraphSpec, precision: Precision, path: Path) -> None:
    differing = set()
    for found, expected in ((model.graph.input, spec.inputs), (model.graph.output, spec.outputs)):
        values, tensors = {value.name: value for value in found}, {tensor.name: tensor for tensor in expected}
        differing |= values.keys() ^ tensors.keys()
        differing |= {
            name for name in values.keys() & tensors.keys() if not _follows(values[name], tensors[name], precision)
        }
    if differing:
        names = ", ".join(sorted(differing))
        raise EngineError(f"{path} is not the {precision} graph {spec.name!r} of this model: {names} differ", _AGAIN)


def _follows(value: onnx.ValueInfoProto, tensor: TensorSpec, precision: Precision) -> bool:
    kind = value.type.tensor_type
    sizes = [size.dim_value if size.HasField("dim_value") else size.dim_param for size in kind.shape.dim]
    if _numpy_name(kind.elem_type) != tensor.numpy_dtype(precision) or len(sizes) != len(tensor.shape):
        return False
    return all(isinstance(wanted, str) or wanted == has for wanted, has in zip(tensor.shape, sizes, strict=True))


def _fix(model: onnx.ModelProto, fixed: Mapping[str, int]) -> None:
    for value in (*model.graph.input, *model.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in fixed:
                size.dim_value = fixed[size.dim_param]


def _deformable(model: onnx.ModelProto, plugin: bool, path: Path) -> dict[str, int]:
    """The layers of deformable attention: a plugin each, or as many grid samples as the function body has."""
    count = sum(map(_is_deformable, model.graph.node))
    if not count:
        return {}
    if plugin:
        return {"PLUGIN_V3": count}
    for function in model.functions:
        if _is_deformable(function):
            return {"GRID_SAMPLE": count * sum(node.op_type == "GridSample" for node in function.node)}
    raise EngineError(f"{path} has {CUSTOM}::{DEFORMABLE} without its function body", "build the plugin, or " + _AGAIN)


def _float_types(model: onnx.ModelProto) -> dict[str, str]:
    """Type of every floating tensor of the graph that ONNX's own inference knows, by name.

    Names that also occur inside a function are left out: the parser gives both tensors that name.
    """
    onnx = _import_onnx()
    ambiguous = {name for function in model.functions for node in function.node for name in node.output}
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {value.name: _numpy_name(value.type.tensor_type.elem_type) for value in values}
    return {name: kind for name, kind in types.items() if kind in FLOATS and name not in ambiguous}


def _numpy_name(kind: int) -> str:
    onnx = _import_onnx()
    name = onnx.TensorProto.DataType.Name(kind).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)
