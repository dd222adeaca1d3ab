"""The GridSample body of deformable attention, run by plain onnxruntime, against grid_sample in float64."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch.nn import functional

from devil.export.msda import DOMAIN, INPUTS, OP_TYPE, AttachDeformableAttention

FLOATS = {"fp32": (ir.DataType.FLOAT, np.float32), "fp16": (ir.DataType.FLOAT16, np.float16)}


def graph_of_one_node(precision="fp32"):
    """A model whose only node is the operator, with every size dynamic."""
    kind = FLOATS[precision][0]
    types = (kind, ir.DataType.INT64, ir.DataType.FLOAT, kind)
    ranks = (4, 2, 6, 5)
    inputs = [
        ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape([f"{name}{axis}" for axis in range(rank)]))
        for name, dtype, rank in zip(INPUTS, types, ranks, strict=True)
    ]
    node = ir.Node(DOMAIN, OP_TYPE, inputs, num_outputs=1)
    output = node.outputs[0]
    output.name, output.type, output.shape = "output", ir.TensorType(kind), ir.Shape(["N", "Q", "C"])
    graph = ir.Graph(inputs, [output], nodes=[node], opset_imports={"": 20, DOMAIN: 1}, name="one")
    return ir.Model(graph, ir_version=10)


def session(levels, precision="fp32"):
    model = AttachDeformableAttention(levels)(graph_of_one_node(precision)).model
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])


def reference(value, shapes, locations, weights):
    """Sums of bilinear samples in float64, level by level."""
    value, locations, weights = (torch.from_numpy(array.astype(np.float64)) for array in (value, locations, weights))
    batch, _, heads, dim = value.shape
    queries = locations.shape[1]
    total = torch.zeros(batch * heads, dim, queries, dtype=torch.float64)
    start = 0
    for level, (height, width) in enumerate(shapes.tolist()):
        picture = value[:, start : start + height * width].permute(0, 2, 3, 1).reshape(-1, dim, height, width)
        grid = (2 * locations[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
        sampled = functional.grid_sample(picture, grid, padding_mode="zeros", align_corners=False)
        weight = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]
        total += (sampled * weight).sum(-1)
        start += height * width
    return total.reshape(batch, heads * dim, queries).transpose(1, 2).numpy()


def inputs(shapes, batch, queries, heads, dim, points, dtype=np.float32, seed=0):
    random = np.random.default_rng(seed)
    shapes = np.array(shapes, np.int64)
    value = random.normal(size=(batch, int(shapes.prod(1).sum()), heads, dim)).astype(dtype)
    locations = random.uniform(-0.3, 1.3, (batch, queries, heads, len(shapes), points, 2)).astype(np.float32)
    weights = random.uniform(size=(batch, queries, heads, len(shapes), points)).astype(dtype)
    return dict(zip(INPUTS, (value, shapes, locations, weights), strict=True))


@pytest.mark.parametrize(
    ("shapes", "batch", "queries", "heads", "dim", "points"),
    [
        ([(13, 7), (5, 3), (3, 1), (1, 1)], 2, 11, 3, 8, 4),
        ([(1, 1), (1, 1), (1, 1), (1, 1)], 1, 1, 1, 8, 1),
        ([(9, 17)], 3, 5, 8, 32, 4),
    ],
)
def test_function_equals_grid_sample(shapes, batch, queries, heads, dim, points):
    feed = inputs(shapes, batch, queries, heads, dim, points)
    (found,) = session(len(shapes)).run(None, feed)
    np.testing.assert_allclose(found, reference(*feed.values()), rtol=0, atol=2e-6 * len(shapes) * points)


def test_fp16_value_is_sampled_with_fp32_coordinates():
    feed = inputs([(3, 512), (2, 256), (1, 128), (1, 64)], 1, 9, 2, 8, 4, dtype=np.float16)
    (found,) = session(4, "fp16").run(None, feed)
    assert found.dtype == np.float16
    # Only the result is rounded: half a unit in the last place of values below 16.
    np.testing.assert_allclose(found, reference(*feed.values()), rtol=2**-11, atol=1e-5)


@pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf, 1e30, -1e30, 5.0])
def test_locations_far_out_or_not_finite_contribute_zero(hostile):
    feed = inputs([(3, 5), (2, 2)], 1, 2, 1, 8, 3)
    feed["locations"][:] = hostile
    (found,) = session(2).run(None, feed)
    np.testing.assert_array_equal(found, np.zeros_like(found))


def test_a_graph_without_the_node_gets_no_function():
    model = graph_of_one_node()
    model.graph.outputs[:] = [model.graph.inputs[0]]
    model.graph.remove(next(iter(model.graph)))
    assert not AttachDeformableAttention(4)(model).modified
    assert not model.functions
