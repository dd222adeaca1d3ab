"""Clips whose shapes show only their outline, or only their colour, and are asked for by that alone (training only).

Every clip shows pairs of colour and outline that training may show, and a small language model learns them by heart: of
pairs it has never seen it then makes the nearest one it knows. Where the other half is something never seen before, in
every clip anew, there is nothing to learn by heart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from devil.data.clips import SyntheticClip
from devil.data.dice import Dice
from devil.data.scene import Query
from devil.data.shapes import COLOURS, SHAPES
from devil.training.symbols import SymbolTokens

Blind = Literal["colour", "shape"] | None  # what is not shown
_SHARE = 0.6  # of the clips, as far as something in them has a colour or an outline of its own


def blinded(clip: SyntheticClip, dice: Dice) -> tuple[Blind, list[Query]]:
    """What a clip does not show, and what can still be asked about it: sentences that name what it does show."""
    kinds: list[Blind] = ["colour", "shape"] if dice.chance(0.5) else ["shape", "colour"]
    for blind in kinds if dice.chance(_SHARE) else ():
        labels = clip.shapes if blind == "colour" else clip.colours
        alone = [query for query in clip.queries if (labels == labels[query.target]).sum() == 1]
        if alone:
            return blind, [replace(query, sentence=_naming(query, clip, blind)) for query in alone]
    return None, list(clip.queries)


def _naming(query: Query, clip: SyntheticClip, blind: Blind) -> str:
    """The sentence with the target named by what is shown, and by nothing else."""
    colour, shape = list(COLOURS)[clip.colours[query.target]], SHAPES[clip.shapes[query.target]]
    name = shape if blind == "colour" else f"{colour} shape"
    words = [word for word in query.sentence.split() if word not in COLOURS]
    return " ".join(re.sub(r"^\w+", name, word) if word.rstrip("?") in (shape, "shape") else word for word in words)


def hide(tokens: Tensor, owner: np.ndarray, blind: Sequence[Blind], symbols: SymbolTokens) -> Tensor:
    """Visual tokens [B, T, G, hidden] with the colours (or shapes) of blind clips replaced by codes never seen before.

    Args:
        owner: int64 [B, T, G], whose token each is, -1 for nobody's.
        blind: [B].
    """
    hidden = list(tokens)
    for clip, what in enumerate(blind):
        if what is None:
            continue
        projection, codes = getattr(symbols, f"of_{what}s"), getattr(symbols, what)
        whose = torch.from_numpy(owner[clip])
        strange = torch.randn(int(whose.max()) + 1, codes.shape[1]) @ projection
        strange = strange * (codes.norm(dim=1).mean() / strange.norm(dim=1, keepdim=True))
        seen = tokens[clip] - tokens[clip] @ projection + strange[whose.clamp(min=0)]
        hidden[clip] = torch.where((whose >= 0)[..., None], seen, tokens[clip])
    return torch.stack(hidden)
