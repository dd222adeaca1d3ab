"""The language loop: a video's prefix is read once; sentences about it are read and answered side by side behind it.

docs/language.md tells the whole of it. Slots are not positions: the slots of several sentences interleave, while every
sentence's positions go on from the prefix's end, so each is computed as if it were asked alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np

from devil.config import DevilConfig
from devil.errors import BundleError, SentenceError, VideoError
from devil.runtime.decoding import Decoding, Generation
from devil.runtime.drafting import Draft, no_draft
from devil.runtime.engines.base import AsyncRunner, GraphRunner
from devil.runtime.packed_run import CACHE_STEP, CHUNK, PackedCache, Piece
from devil.runtime.sampling import Sampling, chooser
from devil.runtime.slots import SHARED

TOGETHER = 32  # most sentences side by side: bounds the logits that are held at once


class LanguageSession:
    """One video's conversation with the language model.

    Args:
        runner: the loaded language graph; sessions may share it.
        config: the model.
        capacity: slots of the KV cache to begin with; it grows as needed.

    Attributes:
        length: slots and positions that the prefix fills.
        packed: the cache row that prefix and sentences share.
        context: slots there can be.
    """

    def __init__(self, runner: GraphRunner, config: DevilConfig, capacity: int = CACHE_STEP):
        self.config = config
        self.length = 0
        self.packed = PackedCache(runner, config.language, capacity)
        slots = runner.most("M", {}) if isinstance(runner, AsyncRunner) else None
        self.context = min(config.language.context, slots or config.language.context)
        self._holder = "engine" if self.context < config.language.context else "model"

    def check_prefix(self, length: int) -> None:
        """Whether a prefix of so many tokens leaves room for an answer.

        Raises:
            VideoError: it does not.
        """
        needed = length + self.config.max_new_tokens
        if needed > self.context:
            raise VideoError(
                f"the video and an answer need {needed} tokens, the {self._holder} holds {self.context}",
                f"use fewer frames or fewer visual tokens{self._larger(needed)}",
            )

    def check_sentences(self, sizes: Sequence[int], prefix: int, max_new_tokens: int | None = None) -> None:
        """Whether prompts of so many tokens each, and their answers, fit behind a prefix of `prefix` tokens.

        Raises:
            SentenceError: one is empty, or more than the model's context holds.
        """
        limit = self.config.max_new_tokens if max_new_tokens is None else max_new_tokens
        for index, size in enumerate(sizes):
            which = f"sentence {index + 1}: " if len(sizes) > 1 else ""
            if size < 1:
                raise SentenceError(f"{which}the prompt behind the video is empty", "ask something")
            needed = prefix + size + limit
            if needed > self.context:
                told = f"{which}the video, the sentence and its answer need {needed} tokens"
                shorter = f"shorten the sentence by {needed - self.context} tokens, or use fewer frames"
                raise SentenceError(f"{told}, the {self._holder} holds {self.context}", shorter + self._larger(needed))

    def _larger(self, needed: int) -> str:
        """What else would help where the engine is what is too small."""
        return f", or build engines with devil-build --context {needed}" if self._holder == "engine" else ""

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
            chunk: most tokens of one run; long prefixes take smaller ones by themselves.
            on_chunk: called after every run with the tokens read so far and all tokens.

        Raises:
            VideoError: the prefix alone does not fit the model's context.
            BundleError: an id is neither in the vocabulary nor in the table.
        """
        self.check_prefix(len(token_ids))
        began = time.perf_counter()
        self.length, self.packed.table = 0, visual_table
        self.packed.slots.clear()
        ids = self._checked(token_ids)
        try:
            self.packed.run([Piece(SHARED, ids, 0, asked=0)], chunk, on_chunk)
        except BaseException:
            self.packed.slots.clear()  # half a prefix is none
            raise
        self.length = len(token_ids)
        return time.perf_counter() - began

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int | None = None,
        stop_ids: Iterable[int] = (),
        sampling: Sampling | None = None,
        draft: Draft = no_draft,
        on_token: Callable[[int, int], None] | None = None,
        chunk: int = CHUNK,
    ) -> list[Generation]:
        """Answers sentences together, each as if it were asked alone.

        Args:
            prompts: what stands behind the prefix, per sentence.
            max_new_tokens: most tokens of each answer; the config's by default.
            stop_ids: tokens that end an answer, besides the model's end token.
            sampling: how tokens are drawn; the most likely ones by default.
            draft: guesses tokens, which are verified: it changes the number of steps and not the answers.
            on_token: called with the sentence's index and the id, for every token as it is generated.
            chunk: most tokens of one run.

        Raises:
            SentenceError: nothing to read, or more than the model's context holds; raised before anything is computed.
            BundleError: an id is neither in the vocabulary nor in the visual table.
            EngineError: the logits are not numbers.
        """
        limit = self.config.max_new_tokens if max_new_tokens is None else max_new_tokens
        self.check_sentences([len(prompt) for prompt in prompts], self.length, limit)
        for prompt in prompts:
            self._checked(prompt)
        stops, generations = tuple(stop_ids), []
        hear = on_token or (lambda _index, _token: None)
        for group in self._groups([len(prompt) + limit for prompt in prompts]):
            decodings = [
                Decoding(prompts[index], self.config, limit, stops, chooser(sampling), draft, partial(hear, index))
                for index in group
            ]
            generations += self._answer(decodings, chunk)
        return generations

    def _groups(self, sizes: list[int]) -> Iterator[range]:
        """Sentences that go side by side: with the prefix they take no more slots than the model's context has.

        Args:
            sizes: slots that each sentence and its answer take, without rejected drafts.
        """
        first, room = 0, self.context - self.length
        for end in range(1, len(sizes) + 1):
            if end == len(sizes) or end - first == TOGETHER or sum(sizes[first : end + 1]) > room:
                yield range(first, end)
                first = end

    def _checked(self, token_ids: Sequence[int]) -> np.ndarray:
        ids = np.asarray(token_ids, np.int64)
        vocab, rows = self.config.language.vocab, len(self.packed.table)
        wrong = ids[(ids < 0) | (ids >= vocab + rows)]
        if wrong.size:
            raise BundleError(
                f"token id {wrong[0]} is neither in the vocabulary of {vocab} nor one of {rows} visual tokens",
                "use the tokenizer of this model",
            )
        return ids

    def _answer(self, decodings: list[Decoding], chunk: int) -> list[Generation]:
        """Prefill and decoding of sentences side by side."""
        began = time.perf_counter()
        try:
            self._advance(list(enumerate(decodings)), chunk)
            prefilled = time.perf_counter()
            while running := [(owner, decoding) for owner, decoding in enumerate(decodings) if decoding.running]:
                self._advance(running, chunk)
        finally:
            self.packed.slots.keep_prefix()
        decoded = time.perf_counter()
        return [decoding.generation(prefilled - began, decoded - prefilled) for decoding in decodings]

    def _advance(self, running: list[tuple[int, Decoding]], chunk: int) -> None:
        """One run for all of them; slots of wrong guesses and of answers that end here are given back."""
        pieces = [
            Piece(owner, decoding.fed, self.length + decoding.position, decoding.asked) for owner, decoding in running
        ]
        slots = self.packed.slots
        for (owner, decoding), readout in zip(running, self.packed.run(pieces, chunk), strict=True):
            slots.release(readout.slots[decoding.take(readout.logits, readout.hidden) :])
            if not decoding.running:
                slots.release_all_of(owner)
