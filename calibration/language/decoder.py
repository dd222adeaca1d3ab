"""The language model layer by layer in float32, with transformers' own layers: no more of it in memory than one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RotaryEmbedding

from devil.calibration.language.passes import LanguagePass
from devil.config import LanguageConfig
from devil.model.devil import qwen2_config
from devil.model.fitting import EMBEDDING, HEAD

Read = Callable[[str], Tensor]  # a checkpoint's key → its tensor

NORM = "model.norm.weight"


def layer_key(layer: int) -> str:
    return f"model.layers.{layer}"


class LayeredDecoder:
    """A Qwen2 decoder whose weights are read when they are needed.

    Args:
        config: sizes of the model.
        read: gives the tensor of a checkpoint key.
    """

    def __init__(self, config: LanguageConfig, read: Read):
        self.config, self._read = config, read
        self._qwen = qwen2_config(config)
        self._qwen._attn_implementation = "sdpa"
        self._rotary = Qwen2RotaryEmbedding(self._qwen)

    def read(self, key: str) -> Tensor:
        return self._read(key).float()

    def embed(self, one: LanguagePass, embedding: Tensor) -> Tensor:
        """What the first layer sees, [N, hidden].

        Args:
            embedding: of the words, [vocab, hidden].
        """
        ids, vocab = torch.from_numpy(one.token_ids), self.config.vocab
        text = embedding[ids.clamp(max=vocab - 1)]
        visual = torch.from_numpy(one.table)[(ids - vocab).clamp(min=0)]
        return text.where((ids < vocab)[:, None], visual)

    def layer(self, index: int) -> Qwen2DecoderLayer:
        """One layer with its weights."""
        with torch.device("meta"):
            layer = Qwen2DecoderLayer(self._qwen, index).eval()
        weights = {name: self.read(f"{layer_key(index)}.{name}") for name in layer.state_dict()}
        layer.load_state_dict(weights, assign=True)
        return layer.requires_grad_(False)

    def run(self, layer: Qwen2DecoderLayer, states: Tensor, one: LanguagePass) -> Tensor:
        """A layer's outputs [N, hidden] for its inputs [N, hidden]."""
        angles = self._rotary(states, torch.from_numpy(one.positions)[None])
        mask = torch.from_numpy(one.mask)[None, None]
        return layer(states[None], attention_mask=mask, position_embeddings=angles)[0]

    def hidden(self, states: Tensor) -> Tensor:
        """Final-norm hidden states of the last layer's outputs."""
        return functional.rms_norm(states, (self.config.hidden,), self.read(NORM), self.config.eps)

    def head(self) -> Tensor:
        """The readout's weight [vocab, hidden]."""
        return self.read(EMBEDDING if self.config.tied else HEAD)


@contextmanager
def watched_inputs(layer: nn.Module, watch: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Inside, `watch` is told the name of every linear part of a layer, and its input as rows, before it runs."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _module, inputs: watch(name, inputs[0].flatten(0, -2))

    linears = [(name, module) for name, module in layer.named_modules() if isinstance(module, nn.Linear)]
    handles = [module.register_forward_pre_hook(hook(name)) for name, module in linears]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
