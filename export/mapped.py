"""Parts of a model whose float32 weights lie in a file that the system pages, not in memory of the process."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Collection
from pathlib import Path

import torch
from torch import nn

from devil.model.checkpoint import Part, part_of, tie
from devil.model.devil import DevilModel
from devil.model.weights import WeightSource


def fill_mapped(model: DevilModel, source: WeightSource, parts: Collection[Part], folder: Path) -> None:
    """Gives an empty model the weights of some parts, as `devil.model.checkpoint.fill` does, but maps them.

    Args:
        model: of `devil.model.fitting.empty_model`; what is left out stays without weights.
        folder: whose disk takes the file. It loses its name at once, so nothing is left when the process is killed.

    Raises:
        CheckpointError: a file is broken, or a weight holds values that are no numbers.
    """
    wanted = {name: tuple(weight.shape) for name, weight in model.named_parameters() if part_of(name) in parts}
    total = sum(math.prod(shape) for shape in wanted.values())
    handle, name = tempfile.mkstemp(dir=folder, prefix=".devil-export-")
    os.close(handle)
    try:
        memory = torch.from_file(name, shared=True, size=total, dtype=torch.float32)
    finally:
        os.unlink(name)
    start = 0
    for name, shape in wanted.items():
        values = memory[start : start + math.prod(shape)].view(shape)
        values.copy_(source.read(name))
        start += values.numel()
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, nn.Parameter(values, requires_grad=False))
    if "language" in parts and model.devil.language.tied:
        tie(model, source)
