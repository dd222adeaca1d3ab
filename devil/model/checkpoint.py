"""Reading and writing checkpoint folders: config.json, tokenizer.json and safetensors (reference §7)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from devil.config_json import load_config, to_hf
from devil.errors import CheckpointError
from devil.files import atomic_directory
from devil.model.devil import DevilModel

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"

_TRAINING_ONLY = "model.criterion."


def load_model(folder: str | os.PathLike) -> DevilModel:
    """The model of a checkpoint folder, float32, in evaluation mode.

    Raises:
        CheckpointError: a file is missing or broken, or a key is missing, unexpected or misshapen.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder", "name a folder that holds a DEViL checkpoint")
    model = DevilModel(load_config(folder))
    tensors: dict[str, Tensor] = {}
    for path in _weight_files(folder):
        tensors |= _read(path)
    _load(model, tensors, folder)
    return model.eval()


def save_model(model: DevilModel, folder: str | os.PathLike, tokenizer: str | os.PathLike, dtype: torch.dtype) -> None:
    """Writes a checkpoint folder with all weights in `dtype`; replaces the folder whole or not at all.

    Args:
        tokenizer: file to copy in as its `tokenizer.json`.

    Raises:
        OutputError: the folder cannot be written.
    """
    aliases = _aliases(model)
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
        if name not in aliases
    }
    with atomic_directory(folder) as temporary:
        (temporary / "config.json").write_text(json.dumps(to_hf(model.devil), indent=2) + "\n", encoding="utf-8")
        shutil.copyfile(tokenizer, temporary / TOKENIZER)
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX).exists():
        try:
            names = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{folder / INDEX} is not an index of shards", "copy the checkpoint again") from error
    else:
        names = {WEIGHTS}
    missing = sorted(name for name in names if not (folder / name).is_file())
    if missing and any(folder.glob("*.bin")):
        raise CheckpointError(
            f"{folder} holds its weights as pickles (.bin)", "save them as safetensors, for example with transformers"
        )
    if missing:
        raise CheckpointError(f"{folder} lacks {', '.join(missing)}", "copy the checkpoint again")
    return [folder / name for name in sorted(names)]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name).float() for name in file.keys() if not name.startswith(_TRAINING_ONLY)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})", "copy the checkpoint again") from error


def _load(model: DevilModel, tensors: dict[str, Tensor], folder: Path) -> None:
    """Loads strictly: nothing missing, nothing left over, every shape right."""
    expected = model.state_dict()
    misshapen = [
        f"{name} {tuple(tensor.shape)} (expected {tuple(expected[name].shape)})"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if misshapen:
        raise CheckpointError(f"{folder} has misshapen weights: {_listed(misshapen)}", "config and weights must match")
    found = model.load_state_dict(tensors, strict=False)
    missing = set(found.missing_keys) - _aliases(model)
    if missing:
        raise CheckpointError(f"{folder} lacks weights: {_listed(missing)}", "copy the checkpoint again")
    if found.unexpected_keys:
        unexpected = _listed(found.unexpected_keys)
        raise CheckpointError(f"{folder} has unknown weights: {unexpected}", "is this a DEViL checkpoint?")


def _aliases(model: DevilModel) -> set[str]:
    """Names in the state dict that share another name's tensor (tied lm_head, shared box heads)."""
    first: dict[int, str] = {}
    aliases = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if first.setdefault(id(tensor), name) != name:
            aliases.add(name)
    return aliases


def _listed(names: Iterable[str], shown: int = 5) -> str:
    names = sorted(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
