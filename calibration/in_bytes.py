"""Float weights stored in bytes, and made floats again when the file is loaded.

DequantizeLinear would say it in one node, but ONNX Runtime never folds it: it would run for every frame, or become
a kernel that rounds activations too. So the file carries a function of plain operators on constants, which every engine
computes once. Its codes are unsigned: TensorRT takes signed bytes in front of DequantizeLinear only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from devil.calibration.forms import GRIDS
from devil.calibration.merge import constant
from devil.errors import CalibrationError

DOMAIN, OP_TYPE = "devil", "WeightFromBytes"
_GRID = GRIDS["int8"]
_ZERO = 128  # what stands for 0
_WORTH = 2048  # values; a smaller weight saves little more than its node takes
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_BETWEEN = {"Add", "Reshape", "Unsqueeze", "Cast"}  # may stand between a table and the softmax of attention


class StoreInBytes(InPlacePass):
    """Stores weights in bytes with one scale per output; `devil::WeightFromBytes` gives them to who used them.

    Args:
        names: of initializers that `storable` finds.

    Raises:
        CalibrationError: a weight is no number.
    """

    def __init__(self, names: Collection[str]):
        super().__init__()
        self.names = names

    def call(self, model: ir.Model) -> PassResult:
        graph = model.graph
        axes = {name: axes for name, axes in storable(model).items() if name in self.names}
        for name, contracted in axes.items():
            value = graph.initializers.pop(name)
            codes, scales = bytes_and_scales(name, value.const_value.numpy(), contracted)
            stored = [
                constant(graph, name, codes, ir.DataType.UINT8),
                constant(graph, f"{name}_scale", scales, value.dtype),
            ]
            node = ir.node(OP_TYPE, stored, domain=DOMAIN, name=f"{name}_read")
            output = node.outputs[0]
            output.name, output.type, output.shape = node.name, ir.TensorType(value.dtype), value.const_value.shape
            value.replace_all_uses_with(output)
            graph.insert_before(graph[0], node)
        if axes:
            function = weight_from_bytes(model.opset_imports[""])
            model.functions[function.identifier()] = function
            model.opset_imports[DOMAIN] = 1
        return PassResult(model, modified=bool(axes))


def storable(model: ir.Model) -> dict[str, tuple[int, ...]]:
    """Initializers that bytes are enough for, and the axes that an output sums over.

    1. Matrices and kernels of MatMul, Gemm and Conv.
    2. Tables that are added to attention's scores; "outputs" are their rows.

    Not: biases and norms, which are small, and tables of positions, which must be exact.
    """
    found = {}
    for name, value in model.graph.initializers.items():
        rank = len(value.const_value.shape)
        if value.dtype in _FLOATS and rank >= 2 and value.const_value.size >= _WORTH:
            axes = {_contracted(node, index, rank) for node, index in value.uses()}
            if len(axes) == 1 and (known := axes.pop()):
                found[name] = known
    return found


def bytes_and_scales(name: str, weight: np.ndarray, contracted: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Codes (uint8, the weight's shape) and scales (its type; 1 along `contracted`): (codes − 128) · scales.

    Raises:
        CalibrationError: it has values that are no numbers.
    """
    largest = np.abs(weight).max(contracted, keepdims=True).astype(np.float32)
    if not np.isfinite(largest).all():
        raise CalibrationError(f"{name} has values that are no numbers", "export the bundle again")
    scales = _GRID.scale(largest, weight.dtype)
    codes = _GRID.codes(weight, scales.astype(np.float32)).astype(np.int16) + _ZERO
    return codes.astype(np.uint8), scales


def weight_from_bytes(opset: int) -> ir.Function:
    """codes uint8, scales (fp32 or fp16) → weight in the scales' type; reckoned in fp32, which every engine can."""
    inputs = [ir.Value(name=name) for name in ("codes", "scales")]
    nodes: list[ir.Node] = []

    def op(kind: str, *values: ir.Value, **attributes: float) -> ir.Value:
        nodes.append(ir.node(kind, values, attributes))
        nodes[-1].outputs[0].name = f"weight_{len(nodes)}"
        return nodes[-1].outputs[0]

    codes, scales = (op("Cast", value, to=ir.DataType.FLOAT) for value in inputs)
    weight = op("Mul", op("Sub", codes, op("Constant", value_float=float(_ZERO))), scales)
    graph = ir.Graph(
        inputs, [op("CastLike", weight, inputs[1])], nodes=nodes, opset_imports={"": opset}, name=OP_TYPE
    )  # fmt: skip
    return ir.Function(DOMAIN, OP_TYPE, graph=graph, attributes=[])


def _contracted(node: ir.Node, index: int, rank: int) -> tuple[int, ...]:
    """The axes of an input that are summed over, or that a row of a table has; none for what is not storable."""
    if node.domain not in ("", "ai.onnx"):
        return ()
    if node.op_type == "Conv" and index == 1:
        return tuple(range(1, rank))
    if node.op_type == "Gemm" and index == 1:
        return (1,) if node.attributes.get_int("transB", 0) else (0,)
    if node.op_type == "MatMul":
        return (rank - 2,) if index == 1 else (rank - 1,)
    if node.op_type == "Add" and any(user.op_type == "Softmax" for user in _behind(node)):
        return (rank - 1,)
    return ()


def _behind(node: ir.Node) -> Iterator[ir.Node]:
    for user, _ in node.outputs[0].uses():
        yield user
        if user.op_type in _BETWEEN:
            yield from _behind(user)
