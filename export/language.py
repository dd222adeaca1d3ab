"""The language graph: a Qwen2 decoder with a static KV cache, written node by node from the config and the weights.

The form is the one that ONNX Runtime runs and TensorRT builds natively: TensorScatter into a cache of M slots, a Slice
of its first T, and Attention under an explicit boolean mask whose last dimension is T. Rotary angles, RMS statistics,
softmax, the final norm and both outputs are float32 in every precision.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from devil.config import DevilConfig, LanguageConfig
from devil.contract import Precision, TensorSpec, contract, key_name, value_name
from devil.export.language_ops import GraphWriter, Weights, onnx_type

if TYPE_CHECKING:
    import onnx_ir as ir

    Values = dict[str, ir.Value]

OPSET = 24  # the first with TensorScatter and Attention's softmax_precision
IR_VERSION = 12


def build_language(config: LanguageConfig, weights: Weights, precision: Precision) -> ir.Model:
    """The `language` graph of the contract.

    Args:
        config: sizes of the model.
        weights: gives the tensor of a checkpoint key (`model.layers.0.mlp.up_proj.weight`, …). It is called when the
            file is written, not before; that is also when it can raise CheckpointError.
        precision: type of the weights, the activations and the cache.
    """
    import onnx_ir as ir

    spec = contract(DevilConfig(language=config))["language"]
    writer = GraphWriter(weights, precision)
    inputs = _values(spec.inputs, precision)
    outputs = _decoder(writer, config, inputs)
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


def _decoder(writer: GraphWriter, config: LanguageConfig, inputs: Values) -> Values:
    """All layers, from token ids to logits; returns the graph's outputs by name."""
    x = _embedding(writer, config, inputs["token_ids"], inputs["visual_table"])  # [B, S, hidden]
    angles = _angles(writer, config, inputs["positions"])
    attended = writer.op("Shape", inputs["mask"], start=3)  # [T]
    outputs: Values = {}
    for layer in range(config.layers):
        with writer.scope(f"model.layers.{layer}"):
            past = inputs[key_name(layer, "past")], inputs[value_name(layer, "past")]
            key = f"model.layers.{layer}"
            normed = _norm(writer, config, x, f"{key}.input_layernorm")
            update, *present = _attention(writer, config, f"{key}.self_attn", normed, angles, past, inputs, attended)
            x = writer.op("Add", x, update)
            normed = _norm(writer, config, x, f"{key}.post_attention_layernorm")
            x = writer.op("Add", x, _mlp(writer, config, f"{key}.mlp", normed))
            outputs[key_name(layer, "present")], outputs[value_name(layer, "present")] = present
    outputs["logits"], outputs["hidden"] = _readout(writer, config, x, inputs["output_index"])
    return outputs


def _embedding(writer: GraphWriter, config: LanguageConfig, ids: ir.Value, table: ir.Value) -> ir.Value:
    """Rows of the embedding, or of the visual table for ids from `vocab` on; [B, S, hidden].

    Both are gathered at every position, at a clamped index, so that neither table is copied into the other.
    """
    vocab = writer.constant("vocab", config.vocab)
    zero, last = writer.constant("zero", 0), writer.constant("last_id", config.vocab - 1)
    with writer.scope("embedding"):
        embedding = writer.weight("model.embed_tokens.weight", (config.vocab, config.hidden))
        text = writer.op("Gather", embedding, writer.op("Min", ids, last), axis=0)
        row = writer.op("Max", writer.op("Sub", ids, vocab), zero)
        visual = writer.op("Gather", table, row, axis=0)
        is_visual = writer.op("GreaterOrEqual", ids, vocab)
        is_visual = writer.op("Unsqueeze", is_visual, writer.constant("last_axis", [-1]))  # [B, S, 1]
        return writer.op("Where", is_visual, visual, text)


def _angles(writer: GraphWriter, config: LanguageConfig, positions: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Cosine and sine of every position's rotary angles, [B, S, head_dim / 2]; computed in float32."""
    import onnx_ir as ir

    half = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
    frequencies = writer.constant("rotary_frequencies", config.rope_theta**-half, "float32")
    with writer.scope("rotary"):
        positions = writer.op("Cast", positions, to=ir.DataType.FLOAT)
        positions = writer.op("Unsqueeze", positions, writer.constant("last_axis", [-1]))
        angles = writer.op("Mul", positions, frequencies)
        return writer.cast(writer.op("Cos", angles)), writer.cast(writer.op("Sin", angles))


def _norm(writer: GraphWriter, config: LanguageConfig, x: ir.Value, key: str, full: bool = False) -> ir.Value:
    """RMS norm; its statistics are float32 by stash_type."""
    scale = writer.weight(f"{key}.weight", (config.hidden,), full=full)
    return writer.op("RMSNormalization", x, scale, axis=-1, epsilon=config.eps, stash_type=1)


def _attention(
    writer: GraphWriter,
    config: LanguageConfig,
    key: str,
    x: ir.Value,
    angles: tuple[ir.Value, ir.Value],
    past: tuple[ir.Value, ir.Value],
    inputs: Values,
    attended: ir.Value,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The attention's update of x [B, S, hidden], and the key and value caches [B, kv_heads, M, head_dim] after it."""
    import onnx_ir as ir

    def heads(name: str, count: int) -> ir.Value:  # [B, count, S, head_dim]
        y = writer.linear(x, f"{key}.{name}", count * config.head_dim, config.hidden, bias=True)
        shape = writer.constant(f"shape_{count}_heads", [0, 0, count, config.head_dim])
        return writer.op("Transpose", writer.op("Reshape", y, shape), perm=[0, 2, 1, 3])

    def cached(cache: ir.Value, update: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The whole cache with the new slots written, and its first T slots."""
        present = writer.op("TensorScatter", cache, update, inputs["write_index"], axis=-2, mode="linear")
        start, axis = writer.constant("cache_start", [0]), writer.constant("cache_axis", [2])
        return present, writer.op("Slice", present, start, attended, axis)

    query = writer.op("RotaryEmbedding", heads("q_proj", config.heads), *angles)
    key_states = writer.op("RotaryEmbedding", heads("k_proj", config.kv_heads), *angles)
    present_key, keys = cached(past[0], key_states)
    present_value, values = cached(past[1], heads("v_proj", config.kv_heads))
    y = writer.op(
        "Attention", query, keys, values, inputs["mask"], softmax_precision=int(ir.DataType.FLOAT), is_causal=0
    )  # [B, heads, S, head_dim]
    y = writer.op("Transpose", y, perm=[0, 2, 1, 3])
    y = writer.op("Reshape", y, writer.constant("shape_hidden", [0, 0, config.hidden]))
    return writer.linear(y, f"{key}.o_proj", config.hidden, config.hidden), present_key, present_value


def _mlp(writer: GraphWriter, config: LanguageConfig, key: str, x: ir.Value) -> ir.Value:
    """SwiGLU."""
    gate = writer.linear(x, f"{key}.gate_proj", config.mlp, config.hidden)
    gate = writer.op("Mul", gate, writer.op("Sigmoid", gate))
    up = writer.linear(x, f"{key}.up_proj", config.mlp, config.hidden)
    return writer.linear(writer.op("Mul", gate, up), f"{key}.down_proj", config.hidden, config.mlp)


def _readout(
    writer: GraphWriter, config: LanguageConfig, x: ir.Value, output_index: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Logits [B, K, vocab] and final-norm hidden states [B, K, hidden] of the asked positions only, both float32."""
    with writer.scope("readout"):
        index = writer.op("Unsqueeze", output_index, writer.constant("last_axis", [-1]))
        picked = writer.cast(writer.op("GatherND", x, index, batch_dims=1), full=True)
        hidden = _norm(writer, config, picked, "model.norm", full=True)
        if not config.tied:
            logits = writer.linear(writer.cast(hidden), "lm_head", config.vocab, config.hidden)
            return writer.cast(logits, full=True), hidden
        # The embedding lies [vocab, hidden] for the lookup; Gemm reads it transposed without a second copy.
        rows = writer.op("Reshape", writer.cast(hidden), writer.constant("shape_rows", [-1, config.hidden]))
        embedding = writer.weight("model.embed_tokens.weight", (config.vocab, config.hidden))
        logits = writer.cast(writer.op("Gemm", rows, embedding, transB=1), full=True)
        shape = writer.op(
            "Concat", writer.op("Shape", output_index), writer.constant("shape_vocab", [config.vocab]), axis=0
        )
        return writer.op("Reshape", logits, shape), hidden
