"""Activation-aware scales (AWQ: Lin et al., 2024): inputs that matter are stretched before their weights are rounded.

`(W · s)(x / s) = W x` whatever the scales s, but the weights of a stretched input lie on a relatively finer grid. The
division costs nothing where it is folded into what makes the input: the weights of a norm, or the rows of a projection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from devil.calibration.language.statistics import InputStatistics, output_error
from devil.config import LanguageConfig

EXPONENTS = tuple(step / 20 for step in range(20))  # 0: no scales
_LEAST = 1e-4

Round = Callable[[Tensor, Tensor], Tensor]  # a weight and the moment of its inputs → the weight after rounding


@dataclass(frozen=True)
class Fold:
    """Linear parts of a decoder layer that share an input, and the part that makes this input.

    Attributes:
        maker: whose outputs are divided.
        linears: whose inputs are multiplied.
    """

    maker: str
    linears: tuple[str, ...]


FOLDS = (
    Fold("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    Fold("self_attn.v_proj", ("self_attn.o_proj",)),
    Fold("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
    Fold("mlp.up_proj", ("mlp.down_proj",)),
)


def search_scales(weights: Sequence[Tensor], inputs: InputStatistics, sizes: Tensor, round_weight: Round) -> Tensor:
    """Of mean |x| to several powers the scales [K] with the least error of all outputs together.

    Args:
        weights: [N, K] each, of linears with the same input.
        inputs: what flows into them.
        sizes: mean |x| [K], equal where scales must be.
        round_weight: what will be done to a weight.
    """
    moment = inputs.mean_moment
    best, least = torch.ones_like(sizes), float("inf")
    for exponent in EXPONENTS:
        scales = _normalised(sizes.clamp(min=_LEAST * float(sizes.max()) + 1e-30) ** exponent)
        scaled_moment = moment / (scales[:, None] * scales)
        error = sum(
            output_error(round_weight(weight * scales, scaled_moment) - weight * scales, scaled_moment)
            for weight in weights
        )
        if error < least:
            best, least = scales, error
    return best


def made_scales(folding: Fold, scales: Tensor, config: LanguageConfig) -> Tensor:
    """Scales of what the maker puts out: a value head feeds the heads of its whole group."""
    if folding.maker != "self_attn.v_proj":
        return scales
    return scales.reshape(config.kv_heads, -1, config.head_dim)[:, 0].flatten()


def shared_sizes(folding: Fold, sizes: Tensor, config: LanguageConfig) -> Tensor:
    """Mean |x| [K], the same for inputs that one output of the maker feeds."""
    if folding.maker != "self_attn.v_proj":
        return sizes
    groups = sizes.reshape(config.kv_heads, -1, config.head_dim)
    return groups.mean(1, keepdim=True).expand_as(groups).flatten()


def _normalised(scales: Tensor) -> Tensor:
    """Spread around one, so that neither side's numbers grow."""
    return scales / (scales.max() * scales.min()).sqrt()
