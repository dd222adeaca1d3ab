"""How a small language model begins to compare frames: two heads that look for the same shape in the same place.

Whether a shape rests or moves shows only by comparing where it is with where it was. The product of queries and keys
does that by itself, once both read where a shape is; training from noise takes thousands of steps to find it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from devil.model.devil import DevilModel
from devil.training.symbols import SymbolTokens

LAYER = 1  # the decoder layer whose last key-value head, with its queries, is set
_WAVE_GAINS = (2.5, 3.5, 4.5, 4.5)  # of each wave of a place, slow ones first: fast ones tell places apart
_LOOK_GAIN = 5.0  # of colours and shapes
_NOWHERE = 21.0  # the score of the first token, which wins where nothing matches
_SELF = math.sqrt(8 * 5.0)  # makes a token look at earlier frames rather than at itself
_SELF_PAIR = 4  # of the rotary pairs, one whose angle grows by half a turn over about a frame's tokens


@torch.no_grad()
def begin_comparison(model: DevilModel, symbols: SymbolTokens, first_token: int) -> None:
    """Sets queries and keys of the last key-value head of layer `LAYER`, whose heads are at least 62 wide.

    Args:
        symbols: the codes that visual tokens are made to resemble.
        first_token: id of the token that every prompt begins with.
    """
    attention = model.model.layers[LAYER].self_attn
    size, half = attention.head_dim, attention.head_dim // 2
    rows = _reading_rows(symbols)
    # Rotary angles of the second half of the pairs hardly change within a clip: what lies there is compared as it is.
    slots = [*range(half // 2, half), *range(half + half // 2, size)][: len(rows)]
    key, query = torch.zeros(size, rows.shape[1]), torch.zeros(size, rows.shape[1])
    key_bias, query_bias = torch.zeros(size), torch.zeros(size)
    key[slots] = query[slots] = rows
    embedding = model.model.embed_tokens.weight[first_token]
    free = size - 3  # of the slots, one that the rows leave
    key[free] = math.sqrt(size) / math.sqrt(len(embedding)) * embedding / embedding.norm()
    query_bias[free] = _NOWHERE
    query_bias[_SELF_PAIR], key_bias[_SELF_PAIR] = _SELF, -_SELF
    attention.k_proj.weight[-size:], attention.k_proj.bias[-size:] = key, key_bias
    groups = attention.num_key_value_groups
    attention.q_proj.weight[-groups * size :] = query.repeat(groups, 1)
    attention.q_proj.bias[-groups * size :] = query_bias.repeat(groups)


def _reading_rows(symbols: SymbolTokens) -> Tensor:
    """Linear read-outs of a normed code's place within its cell (x and y), colour and shape, [D, hidden]."""
    parts = (symbols.place, symbols.colour, symbols.shape, symbols.size, symbols.pale, symbols.empty)
    read = torch.linalg.pinv(torch.cat(parts)).T  # [codes, hidden]
    # A code holds one colour, shape, size and face, and of every wave a sine and a cosine.
    power = symbols.place.square().mean(1).sum() / 2 + sum(part.square().mean() for part in parts[1:-1])
    waves = len(_WAVE_GAINS)
    gains = torch.tensor(_WAVE_GAINS * 4)  # sines and cosines of x, then of y
    looks = slice(len(symbols.place), len(symbols.place) + len(symbols.colour) + len(symbols.shape))
    return power.sqrt() * torch.cat([read[: 4 * waves] * gains[:, None], read[looks] * _LOOK_GAIN])
