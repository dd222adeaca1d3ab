"""A time as a smooth vector: near times have near codes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WAVES = (0.8, 50.0)  # seconds, shortest and longest


def time_code(seconds: float, size: int) -> Tensor:
    """Sines and cosines of `size` / 2 wave lengths, [size], mean square 1/2."""
    waves = torch.logspace(math.log10(_WAVES[0]), math.log10(_WAVES[1]), size // 2)
    angles = 2 * math.pi * seconds / waves
    return torch.cat([angles.sin(), angles.cos()])
