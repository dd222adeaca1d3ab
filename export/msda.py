"""Deformable attention as a model-local function made of GridSample, so that any ONNX runtime can run the node."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

DOMAIN = "devil"
OP_TYPE = "MultiScaleDeformableAttention"
INPUTS = ("value", "spatial_shapes", "locations", "weights")
MIN_OPSET = 20  # GridSample names its bilinear mode "linear" from here on


class AttachDeformableAttention(InPlacePass):
    """Gives every file that holds the node the function that computes it.

    A runtime that has a kernel for `devil::MultiScaleDeformableAttention` prefers it (ONNX Runtime) or can be told to
    (TensorRT); the others expand the function.

    Args:
        levels: feature levels of the model; their sizes stay dynamic.
    """

    def __init__(self, levels: int):
        super().__init__()
        self.levels = levels

    def call(self, model: ir.Model) -> PassResult:
        if not any(node.domain == DOMAIN and node.op_type == OP_TYPE for node in model.graph.all_nodes()):
            return PassResult(model, modified=False)
        function = deformable_attention_function(self.levels, model.opset_imports[""])
        model.functions[function.identifier()] = function
        model.opset_imports[DOMAIN] = 1
        return PassResult(model, modified=True)


def deformable_attention_function(levels: int, opset: int = MIN_OPSET) -> ir.Function:
    """Multi-scale deformable attention (Deformable DETR, eq. 3) with bilinear sampling and zeros outside.

    Inputs: value [N, S, heads, dim] (fp32, fp16 or bf16), spatial_shapes int64 [levels, 2] (height, width), locations
    fp32 [N, Q, heads, levels, points, 2] (x, y as fractions of the level), weights [N, Q, heads, levels, points].
    Output: [N, Q, heads·dim] of value's type. Sampling and sums are fp32 whatever the value's type; locations that are
    not finite count as outside.
    """
    inputs = [ir.Value(name=name) for name in INPUTS]
    body = _Body(*inputs)
    output = body.build(levels)
    output.name = "output"
    graph = ir.Graph(inputs, [output], nodes=body.nodes, opset_imports={"": opset}, name=OP_TYPE)
    return ir.Function(DOMAIN, OP_TYPE, graph=graph, attributes=[])


class _Body:
    """Collects the nodes of the function; shapes in comments, n = N·heads."""

    def __init__(self, value: ir.Value, shapes: ir.Value, locations: ir.Value, weights: ir.Value):
        self.value, self.shapes, self.locations, self.weights = value, shapes, locations, weights
        self.nodes: list[ir.Node] = []

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes) -> ir.Value:
        node = ir.node(op_type, inputs, attributes)
        node.outputs[0].name = f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(node)
        return node.outputs[0]

    def ints(self, *values: int) -> ir.Value:
        return self.op("Constant", value_ints=list(values))

    def number(self, value: float) -> ir.Value:
        return self.op("Constant", value_float=value)

    def build(self, levels: int) -> ir.Value:
        value = self.heads_first(self.op("CastLike", self.value, self.locations))  # [n, dim, S]
        grid = self.grid()  # [n, levels, Q, points, 2]
        weights = self.op("CastLike", self.weights, self.locations)
        weights = self.op("Transpose", weights, perm=[0, 2, 3, 1, 4])  # [N, heads, levels, Q, points]
        weights = self.merged(weights, keep=3)  # [n, levels, Q, points]
        total, start = None, self.ints(0)
        for level in range(levels):
            size = self.op("Gather", self.shapes, self.ints(level), axis=0)
            size = self.op("Reshape", size, self.ints(2))  # (height, width)
            end = self.op("Add", start, self.op("ReduceProd", size, self.ints(0), keepdims=1))
            picture = self.op("Slice", value, start, end, self.ints(2))  # [n, dim, H·W]
            picture = self.op("Reshape", picture, self.op("Concat", self.ints(0, 0), size, axis=0))
            sampled = self.op(
                "GridSample", picture, self.level(grid, level), mode="linear", padding_mode="zeros", align_corners=0
            )  # [n, dim, Q, points]
            weight = self.op("Unsqueeze", self.level(weights, level), self.ints(1))  # [n, 1, Q, points]
            part = self.op("ReduceSum", self.op("Mul", sampled, weight), self.ints(3), keepdims=0)  # [n, dim, Q]
            total = part if total is None else self.op("Add", total, part)
            start = end
        return self.op("CastLike", self.queries_first(total), self.value)

    def heads_first(self, value: ir.Value) -> ir.Value:
        """[N, S, heads, dim] → [n, dim, S]."""
        return self.merged(self.op("Transpose", value, perm=[0, 2, 3, 1]), keep=2)

    def queries_first(self, total: ir.Value) -> ir.Value:
        """[n, dim, Q] → [N, Q, heads·dim]."""
        batch = self.op("Shape", self.value, start=0, end=1)
        queries = self.op("Shape", self.locations, start=1, end=2)
        heads, dim = self.op("Shape", self.value, start=2, end=3), self.op("Shape", self.value, start=3, end=4)
        channels = self.op("Mul", heads, dim)
        stacked = self.op("Reshape", total, self.op("Concat", batch, channels, queries, axis=0))
        return self.op("Transpose", stacked, perm=[0, 2, 1])

    def grid(self) -> ir.Value:
        """Locations 0–1 → GridSample's -1–1, heads first: [n, levels, Q, points, 2].

        Clipping leaves what lies outside at least a pixel outside: zeros, and no overflow of a pixel index.
        """
        outside = self.number(-1.0)
        finite = self.op("Where", self.op("IsNaN", self.locations), outside, self.locations)
        clipped = self.op("Clip", finite, outside, self.number(2.0))
        grid = self.op("Sub", self.op("Mul", clipped, self.number(2.0)), self.number(1.0))
        return self.merged(self.op("Transpose", grid, perm=[0, 2, 3, 1, 4, 5]), keep=4)

    def level(self, tensor: ir.Value, level: int) -> ir.Value:
        """[n, levels, …] → [n, …]."""
        index = self.op("Constant", value_int=level)
        return self.op("Gather", tensor, index, axis=1)

    def merged(self, tensor: ir.Value, keep: int) -> ir.Value:
        """[N, heads, …] → [n, …], where `keep` axes follow the heads."""
        batch, heads = self.op("Shape", tensor, start=0, end=1), self.op("Shape", tensor, start=1, end=2)
        rest = self.op("Shape", tensor, start=2, end=2 + keep)
        shape = self.op("Concat", self.op("Mul", batch, heads), rest, axis=0)
        return self.op("Reshape", tensor, shape)
