"""Layers that take the same activation, as one layer: query, key and value of an attention, or sampling offsets and
attention weights.

ONNX Runtime makes integer kernels only of an activation that one layer takes: where several share it, its session keeps
the signed form, for which x86 has no kernel, and computes in floats. Merged, it is rounded once, and every engine gets
one large product instead of small ones. No number changes.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult


class MergeParallelLayers(InPlacePass):
    """MatMuls of one activation [..., K] with constants [K, N₁], [K, N₂] … become one with [K, N₁ + N₂ + …] and Split.

    Args:
        groups: names of the nodes that become one, two or more each; they share their first input.

    Attributes:
        merged: the new node's name by those of the old ones.
    """

    def __init__(self, groups: Collection[tuple[str, ...]]):
        super().__init__()
        self.groups = groups
        self.merged: dict[str, str] = {}

    def call(self, model: ir.Model) -> PassResult:
        nodes = {node.name: node for node in model.graph}
        for group in self.groups:
            self._merge(model.graph, [nodes[name] for name in group])
        return PassResult(model, modified=bool(self.groups))

    def _merge(self, graph: ir.Graph, parts: list[ir.Node]) -> None:
        weights = [part.inputs[1] for part in parts]
        name = "+".join(part.name for part in parts)
        widths = [weight.const_value.shape.numpy()[1] for weight in weights]
        together = np.concatenate([weight.const_value.numpy() for weight in weights], 1)
        weight = constant(graph, "+".join(weight.name for weight in weights), together, weights[0].dtype)
        sizes = constant(graph, f"{name}_widths", np.array(widths, np.int64), ir.DataType.INT64)
        product = ir.node("MatMul", [parts[0].inputs[0], weight], name=name)
        product.outputs[0].name, product.outputs[0].type = f"{name}_out", parts[0].outputs[0].type
        split = ir.node(
            "Split", [product.outputs[0], sizes], {"axis": -1}, num_outputs=len(parts), name=f"{name}_split"
        )
        graph.insert_before(parts[0], [product, split])
        for part, output in zip(parts, split.outputs, strict=True):
            self.merged[part.name] = name
            old = part.outputs[0]
            output.name, output.type, output.shape = part_name(old.name), old.type, old.shape
            old.replace_all_uses_with(output, replace_graph_outputs=True)
            graph.remove(part, safe=True)
        for value in weights:
            if not value.uses() and value.name in graph.initializers:
                del graph.initializers[value.name]


def part_name(output: str) -> str:
    """What the output of a layer is called once the layer is part of another."""
    return f"{output}_part"


def constant(graph: ir.Graph, name: str, values: np.ndarray, kind: ir.DataType) -> ir.Value:
    """Adds an initializer to a graph."""
    tensor = ir.tensor(values, dtype=kind, name=name)
    value = ir.Value(name=name, type=ir.TensorType(kind), shape=tensor.shape, const_value=tensor)
    graph.register_initializer(value)
    return value
