"""Whether a checkpoint's weights are those of its config, key by key, before any is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from devil.config import DevilConfig
from devil.errors import CheckpointError
from devil.model.devil import DevilModel
from devil.model.sources.base import COPY_AGAIN, Entry, WeightSource

HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_LAYER = re.compile(r"model\.layers\.(\d+)\.")


def empty_model(config: DevilConfig) -> DevilModel:
    """A model in evaluation mode whose weights are not there yet (on the meta device); its buffers are."""
    with _NoWeights():
        model = DevilModel(config).eval()
    for module in model.modules():  # some small weights begin as ones or zeros
        for name, weight in module.named_parameters(recurse=False):
            if not weight.is_meta:
                setattr(module, name, nn.Parameter(weight.to("meta")))
    return model


def expected_shapes(config: DevilConfig, entries: Mapping[str, Entry]) -> dict[str, tuple[int, ...]]:
    """The shape of every weight that `entries` must have; savers may write a tied lm_head or leave it out."""
    expected = {name: tuple(tensor.shape) for name, tensor in empty_model(config).state_dict().items()}
    if config.language.tied and HEAD not in entries:
        del expected[HEAD]
    return expected


def check_weights(source: WeightSource, config: DevilConfig, what: object) -> None:
    """Refuses weights that are not exactly the config's.

    Args:
        what: the folder, for the message.

    Raises:
        CheckpointError: the config contradicts the weights, or a key is missing, unexpected, misshapen or no float.
    """
    check_sizes(source.entries, config, what)
    check_entries(source.entries, expected_shapes(config, source.entries), what)


def check_entries(entries: Mapping[str, Entry], expected: Mapping[str, tuple[int, ...]], what: object) -> None:
    """Accounts for every key.

    Raises:
        CheckpointError: a key is missing, unexpected, misshapen or no float.
    """
    misshapen = [
        f"{key} {entries[key].shape} (expected {shape})"
        for key, shape in expected.items()
        if key in entries and entries[key].shape != shape
    ]
    if misshapen:
        raise CheckpointError(f"{what} has misshapen weights: {listed(misshapen)}", "config and weights must match")
    missing, unknown = expected.keys() - entries.keys(), entries.keys() - expected.keys()
    if missing:
        raise CheckpointError(f"{what} lacks weights: {listed(missing)}", COPY_AGAIN)
    if unknown:
        raise CheckpointError(f"{what} has unknown weights: {listed(unknown)}", "is this a DEViL checkpoint?")
    typed = [f"{key} ({entry.dtype})" for key, entry in entries.items() if entry.dtype not in _FLOATS]
    if typed:
        raise CheckpointError(
            f"{what} has weights of another type than {', '.join(_FLOATS)}: {listed(typed)}", "save them as float16"
        )


def listed(names: Iterable[str], shown: int = 5) -> str:
    """The first names in order, and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def check_sizes(entries: Mapping[str, Entry], config: DevilConfig, what: object) -> None:
    """Names a config that is another model's by its sizes, rather than by hundreds of keys.

    Raises:
        CheckpointError: the config contradicts the weights.
    """
    found: dict[str, int] = {}
    if EMBEDDING in entries and len(entries[EMBEDDING].shape) == 2:
        found["vocab_size"], found["hidden_size"] = entries[EMBEDDING].shape
    layers = [int(match[1]) for key in entries if (match := _LAYER.match(key))]
    found["num_hidden_layers"] = max(layers, default=-1) + 1
    language = config.language
    said = {"vocab_size": language.vocab, "hidden_size": language.hidden, "num_hidden_layers": language.layers}
    wrong = [f"{key} {said[key]} but the weights have {value}" for key, value in found.items() if value != said[key]]
    if wrong:
        raise CheckpointError(
            f"config.json of {what} says {', '.join(wrong)}", "use the config.json that came with the weights"
        )


class _NoWeights(TorchFunctionMode):
    """Modules made inside allocate no weights; buffers, which no checkpoint holds, are computed as always."""

    def __torch_function__(self, function: Any, _types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.empty:  # what nearly every weight begins as
            kwargs = kwargs | {"device": "meta"}
        return function(*args, **kwargs)
