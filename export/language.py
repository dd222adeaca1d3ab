"""The language graph: a Qwen2 decoder with a static KV cache, written node by node from the config and the weights.

The form is the one that ONNX Runtime runs and TensorRT builds natively: TensorScatter into a cache of M slots, a Slice
of its first T, and Attention under an explicit boolean mask whose last dimension is T. Rotary angles, RMS statistics,
the final norm and both outputs are float32 in every precision. TensorRT wants M as a number: fix that dimension of the
inputs and outputs before parsing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from devil.config import DevilConfig, LanguageConfig
from devil.contract import Precision, TensorSpec, contract
from devil.export.language_decoder import Decoder
from devil.export.language_ops import GraphWriter, Weights
from devil.export.onnx_file import onnx_type
from devil.export.quantisation import Quantiser, nearest
from devil.export.scheme import Scheme

if TYPE_CHECKING:
    import onnx_ir as ir

    Values = dict[str, ir.Value]

OPSET = 24  # the first with TensorScatter
IR_VERSION = 12


def build_language(
    config: LanguageConfig,
    weights: Weights,
    precision: Precision,
    scheme: Scheme | None = None,
    quantise: Quantiser = nearest,
) -> ir.Model:
    """The `language` graph of the contract.

    Args:
        config: sizes of the model.
        weights: gives the tensor of a checkpoint key (`model.layers.0.mlp.up_proj.weight`, …). It is called when the
            file is written, not before; that is also when it can raise CheckpointError.
        precision: type of the activations, the cache and those weights that the scheme leaves as they are.
        scheme: how weights are quantised; None leaves all as they are.
        quantise: chooses the integers that stand for a weight.

    Raises:
        ConfigError: the scheme's blocks do not fit the model.
    """
    import onnx_ir as ir

    spec = contract(DevilConfig(language=config))["language"]
    writer = GraphWriter(weights, precision, scheme, quantise)
    inputs = _values(spec.inputs, precision)
    outputs = Decoder(writer, config, inputs).outputs()
    for name, declared in _values(spec.outputs, precision).items():
        outputs[name].name, outputs[name].type, outputs[name].shape = name, declared.type, declared.shape
    graph = ir.Graph(
        list(inputs.values()),
        [outputs[tensor.name] for tensor in spec.outputs],
        nodes=writer.tape.nodes,
        initializers=writer.tape.initializers,
        opset_imports={"": OPSET},
        name=spec.name,
    )
    return ir.Model(graph, ir_version=IR_VERSION, producer_name="devil-export")


def _values(tensors: Iterable[TensorSpec], precision: Precision) -> Values:
    """The contract's tensors as typed values of a graph."""
    import onnx_ir as ir

    return {
        tensor.name: ir.Value(
            name=tensor.name,
            type=ir.TensorType(onnx_type(tensor.numpy_dtype(precision))),
            shape=ir.Shape(tensor.shape),
        )
        for tensor in tensors
    }
