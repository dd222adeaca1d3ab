"""Integers that make a layer's outputs right rather than its weights: GPTQ (Frantar et al., 2023, algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from devil.export.quantisation import least_scale

_DAMPING = 0.01  # share of the mean diagonal that is added to it: nearly dependent inputs would blow up the inverse
_SHARES = {4: (1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.76, 0.72), 8: (1.0,)}  # scales tried, of the largest weight's


def weighted_scales(weight: Tensor, importance: Tensor, bits: int, block: int, scale_type: torch.dtype) -> Tensor:
    """Scales [N, K / block] of weights [N, K]: of a few per block the one with the least weighted squared error.

    Args:
        importance: of each input's errors, [K]: its mean square.
    """
    top = 2 ** (bits - 1) - 1
    blocks = weight.reshape(len(weight), -1, block)
    weights = importance.reshape(-1, block)
    full = blocks.abs().amax(2) / top
    found, least = torch.ones_like(full), torch.full_like(full, torch.inf)
    for share in _SHARES[bits]:
        scale = stored(full * share, scale_type)
        error = (rounded(blocks, scale[..., None], top) * scale[..., None] - blocks).square().mul(weights).sum(2)
        found, least = torch.where(error < least, scale, found), torch.minimum(error, least)
    return found


def weighted_nearest(
    weight: Tensor, importance: Tensor, bits: int, block: int, scale_type: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Codes (int8 [N, K]) and scales: round to nearest with those scales."""
    scales = weighted_scales(weight, importance, bits, block, scale_type)
    codes = rounded(weight, scales.repeat_interleave(block, 1), 2 ** (bits - 1) - 1)
    return codes.to(torch.int8), scales.to(scale_type)


def gptq(weight: Tensor, moment: Tensor, bits: int, block: int, scale_type: torch.dtype) -> tuple[Tensor, Tensor]:
    """Codes (int8 [N, K]) and scales: inputs are rounded one after the other, and the ones that are left make up for
    the error so far.

    Args:
        weight: float32 [N, K].
        moment: mean of x xᵀ of the layer's inputs, [K, K].
    """
    weight, top = weight.clone(), 2 ** (bits - 1) - 1
    factor = inverse_factor(moment)
    importance = moment.diagonal()
    codes, scales = torch.empty(weight.shape, dtype=torch.int8), []
    for start in range(0, weight.shape[1], block):
        part = slice(start, start + block)
        own = weight[:, part]  # a view: what is rounded changes what is left
        scale = weighted_scales(own, importance[part], bits, block, scale_type)
        scales.append(scale)
        errors = torch.empty_like(own)
        for column in range(block):
            row = factor[start + column, part]
            code = rounded(own[:, column], scale[:, 0], top)
            codes[:, start + column] = code.to(torch.int8)
            errors[:, column] = (own[:, column] - code * scale[:, 0]) / row[column]
            own[:, column + 1 :] -= errors[:, column, None] * row[column + 1 :]
        weight[:, part.stop :] -= errors @ factor[part, part.stop :]
    return codes, torch.cat(scales, 1).to(scale_type)


def dequantised(codes: Tensor, scales: Tensor) -> Tensor:
    """The weights [N, K] that codes and scales stand for, float32."""
    return codes.float() * scales.float().repeat_interleave(codes.shape[1] // scales.shape[1], 1)


def rounded(weight: Tensor, scale: Tensor, top: int) -> Tensor:
    return (weight / scale).round().clamp_(-top - 1, top)


def stored(scale: Tensor, scale_type: torch.dtype) -> Tensor:
    """A scale as it is once stored."""
    return scale.to(scale_type).float().clamp_(min=least_scale(scale_type))


def inverse_factor(moment: Tensor) -> Tensor:
    """Upper Cholesky factor of the inverse of the damped moment.

    Inputs that never were anything but zero get a moment of one: their weights are rounded as if alone.
    """
    damped = moment.double().clone()
    diagonal = damped.diagonal()
    diagonal[diagonal == 0] = 1
    diagonal += _DAMPING * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True).float()
