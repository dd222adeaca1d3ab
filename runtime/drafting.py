"""Drafts of an answer: its fixed words are proposed, the language model verifies them all in one run.

Answers follow a template, "It happens from 3.2 to 7.9 seconds. [BOX]", of which only the times are news. A wrong draft
costs its place in a run and nothing else: what is said stays token for token what plain decoding says.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from devil.prompt import PromptWriter, image_answer, stvg_answer

Draft = Callable[[Sequence[int]], Sequence[int]]  # the tokens said so far → a guess of those that follow
TextOf = Callable[[int], str]

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_MOST_LEARNED = 3  # templates


def no_draft(_tokens: Sequence[int]) -> tuple[int, ...]:
    """Plain decoding."""
    return ()


@dataclass(frozen=True)
class Hole:
    """A number in a template, of one or of several tokens.

    Attributes:
        decimals: digits behind its point; 0 for an integer.
        point: the token that is the point, where the point is a token of its own.
    """

    decimals: int
    point: int | None

    def begins(self, text: str) -> bool:
        """Whether `text` is a number of this form or becomes one."""
        return re.fullmatch(rf"\s*(\d+(\.\d{{0,{self.decimals}}})?)?" if self.decimals else r"\s*\d*", text) is not None

    def complete(self, text: str) -> bool:
        return re.fullmatch(rf"\s*\d+\.\d{{{self.decimals}}}" if self.decimals else r"\s*\d+", text) is not None


@dataclass(frozen=True)
class Template:
    """The tokens of an answer: runs of fixed ones, and holes."""

    parts: tuple[tuple[int, ...] | Hole, ...]

    @classmethod
    def of(cls, tokens: Sequence[int], text_of: TextOf) -> Template:
        """The template of an answer: a token that is part of a number belongs to a hole, the others stay."""
        texts = [text_of(token) for token in tokens]
        numbers = list(_NUMBER.finditer("".join(texts)))
        ends = list(itertools.accumulate(map(len, texts)))

        def number_at(index: int) -> re.Match | None:
            start, end = ends[index] - len(texts[index]), ends[index]
            return next((number for number in numbers if number.start() < end and start < number.end()), None)

        parts: list[tuple[int, ...] | Hole] = []
        for number, group in itertools.groupby(range(len(tokens)), number_at):
            indices = list(group)
            if number is None:
                parts.append(tuple(tokens[index] for index in indices))
            else:
                points = [tokens[index] for index in indices if texts[index] == "."]
                parts.append(Hole(len(number[0].partition(".")[2]), points[0] if points else None))
        return cls(tuple(parts))

    def following(self, tokens: Sequence[int], text_of: TextOf) -> tuple[int, ...] | None:
        """The fixed tokens that come next; none where a number does; None where `tokens` have left the template."""
        read = 0
        for part in self.parts:
            if isinstance(part, Hole):
                text = ""
                while read < len(tokens) and part.begins(text + text_of(tokens[read])):
                    text += text_of(tokens[read])
                    read += 1
                if part.complete(text):
                    continue
                if read < len(tokens):
                    return None
                return (part.point,) if part.point is not None and text.strip().isdigit() else ()
            said = tuple(tokens[read : read + len(part)])
            if said != part[: len(said)]:
                return None
            if len(said) < len(part):
                return part[len(said) :]
            read += len(part)
        return () if read == len(tokens) else None


class TemplateDraft:
    """Drafts from templates: those of the given answers, which stay, and of those that it has learned since.

    Args:
        answers: tokens of answers to begin with; none is empty.
        text_of: the text of one token.
    """

    def __init__(self, answers: Iterable[Sequence[int]], text_of: TextOf):
        given = list(answers)
        self._text_of, self._lasts = text_of, {answer[-1] for answer in given}
        self._given = [Template.of(answer, text_of) for answer in given]
        self._templates = list(self._given)  # the last answer's first

    def __call__(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """What may follow `tokens`; empty where nothing can be guessed."""
        guesses = (template.following(tokens, self._text_of) for template in self._templates)
        return next((guess for guess in guesses if guess is not None), ())

    def learn(self, tokens: Sequence[int]) -> None:
        """Tries the template of this answer first from now on: a checkpoint may have words of its own.

        An answer that ends otherwise than the given ones, in [BOX], is no example and is not learned.
        """
        if not tokens or tokens[-1] not in self._lasts:
            return
        template = Template.of(tokens, self._text_of)
        self._templates = [template, *(other for other in self._templates if other != template)]
        learned = [other for other in self._templates if other not in self._given]
        if len(learned) > _MOST_LEARNED:
            self._templates.remove(learned[-1])


def answer_draft(writer: PromptWriter, is_image: bool) -> TemplateDraft:
    """Drafts of the answers that DEViL is taught to give."""
    *answer, _ = writer.answer(image_answer() if is_image else stvg_answer(0, 0))  # without the end token
    texts: dict[int, str] = {}

    def text_of(token: int) -> str:
        if token not in texts:
            texts[token] = writer.tokenizer.decode([token], skip_special_tokens=False)
        return texts[token]

    return TemplateDraft([answer], text_of)
