"""A source in which some weights lie in pieces, one key each, that belong on top of each other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from devil.model.sources.base import Entry, WeightSource


class Stacked:
    """Keys `name#0`, `name#1`, … of the source are the rows of one weight `name`; other keys stay as they are.

    Pieces that are missing make a weight with too few rows: whoever checks its shape finds it.
    """

    def __init__(self, source: WeightSource):
        self._source = source
        self._pieces: dict[str, list[str]] = {}
        for key in sorted(source.entries):
            self._pieces.setdefault(key.split("#")[0], []).append(key)
        self.entries: Mapping[str, Entry] = {name: self._entry(keys) for name, keys in self._pieces.items()}

    def read(self, key: str) -> Tensor:
        keys = self._pieces[key]
        return self._source.read(key) if keys == [key] else torch.cat([self._source.read(piece) for piece in keys])

    def _entry(self, keys: list[str]) -> Entry:
        first = self._source.entries[keys[0]]
        if len(keys) == 1:
            return first
        rows = sum(self._source.entries[key].shape[0] for key in keys)
        return Entry((rows, *first.shape[1:]), first.dtype)
