"""How far each layer of a quantised graph is from the same layer in floats, for the report."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import onnx_ir as ir

from devil.calibration.activations import ActivationReader, one_by_one
from devil.calibration.graph import GraphCalibration
from devil.calibration.layers import Layer
from devil.calibration.merge import part_name

_FRAMES = 4  # of as many clips


def layer_errors(graph: GraphCalibration, quantised: ir.Model) -> dict[Layer, float]:
    """Error of each layer's outputs, root mean square over their size, with everything before it rounded too.

    Args:
        graph: in floats, and what it was fed.
        quantised: made of it. Layers whose outputs it does not have are left out.
    """
    outputs = _outputs(graph, quantised)
    before = ActivationReader(graph.model, [one for one, _ in outputs.values()], graph.bundle.folder, graph.threads)
    after = ActivationReader(quantised, [two for _, two in outputs.values()], graph.bundle.folder, graph.threads)
    layers = {one: layer for layer, (one, _) in outputs.items()}
    wrong, size = defaultdict(float), defaultdict(float)
    for clip in graph.captures.clips[:_FRAMES]:
        for run in graph.captures.runs(graph.graph, [clip]):
            feeds = next(one_by_one(graph.graph, run.feeds))
            for (name, right), (_, found) in zip(before.read(feeds), after.read(feeds), strict=True):
                right = right.astype(np.float64)
                wrong[layers[name]] += float(np.square(found - right).sum())
                size[layers[name]] += float(np.square(right).sum())
            break
    return {layer: math.sqrt(wrong[layer] / max(size[layer], 1e-30)) for layer in wrong}


def layer_label(layer: Layer) -> str:
    """For people: nodes of an exported graph are only numbered."""
    return f"{layer.role} {layer.inputs} → {layer.outputs}, {layer.name}"


def _outputs(graph: GraphCalibration, quantised: ir.Model) -> dict[Layer, tuple[str, str]]:
    """Names of a layer's output before and after."""
    made = {node.name: node.outputs[0].name for node in graph.model.graph}
    there = {value.name for node in quantised.graph for value in node.outputs}
    found = {}
    for layer in graph.layers:
        one = made[layer.name]
        two = next((name for name in (one, part_name(one)) if name in there), None)
        if two is not None:
            found[layer] = (one, two)
    return found
