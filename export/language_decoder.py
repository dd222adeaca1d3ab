"""The Qwen2 decoder as ONNX nodes, from token ids to logits, hidden states and the caches after them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from devil.config import LanguageConfig
from devil.contract import key_name, value_name
from devil.export.language_ops import GraphWriter
from devil.export.scheme import EMBEDDING, HEAD

if TYPE_CHECKING:
    import onnx_ir as ir

    Values = dict[str, ir.Value]


class Decoder:
    """Writes the decoder layer by layer; shapes as in the contract, D = head_dim, R = B · S.

    Between the layers tokens lie as rows [R, hidden], because that is what Gemm takes; rows and batches are the same
    memory, so nothing moves where one becomes the other.
    """

    def __init__(self, writer: GraphWriter, config: LanguageConfig, inputs: Values):
        self.write, self.config, self.inputs = writer, config, inputs
        self._shapes: dict[tuple[int, ...], ir.Value] = {}
        self.last_axis = writer.constant("last_axis", [-1])
        self.angles = self._angles()
        self.batch = writer.op("Shape", inputs["token_ids"])  # [B, S]
        self.attended = writer.op("Shape", inputs["mask"], start=3)  # [T]

    def outputs(self) -> Values:
        """The graph's outputs by name."""
        x = self._embedding()
        outputs: Values = {}
        for layer in range(self.config.layers):
            key = f"model.layers.{layer}"
            with self.write.scope(key):
                keys, values = (self.inputs[name(layer, "past")] for name in (key_name, value_name))
                normed = self._norm(x, f"{key}.input_layernorm")
                update, keys, values = self._attention(f"{key}.self_attn", normed, keys, values)
                x = self.write.op("Add", x, update)
                normed = self._norm(x, f"{key}.post_attention_layernorm")
                x = self.write.op("Add", x, self._mlp(f"{key}.mlp", normed))
            outputs |= {key_name(layer, "present"): keys, value_name(layer, "present"): values}
        outputs["hidden"] = self._final_hidden(x)
        outputs["logits"] = self._logits(outputs["hidden"])
        return outputs

    def _embedding(self) -> ir.Value:
        """Rows of the embedding, or of the visual table for ids from `vocab` on; [R, hidden].

        Both are gathered at every position, at a clamped index, so that neither table is copied into the other.
        """
        write, config, vocab = self.write, self.config, self.config.vocab
        with write.scope("embedding"):
            ids = write.op("Reshape", self.inputs["token_ids"], self.last_axis)
            known = write.op("Min", ids, write.constant("last_id", vocab - 1))
            text = write.lookup(EMBEDDING, known, vocab, config.hidden)
            row = write.op("Sub", ids, write.constant("vocab", vocab))
            row = write.op("Max", row, write.constant("first_row", 0))
            visual = write.op("Gather", self.inputs["visual_table"], row, axis=0)
            is_visual = write.op("GreaterOrEqual", ids, write.constant("vocab", vocab))
            return write.op("Where", write.op("Unsqueeze", is_visual, self.last_axis), visual, text)

    def _angles(self) -> tuple[ir.Value, ir.Value]:
        """Cosine and sine of every position's rotary angles, [B, S, D / 2]; computed in float32."""
        write, config = self.write, self.config
        exponents = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
        frequencies = write.constant("rotary_frequencies", config.rope_theta**-exponents, "float32")
        with write.scope("rotary"):
            positions = write.cast(self.inputs["positions"], full=True)
            angles = write.op("Mul", write.op("Unsqueeze", positions, self.last_axis), frequencies)
            return write.cast(write.op("Cos", angles)), write.cast(write.op("Sin", angles))

    def _norm(self, x: ir.Value, key: str, full: bool = False) -> ir.Value:
        """RMS norm; its statistics are float32 by stash_type."""
        scale = self.write.weight(f"{key}.weight", (self.config.hidden,), full=full)
        return self.write.op("RMSNormalization", x, scale, axis=-1, epsilon=self.config.eps, stash_type=1)

    def _attention(self, key: str, x: ir.Value, keys: ir.Value, values: ir.Value) -> tuple[ir.Value, ...]:
        """The attention's update of x [R, hidden], and the caches [B, kv_heads, M, D] after it."""
        write, config = self.write, self.config
        query = write.op("RotaryEmbedding", self._heads(f"{key}.q_proj", x, config.heads), *self.angles)
        new_keys = write.op("RotaryEmbedding", self._heads(f"{key}.k_proj", x, config.kv_heads), *self.angles)
        new_values = self._heads(f"{key}.v_proj", x, config.kv_heads)
        keys, seen_keys = self._cached(keys, new_keys)
        values, seen_values = self._cached(values, new_values)
        # No softmax_precision: TensorRT refuses it, and ONNX Runtime's fp16 kernel is exact to rounding without it.
        y = write.op("Attention", query, seen_keys, seen_values, self.inputs["mask"])  # [B, heads, S, D]
        y = write.op("Transpose", y, perm=[0, 2, 1, 3])
        y = write.op("Reshape", y, write.constant("shape_rows", [-1, config.hidden]))
        return write.linear(y, f"{key}.o_proj", config.hidden, config.hidden), keys, values

    def _heads(self, key: str, x: ir.Value, count: int) -> ir.Value:
        """A projection of x, split into heads: [B, count, S, D]."""
        dim = self.config.head_dim
        y = self.write.linear(x, key, count * dim, self.config.hidden, bias=True)
        y = self.write.op("Reshape", y, self._batched(count, dim))
        return self.write.op("Transpose", y, perm=[0, 2, 1, 3])

    def _cached(self, cache: ir.Value, update: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The whole cache with the new slots written, and its first T slots."""
        write = self.write
        present = write.op("TensorScatter", cache, update, self.inputs["write_index"], axis=-2, mode="linear")
        start, axis = write.constant("first_slot", [0]), write.constant("slot_axis", [2])
        return present, write.op("Slice", present, start, self.attended, axis)

    def _mlp(self, key: str, x: ir.Value) -> ir.Value:
        """SwiGLU."""
        write, hidden, width = self.write, self.config.hidden, self.config.mlp
        gate = write.linear(x, f"{key}.gate_proj", width, hidden)
        gate = write.op("Mul", gate, write.op("Sigmoid", gate))
        up = write.linear(x, f"{key}.up_proj", width, hidden)
        return write.linear(write.op("Mul", gate, up), f"{key}.down_proj", hidden, width)

    def _final_hidden(self, x: ir.Value) -> ir.Value:
        """Final-norm hidden states of the asked positions only, [B, K, hidden] float32."""
        with self.write.scope("readout"):
            index = self.write.op("Unsqueeze", self.inputs["output_index"], self.last_axis)
            x = self.write.op("Reshape", x, self._batched(self.config.hidden))
            asked = self.write.op("GatherND", x, index, batch_dims=1)
            return self._norm(self.write.cast(asked, full=True), "model.norm", full=True)

    def _logits(self, hidden: ir.Value) -> ir.Value:
        """[B, K, vocab] float32."""
        write, config = self.write, self.config
        with write.scope("readout"):
            rows = write.op("Reshape", write.cast(hidden), write.constant("shape_rows", [-1, config.hidden]))
            logits = write.linear(rows, EMBEDDING if config.tied else HEAD, config.vocab, config.hidden, name=HEAD)
            asked = write.op("Shape", self.inputs["output_index"])
            shape = write.op("Concat", asked, write.constant("shape_vocab", [config.vocab]), axis=0)
            return write.cast(write.op("Reshape", logits, shape), full=True)

    def _batched(self, *sizes: int) -> ir.Value:
        """The shape (B, S, *sizes), computed once."""
        if sizes not in self._shapes:
            sizes_constant = self.write.constant("shape_" + "x".join(map(str, sizes)), sizes)
            self._shapes[sizes] = self.write.op("Concat", self.batch, sizes_constant, axis=0)
        return self._shapes[sizes]
