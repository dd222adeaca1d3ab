"""The layers of a graph that can be quantised, and the part each plays: read off the graph's structure, because an
exported file has no names of modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import onnx_ir as ir

Role = Literal["text", "first", "box", "offsets", "proposals", "last", "down", "linear"]
# What a layer is for, in the order in which it is decided.
MEANINGS: Mapping[Role, str] = {
    "text": "works on the one text token of a frame",
    "first": "sees pixels",
    "box": "of an MLP that ends in the four numbers of a box",
    "offsets": "sampling offsets and attention weights of deformable attention",
    "proposals": "what proposals are scored with, up to the top-k",
    "last": "makes a graph's output, or is of an MLP that does, with no residual connection around it",
    "down": "the second half of a feed-forward, behind GELU or ReLU",
    "linear": "everything else: projections of attention, the first half of a feed-forward",
}

_DEFORMABLE_ATTENTION = "MultiScaleDeformableAttention"
_LOCATIONS, _WEIGHTS = 2, 3  # of its inputs
_BOX = 4  # numbers
_BETWEEN = {"Add", "Relu", "Cast"}  # the layers of an MLP
_ACTIVATIONS = {"Relu", "Gelu"}
_NORMS = {"LayerNormalization", "InstanceNormalization", "GroupNormalization"}
_PIXELS = "UINT8"


@dataclass(frozen=True)
class Layer:
    """A MatMul, Gemm or Conv with constant weights.

    Attributes:
        name: its node's.
        role: see `MEANINGS`.
        input: name of the activation that it takes.
        weight: name of its weight.
        axis: of the weight, along which its outputs lie.
        outputs, inputs: how many; a convolution's inputs are those of one output.
    """

    name: str
    role: Role
    input: str
    weight: str
    axis: int
    outputs: int
    inputs: int

    @property
    def parameters(self) -> int:
        return self.outputs * self.inputs


def find_layers(model: ir.Model) -> list[Layer]:
    """All layers of a graph, in its order."""
    layers = {node: axis for node in model.graph if (axis := _output_axis(node)) is not None}
    boxes, last = _box_layers(layers), _last_layers(layers)
    found = []
    for node, axis in layers.items():
        shape = node.inputs[1].const_value.shape.numpy()
        outputs = shape[axis]
        inputs = node.inputs[1].const_value.size // outputs
        role = "box" if node in boxes and not _on_text(node) else _role(node, layers, last)
        found.append(Layer(node.name, role, node.inputs[0].name, node.inputs[1].name, axis, outputs, inputs))
    return found


def _output_axis(node: ir.Node) -> int | None:
    """Along which axis of its weight a layer's outputs lie; None for what is no layer."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("MatMul", "Gemm", "Conv"):
        return None
    activation, weight = node.inputs[0], node.inputs[1]
    if weight is None or weight.const_value is None or activation is None or activation.const_value is not None:
        return None
    if node.op_type == "Conv":
        return 0
    if len(weight.const_value.shape) != 2:
        return None
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0)
    return 0 if transposed else 1


def _role(node: ir.Node, layers: dict[ir.Node, int], last: set[ir.Node]) -> Role:
    if _on_text(node):
        return "text"
    if any(value.is_graph_input() and value.dtype is not None and value.dtype.name == _PIXELS for value in
           _upstream(node.inputs[0], layers)):  # fmt: skip
        return "first"
    reached = list(_downstream(node.outputs[0], layers, _stops_at_norms))
    if any(user.op_type == _DEFORMABLE_ATTENTION and index in (_LOCATIONS, _WEIGHTS) for user, index in reached):
        return "offsets"
    if _scores_proposals(node, layers):
        return "proposals"
    if node in last:
        return "last"
    producer = node.inputs[0].producer()
    return "down" if producer is not None and producer.op_type in _ACTIVATIONS else "linear"


def _on_text(node: ir.Node) -> bool:
    """Gemm takes matrices: one vector per frame. Images and queries have one axis more."""
    shape = node.inputs[0].shape
    return node.op_type == "Gemm" or (node.op_type == "MatMul" and shape is not None and len(shape) < 2)


def _box_layers(layers: dict[ir.Node, int]) -> set[ir.Node]:
    """Layers with four outputs, and those that lead to nothing else through ReLU."""
    boxes = {node for node, axis in layers.items() if node.inputs[1].const_value.shape.numpy()[axis] == _BOX}
    for node in reversed(list(layers)):
        reached = list(_downstream(node.outputs[0], layers, lambda user: user.op_type not in _BETWEEN))
        users = {user for user, _ in reached if user in layers}
        if users and users <= boxes and all(user in layers or user.op_type in _BETWEEN for user, _ in reached):
            boxes.add(node)
    return boxes


def _last_layers(layers: dict[ir.Node, int]) -> set[ir.Node]:
    """Layers that make a graph's output past no residual connection, and those that lead to nothing else."""
    last: set[ir.Node] = set()
    for node in reversed(list(layers)):
        reached = [user for user, _ in _downstream(node.outputs[0], layers, _is_residual)]
        made = [node.outputs[0], *(value for user in reached if user not in layers for value in user.outputs)]
        following = {user for user in reached if user in layers}
        alone = bool(following) and following <= last and not any(_is_residual(user) for user in reached)
        if alone or any(value.is_graph_output() for value in made):
            last.add(node)
    return last


def _scores_proposals(node: ir.Node, layers: dict[ir.Node, int]) -> bool:
    """Whether its output is scored for a top-k, past a norm at most, while no other layer reads the scores' way."""
    if not any(user.op_type == "TopK" for user, _ in _downstream(node.outputs[0], layers, _is_residual)):
        return False
    return not _softmax_between(node.outputs[0], layers)


def _softmax_between(value: ir.Value, layers: dict[ir.Node, int]) -> bool:
    return any(user.op_type == "Softmax" for user, _ in _downstream(value, layers, _is_residual))


def _upstream(value: ir.Value, layers: dict[ir.Node, int]) -> Iterator[ir.Value]:
    """All values that `value` is made of without a layer in between, itself included."""
    waiting, seen = [value], set()
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        yield value
        producer = value.producer()
        if producer is not None and producer not in layers and producer.op_type not in ("MatMul", "Shape"):
            waiting += [source for source in producer.inputs if source is not None]


def _downstream(
    value: ir.Value, layers: dict[ir.Node, int], stops: Callable[[ir.Node], bool]
) -> Iterator[tuple[ir.Node, int]]:
    """All uses (node, which input) of what is made of `value`; not past layers, deformable attention or `stops`."""
    waiting, seen = [value], set()
    while waiting:
        for user, index in waiting.pop().uses():
            if user in seen and user.op_type != _DEFORMABLE_ATTENTION:
                continue
            seen.add(user)
            yield user, index
            if user not in layers and user.op_type not in (_DEFORMABLE_ATTENTION, "Shape") and not stops(user):
                waiting += user.outputs


def _stops_at_norms(node: ir.Node) -> bool:
    return node.op_type in _NORMS or node.op_type == "MatMul"


def _is_residual(node: ir.Node) -> bool:
    """An Add of two activations: whatever went in is only a part of what comes out."""
    return node.op_type == "Add" and all(value is not None and value.const_value is None for value in node.inputs)
