"""PyTorch module → ONNX graph with the names and dynamic sizes of the contract, weights folded into place."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence

import onnx_ir as ir
import torch
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    DeduplicateInitializersPass,
    IdentityEliminationPass,
    RemoveUnusedNodesPass,
)
from torch import Tensor, nn

from devil.contract import GraphSpec

OPSET = 20  # what TensorRT 10.0 on Jetson reads; Gelu and GridSample have their present form from here on

# Data movement that is done once at export where it moves weights only.
_MOVES_WEIGHTS = {"Reshape", "Transpose", "Slice", "Gather", "Squeeze", "Unsqueeze", "Split"}


def trace(
    module: nn.Module, inputs: Sequence[Tensor], spec: GraphSpec, fixed: dict[str, int] | None = None
) -> ir.Model:
    """Exports `module` as the graph that `spec` describes.

    Args:
        module: called with the graph's inputs in order; returns a tensor or a tuple of tensors.
        inputs: an example of each input; sizes that the contract names are dynamic whatever the example's are.
        spec: the graph's contract.
        fixed: named sizes that stay those of the example.
    """
    fixed = fixed or {}
    shapes = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(tensor.shape) if _dynamic(size, fixed)}
        for tensor in spec.inputs
    )
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            dynamic_shapes=shapes,
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
        )
    model = program.model
    model.producer_name, model.producer_version = "devil-export", None
    model.graph.name = spec.name
    _name_sizes(model, spec, fixed)
    fold_weights(model)
    return model


def fold_weights(model: ir.Model) -> None:
    """Moves weights once, here, instead of in every run, and removes what that leaves unused."""
    from onnxscript.optimizer import optimize_ir

    optimize_ir(model, inline=False, should_fold=lambda node: node.op_type in _MOVES_WEIGHTS or None)
    clean_up(model)


def clean_up(model: ir.Model) -> None:
    """Removes dead nodes, identities, and repetitions of nodes and initializers."""
    ir.passes.Sequential(
        IdentityEliminationPass(),
        CommonSubexpressionEliminationPass(),
        DeduplicateInitializersPass(),
        RemoveUnusedNodesPass(),
    )(model)


def _dynamic(size: int | str, fixed: dict[str, int]) -> bool:
    return isinstance(size, str) and size not in fixed


def _name_sizes(model: ir.Model, spec: GraphSpec, fixed: dict[str, int]) -> None:
    """Gives inputs and outputs the contract's names of sizes; drops the tracer's own from everything between."""
    for node in model.graph:
        for value in node.outputs:
            if value.shape is not None and not value.shape.is_static():
                value.shape = None
    values = [*model.graph.inputs, *model.graph.outputs]
    for value, tensor in zip(values, (*spec.inputs, *spec.outputs), strict=True):
        value.shape = ir.Shape([fixed.get(size, size) for size in tensor.shape])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports on torchvision operators and pytree internals that say nothing to a user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
