"""Reading and writing checkpoint folders: config.json, tokenizer.json and weights (reference §7)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from devil.config_json import load_config, to_hf
from devil.errors import CheckpointError
from devil.files import atomic_directory
from devil.model.adapters import base_of, is_unmerged
from devil.model.devil import DevilModel
from devil.model.fitting import EMBEDDING, HEAD, check_weights, empty_model
from devil.model.hub import local_folder
from devil.model.sources.base import COPY_AGAIN
from devil.model.stream import WEIGHTS
from devil.model.weights import WeightSource, open_weights

TOKENIZER = "tokenizer.json"

Part = Literal["language", "vision", "detector"]
PARTS: tuple[Part, ...] = get_args(Part)

_PREFIXES: dict[str, Part] = {
    "model.vision_encoder.": "vision",
    "model.mm_projector.": "vision",
    "model.g_dino.": "detector",
}


def load_model(
    folder: str | os.PathLike, parts: Collection[Part] = PARTS, base: str | os.PathLike | None = None
) -> DevilModel:
    """The model of a checkpoint folder (or of an id of the Hub), float32, in evaluation mode.

    Weights are read one at a time, so the whole costs the parts' own float32 size and one tensor more.

    Args:
        parts: what to load: the language model, the vision encoder with its projector, the detector. The weights of
            what is left out stay on the meta device, without memory; such a part cannot be run.
        base: of an unmerged folder, see `open_weights`.

    Raises:
        CheckpointError: a file is missing or broken, a key is missing, unexpected or misshapen (in any part), or a
            weight that was read holds values that are no numbers.
    """
    folder = local_folder(folder)
    source = open_weights(folder, base)
    config = load_config(folder)
    check_weights(source, config, folder)
    model = empty_model(config)
    fill(model, source, parts)
    return model


def tokenizer_file(folder: str | os.PathLike, base: str | os.PathLike | None = None) -> Path:
    """The tokenizer.json of a checkpoint folder; an unmerged one may leave it to its base.

    Raises:
        CheckpointError: there is none.
    """
    folder = local_folder(folder)
    if (folder / TOKENIZER).is_file():
        return folder / TOKENIZER
    if is_unmerged(folder):
        return tokenizer_file(base or base_of(folder))
    raise CheckpointError(f"{folder} lacks {TOKENIZER}", COPY_AGAIN)


def fill(
    model: DevilModel,
    source: WeightSource,
    parts: Collection[Part],
    allocate: Callable[[torch.Size], Tensor] = torch.empty,
) -> None:
    """Gives a model of `empty_model` the weights of some parts, which a `check_weights` has found to fit.

    Args:
        allocate: gives the float32 memory of a weight of that shape; asked in the order of `weights_of`. It is the
            model's own because the checkpoint's files may be replaced.

    Raises:
        CheckpointError: a file is broken, or a weight holds values that are no numbers.
    """
    for name, weight in weights_of(model, parts).items():
        owner, _, attribute = name.rpartition(".")
        value = allocate(weight.shape).copy_(source.read(name))
        setattr(model.get_submodule(owner), attribute, nn.Parameter(value))
    if "language" in parts and model.devil.language.tied:
        tie(model, source)


def tie(model: DevilModel, source: WeightSource) -> None:
    """Gives lm_head the embedding's weights.

    Raises:
        CheckpointError: the source has a head of its own that is another.
    """
    model.lm_head.weight = model.model.embed_tokens.weight
    if HEAD in source.entries and not torch.equal(source.read(HEAD).float(), model.lm_head.weight):
        raise CheckpointError(
            f"config.json ties {HEAD} to {EMBEDDING}, but the two differ",
            "use the config.json that came with the weights",
        )


def weights_of(model: DevilModel, parts: Collection[Part]) -> dict[str, nn.Parameter]:
    """The weights of some parts by key; of tied ones the embedding alone."""
    return {name: weight for name, weight in model.named_parameters() if part_of(name) in parts}


def part_of(name: str) -> Part:
    """The part that a weight belongs to, by its key."""
    return next((part for prefix, part in _PREFIXES.items() if name.startswith(prefix)), "language")


def save_model(model: DevilModel, folder: str | os.PathLike, tokenizer: str | os.PathLike, dtype: torch.dtype) -> None:
    """Writes a checkpoint folder with all weights in `dtype`; replaces the folder whole or not at all.

    Args:
        tokenizer: file to copy in as its `tokenizer.json`.

    Raises:
        OutputError: the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {
        name: parameter.detach().to("cpu", dtype).contiguous() for name, parameter in model.named_parameters()
    }
    with atomic_directory(folder) as temporary:
        (temporary / "config.json").write_text(json.dumps(to_hf(model.devil), indent=2) + "\n", encoding="utf-8")
        shutil.copyfile(tokenizer, temporary / TOKENIZER)
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
