"""Encoder: fusion with the one text token, the text layer, and deformable self-attention over the frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from devil.config import DetectorConfig
from devil.model.detector.attention import DeformableAttention, MultiheadAttention, Softmax
from devil.model.detector.positions import Grid, LevelPositions, PointLocations

SCORE_LIMIT = 50000.0  # keeps half precision finite
LAYER_SCALE = 1e-4  # initial share of a fusion layer's update


class FusionAttention(nn.Module):
    """Attention between L image tokens and one text token, exactly, without projecting the image tokens.

    Over one text token the image side's softmax is 1, so every image token gets the same update. The text side's score
    of token i is v_i · (Wᵀ k), and its values' weighted sum is the projection of the weighted sum.
    """

    def __init__(self, hidden: int, inner: int, heads: int):
        super().__init__()
        self.heads = heads
        self.v_proj = nn.Linear(hidden, inner)
        self.l_proj = nn.Linear(hidden, inner)
        self.values_v_proj = nn.Linear(hidden, inner)
        self.values_l_proj = nn.Linear(hidden, inner)
        self.out_v_proj = nn.Linear(inner, hidden)
        self.out_l_proj = nn.Linear(inner, hidden)
        self.softmax = Softmax()

    def reset_parameters(self) -> None:
        for linear in self.children():
            if isinstance(linear, nn.Linear):
                nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(linear.bias)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Updates [N, 1, C] of the image side and [N, C] of the text side, from image [N, L, C] and text [N, C]."""
        image_update = self.out_v_proj(self.values_l_proj(text))[:, None]
        pooled = self.softmax(self._scores(image, text)).to(image.dtype) @ image  # [N, heads, C]
        per_head = self.values_v_proj.weight.view(self.heads, -1, image.shape[-1])  # [heads, inner/heads, C]
        values = (per_head @ pooled[..., None]).flatten(1) + self.values_v_proj.bias
        return image_update, self.out_l_proj(values)

    def _scores(self, image: Tensor, text: Tensor) -> Tensor:
        """[N, heads, L]"""
        keys = self.l_proj(text).view(text.shape[0], self.heads, -1)  # [N, heads, inner/heads]
        keys = keys * keys.shape[-1] ** -0.5
        per_head = self.v_proj.weight.view(self.heads, -1, image.shape[-1])
        directions = (keys[:, :, None, :] @ per_head).squeeze(2)  # [N, heads, C]
        offsets = (keys * self.v_proj.bias.view(self.heads, -1)).sum(-1, keepdim=True)
        scores = directions @ image.transpose(1, 2) + offsets
        return scores.clamp(-SCORE_LIMIT, SCORE_LIMIT)


class FusionLayer(nn.Module):
    """Both sides are LayerNormed first, and the residual starts from the normed values."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.layer_norm_v = nn.LayerNorm(config.hidden)
        self.layer_norm_l = nn.LayerNorm(config.hidden)
        self.attn = FusionAttention(config.hidden, config.fusion_hidden, config.text_heads)
        self.gamma_v = nn.Parameter(torch.full((config.hidden,), LAYER_SCALE))
        self.gamma_l = nn.Parameter(torch.full((config.hidden,), LAYER_SCALE))

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """image [N, L, C] and text [N, C], each updated by the other."""
        image, text = self.layer_norm_v(image), self.layer_norm_l(text)
        image_update, text_update = self.attn(image, text)
        return image + self.gamma_v * image_update, text + self.gamma_l * text_update


class TextLayer(nn.Module):
    """Self-attention of the one text token (so positions do not matter), then a feed-forward."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.self_attn = MultiheadAttention(config.hidden, config.text_heads)
        self.linear1 = nn.Linear(config.hidden, config.fusion_hidden)
        self.linear2 = nn.Linear(config.fusion_hidden, config.hidden)
        self.norm1 = nn.LayerNorm(config.hidden)
        self.norm2 = nn.LayerNorm(config.hidden)

    def forward(self, text: Tensor) -> Tensor:
        """[N, C]"""
        text = self.norm1(text + self.self_attn.attend_one(text))
        return self.norm2(text + self.linear2(F.relu(self.linear1(text))))


class EncoderLayer(nn.Module):
    """Deformable self-attention over all levels, then a feed-forward."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        sizes = (config.hidden, config.heads, config.levels, config.points)
        self.self_attn = DeformableAttention(*sizes, PointLocations())
        self.norm1 = nn.LayerNorm(config.hidden)
        self.linear1 = nn.Linear(config.hidden, config.ffn)
        self.linear2 = nn.Linear(config.ffn, config.hidden)
        self.norm2 = nn.LayerNorm(config.hidden)

    def forward(self, image: Tensor, positions: Tensor, centers: Tensor, level_shapes: Tensor) -> Tensor:
        """[N, L, C] from image [N, L, C], positions [L, C] and centers [L, 2] in 0–1."""
        image = self.norm1(image + self.self_attn(image + positions, image, centers, level_shapes))
        return self.norm2(image + self.linear2(F.relu(self.linear1(image))))


class Encoder(nn.Module):
    def __init__(self, config: DetectorConfig):
        super().__init__()
        layers = range(config.encoder_layers)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in layers)
        self.text_layers = nn.ModuleList(TextLayer(config) for _ in layers)
        self.fusion_layers = nn.ModuleList(FusionLayer(config) for _ in layers)
        self.positions = LevelPositions(config.hidden, config.position_temperature)

    def forward(
        self, image: Tensor, text: Tensor, grid: Grid, level_embed: Tensor, level_shapes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """image [N, L, C] and text [N, C] that know of each other."""
        positions, centers = self.positions(grid, level_embed), grid.centers
        for fusion, text_layer, layer in zip(self.fusion_layers, self.text_layers, self.layers, strict=True):
            image, text = fusion(image, text)
            text = text_layer(text)
            image = layer(image, positions, centers, level_shapes)
        return image, text
