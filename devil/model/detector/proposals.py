"""Which encoder positions become queries, and what every score is: the dot product with the text token."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Proposals(NamedTuple):
    logits: Tensor  # [N, k] f32
    boxes: Tensor  # [N, k, 4] f32 cx, cy, w, h in 0–1


class Mlp(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *widths: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class TextLogits(nn.Module):
    """How well states match the text token, in float32."""

    def forward(self, states: Tensor, text: Tensor) -> Tensor:
        """[N, n] from states [N, n, C] and text [N, C]."""
        return (states.float() @ text.float()[:, :, None]).squeeze(-1)


class KeepScores(nn.Module):
    """Score of each query for outliving a decoder layer (query decay), in float32.

    The mean of two softmaxes over the queries: of the text logits, and of the attention that a query receives from the
    other queries, averaged over heads.
    """

    def forward(self, logits: Tensor, attention: Tensor) -> Tensor:
        """[N, n] from logits [N, n] and self-attention weights [N, heads, n (attending), n (attended)]."""
        count = attention.shape[-1]
        attention = attention.float().mean(1)
        itself = attention.flatten(1)[:, torch.arange(count, device=attention.device) * (count + 1)]
        received = attention.sum(1) - itself
        return (logits.float().softmax(-1) + received.softmax(-1)) / 2


def take(values: Tensor, index: Tensor) -> Tensor:
    """values [N, n, …] at index [N, k] of each row: [N, k, …]."""
    if values.dim() == 2:
        return values.gather(1, index)
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[-1]))
