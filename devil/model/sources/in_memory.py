"""Weights that lie in no file."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from devil.model.sources.base import Entry


class InMemory:
    """Tensors by key as a source."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        self._tensors = tensors
        self.entries: Mapping[str, Entry] = {
            key: Entry(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for key, tensor in tensors.items()
        }

    def read(self, key: str) -> Tensor:
        return self._tensors[key].detach()
