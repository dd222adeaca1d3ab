"""Whether a graph that ONNX Runtime has loaded is the one that the contract describes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from devil.contract import GraphSpec, Precision, TensorSpec
from devil.errors import EngineError

if TYPE_CHECKING:
    import onnxruntime

_ONNX_NAMES = {"float32": "float"}  # where they differ from NumPy's


def check_contract(session: onnxruntime.InferenceSession, spec: GraphSpec, precision: Precision, path: Path) -> None:
    """The file's inputs and outputs are the contract's in name, type and fixed sizes.

    Raises:
        EngineError: with the tensors that differ.
    """
    differing = set()
    for found, expected in ((session.get_inputs(), spec.inputs), (session.get_outputs(), spec.outputs)):
        nodes, tensors = {node.name: node for node in found}, {tensor.name: tensor for tensor in expected}
        differing |= nodes.keys() ^ tensors.keys()
        differing |= {
            name for name in nodes.keys() & tensors.keys() if not _follows(nodes[name], tensors[name], precision)
        }
    if differing:
        raise EngineError(
            f"{path} is not the {precision} graph {spec.name!r} of this model: {', '.join(sorted(differing))} differ",
            "export the bundle again",
        )


def _follows(node: onnxruntime.NodeArg, tensor: TensorSpec, precision: Precision) -> bool:
    dtype = tensor.numpy_dtype(precision)
    if node.type != f"tensor({_ONNX_NAMES.get(dtype, dtype)})" or len(node.shape) != len(tensor.shape):
        return False
    # A graph may fix a size that the contract leaves open, never the other way round.
    return all(isinstance(size, str) or size == has for size, has in zip(tensor.shape, node.shape, strict=True))
