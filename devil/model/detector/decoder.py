"""Decoder: queries look at each other, at the text and at the frame; after each layer only the best go on."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from devil.config import DetectorConfig
from devil.model.detector.attention import DeformableAttention, MultiheadAttention
from devil.model.detector.positions import BoxLocations, BoxPositions, RefineBoxes
from devil.model.detector.proposals import KeepScores, Mlp, TextLogits, take


class LayerOutput(NamedTuple):
    """What one decoder layer says about the queries that outlive it."""

    logits: Tensor  # [N, n] f32
    boxes: Tensor  # [N, n, 4] f32 cx, cy, w, h in 0–1
    embeddings: Tensor  # [N, n, C] f32


class DecoderLayer(nn.Module):
    def __init__(self, config: DetectorConfig):
        super().__init__()
        hidden = config.hidden
        self.self_attn = MultiheadAttention(hidden, config.heads)
        self.norm2 = nn.LayerNorm(hidden)
        self.ca_text = MultiheadAttention(hidden, config.heads)
        self.catext_norm = nn.LayerNorm(hidden)
        self.cross_attn = DeformableAttention(hidden, config.heads, config.levels, config.points, BoxLocations())
        self.norm1 = nn.LayerNorm(hidden)
        self.linear1 = nn.Linear(hidden, config.ffn)
        self.linear2 = nn.Linear(config.ffn, hidden)
        self.norm3 = nn.LayerNorm(hidden)

    def forward(
        self, queries: Tensor, positions: Tensor, boxes: Tensor, image: Tensor, text: Tensor, level_shapes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """New queries [N, n, C] and their self-attention [N, heads, n, n]; boxes [N, n, 4] are the references."""
        update, attention = self.self_attn(queries + positions, queries)
        queries = self.norm2(queries + update)
        queries = self.catext_norm(queries + self.ca_text.attend_one(text)[:, None])
        queries = self.norm1(queries + self.cross_attn(queries + positions, image, boxes, level_shapes))
        return self.norm3(queries + self.linear2(F.relu(self.linear1(queries)))), attention


class Decoder(nn.Module):
    def __init__(self, config: DetectorConfig):
        super().__init__()
        hidden = config.hidden
        self.kept = config.kept_queries
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(hidden)
        self.ref_point_head = Mlp(2 * hidden, hidden, hidden)
        self.positions = BoxPositions(hidden)
        self.refine = RefineBoxes()
        self.text_logits = TextLogits()
        self.keep_scores = KeepScores()

    def forward(
        self, queries: Tensor, boxes: Tensor, image: Tensor, text: Tensor, level_shapes: Tensor, box_head: nn.Module
    ) -> tuple[LayerOutput, ...]:
        """One output per layer, from queries [N, n, C] and boxes [N, n, 4].

        References carry no gradient into the next layer's attention, but do into the next layer's output boxes.
        """
        outputs = []
        for layer, kept in zip(self.layers, self.kept, strict=True):
            references = boxes.detach()
            positions = self.ref_point_head(self.positions(references).to(queries.dtype))
            queries, attention = layer(queries, positions, references, image, text, level_shapes)
            normed = self.norm(queries)
            logits = self.text_logits(normed, text)
            if kept < queries.shape[1]:
                index = self.keep_scores(logits, attention).topk(kept, 1).indices
                queries, normed, logits, boxes = (take(values, index) for values in (queries, normed, logits, boxes))
            outputs.append(LayerOutput(logits, self.refine(box_head(normed), boxes), normed.float()))
            boxes = self.refine(box_head(queries), boxes.detach())
        return tuple(outputs)
