"""Clips in colours and outlines that no name stands for, yet both said and shown (training only).

Training shows 35 pairs of colour and outline, and a small language model learns 35 pairs by heart: of a pair it has
never seen it then makes the nearest one it knows. So in most clips each colour becomes a mixture of all colours, and
each outline one of all outlines; another one in every clip, but alike in the embedding of the word, in the code of the
visual tokens and in the vector that the RST is to stand for. Those then have to be matched as they are, whatever they
are: there is nothing left to learn by heart. A mixture turns the looks about their mean, so that they stay as far apart
as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import expm
from torch import Tensor

from devil.data.clips import SyntheticClip
from devil.data.dice import Dice
from devil.data.shapes import COLOURS, SHAPES
from devil.prompt import PromptWriter

_PLAIN = 0.25  # of the clips stay as they are, and as many again mix colours only, or outlines only
_FURTHEST = 1.5  # spread of the angles by which looks are turned, radians


@dataclass(frozen=True)
class Mixture:
    """What colours [7, 7] and outlines [6, 6] of a clip become: rows of shares of the real ones that add up to 1."""

    colours: Tensor
    shapes: Tensor

    @property
    def plain(self) -> bool:
        """Whether everything stays what it is."""
        return all(bool((share == torch.eye(len(share))).all()) for share in (self.colours, self.shapes))


UNMIXED = Mixture(torch.eye(len(COLOURS)), torch.eye(len(SHAPES)))


def draw_mixture(dice: Dice) -> Mixture:
    """A mixture for one clip."""
    which = dice.weighted({"nothing": _PLAIN, "colours": _PLAIN, "shapes": _PLAIN, "both": 1 - 3 * _PLAIN})
    return Mixture(
        _turned(len(COLOURS), dice) if which in ("colours", "both") else UNMIXED.colours,
        _turned(len(SHAPES), dice) if which in ("shapes", "both") else UNMIXED.shapes,
    )


def _turned(count: int, dice: Dice) -> Tensor:
    """A random rotation of `count` points about their mean, [count, count]."""
    angles = np.array([[dice.uniform(-1, 1) for _ in range(count)] for _ in range(count)])
    centred = np.eye(count) - 1 / count
    turn = expm(dice.uniform(0, _FURTHEST) * centred @ (angles - angles.T) @ centred)
    return torch.from_numpy(turn.astype(np.float32))


def said(embeddings: Tensor, token_ids: np.ndarray, mixtures: Sequence[Mixture], words: Sequence[np.ndarray]) -> Tensor:
    """What mixtures change in the embeddings of a batch, [B, S, hidden].

    Args:
        embeddings: the model's table, [vocab, hidden].
        token_ids: int64 [B, S].
        words: tokens of the colours' and of the outlines' names.
    """
    changed = []
    for ids, mixture in zip(token_ids, mixtures, strict=True):
        change = torch.zeros(len(ids), embeddings.shape[1], device=embeddings.device)
        for names, share in zip(words, (mixture.colours, mixture.shapes), strict=True):
            places, which = np.nonzero(ids[:, None] == names)
            change[places] = _moved(embeddings[names], share)[which]
        changed.append(change)
    return torch.stack(changed)


def name_tokens(writer: PromptWriter) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of the colours' and of the outlines' names within a sentence, int64 [7] and [6]: one for each name."""
    colours, shapes = ([writer.text(f" {name}") for name in names] for names in (COLOURS, SHAPES))
    return np.array(colours)[:, 0], np.array(shapes)[:, 0]


def shown(
    tokens: Tensor,
    owner: np.ndarray,
    clips: Sequence[SyntheticClip],
    mixtures: Sequence[Mixture],
    codes: Sequence[Tensor],
) -> Tensor:
    """Visual tokens [B, T, G, hidden] that look as the mixtures say; what the eye misread stays misread.

    Args:
        owner: int64 [B, T, G], whose token each is, -1 for nobody's.
        codes: of the colours and of the outlines, [7, hidden] and [6, hidden].
    """
    changes = []
    for mine, clip, mixture in zip(owner, clips, mixtures, strict=True):
        change = _moved(codes[0], mixture.colours)[clip.colours] + _moved(codes[1], mixture.shapes)[clip.shapes]
        nobody = torch.zeros(1, tokens.shape[-1], device=tokens.device)  # the last row
        changes.append(torch.cat([change, nobody])[torch.from_numpy(mine)])
    return tokens + torch.stack(changes)


def meant(table: Tensor, mixtures: Tensor, names: Tensor) -> Tensor:
    """Text vectors [N, C] of a table [names, C], for names int64 [N] under mixtures [N, names, names]."""
    return mixtures.gather(1, names[:, None, None].expand(-1, 1, mixtures.shape[2]))[:, 0] @ table


def _moved(table: Tensor, share: Tensor) -> Tensor:
    """How far each row of a table [names, hidden] moves."""
    share = share.to(table)
    return (share - torch.eye(len(share)).to(table)) @ table
