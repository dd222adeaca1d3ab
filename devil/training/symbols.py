"""What a perfect eye would tell the language model: a fixed code of each visual token's labels.

The language model first learns on these codes what happens when, which needs no picture; meanwhile the vision encoder
learns to produce them from pictures. Both are then joined. The codes exist in training only.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from devil.data.shapes import COLOURS, SHAPES
from devil.training.labels import SIZES, TokenLabels

_SEED = 20
_OFFSET_WAVES = 4  # sines and cosines per coordinate
_NOISE = 0.3  # deviation, against a code of mean square ≈ 1


class SymbolTokens(nn.Module):
    """Codes are sums of fixed random vectors: one per colour, shape, size and face, and a smooth one of the place."""

    def __init__(self, hidden: int):
        super().__init__()
        random = torch.Generator().manual_seed(_SEED)

        def vectors(count: int, loudness: float) -> Tensor:
            return torch.randn(count, hidden, generator=random) * loudness

        self.register_buffer("empty", vectors(1, 0.6), persistent=False)
        self.register_buffer("colour", vectors(len(COLOURS), 0.6), persistent=False)
        self.register_buffer("shape", vectors(len(SHAPES), 0.6), persistent=False)
        self.register_buffer("size", vectors(len(SIZES), 0.2), persistent=False)
        self.register_buffer("pale", vectors(2, 0.4), persistent=False)
        self.register_buffer("place", vectors(4 * 2 * _OFFSET_WAVES, 0.15), persistent=False)

    def forward(self, labels: TokenLabels) -> Tensor:
        """[..., hidden] for labels of any leading shape."""
        owned = self._tensor(labels.owner >= 0)[..., None]
        waves = 2.0 ** torch.arange(_OFFSET_WAVES, device=self.place.device) * (math.pi / 2)
        angles = self._tensor(labels.offset)[..., None] * waves  # [..., 4, waves]
        place = torch.cat([angles.sin(), angles.cos()], -1).flatten(-2) @ self.place
        shown = place
        for name in ("colour", "shape", "size", "pale"):
            index = self._tensor(np.maximum(getattr(labels, name).astype(np.int64), 0))
            shown = shown + getattr(self, name)[index]
        return torch.where(owned, shown, self.empty[0])

    def noisy(self, labels: TokenLabels) -> Tensor:
        """Codes as an imperfect eye would tell them."""
        codes = self(labels)
        return codes + _NOISE * torch.randn_like(codes)

    def likeness_loss(self, tokens: Tensor, labels: TokenLabels) -> Tensor:
        """Mean squared distance of tokens [..., hidden] from their codes; owned ones weigh as much as empty ones."""
        distance = F.mse_loss(tokens, self(labels), reduction="none").mean(-1)
        owned = self._tensor(labels.owner >= 0)
        share = owned.float().mean().clamp(0.01, 0.99)
        weight = torch.where(owned, 0.5 / share, 0.5 / (1 - share))
        return (weight * distance).mean()

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.place.device)
