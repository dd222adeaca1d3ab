"""The language loop: the prompt's prefix is read once per video; a sentence is a short prefill and greedy decoding.

Slot i of the KV cache holds position i of the prompt. A sentence writes behind the prefix; the next one starts at the
same slot and overwrites it, so the prefix is neither computed nor copied again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from devil.config import DevilConfig
from devil.errors import BundleError, EngineError, SentenceError, VideoError
from devil.runtime.engines.base import GraphRunner

CHUNK = 512  # most tokens of one prefill step
SCORE_BYTES = 128 << 20  # a prefill step's attention scores [heads, S, T] stay below this
CACHE_STEP = 256  # the cache grows by multiples of so many slots


@dataclass(frozen=True)
class Generation:
    """What the language model said.

    Attributes:
        token_ids: generated ids, without the end token.
        rsts: the RST of each generated [BOX], float32 [hidden].
        finished: the model ended by itself; False where max_new_tokens stopped it.
        steps: runs of the graph after the sentence's prefill.
        prefill_seconds, decode_seconds: time of the sentence's prefill, and of the steps.
    """

    token_ids: tuple[int, ...]
    rsts: tuple[np.ndarray, ...]
    finished: bool
    steps: int
    prefill_seconds: float
    decode_seconds: float

    @property
    def rst(self) -> np.ndarray | None:
        """The first [BOX]'s RST, where there is one."""
        return self.rsts[0] if self.rsts else None


def causal_feeds(token_ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """The language graph's index inputs for rows that continue at different slots with different numbers of tokens.

    Args:
        token_ids: int64 [B, S], padded on the right.
        starts: int64 [B], slots already filled in each row.
        lengths: int64 [B], tokens of each row that count; its last one is read out.

    Padding writes to slots behind its row, where no token looks before a later step has overwritten them.
    """
    columns = np.arange(token_ids.shape[1])
    positions = starts[:, None] + columns  # [B, S]
    slots = np.arange(positions.max() + 1)
    return {
        "token_ids": token_ids,
        "positions": positions,
        "write_index": starts,
        "mask": (slots <= positions[:, :, None])[:, None],
        "output_index": lengths[:, None] - 1,
    }


class LanguageSession:
    """One video's conversation with the language model.

    Args:
        runner: the loaded language graph; sessions may share it.
        config: the model.
        capacity: slots of the KV cache to begin with; it grows as needed, up to the model's context.
    """

    def __init__(self, runner: GraphRunner, config: DevilConfig, capacity: int = CACHE_STEP):
        self.config = config
        self.length = 0  # slots the prefix fills
        self._cache = runner.cache(rows=1, capacity=capacity)
        self._table = np.zeros((1, config.language.hidden), np.float32)

    def prefill(
        self,
        token_ids: Sequence[int],
        visual_table: np.ndarray,
        chunk: int = CHUNK,
        on_chunk: Callable[[int, int], None] | None = None,
    ) -> float:
        """Reads the prompt's part that every sentence shares; replaces an earlier prefix. Returns the seconds taken.

        Args:
            token_ids: ids; `vocab + i` stands for row i of the visual table.
            visual_table: the video's visual tokens [V, hidden].
            chunk: most tokens of one step; long prefixes take smaller steps by themselves.
            on_chunk: called after every step with the tokens read so far and all tokens.

        Raises:
            VideoError: the prefix alone does not fit the model's context.
            BundleError: an id is neither in the vocabulary nor in the table.
        """
        needed, context = len(token_ids) + self.config.max_new_tokens, self.config.language.context
        if needed > context:
            raise VideoError(
                f"the video and an answer need {needed} tokens, the model holds {context}",
                "use fewer frames or fewer visual tokens",
            )
        began = time.perf_counter()
        self.length, self._table = 0, visual_table
        self._read(self._checked(token_ids), 0, chunk, on_chunk)
        self.length = len(token_ids)
        return time.perf_counter() - began

    def generate(
        self,
        token_ids: Sequence[int],
        max_new_tokens: int | None = None,
        on_token: Callable[[int], None] | None = None,
        chunk: int = CHUNK,
    ) -> Generation:
        """Answers one sentence greedily, from the prefix on.

        Args:
            token_ids: the prompt behind the prefix.
            max_new_tokens: most tokens to generate; the config's by default.
            on_token: called with every generated id.

        Raises:
            SentenceError: nothing to read, or more than the model's context holds.
            BundleError: an id is neither in the vocabulary nor in the visual table.
            EngineError: the logits are not numbers.
        """
        limit = self.config.max_new_tokens if max_new_tokens is None else max_new_tokens
        self._check_room(len(token_ids), limit)
        began = time.perf_counter()
        logits, hidden = self._read(self._checked(token_ids), self.length, chunk)
        prefilled = time.perf_counter()
        tokens, at_input = self.config.tokens, self.config.rst_position == "input"
        generated: list[int] = []
        rsts: list[np.ndarray] = []
        start, steps, finished = self.length + len(token_ids), 0, False
        while len(generated) < limit:
            token = _most_likely(logits)
            if token == tokens.end:
                finished = True
                break
            generated.append(token)
            if on_token is not None:
                on_token(token)
            if token == tokens.box and not at_input:
                rsts.append(hidden)
            # The last token is fed only for the hidden state at it.
            if len(generated) == limit and not (token == tokens.box and at_input):
                break
            logits, hidden = self._step(np.array([token]), start)
            start, steps = start + 1, steps + 1
            if token == tokens.box and at_input:
                rsts.append(hidden)
        seconds = time.perf_counter() - prefilled
        return Generation(tuple(generated), tuple(rsts), finished, steps, prefilled - began, seconds)

    def _check_room(self, new: int, limit: int) -> None:
        if new < 1:
            raise SentenceError("the prompt behind the video is empty", "ask something")
        needed, context = self.length + new + limit, self.config.language.context
        if needed > context:
            raise SentenceError(
                f"the video, the sentence and its answer need {needed} tokens, the model holds {context}",
                f"shorten the sentence by {needed - context} tokens, or use fewer frames",
            )

    def _checked(self, token_ids: Sequence[int]) -> np.ndarray:
        ids = np.asarray(token_ids, np.int64)
        vocab, rows = self.config.language.vocab, len(self._table)
        wrong = ids[(ids < 0) | (ids >= vocab + rows)]
        if wrong.size:
            raise BundleError(
                f"token id {wrong[0]} is neither in the vocabulary of {vocab} nor one of {rows} visual tokens",
                "use the tokenizer of this model",
            )
        return ids

    def _read(
        self, ids: np.ndarray, start: int, chunk: int, on_chunk: Callable[[int, int], None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Prefill of `ids` from slot `start` on, in steps of bounded memory; the last token's logits and hidden."""
        output = np.empty(0), np.empty(0)
        end = start + len(ids)
        self._reserve(end)
        score_bytes = 4 * self.config.language.heads * max(end, 1)  # of one token
        size = max(1, min(chunk, SCORE_BYTES // score_bytes))
        for first in range(0, len(ids), size):
            output = self._step(ids[first : first + size], start + first)
            if on_chunk is not None:
                on_chunk(min(first + size, len(ids)), len(ids))
        return output

    def _step(self, ids: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
        """One run of the graph: logits [vocab] and hidden [hidden] after the last of `ids`."""
        self._reserve(start + len(ids))
        ids, table = self._visible(ids)
        feeds = causal_feeds(ids[None], np.array([start]), np.array([len(ids)]))
        outputs = self._cache.run({**feeds, "visual_table": table})
        return outputs["logits"][0, 0], outputs["hidden"][0, 0]

    def _visible(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`ids` renumbered into the stretch of the visual table that they use.

        On an accelerator the inputs travel with every step: a decoding step sends one row, not the whole video.
        """
        vocab = self.config.language.vocab
        rows = ids[ids >= vocab] - vocab
        if not rows.size:
            return ids, self._table[:1] if len(self._table) else np.zeros((1, self.config.language.hidden), np.float32)
        first, last = int(rows.min()), int(rows.max())
        return np.where(ids >= vocab, ids - first, ids), self._table[first : last + 1]

    def _reserve(self, slots: int) -> None:
        if slots > self._cache.capacity:
            self._cache.grow(-(-slots // CACHE_STEP) * CACHE_STEP)


def _most_likely(logits: np.ndarray) -> int:
    token = int(logits.argmax())  # of the first NaN, where there is one
    if not np.isfinite(logits[token]):
        raise EngineError("the language model's activations overflowed", "export with --precision fp32 or bf16")
    return token
