"""Errors per layer: none where nothing was rounded, and where something was, on the layers behind it."""

import numpy as np
import pytest

from devil.calibration.layer_error import layer_errors, layer_label
from tests.calibration.conftest import QUANTISED


@pytest.mark.parametrize("name", QUANTISED)
def test_every_layer_of_a_quantised_graph_has_an_error(graphs, parts, name):
    errors = layer_errors(graphs[name], parts[name].model)
    assert list(errors) == graphs[name].layers  # those that became one layer too
    values = np.array(list(errors.values()))
    assert np.isfinite(values).all()
    chosen = [layer for layer in errors if layer.name not in parts[name].record["kept"]]
    assert all(0 < errors[layer] < 1 for layer in chosen)


def test_layers_in_front_of_the_rounded_one_have_none(graphs):
    graph = graphs["vision"]
    middle = next(layer for layer in graph.layers if layer.role == "down")
    errors = layer_errors(graph, graph.quantised({middle: "int8"}, "max"))
    before = graph.layers.index(middle)
    assert [errors[layer] for layer in graph.layers[:before]] == pytest.approx([0] * before, abs=1e-6)
    assert errors[middle] > 1e-4
    assert all(errors[layer] > 0 for layer in graph.layers[before:])
    assert not any(layer_errors(graph, graph.model).values())


def test_a_label_tells_what_a_layer_does(graphs):
    layer = graphs["vision"].layers[0]
    assert layer_label(layer) == f"first {layer.inputs} → {layer.outputs}, {layer.name}"
