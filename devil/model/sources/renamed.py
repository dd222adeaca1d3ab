"""A source under other names: a published layout's keys become ours, and several keys may be one weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from devil.model.detector.published import differing_copies
from devil.model.sources.base import Entry, WeightSource


class Renamed:
    """A source whose keys are what `rename` makes of the original's.

    Args:
        rename: our key of an original one; None leaves it out. Keys that get one name are copies of one weight.
    """

    def __init__(self, source: WeightSource, rename: Callable[[str], str | None]):
        self._source = source
        self._originals: dict[str, list[str]] = {}
        for key in source.entries:
            name = rename(key)
            if name is not None:
                self._originals.setdefault(name, []).append(key)
        self.entries: Mapping[str, Entry] = {name: source.entries[keys[0]] for name, keys in self._originals.items()}

    def read(self, key: str) -> Tensor:
        """As `WeightSource.read`.

        Raises:
            CheckpointError: as there, or copies of the weight differ.
        """
        first, *copies = self._originals[key]
        tensor = self._source.read(first)
        for copy in copies:
            if not torch.equal(tensor, self._source.read(copy)):
                raise differing_copies(copy, first)
        return tensor
