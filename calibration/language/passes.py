"""Recorded runs of the language graph as one pass without a cache, so that layers can be looked at one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LanguagePass:
    """All tokens that one cache row was given, N of them, in the order of the runs.

    Attributes:
        token_ids: int64 [N]; `vocab + i` is row i of the table.
        table: visual tokens, float32 [V, hidden].
        positions: int64 [N]
        mask: bool [N, N], which tokens each may look at.
        asked: int64 [K], the tokens that were read out.
    """

    token_ids: np.ndarray
    table: np.ndarray
    positions: np.ndarray
    mask: np.ndarray
    asked: np.ndarray

    @classmethod
    def of_runs(cls, runs: Sequence[Mapping[str, np.ndarray]], vocab: int) -> LanguagePass:
        """From what one cache row was fed, run by run, beginning with an empty cache.

        A slot that was written twice held another token before: what a run's mask says of a slot is said of the token
        that the slot held then.

        Args:
            runs: inputs of the language graph but for the cache, of batches of one row.
            vocab: of the model.
        """
        sizes = [run["token_ids"].shape[1] for run in runs]
        firsts = np.cumsum([0, *sizes])
        total = int(firsts[-1])
        mask, holder = np.zeros((total, total), bool), np.zeros(max(run["mask"].shape[3] for run in runs), np.int64)
        ids, tables, rows, asked = [], [], 0, []
        for run, size, first in zip(runs, sizes, firsts, strict=False):
            start = int(run["write_index"][0])
            holder[start : start + size] = first + np.arange(size)
            seen, slots = np.nonzero(run["mask"][0, 0])
            mask[first + seen, holder[slots]] = True
            own = run["token_ids"][0]
            ids.append(np.where(own >= vocab, own + rows, own))
            tables.append(np.asarray(run["visual_table"], np.float32))
            rows += len(tables[-1])
            asked.append(first + asked_rows(run))
        positions = np.concatenate([run["positions"][0] for run in runs])
        return cls(np.concatenate(ids), np.concatenate(tables), positions, mask, np.concatenate(asked))

    def __len__(self) -> int:
        return len(self.token_ids)


def asked_rows(run: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which of a run's tokens were read out, int64 [K].

    The graph reads out at least one token: the first, where nobody asks. Whoever asks wants the last ones.
    """
    rows = run["output_index"][0]
    return rows[:0] if run["token_ids"].shape[1] > 1 and rows.tolist() == [0] else rows
