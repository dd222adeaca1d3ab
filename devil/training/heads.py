"""Auxiliary heads: they teach the vision encoder and the language model what to see, and are dropped on saving."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from devil.data.scene import Query
from devil.data.script import KINDS
from devil.data.shapes import COLOURS, SHAPES
from devil.training.codes import time_code
from devil.training.labels import SIZES, TokenLabels
from devil.training.tokenizer import LONGEST_CLIP

_TIME_CODE = 64  # values of a time's code


class AppearanceHeads(nn.Module):
    """From one visual token: is a shape's centre in its cell, which one, and where exactly."""

    def __init__(self, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.sizes = {
            "found": 1,
            "colour": len(COLOURS),
            "shape": len(SHAPES),
            "size": len(SIZES),
            "pale": 1,
            "offset": 4,
        }
        self.out = nn.Linear(hidden, sum(self.sizes.values()))

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """[..., hidden] to logits (and offsets) by name, [..., its size]."""
        return dict(zip(self.sizes, self.out(self.norm(tokens)).split(list(self.sizes.values()), -1), strict=True))

    def losses(self, tokens: Tensor, labels: TokenLabels) -> dict[str, Tensor]:
        """Unweighted losses; all but `found` are means over the tokens that own a shape."""
        said = self(tokens)
        owned = torch.from_numpy(labels.owner >= 0).to(tokens.device)
        return {
            "found": F.binary_cross_entropy_with_logits(said["found"][..., 0], owned.float()),
            "colour": _classified(said["colour"], labels.colour),
            "shape": _classified(said["shape"], labels.shape),
            "size": _classified(said["size"], labels.size),
            "pale": _judged(said["pale"][..., 0], labels.pale, owned),
            "offset": _distance(said["offset"], labels.offset, labels.owner >= 0),
        }


class HistoryHeads(nn.Module):
    """From a visual token inside the language model: the time of its frame, and what its shape has just done.

    The time is told as a smooth code and judged by its nearness to the codes of all tenths of a second, so that what is
    learned about one time holds for its neighbours.
    """

    def __init__(self, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.sizes = {"time": _TIME_CODE, "moved": 1, "new": 1, "before": 4, "shift": 2}
        self.out = nn.Linear(hidden, sum(self.sizes.values()))
        codes = [time_code(tenth / 10, _TIME_CODE) for tenth in range(round(LONGEST_CLIP * 10) + 1)]
        self.register_buffer("codes", torch.stack(codes), persistent=False)

    def losses(self, tokens: Tensor, labels: TokenLabels, times: np.ndarray) -> dict[str, Tensor]:
        """Tokens [B, T, G, hidden] with labels [B, T, G] and seconds [B, T]; unweighted."""
        said = dict(zip(self.sizes, self.out(self.norm(tokens)).split(list(self.sizes.values()), -1), strict=True))
        owned = torch.from_numpy(labels.owner >= 0).to(tokens.device)
        tenths = torch.from_numpy(np.rint(times * 10).astype(np.int64)).to(tokens.device)
        return {
            "time": F.cross_entropy(said["time"][owned] @ self.codes.T, tenths[..., None].expand(owned.shape)[owned]),
            "moved": _judged(said["moved"][..., 0], labels.moved, owned),
            "new": _judged(said["new"][..., 0], labels.new, owned),
            "before": _distance(said["before"], labels.before, labels.had),
            "shift": _distance(said["shift"], labels.shift, labels.had),
        }


class EventHeads(nn.Module):
    """From a visual token inside the language model: which events its shape is in, and which begin."""

    def __init__(self, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(hidden, 2 * len(KINDS))

    def losses(self, tokens: Tensor, owner: np.ndarray, holds: np.ndarray, begins: np.ndarray) -> dict[str, Tensor]:
        """Tokens [B, T, G, hidden], owner [B, T, G], labels bool [B, T, G, kinds]; summed over the kinds."""
        owned = torch.from_numpy(owner >= 0).to(tokens.device)
        holding, beginning = self.out(self.norm(tokens)).chunk(2, -1)
        kinds = len(KINDS)
        return {
            "holds": kinds * _judged(holding, holds, owned),
            "begins": kinds * _judged(beginning, begins, owned),
        }


class QuestionHeads(nn.Module):
    """From a token of the answer inside the language model: what the sentence names, and which event it asks for."""

    def __init__(self, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.sizes = [len(COLOURS), len(SHAPES), len(KINDS)]
        self.out = nn.Linear(hidden, sum(self.sizes))

    def loss(self, tokens: Tensor, queries: Sequence[Query], plain: np.ndarray) -> Tensor:
        """Tokens [N, hidden] of N questions; colours and shapes that a sentence does not name are left out.

        So are those of questions that are not `plain`, bool [N]: they are mixtures (see devil.training.mixing).
        """
        said = self.out(self.norm(tokens)).split(self.sizes, -1)
        named = np.array([_named(query) for query in queries], np.int64).T
        named[:2, ~plain] = -1
        return sum(_classified(logits, wanted) for logits, wanted in zip(said, named, strict=True))


def _named(query: Query) -> tuple[int, int, int]:
    """Indices of colour, shape (-1 where not named) and kind."""
    words = query.sentence.rstrip("?").split()
    colour = [index for index, name in enumerate(COLOURS) if name in words]
    shape = [index for index, name in enumerate(SHAPES) if name in words]
    return (colour or [-1])[0], (shape or [-1])[0], KINDS.index(query.kind)


class ReferentHeads(nn.Module):
    """From an RST: the colour and the shape it stands for; and the other way round, the text vector of a pair.

    The tables are the oracle that the detector is warmed up with, before there is a language model to ask.
    """

    def __init__(self, text_hidden: int):
        super().__init__()
        self.colour = nn.Embedding(len(COLOURS), text_hidden)
        self.shape = nn.Embedding(len(SHAPES), text_hidden)

    def forward(self, colours: Tensor, shapes: Tensor) -> Tensor:
        """The detector's text vectors [..., text hidden] of colour and shape indices."""
        return self.colour(colours) + self.shape(shapes)


def _classified(logits: Tensor, labels: np.ndarray) -> Tensor:
    wanted = torch.from_numpy(labels).to(logits.device).flatten()
    return F.cross_entropy(logits.flatten(0, -2), wanted, ignore_index=-1, reduction="sum") / max(
        (labels >= 0).sum(), 1
    )


def _judged(logits: Tensor, labels: np.ndarray, owned: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits[owned], torch.from_numpy(labels).to(logits.device)[owned].float())


def _distance(said: Tensor, wanted: np.ndarray, counts: np.ndarray) -> Tensor:
    """Mean absolute distance over the tokens that count; 0 if none does."""
    chosen = torch.from_numpy(counts).to(said.device)
    return (said - torch.from_numpy(wanted).to(said.device))[chosen].abs().sum() / max(
        wanted.shape[-1] * counts.sum(), 1
    )
