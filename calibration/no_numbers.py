"""Finding the tensor where values stop being numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from devil.bundle import Bundle
from devil.calibration.activations import ActivationReader, one_by_one
from devil.calibration.loading import load_graph

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def first_no_number(bundle: Bundle, graph: str, feeds: Mapping[str, np.ndarray], threads: int = 0) -> str:
    """Name of the graph's first value that is no number for these inputs; of an infinite one where none is NaN.

    Args:
        graph: vision, backbone or grounder.
        feeds: inputs for which an output was no number.
    """
    model = load_graph(bundle.path(graph))
    names = [value.name for node in model.graph for value in node.outputs if value.dtype in _FLOATS]
    infinite = ""
    reader = ActivationReader(model, names, bundle.folder, threads)
    for one in one_by_one(graph, feeds):
        for name, values in reader.read(one):
            if np.isnan(values).any():
                return name
            if not infinite and np.isinf(values).any():
                infinite = name
    return infinite or model.graph.outputs[0].name
