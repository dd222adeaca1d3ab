"""Vision encoder and projector: transformers' SigLIP-NaViT modules, run on a batch of equally sized frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import VideoLlama3VisionConfig
from transformers.models.video_llama_3.modeling_video_llama_3 import VideoLlama3VisionModel

from devil.config import VisionConfig


def transformers_config(config: VisionConfig) -> VideoLlama3VisionConfig:
    return VideoLlama3VisionConfig(
        hidden_size=config.hidden,
        intermediate_size=config.mlp,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        patch_size=config.patch,
        layer_norm_eps=config.eps,
        hidden_act="gelu_pytorch_tanh",
    )


class VisionTower(nn.Module):
    """Patches of whole frames to merged, not yet projected tokens (reference §2.5).

    All frames of a video have one size, so the ragged sequence that transformers' own forward splits per frame is a
    plain batch here: the same numbers, without a loop over frames, and exportable.
    """

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.config = config
        self.vision_encoder = VideoLlama3VisionModel(transformers_config(config))
        self.register_buffer("mean", torch.tensor(config.mean), persistent=False)
        self.register_buffer("std", torch.tensor(config.std), persistent=False)

    def forward(self, patches: Tensor, positions: Tensor) -> Tensor:
        """
        Args:
            patches: uint8 [F, P, 3·patch²], merge-block first, each patch ordered (c, y, x).
            positions: int64 [P, 2], (row, column) of each patch.

        Returns:
            [F, P / merge², hidden]
        """
        encoder = self.vision_encoder
        embedding = encoder.embeddings.patch_embedding  # its stride is its kernel: a linear map of each patch
        x = functional.linear(self._normalised(patches), embedding.weight.flatten(1), embedding.bias)  # [F, P, hidden]
        cos, sin = self._rotary(positions)
        for layer in encoder.encoder.layers:
            x = x + self._attention(layer.self_attn, layer.layer_norm1(x), cos, sin)
            x = x + layer.mlp(layer.layer_norm2(x))
        x = encoder.post_layernorm(x)
        return x.view(x.shape[0], -1, self.config.merge**2, self.config.hidden).mean(2)

    def _normalised(self, patches: Tensor) -> Tensor:
        # Cast first: TensorRT takes bytes as inputs and can do nothing with them but cast.
        pixels = patches.float().unflatten(2, (3, -1)) / 255  # [F, P, 3, patch²]
        pixels = (pixels - self.mean.float().view(3, 1)) / self.std.float().view(3, 1)
        return pixels.flatten(2).to(self.vision_encoder.dtype)

    def _rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, float32 [P, head_dim]: row frequencies, then column frequencies, then both again."""
        angles = positions[..., None].float() * self.vision_encoder.rotary_pos_emb.inv_freq.float()  # [P, 2, D/4]
        angles = angles.flatten(1).repeat(1, 2)
        return angles.cos(), angles.sin()

    def _attention(self, attention: nn.Module, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Full attention inside each frame. x: [F, P, hidden]."""
        frames, count, hidden = x.shape
        heads = (frames, count, attention.num_heads, attention.head_dim)
        query = _rotate(attention.q_proj(x).view(heads).transpose(1, 2), cos, sin)  # [F, heads, P, D]
        key = _rotate(attention.k_proj(x).view(heads).transpose(1, 2), cos, sin)
        value = attention.v_proj(x).view(heads).transpose(1, 2)
        scores = query * attention.scaling @ key.transpose(2, 3)
        mixed = scores.softmax(-1, dtype=torch.float32).to(x.dtype) @ value
        return attention.out_proj(mixed.transpose(1, 2).reshape(frames, count, hidden))


class Projector(nn.Module):
    """`mlp2x_gelu`: vision width to language width."""

    def __init__(self, vision_hidden: int, language_hidden: int):
        super().__init__()
        self.readout = nn.Sequential(
            nn.Linear(vision_hidden, language_hidden), nn.GELU(), nn.Linear(language_hidden, language_hidden)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(x)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding in float32. x: [F, heads, P, D]; cos, sin: [P, D]."""
    first, second = x.float().chunk(2, dim=-1)
    half_turned = torch.cat((-second, first), dim=-1)
    return (x.float() * cos + half_turned * sin).to(x.dtype)
