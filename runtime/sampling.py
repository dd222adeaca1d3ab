"""Choosing the next token: the most likely one, or a seeded draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from devil.errors import EngineError, UsageError

Choose = Callable[[np.ndarray], int]  # logits [vocab] → id; asked exactly once per generated token, in order


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: logits are divided by it; above 0.
        top_k: only the k most likely tokens (and what ties with the last of them); 0 for all.
        top_p: only the most likely tokens that together reach this probability; 1 for all.
        seed: the same seed draws the same answer, whatever else is asked at the same time and with or without drafts.

    Raises:
        UsageError: a value out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise UsageError(f"temperature is {self.temperature}", "give a number above 0; greedy needs no sampling")
        if self.top_k < 0:
            raise UsageError(f"top_k is {self.top_k}", "give a number of tokens, or 0 for all")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p is {self.top_p}", "give a probability above 0 and at most 1")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}", "give 0 or more")

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """float64 [vocab], sum 1: of drawing each token."""
        scaled = logits.astype(np.float64) / self.temperature
        if 0 < self.top_k < len(scaled):
            least = np.partition(scaled, -self.top_k)[-self.top_k]
            scaled[scaled < least] = -np.inf
        chances = np.exp(scaled - scaled.max())
        chances /= chances.sum()
        if self.top_p < 1:
            order = np.argsort(-chances, kind="stable")
            before = np.cumsum(chances[order]) - chances[order]  # probability of all likelier tokens
            chances[order[before >= self.top_p]] = 0
            chances /= chances.sum()
        return chances


def chooser(sampling: Sampling | None) -> Choose:
    """What chooses the tokens of one answer; greedy without `sampling`."""
    if sampling is None:
        return most_likely
    random = np.random.default_rng(sampling.seed)

    def draw(logits: np.ndarray) -> int:
        most_likely(logits)  # refuses what is not a number
        reached = np.cumsum(sampling.probabilities(logits))
        # One draw per token, by inversion: a draft that is verified later draws what plain decoding would have drawn.
        token = int(np.searchsorted(reached, random.random() * reached[-1], side="right"))
        return min(token, len(reached) - 1)

    return draw


def most_likely(logits: np.ndarray) -> int:
    """
    Raises:
        EngineError: the logits are not numbers.
    """
    token = int(logits.argmax())  # of the first NaN, where there is one
    if not np.isfinite(logits[token]):
        raise EngineError("the language model's activations overflowed", "export with --precision fp32 or bf16")
    return token
