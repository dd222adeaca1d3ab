"""Runs of the language graph on one cache row that holds a prefix and the sentences behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from devil.config import LanguageConfig
from devil.runtime.engines.base import AsyncRunner, GraphRunner
from devil.runtime.slots import Slots

CHUNK = 256  # most tokens of one run; 512 take 6 % longer per token on a CPU, and more memory
SCORE_BYTES = 128 << 20  # a run's attention scores [heads, S, T] stay below this
CACHE_STEP = 256  # the cache grows by multiples of so many slots


@dataclass(frozen=True)
class Piece:
    """New tokens of one sentence (or of the prefix).

    Attributes:
        owner: the sentence, or SHARED for the prefix.
        ids: the tokens; `vocab + i` is row i of the visual table.
        position: of the first.
        asked: how many of them, from the end, are read out.
    """

    owner: int
    ids: Sequence[int]
    position: int
    asked: int


@dataclass(frozen=True)
class Readout:
    """What a run says of one piece.

    Attributes:
        slots: int [S], where its tokens lie now.
        logits: float32 [asked, vocab]
        hidden: float32 [asked, hidden]
    """

    slots: np.ndarray
    logits: np.ndarray
    hidden: np.ndarray


class PackedCache:
    """The cache row, who owns its slots, and the visual table.

    Args:
        runner: the loaded language graph.
        config: the model.
        capacity: slots to begin with; the cache grows as needed.
    """

    def __init__(self, runner: GraphRunner, config: LanguageConfig, capacity: int):
        self.slots = Slots()
        self.table = np.zeros((0, config.hidden), np.float32)
        self.cache = runner.cache(rows=1, capacity=capacity)
        self._config = config
        self._most = runner.most("S", {}) if isinstance(runner, AsyncRunner) else None  # new tokens of one run

    def run(
        self, pieces: Sequence[Piece], chunk: int = CHUNK, on_chunk: Callable[[int, int], None] | None = None
    ) -> list[Readout]:
        """Appends the pieces to the cache, in runs of the graph whose activations stay bounded.

        Args:
            pieces: at most one per owner.
            chunk: most tokens of one run; where the cache is long, runs are smaller by themselves.
            on_chunk: called after every run with the tokens read so far and all tokens.
        """
        sizes = [len(piece.ids) for piece in pieces]
        ids = np.concatenate([np.asarray(piece.ids, np.int64) for piece in pieces])
        positions = np.concatenate([piece.position + np.arange(len(piece.ids)) for piece in pieces])
        asked = np.concatenate([np.arange(-len(piece.ids), 0) >= -piece.asked for piece in pieces])
        first = self.slots.claim(np.repeat([piece.owner for piece in pieces], sizes))
        end = first + len(ids)
        if end > self.cache.capacity:
            self.cache.grow(-(-end // CACHE_STEP) * CACHE_STEP)
        chunk = max(1, min(chunk, self._most or chunk, SCORE_BYTES // (4 * self._config.heads * max(end, 1))))
        found = []
        for start in range(0, len(ids), chunk):
            rows = slice(start, min(start + chunk, len(ids)))
            found.append(self._step(ids[rows], positions[rows], first + start, np.flatnonzero(asked[rows])))
            if on_chunk is not None:
                on_chunk(rows.stop, len(ids))
        logits, hidden = map(_joined, zip(*found, strict=True)) if found else self._nothing()
        borders = np.cumsum([piece.asked for piece in pieces])[:-1]
        slots = np.split(np.arange(first, end), np.cumsum(sizes)[:-1])
        return list(map(Readout, slots, np.split(logits, borders), np.split(hidden, borders)))

    def _nothing(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((0, self._config.vocab), np.float32), np.zeros((0, self._config.hidden), np.float32)

    def _step(
        self, ids: np.ndarray, positions: np.ndarray, first: int, asked: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """One run of the graph on slots from `first` on: logits [K, vocab] and hidden [K, hidden] at `asked` [K]."""
        ids, table = self._visible(ids)
        outputs = self.cache.run(
            {
                "token_ids": ids[None],
                "visual_table": table,
                "positions": positions[None],
                "write_index": np.array([first]),
                "mask": self.slots.mask(first, len(ids))[None, None],
                # The graph reads at least one token out; of a long prefix's chunks nobody looks at it.
                "output_index": asked[None] if asked.size else np.zeros((1, 1), np.int64),
            }
        )
        return (outputs["logits"][0], outputs["hidden"][0]) if asked.size else self._nothing()

    def _visible(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`ids` renumbered into the stretch of the visual table that they use.

        On an accelerator the inputs travel with every run: a decoding step sends one row, not the whole video.
        """
        vocab = self._config.vocab
        rows = ids[ids >= vocab] - vocab
        if not rows.size:
            return ids, np.zeros((1, self._config.hidden), np.float32)
        first, last = int(rows.min()), int(rows.max())
        return np.where(ids >= vocab, ids - first, ids), self.table[first : last + 1]


def _joined(parts: tuple[np.ndarray, ...]) -> np.ndarray:
    """One array; a single part is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
