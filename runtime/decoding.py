"""One sentence's answer as it grows: what to feed next, and what to make of the logits that come back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from devil.config import DevilConfig
from devil.runtime.drafting import Draft
from devil.runtime.sampling import Choose


@dataclass(frozen=True)
class Generation:
    """What the language model said.

    Attributes:
        token_ids: generated ids, without the token that stopped it.
        rsts: the RST of each generated [BOX], float32 [hidden].
        finished: the model ended by itself; False where max_new_tokens stopped it.
        steps: runs of the graph after the sentences' prefill that this answer took part in.
        drafted: tokens that were proposed, in the prefill and in the steps.
        accepted: how many of them the model would have said itself; each saved a step.
        prefill_seconds, decode_seconds: time of the prefill, and of the steps, of all sentences answered together.
    """

    token_ids: tuple[int, ...]
    rsts: tuple[np.ndarray, ...]
    finished: bool
    steps: int
    drafted: int
    accepted: int
    prefill_seconds: float
    decode_seconds: float

    @property
    def rst(self) -> np.ndarray | None:
        """The first [BOX]'s RST, where there is one."""
        return self.rsts[0] if self.rsts else None


class Decoding:
    """One sentence being answered.

    Args:
        prompt: ids behind the video's prefix, at least one.
        config: the model.
        limit: most tokens to generate.
        stop_ids: tokens that end the answer, besides the model's end token.
        choose: takes logits to the next token.
        draft: guesses tokens.
        on_token: called with every generated id.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        config: DevilConfig,
        limit: int,
        stop_ids: Iterable[int],
        choose: Choose,
        draft: Draft,
        on_token: Callable[[int], None],
    ):
        self.tokens: list[int] = []
        self.rsts: list[np.ndarray] = []
        self.finished = False
        self.position = 0  # tokens behind the prefix that are settled: prompt, then answer
        self.runs = self.drafted = self.accepted = 0
        self._box, self._at_input = config.tokens.box, config.rst_position == "input"
        self._stops = {config.tokens.end, *stop_ids}
        self._limit, self._choose, self._draft, self._on_token = limit, choose, draft, on_token
        self._feed(prompt)

    @property
    def running(self) -> bool:
        """Whether `fed` is still to be run; a [BOX] at the limit is, for the hidden state at it."""
        if self.finished or len(self.tokens) < self._limit:
            return not self.finished
        return self._at_input and len(self.rsts) < self.tokens.count(self._box)

    @property
    def asked(self) -> int:
        """How many of `fed`, from its end, are read out: the last settled token and the drafts behind it."""
        return len(self._drafts) + 1

    def take(self, logits: np.ndarray, hidden: np.ndarray) -> int:
        """Reads what the model says behind the last settled token and behind each draft, as far as the drafts hold.

        Args:
            logits: float32 [asked, vocab].
            hidden: float32 [asked, hidden].

        Returns:
            How many of `fed`, from its beginning, are settled; the others were wrong guesses.
        """
        sure = len(self.fed) - len(self._drafts)
        for index in range(self.asked):
            if self._at_input and self.tokens and self.fed[sure - 1 + index] == self._box:
                self.rsts.append(hidden[index])
            if len(self.tokens) >= self._limit:
                break
            token = self._choose(logits[index])
            if token in self._stops:
                self.finished = True
                break
            self.tokens.append(token)
            self._on_token(token)
            if token == self._box and not self._at_input:
                self.rsts.append(hidden[index])
            if self._drafts[index : index + 1] != (token,):
                break
        settled = sure + index
        self.position += settled
        self.accepted += index
        self.runs += 1
        if self.running:
            self._feed(self.tokens[-1:])
        return settled

    def generation(self, prefill_seconds: float, decode_seconds: float) -> Generation:
        """The answer so far."""
        return Generation(
            token_ids=tuple(self.tokens),
            rsts=tuple(self.rsts),
            finished=self.finished,
            steps=self.runs - 1,
            drafted=self.drafted,
            accepted=self.accepted,
            prefill_seconds=prefill_seconds,
            decode_seconds=decode_seconds,
        )

    def _feed(self, tokens: Sequence[int]) -> None:
        room = max(0, self._limit - len(self.tokens) - 1)  # the run itself adds one token to the drafts
        self._drafts = tuple(self._draft(self.tokens))[:room]
        self.drafted += len(self._drafts)
        self.fed = (*tokens, *self._drafts)
