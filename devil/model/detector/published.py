"""What published detector checkpoints hold beyond our parameters."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from devil.errors import CheckpointError

_BOX_HEAD_COPY = re.compile(r"^(?:transformer\.decoder\.)?bbox_embed\.\d+\.")
_BOX_HEAD = "bbox_embed.0."


def merge_copies(_module: nn.Module, state: dict[str, Tensor], prefix: str, *_rest: Any) -> None:
    """Load hook: keeps one of the box head's copies, and drops Swin's position index, which follows from the window.

    The box head is shared by all decoder layers, and the original lists it once per layer and again under the decoder;
    savers that know of sharing keep any one of these.

    Raises:
        CheckpointError: two copies of the box head differ.
    """
    for key in [key for key in state if key.startswith(prefix)]:
        name = key.removeprefix(prefix)
        if name.startswith("backbone.") and name.endswith(".relative_position_index"):
            del state[key]
        elif _BOX_HEAD_COPY.match(name):
            kept = prefix + _BOX_HEAD_COPY.sub(_BOX_HEAD, name)
            value = state.pop(key)
            if not _same(state.setdefault(kept, value), value):
                raise CheckpointError(f"{key} differs from {kept}", "copy the checkpoint again: the box head is shared")


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or a.is_meta or b.is_meta or torch.equal(a, b)
