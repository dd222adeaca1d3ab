"""Whose token each slot of the KV cache holds.

All sentences about a video live in one row of the cache: the video's prefix fills its first slots, and behind it every
run of the graph appends the new tokens of all sentences side by side. A token sees the prefix and what its own sentence
wrote before it. So the prefix is held and read once, however many sentences there are, and nothing is copied.
"""

from __future__ import annotations

import numpy as np

SHARED = -1  # owner of the prefix
FREE = -2  # no token looks at such a slot


class Slots:
    """The owner of every slot; slots are handed out in rising order."""

    def __init__(self) -> None:
        self.used = 0  # slots up to the last one that somebody owns
        self._owners = np.full(256, FREE)

    def claim(self, owners: np.ndarray) -> int:
        """Hands out `len(owners)` slots in a row and returns the first.

        Args:
            owners: int [S], the sentence that each new token belongs to, or SHARED.
        """
        first, end = self.used, self.used + len(owners)
        if end > len(self._owners):
            self._owners = np.append(self._owners, np.full(end, FREE))  # doubles at least
        self._owners[first:end] = owners
        self.used = end
        return first

    def release(self, slots: np.ndarray | slice) -> None:
        """Takes back slots, by index or as a mask. Those at the end are handed out again; others stay unused."""
        self._owners[slots] = FREE
        owned = np.flatnonzero(self._owners[: self.used] != FREE)
        self.used = int(owned[-1]) + 1 if owned.size else 0

    def release_all_of(self, owner: int) -> None:
        self.release(self._owners == owner)

    def keep_prefix(self) -> None:
        """Takes back every sentence's slots."""
        self.release(self._owners != SHARED)

    def clear(self) -> None:
        """Takes back all slots, the prefix's too."""
        self.release(slice(None))

    def mask(self, first: int, count: int) -> np.ndarray:
        """bool [S, T]: which of the first T slots the tokens in slots `first` … `first + count - 1` may look at.

        T ends with the last of these tokens.
        """
        rows = np.arange(first, first + count)[:, None]
        owners = self._owners[: first + count]
        visible = owners == owners[rows]
        visible |= owners == SHARED
        visible &= np.arange(first + count) <= rows
        return visible
