"""How a small model begins: values that training would have to find first."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from devil.model.devil import DevilModel
from devil.prompt import PromptWriter, timestamp
from devil.training.tokenizer import LONGEST_CLIP

_SPREAD = 0.3  # of the embeddings: text is as loud as the visual tokens
_QUIET = 0.2  # of that is left in the output weights, so that the first predictions are nearly uniform
_WRITERS = ("o_proj", "out_proj", "down_proj", "fc2")  # layers that write to the residual stream
_WAVES = (0.8, 50.0)  # seconds, shortest and longest


def begin(model: DevilModel, writer: PromptWriter) -> None:
    """Initialises everything but the detector, which initialises itself.

    The published widths do well with a deviation of 0.02; at a tenth of the width that makes a layer's update vanish.
    Here it follows the number of inputs, and the layers that write to the residual stream share their sum.
    """
    _begin_layers(model.model.vision_encoder, model.devil.vision.layers)
    _begin_layers(model.model.layers, model.devil.language.layers)
    _begin_words(model, writer)


@torch.no_grad()
def _begin_layers(stack: nn.Module, layers: int) -> None:
    for name, parameter in stack.named_parameters():
        if parameter.dim() > 1:
            deviation = 1 / math.sqrt(parameter[0].numel())
            writes = name.removesuffix(".weight").endswith(_WRITERS)
            parameter.normal_(std=deviation / math.sqrt(2 * layers) if writes else deviation)


@torch.no_grad()
def _begin_words(model: DevilModel, writer: PromptWriter) -> None:
    """Output weights start as the embeddings, so that copying a token is easy, and times start out as a smooth code."""
    table, head = model.model.embed_tokens.weight, model.lm_head.weight
    table.normal_(std=_SPREAD)
    for tenth in range(round(LONGEST_CLIP * 10) + 1):
        (token,) = writer.text(timestamp(tenth / 10))
        table[token] = (table[token] + 2 * _SPREAD * time_code(tenth / 10, table.shape[1])) / math.sqrt(3)
    head.copy_(_QUIET * table)


def time_code(seconds: float, size: int) -> Tensor:
    """Sines and cosines of `size` / 2 wave lengths, [size], mean square 1/2."""
    waves = torch.logspace(math.log10(_WAVES[0]), math.log10(_WAVES[1]), size // 2)
    angles = 2 * math.pi * seconds / waves
    return torch.cat([angles.sin(), angles.cos()])
