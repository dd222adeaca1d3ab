"""Several sources as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from devil.model.sources.base import Entry, WeightSource


class Joined:
    """Several sources as one; where two hold the same key, the later one counts."""

    def __init__(self, sources: Iterable[WeightSource]):
        self._holder = {key: source for source in sources for key in source.entries}
        self.entries: Mapping[str, Entry] = {key: source.entries[key] for key, source in self._holder.items()}

    def read(self, key: str) -> Tensor:
        return self._holder[key].read(key)
