"""What a perfect eye would tell the language model: a fixed code of each visual token's labels.

The language model first learns on these codes what happens when, which needs no picture; meanwhile the vision encoder
learns to produce them from pictures. Both are then joined. The codes exist in training only.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from devil.data.shapes import COLOURS, SHAPES
from devil.training.labels import SIZES, TokenLabels

_SEED = 20
_WAVES = (0.4, 0.25, 0.15, 0.1)  # loudness of the sines and cosines of a coordinate, slow ones first
_NOISE = 0.3  # deviation, against a code of mean square ≈ 2
_FLICKER = 0.1  # deviation between two looks at the same thing


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
        for name in ("colour", "shape"):  # projections onto the codes of all colours and all shapes
            basis = torch.linalg.qr(getattr(self, name).T)[0]
            self.register_buffer(f"of_{name}s", basis @ basis.T, persistent=False)
        self.register_buffer("size", vectors(len(SIZES), 0.2), persistent=False)
        self.register_buffer("pale", vectors(2, 0.4), persistent=False)
        loudness = torch.tensor(_WAVES).repeat(4 * 2)[:, None]
        self.register_buffer("place", vectors(len(loudness), 1.0) * loudness, persistent=False)

    def forward(self, labels: TokenLabels) -> Tensor:
        """[..., hidden] for labels of any leading shape."""
        owned = self._tensor(labels.owner >= 0)[..., None]
        waves = 2.0 ** torch.arange(len(_WAVES), device=self.place.device) * (math.pi / 2)
        angles = self._tensor(labels.offset)[..., None] * waves  # [..., 4, waves]
        place = torch.cat([angles.sin(), angles.cos()], -1).flatten(-2) @ self.place
        shown = place
        for name in ("colour", "shape", "size", "pale"):
            index = self._tensor(getattr(labels, name).astype(np.int64))
            shown = shown + getattr(self, name)[index.clamp(min=0)] * (index >= 0)[..., None]
        return torch.where(owned, shown, self.empty[0])

    def noisy(self, labels: TokenLabels) -> Tensor:
        """Codes [B, T, G, hidden] as an imperfect eye would tell them: what has not changed is misread as before."""
        codes = self(labels)
        misread = _NOISE * torch.randn_like(codes)
        unchanged = self._tensor(_unchanged(labels))[..., None]
        for frame in range(1, codes.shape[1]):
            misread[:, frame] = torch.where(unchanged[:, frame], misread[:, frame - 1], misread[:, frame])
        return codes + misread + _FLICKER * torch.randn_like(codes)

    def likeness_loss(self, tokens: Tensor, labels: TokenLabels) -> Tensor:
        """Mean squared distance of tokens [..., hidden] from their codes; owned ones weigh as much as empty ones.

        What a token says of a colour or a shape that its label does not tell does not count.
        """
        difference = tokens - self(labels)
        for name, projection in (("colour", self.of_colours), ("shape", self.of_shapes)):
            untold = self._tensor((labels.owner >= 0) & (getattr(labels, name) < 0))[..., None]
            difference = torch.where(untold, difference - difference @ projection, difference)
        distance = difference.square().mean(-1)
        owned = self._tensor(labels.owner >= 0)
        share = owned.float().mean().clamp(0.01, 0.99)
        weight = torch.where(owned, 0.5 / share, 0.5 / (1 - share))
        return (weight * distance).mean()

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.place.device)


def _unchanged(labels: TokenLabels) -> np.ndarray:
    """bool [B, T, G], whether a token's cell looks as it did in the frame before."""
    unchanged = np.zeros(labels.owner.shape, bool)
    alike = (labels.owner[:, 1:] == labels.owner[:, :-1]) & (labels.pale[:, 1:] == labels.pale[:, :-1])
    unchanged[:, 1:] = alike & ~labels.moved[:, 1:] & (labels.shift[:, 1:] == 0).all(-1)
    return unchanged
