"""How a small model begins: values that training would have to find first."""

from __future__ import annotations

import math

import torch
from torch import nn

from devil.model.devil import DevilModel
from devil.prompt import PromptWriter, timestamp
from devil.training.codes import time_code
from devil.training.tokenizer import LONGEST_CLIP

_SPREAD = 0.3  # of the embeddings: text is as loud as the visual tokens
_QUIET = 0.2  # of that is left in the output weights, so that the first predictions are nearly uniform
_PATCH_SCALE = 0.1  # brings a patch's cosine coefficients, which fall with frequency, near one
_WRITERS = ("o_proj", "out_proj", "down_proj", "fc2")  # layers that write to the residual stream


def begin(model: DevilModel, writer: PromptWriter) -> None:
    """Initialises everything but the detector, which initialises itself.

    The published widths do well with a deviation of 0.02; at a tenth of the width that makes a layer's update vanish.
    Here it follows the number of inputs, and the layers that write to the residual stream share their sum.
    """
    _begin_layers(model.model.vision_encoder, model.devil.vision.layers)
    _begin_layers(model.model.layers, model.devil.language.layers)
    _begin_patches(model.model.vision_encoder.vision_encoder.embeddings.patch_embedding)
    _begin_words(model, writer)


@torch.no_grad()
def _begin_layers(stack: nn.Module, layers: int) -> None:
    for name, parameter in stack.named_parameters():
        if parameter.dim() > 1:
            deviation = 1 / math.sqrt(parameter[0].numel())
            writes = name.removesuffix(".weight").endswith(_WRITERS)
            parameter.normal_(std=deviation / math.sqrt(2 * layers) if writes else deviation)


@torch.no_grad()
def _begin_patches(embedding: nn.Conv2d) -> None:
    """Patches start out as their lowest cosine frequencies, half of them of brightness, a quarter of each colour axis.

    White-noise filters see hardly anything of what a picture shows; these see edges and corners from the first step.
    """
    outputs, _, size, _ = embedding.weight.shape
    wave = torch.arange(size, dtype=torch.float32)
    cosines = torch.cos(math.pi / size * (wave + 0.5) * wave[:, None]) * math.sqrt(2 / size)  # [frequency, pixel]
    cosines[0] /= math.sqrt(2)
    by_frequency = sorted((row + column, row, column) for row in range(size) for column in range(size))
    axes = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]])
    filters = []
    counts = (outputs - 2 * (outputs // 4), outputs // 4, outputs // 4)
    for axis, count in zip(axes / axes.norm(dim=1, keepdim=True), counts, strict=True):
        for total, row, column in by_frequency[:count]:
            plane = cosines[row][:, None] * cosines[column] * (1 + total) * _PATCH_SCALE
            filters.append(axis[:, None, None] * plane)
    embedding.weight.copy_(torch.stack(filters))


@torch.no_grad()
def _begin_words(model: DevilModel, writer: PromptWriter) -> None:
    """Output weights start as the embeddings, so that copying a token is easy, and times start out as a smooth code."""
    table, head = model.model.embed_tokens.weight, model.lm_head.weight
    table.normal_(std=_SPREAD)
    for tenth in range(round(LONGEST_CLIP * 10) + 1):
        (token,) = writer.text(timestamp(tenth / 10))
        table[token] = (table[token] + 2 * _SPREAD * time_code(tenth / 10, table.shape[1])) / math.sqrt(3)
    head.copy_(_QUIET * table)
