"""Q/DQ as a pass: chosen layers of a typed graph get an 8-bit activation and an 8-bit weight."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from devil.calibration.centre import CentreActivations
from devil.calibration.forms import GRIDS, Form, Grid
from devil.calibration.layers import Layer
from devil.calibration.merge import MergeParallelLayers, constant
from devil.calibration.ranges import Range
from devil.calibration.weights import StoredWeights
from devil.errors import CalibrationError


class InsertQDQ(InPlacePass):
    """Puts QuantizeLinear → DequantizeLinear before chosen layers.

    1. Activations whose range is not around zero are moved there (see `CentreActivations`).
    2. Chosen MatMuls of one activation in one form become one (see `MergeParallelLayers`).
    3. The activation is rounded with one scale, right in front of the layer.
    4. The weight is stored in 8 bits, with a scale per output, and dequantised in front of the layer. A weight that
       layers share is stored once per form.
    5. Everything else stays as it is. No zero points: the form that TensorRT takes and that ONNX Runtime turns into
       integer kernels.

    Args:
        chosen: layers and their forms.
        ranges: of the layers' activations, by the value's name.
        weights: finds what weights are stored as; by default the nearest codes.

    Raises:
        CalibrationError: a range is missing, or a weight is no number.
    """

    def __init__(self, chosen: Mapping[Layer, Form], ranges: Mapping[str, Range], weights: StoredWeights | None = None):
        super().__init__()
        self.chosen, self.ranges, self.weights = chosen, ranges, weights or StoredWeights()

    def call(self, model: ir.Model) -> PassResult:
        centre = CentreActivations(self.chosen, self.ranges, self.weights)
        centre(model)
        self._thresholds = {name: its.threshold for name, its in centre.ranges.items()}
        stored = {
            layer.name: self.weights.of(layer, model.graph.initializers[layer.weight].const_value.numpy(), GRIDS[form])
            for layer, form in self.chosen.items()
        }
        groups = _groups(model, self.chosen)
        merge = MergeParallelLayers(groups)
        merge(model)
        for names in groups:
            codes, scales = zip(*(stored[name] for name in names), strict=True)
            stored[merge.merged[names[0]]] = np.concatenate(codes, 1), np.concatenate(scales)
        axes = {merge.merged.get(layer.name, layer.name): (layer.axis, form) for layer, form in self.chosen.items()}
        self._made: dict[tuple[str, Form, int | None], ir.Value] = {}
        for node in [node for node in model.graph if node.name in axes]:
            axis, form = axes[node.name]
            activation = node.inputs[0]
            if form == "fp8":
                activation = _without_relu(model.graph, activation)
            node.replace_input_with(0, self._activation(model.graph, activation, GRIDS[form]))
            node.replace_input_with(1, self._weight(model.graph, node, axis, GRIDS[form], *stored[node.name]))
        for name in [name for name, value in model.graph.initializers.items() if not value.uses()]:
            del model.graph.initializers[name]
        return PassResult(model, modified=bool(self.chosen))

    def _activation(self, graph: ir.Graph, value: ir.Value, grid: Grid) -> ir.Value:
        key = (value.name, grid.form, None)
        if key not in self._made:
            if value.name not in self._thresholds:
                raise CalibrationError(f"nothing is known of the range of {value.name}", "record the clips again")
            name = f"{value.name}_{grid.form}"
            scale = constant(
                graph, f"{name}_scale", grid.scale(self._thresholds[value.name], value.dtype.numpy()), value.dtype
            )
            zero = _zero(graph, grid)
            quantise = ir.node("QuantizeLinear", [value, scale, zero], name=name)
            dequantise = ir.node("DequantizeLinear", [quantise.outputs[0], scale, zero], name=f"{name}_back")
            _describe(quantise, grid.ir_type, value)
            _describe(dequantise, value.dtype, value)
            producer = value.producer()
            place = graph.insert_after if producer else graph.insert_before
            place(producer or graph[0], [quantise, dequantise])
            self._made[key] = dequantise.outputs[0]
        return self._made[key]

    def _weight(
        self, graph: ir.Graph, node: ir.Node, axis: int, grid: Grid, codes: np.ndarray, scales: np.ndarray
    ) -> ir.Value:
        value = node.inputs[1]
        key = (value.name, grid.form, axis)
        if key not in self._made:
            name = f"{value.name}_{grid.form}_{axis}"
            stored = constant(graph, name, codes, grid.ir_type)
            scale = constant(graph, f"{name}_scale", scales, value.dtype)
            dequantise = ir.node("DequantizeLinear", [stored, scale], {"axis": axis}, name=f"{name}_back")
            _describe(dequantise, value.dtype, value)
            graph.insert_before(node, dequantise)
            self._made[key] = dequantise.outputs[0]
        return self._made[key]


def _groups(model: ir.Model, chosen: Mapping[Layer, Form]) -> list[tuple[str, ...]]:
    """Names of chosen MatMuls that share an activation and a form."""
    inputs = {layer.name: (layer.input, form) for layer, form in chosen.items()}
    sharing: dict[tuple[str, Form], list[str]] = {}
    for node in model.graph:  # in the graph's order: what they become stands where the first of them stood
        if node.op_type == "MatMul" and node.name in inputs:
            sharing.setdefault(inputs[node.name], []).append(node.name)
    return [tuple(names) for names in sharing.values() if len(names) > 1]


def _without_relu(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """`value`, made by Max where Relu made it.

    ONNX Runtime drops a Relu in front of QuantizeLinear whose zero point is the type's lowest code, and takes 0 for the
    lowest of an 8-bit float (ReluQuantFusion).
    """
    relu = value.producer()
    if relu is None or relu.op_type != "Relu":
        return value
    name = f"floor_{value.dtype.name.lower()}"
    floor = graph.initializers.get(name) or constant(graph, name, np.zeros((), value.dtype.numpy()), value.dtype)
    node = ir.node("Max", [relu.inputs[0], floor], name=f"{relu.name}_max")
    output, node.outputs[0].name = node.outputs[0], value.name
    value.name = f"{value.name}_relu"
    output.type, output.shape = value.type, value.shape
    graph.insert_after(relu, node)
    value.replace_all_uses_with(output, replace_graph_outputs=True)
    graph.remove(relu, safe=True)
    return output


def _zero(graph: ir.Graph, grid: Grid) -> ir.Value:
    """The zero point: 0, in the type that it thereby names."""
    name = f"zero_{grid.form}"
    if name in graph.initializers:
        return graph.initializers[name]
    return constant(graph, name, np.zeros((), grid.ir_type.numpy()), grid.ir_type)


def _describe(node: ir.Node, kind: ir.DataType, like: ir.Value) -> None:
    output = node.outputs[0]
    output.name, output.type, output.shape = node.name, ir.TensorType(kind), like.shape
