"""A bf16 graph that ONNX Runtime's CPU provider can run: the same nodes in fp32, rounded to bf16 where it rounds."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import ShapeInferencePass

BF16 = ir.DataType.BFLOAT16
FULL = ir.DataType.FLOAT


class EmulateBf16(InPlacePass):
    """Retypes bf16 as fp32 and rounds every value that a bf16 node produces.

    ONNX Runtime has no bf16 kernels for CPUs. What is left out is only how a node rounds inside itself, where real
    kernels accumulate in fp32 too. Run it without graph optimisations: they would remove the rounding casts.
    """

    def call(self, model: ir.Model) -> PassResult:
        ShapeInferencePass()(model)  # a file need not say the types of what lies between inputs and outputs
        graph = model.graph
        for value in graph.inputs:
            if value.dtype == BF16:
                value.type = ir.TensorType(FULL)
        for value in graph.initializers.values():
            if value.dtype == BF16:
                values = value.const_value.numpy().astype(FULL.numpy())
                value.const_value, value.type = ir.tensor(values, name=value.name), ir.TensorType(FULL)
        for node in list(graph):
            for value in node.outputs:
                if value.dtype == BF16:
                    self._round(graph, node, value)
        return PassResult(model, modified=True)

    def _round(self, graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
        uses, is_output = list(value.uses()), value in graph.outputs
        rounding = []
        narrow = value
        if node.op_type != "Cast":
            value.type = ir.TensorType(FULL)
            rounding.append(ir.node("Cast", [value], {"to": BF16}))
            narrow = rounding[0].outputs[0]
            narrow.name, narrow.type = f"{value.name}_narrow", ir.TensorType(BF16)
        rounding.append(ir.node("Cast", [narrow], {"to": FULL}))
        rounded = rounding[-1].outputs[0]
        rounded.name, rounded.type, rounded.shape = f"{value.name}_rounded", ir.TensorType(FULL), value.shape
        graph.insert_after(node, rounding)
        for user, index in uses:
            user.replace_input_with(index, rounded)
        if is_output:
            rounded.name, value.name = value.name, f"{value.name}_unrounded"
            graph.outputs[graph.outputs.index(value)] = rounded
