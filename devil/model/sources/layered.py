"""Sources made of others: several as one, and one without what is not wanted."""

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


class Without:
    """A source without the keys that begin with `prefix`."""

    def __init__(self, source: WeightSource, prefix: str):
        self._source = source
        self.entries: Mapping[str, Entry] = {
            key: entry for key, entry in source.entries.items() if not key.startswith(prefix)
        }

    def read(self, key: str) -> Tensor:
        return self._source.read(key)
