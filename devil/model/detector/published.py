"""What published detector checkpoints hold beyond our parameters."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from devil.errors import CheckpointError

_BOX_HEAD_COPY = re.compile(r"^(?:transformer\.decoder\.)?bbox_embed\.\d+\.")
_BOX_HEAD = "bbox_embed.0."


def own_name(name: str) -> str | None:
    """The parameter that a published detector's key stands for; None for Swin's position index.

    The box head is shared by all decoder layers, and the original lists it once per layer and again under the decoder;
    savers that know of sharing keep any one of these. The position index follows from the window.
    """
    if name.startswith("backbone.") and name.endswith(".relative_position_index"):
        return None
    return _BOX_HEAD_COPY.sub(_BOX_HEAD, name)


def merge_copies(_module: nn.Module, state: dict[str, Tensor], prefix: str, *_rest: Any) -> None:
    """Load hook: puts every key under its own name, see `own_name`.

    Raises:
        CheckpointError: two copies of the box head differ.
    """
    for key in [key for key in state if key.startswith(prefix)]:
        name = own_name(key.removeprefix(prefix))
        if name is None:
            del state[key]
        elif prefix + name != key:
            value = state.pop(key)
            if not _same(state.setdefault(prefix + name, value), value):
                raise differing_copies(key, prefix + name)


def differing_copies(key: str, kept: str) -> CheckpointError:
    return CheckpointError(f"{key} differs from {kept}", "copy the checkpoint again: the two are one weight")


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or a.is_meta or b.is_meta or torch.equal(a, b)
