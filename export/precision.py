"""Precision as a pass: an fp32 graph becomes a typed fp16 or bf16 graph with islands that stay fp32."""

from __future__ import annotations

import ast
from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from devil.contract import FLOAT, GraphSpec, Precision
from devil.errors import CheckpointError
from devil.export.msda import OP_TYPE as DEFORMABLE_ATTENTION
from devil.export.onnx_file import onnx_type

BF16_OPSET = 22
FULL = ir.DataType.FLOAT

# Statistics over many values, and functions that need more bits than half precision has.
_FULL_OPS = {
    "Softmax", "LogSoftmax", "InstanceNormalization", "GroupNormalization", "Sin", "Cos", "Exp", "Log", "CumSum",
    "Range", "ConstantOfShape",
}  # fmt: skip
# Inputs that are coordinates or sizes.
_FULL_INPUTS = {DEFORMABLE_ATTENTION: {2}, "Resize": {1, 2}, "GridSample": {1}}
# Move or pick values without computing: they take the type that arrives.
_MOVES = {
    "Reshape", "Transpose", "Slice", "Split", "Concat", "Gather", "GatherElements", "GatherND", "Expand", "Squeeze",
    "Unsqueeze", "Identity", "Tile", "Pad", "Flatten", "Where", "TopK", "ReduceMax", "ReduceMin", "ScatterND",
    "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "IsNaN", "Shape", "Cast",
}  # fmt: skip
_ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "Reciprocal", "Pow", "Min", "Max", "Clip", "Floor", "Abs"}


class LowerPrecision(InPlacePass):
    """Types every float of a graph, with explicit casts where the types meet.

    1. A node of a full module (`full_modules`) or of `_FULL_OPS` computes in fp32.
    2. Values made of integers (pixels, positions, sizes) by element-wise arithmetic stay fp32: they are exact there.
    3. A node that only moves values, or that the tracer's rewrites left without a module, follows what arrives.
    4. All others compute in the bundle's precision; LayerNormalization keeps fp32 statistics (stash_type).

    Weights are converted once per type that uses them. Graph inputs and outputs get the contract's types.

    Args:
        precision: fp32 leaves the graph as it is.
        spec: the graph's contract.
        full_modules: classes of PyTorch modules that compute in fp32, by name (`module.Class`).

    Raises:
        CheckpointError: a weight is too large for the precision.
    """

    def __init__(self, precision: Precision, spec: GraphSpec, full_modules: Collection[str] = ()):
        super().__init__()
        self.precision = precision
        self.low = onnx_type(FLOAT[precision])
        self.spec = spec
        self.full_modules = frozenset(full_modules)

    def call(self, model: ir.Model) -> PassResult:
        if self.precision == "fp32":
            return PassResult(model, modified=False)
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._counted: set[ir.Value] = set()  # values of rule 2
        graph = model.graph
        if self.precision == "bf16":
            # Opsets 21 and 22 gave Conv and others bf16 and changed no operator that is used here.
            model.opset_imports[""] = max(model.opset_imports[""], BF16_OPSET)
        for value, tensor in zip(graph.inputs, self.spec.inputs, strict=True):
            value.type = ir.TensorType(onnx_type(tensor.numpy_dtype(self.precision)))
        for node in list(graph):
            self._type_node(graph, node)
        for index, tensor in enumerate(self.spec.outputs):
            self._type_output(graph, index, onnx_type(tensor.numpy_dtype(self.precision)))
        used = {value for node in graph for value in node.inputs if value is not None}
        for name in [name for name, value in graph.initializers.items() if value not in used]:
            del graph.initializers[name]
        return PassResult(model, modified=True)

    def _type_node(self, graph: ir.Graph, node: ir.Node) -> None:
        full = self._is_full(node)
        exceptions = _FULL_INPUTS.get(node.op_type, ())
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in (FULL, self.low):
                wanted = FULL if full or index in exceptions else self.low
                node.replace_input_with(index, self._as(graph, node, value, wanted))
        if node.op_type == "Cast" and node.attributes["to"].as_int() == FULL:
            return
        for value in node.outputs:
            if value.dtype == FULL and not full:
                value.type = ir.TensorType(self.low)

    def _is_full(self, node: ir.Node) -> bool:
        floats = [value for value in node.inputs if value is not None and value.dtype in (FULL, self.low)]
        arriving = [value for value in floats if not value.is_initializer()]
        if not floats:
            self._counted.update(node.outputs)
            return True
        counted = bool(arriving) and self._counted.issuperset(arriving)
        if counted and node.op_type in _MOVES | _ELEMENTWISE | _FULL_OPS:
            self._counted.update(node.outputs)
        modules = _modules(node)
        if node.op_type in _FULL_OPS or self.full_modules.intersection(modules):
            return True
        if node.op_type in _MOVES or (node.op_type in _ELEMENTWISE and not modules):
            return bool(arriving) and all(value.dtype == FULL for value in arriving)
        return counted and node.op_type in _ELEMENTWISE

    def _as(self, graph: ir.Graph, node: ir.Node, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        """`value` in the wanted type: itself, a converted weight, or a cast in front of `node`."""
        if value.dtype == wanted:
            return value
        if (value, wanted) not in self._casts:
            name = f"{value.name}_{wanted.name.lower()}"
            if value.is_initializer():
                cast = ir.Value(name=name, type=ir.TensorType(wanted), const_value=self._converted(value, wanted, name))
                cast.shape = value.shape
                graph.register_initializer(cast)
            else:
                cast_node = ir.node("Cast", [value], {"to": wanted}, name=name)
                graph.insert_before(node, cast_node)
                cast = cast_node.outputs[0]
                cast.name, cast.type, cast.shape = name, ir.TensorType(wanted), value.shape
            self._casts[value, wanted] = cast
        return self._casts[value, wanted]

    def _converted(self, value: ir.Value, wanted: ir.DataType, name: str) -> ir.TensorProtocol:
        values = value.const_value.numpy()
        with np.errstate(over="ignore"):
            converted = values.astype(wanted.numpy())
        if np.isfinite(values).all() and not np.isfinite(converted.astype(np.float32)).all():
            raise CheckpointError(
                f"{value.name} has values that {self.precision} cannot hold", "export with --precision bf16 or fp32"
            )
        return ir.tensor(converted, dtype=wanted, name=name)

    def _type_output(self, graph: ir.Graph, index: int, wanted: ir.DataType) -> None:
        value = graph.outputs[index]
        if value.dtype not in (FULL, self.low) or value.dtype == wanted:
            return
        name, value.name = value.name, f"{value.name}_{value.dtype.name.lower()}"
        node = ir.node("Cast", [value], {"to": wanted}, name=name)
        graph.append(node)
        output = node.outputs[0]
        output.name, output.type, output.shape = name, ir.TensorType(wanted), value.shape
        graph.outputs[index] = output


def _modules(node: ir.Node) -> list[str]:
    """The PyTorch modules that a node was traced in, outermost first."""
    return ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.class_hierarchy", "[]"))
