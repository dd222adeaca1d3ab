"""Choosing the integers of weight-only quantisation: round to nearest, with scales searched for the least error."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Gives the codes (int8 [rows, K]) and scales ([rows, K / block], in the type they are stored in) of some rows of the
# weight `key` (float32 [rows, K]), the last argument being the number of the first of them; the quantised weight is
# codes · scales, block by block along K. Whoever knows the activations can choose better ones than `nearest` does.
Quantiser = Callable[[str, Tensor, int, int, torch.dtype, int], tuple[Tensor, Tensor]]

# Scales tried, as a share of the one that lets the largest weight of a block reach the largest code. In 4 bits it pays
# to clip: the other weights of the block gain more than the largest loses. In 8 bits it does not.
_SHARES = {4: (1.0, 0.92, 0.84, 0.76), 8: (1.0,)}
SEARCH = "round to nearest, scales of least squared error"  # what `nearest` does, for the manifest

_STRETCH = 1 << 16  # weights quantised together: they stay in the processor's cache


def nearest(
    _key: str, weight: Tensor, bits: int, block: int, scale_type: torch.dtype, _first: int = 0
) -> tuple[Tensor, Tensor]:
    """Round to nearest, with the scale of each block searched for the least squared error (a `Quantiser`).

    Scales are positive and are rounded to their type before the codes are, so the codes fit what is stored.
    """
    rows, inputs = weight.shape
    blocks = weight.reshape(-1, block)
    codes = torch.empty(blocks.shape, dtype=torch.int8)
    scales = torch.empty(len(blocks), dtype=scale_type)
    stretch = max(1, _STRETCH // block)
    for start in range(0, len(blocks), stretch):
        part = slice(start, start + stretch)
        codes[part], scales[part] = _searched(blocks[part], bits, scale_type)
    return codes.reshape(rows, inputs), scales.reshape(rows, inputs // block)


def _searched(blocks: Tensor, bits: int, scale_type: torch.dtype) -> tuple[Tensor, Tensor]:
    """Codes and scales of blocks [n, block]: the best of a few scales, then the best scale for the codes it gives."""
    top = 2 ** (bits - 1) - 1
    full = blocks.abs().amax(1) / top
    found, least = torch.ones_like(full), torch.full_like(full, torch.inf)
    for share in _SHARES[bits]:
        scale = _stored(full * share, scale_type)
        inside = blocks / scale[:, None]
        error = torch.linalg.vector_norm(inside - _codes(inside, top), dim=1) * scale
        found, least = torch.where(error < least, scale, found), torch.minimum(error, least)
    codes = _codes(blocks / found[:, None], top)
    fitted = _stored((codes * blocks).sum(1) / codes.square().sum(1).clamp_(min=1), scale_type)
    return _codes(blocks / fitted[:, None], top).to(torch.int8), fitted.to(scale_type)


def _codes(scaled: Tensor, top: int) -> Tensor:
    return scaled.round().clamp_(-top - 1, top)


def _stored(scale: Tensor, scale_type: torch.dtype) -> Tensor:
    """A scale as it is once stored; so small a one that the type has few bits for it is raised."""
    return scale.to(scale_type).float().clamp_(min=least_scale(scale_type))


def least_scale(scale_type: torch.dtype) -> float:
    """The smallest scale that is stored. Weights below half of it become zeros."""
    return torch.finfo(scale_type).smallest_normal / 64
