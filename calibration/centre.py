"""Activations that lie on one side of zero, moved to where the grid is: x − c is rounded, and W·c is added again.

It is what a zero point does, and the integers are the same; but TensorRT takes no zero points.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from devil.calibration.forms import GRIDS, Form
from devil.calibration.layers import Layer
from devil.calibration.merge import constant
from devil.calibration.ranges import Range
from devil.calibration.weights import StoredWeights


class CentreActivations(InPlacePass):
    """Chosen MatMuls whose range has a centre c take x − c, and Ŵ·c is added to what they give.

    Ŵ is the weight as it will be stored, so the sum is Ŵ·x, and an activation of zero gives zero. (With W in its place
    the error of the rounded weight would meet x − c, which is larger than x: devil-tiny's vision encoder then errs more
    than without any centre.) Other layers stay: a convolution pads with zeros, which would no longer be zeros.

    Args:
        chosen: layers and their forms.
        ranges: of their activations, by the value's name.
        weights: finds what their weights are stored as.

    Attributes:
        ranges: those of what the layers take now; the new values' too.
    """

    def __init__(self, chosen: Mapping[Layer, Form], ranges: Mapping[str, Range], weights: StoredWeights):
        super().__init__()
        self.chosen, self.ranges, self.weights = chosen, dict(ranges), weights

    def call(self, model: ir.Model) -> PassResult:
        chosen = {layer.name: (layer, form) for layer, form in self.chosen.items()}
        centred: dict[str, ir.Value] = {}
        for node in [node for node in model.graph if node.op_type == "MatMul" and node.name in chosen]:
            layer, form = chosen[node.name]
            its = self.ranges.get(layer.input)
            if its is None or not its.centre:
                continue
            value, weight = node.inputs[0], node.inputs[1]
            centre = np.asarray(its.centre, value.dtype.numpy())
            if value.name not in centred:
                centred[value.name] = self._subtract(model.graph, value, centre)
                self.ranges[centred[value.name].name] = Range(its.threshold)
            node.replace_input_with(0, centred[value.name])
            codes, scales = self.weights.of(layer, weight.const_value.numpy(), GRIDS[form])
            sums = codes.astype(np.float64).sum(1 - layer.axis) * scales.astype(np.float64)
            _add_behind(model.graph, node, float(centre) * sums)
        return PassResult(model, modified=bool(centred))

    @staticmethod
    def _subtract(graph: ir.Graph, value: ir.Value, centre: np.ndarray) -> ir.Value:
        name = f"{value.name}_centred"
        node = ir.node("Sub", [value, constant(graph, f"{value.name}_centre", centre, value.dtype)], name=name)
        output = node.outputs[0]
        output.name, output.type, output.shape = name, value.type, value.shape
        producer = value.producer()
        place = graph.insert_after if producer else graph.insert_before
        place(producer or graph[0], node)
        return output


def _add_behind(graph: ir.Graph, node: ir.Node, values: np.ndarray) -> None:
    """Adds a constant to a layer's output. The sum takes the output's name: it is what the layer gave before."""
    output = node.outputs[0]
    kind = output.dtype or node.inputs[0].dtype
    add = ir.node("Add", [output, constant(graph, f"{node.name}_centre", values.astype(kind.numpy()), kind)])
    total = add.outputs[0]
    total.type, total.shape = output.type, output.shape
    output.replace_all_uses_with(total, replace_graph_outputs=True)
    add.replace_input_with(0, output)
    total.name, output.name = output.name, f"{output.name}_centred"
    add.name = f"{node.name}_uncentred"
    graph.insert_after(node, add)
