"""The chat prompt of a video or an image, as token ids (reference §2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from devil.config import DevilConfig
from devil.errors import CheckpointError, SentenceError

QUERY_START, QUERY_END = "<query>", "</query>"
IMAGE, BOX = "<image>", "[BOX]"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"


def stvg_instruction(sentence: str) -> str:
    """What the user says to have `sentence` located in a video."""
    return (
        f"Locate the visual content described by the given textual query {QUERY_START}{sentence}{QUERY_END} in the "
        "video. Please output the start and end timestamps in seconds and the spatial location of the object."
    )


def image_instruction(sentence: str) -> str:
    """What the user says to have `sentence` located in one image."""
    return (
        f"Locate the visual content described by the given textual query {QUERY_START}{sentence}{QUERY_END} in the "
        "image. Please output the spatial location of the object."
    )


def stvg_answer(start: float, end: float) -> str:
    """The answer devil-tiny is taught for a video; times in seconds."""
    return f"It happens from {start:.1f} to {end:.1f} seconds. {BOX}"


def image_answer() -> str:
    """The answer devil-tiny is taught for an image."""
    return f"It is here. {BOX}"


def timestamp(time: float) -> str:
    """A time in seconds as prompt and answer print it."""
    return f"{time:.1f}"


def checked_sentence(sentence: str) -> str:
    """The user's sentence with single spaces between its words.

    Raises:
        SentenceError: it has no word, or is no valid text.
    """
    words = sentence.split()
    if not words:
        raise SentenceError("the sentence is empty", "say which object to find, for example 'the red circle'")
    if any("\ud800" <= letter <= "\udfff" for letter in sentence):  # bytes of a command line that are not UTF-8
        raise SentenceError("the sentence is not UTF-8 text", "set the terminal to UTF-8 and type it again")
    return " ".join(words)


class PromptWriter:
    """Turns times, visual-token counts and a sentence into token ids.

    The user's sentence is encoded as plain text: special tokens written in it are letters, not control.

    Args:
        tokenizer_path: `tokenizer.json` of the checkpoint or bundle.
        config: its token ids are checked against the tokenizer's.

    Raises:
        CheckpointError: the tokenizer is unreadable, or disagrees with the config.
    """

    def __init__(self, tokenizer_path: Path, config: DevilConfig):
        from tokenizers import Tokenizer

        try:
            self.tokenizer = Tokenizer.from_file(str(tokenizer_path))
        except Exception as error:  # the library raises plain Exception for every kind of bad file
            raise CheckpointError(f"{tokenizer_path} cannot be read ({error})", "copy the checkpoint again") from error
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.tokenizer.encode_special_tokens = True
        self.config = config
        self._ids = {token: self._id(token) for token in (IMAGE, BOX, QUERY_START, QUERY_END, TURN_START, TURN_END)}
        expected = {
            IMAGE: config.tokens.image,
            BOX: config.tokens.box,
            QUERY_START: config.tokens.query_start,
            QUERY_END: config.tokens.query_end,
            TURN_END: config.tokens.end,
        }
        for token, wanted in expected.items():
            if self._ids[token] != wanted:
                raise CheckpointError(
                    f"token {token} is {self._ids[token]} in {tokenizer_path.name} but {wanted} in config.json",
                    "use tokenizer and config of one checkpoint",
                )

    def video_prefix(self, times: Sequence[float], kept: Sequence[int]) -> list[int]:
        """Everything before the instruction; the k-th visual token of the video is id `vocab + k`.

        Args:
            times: seconds of each sampled frame.
            kept: visual tokens of each frame.
        """
        ids = [self._ids[TURN_START]]
        row = self.config.language.vocab
        for index, (time, count) in enumerate(zip(times, kept, strict=True)):
            ids += self.text(f"{',' if index else 'user' + chr(10)}Time {timestamp(time)}s:")
            ids += range(row, row + count)
            row += count
        return ids

    def image_prefix(self, kept: int) -> list[int]:
        """As `video_prefix`, for one image: no time is told."""
        vocab = self.config.language.vocab
        return [self._ids[TURN_START], *self.text("user\n"), *range(vocab, vocab + kept)]

    def opening(self, is_image: bool = False) -> list[int]:
        """The beginning of every instruction, whatever the sentence."""
        before, _ = _around_query(is_image)
        return [*self.text("\n" + before), self._ids[QUERY_START]]

    def instruction(self, sentence: str, is_image: bool = False) -> list[int]:
        """Everything after the visual tokens, up to where the answer begins.

        Raises:
            SentenceError: the sentence is empty or no valid text.
        """
        _, after = _around_query(is_image)
        return [
            *self.opening(is_image),
            *self.text(checked_sentence(sentence)),
            self._ids[QUERY_END],
            *self.text(after),
            self._ids[TURN_END],
            *self.text("\n"),
            self._ids[TURN_START],
            *self.text("assistant\n"),
        ]

    def answer(self, text: str) -> list[int]:
        """An answer as the model should write it, with its [BOX] tokens, up to and including the end token."""
        ids: list[int] = []
        for index, piece in enumerate(text.split(BOX)):
            ids += ([self._ids[BOX]] if index else []) + self.text(piece)
        return [*ids, self._ids[TURN_END]]

    def text(self, text: str) -> list[int]:
        """Plain text to ids; nothing in it is a special token."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids if text else []

    def decode(self, ids: Sequence[int]) -> str:
        """Ids of an answer to text; [BOX] stays visible, the end token does not."""
        shown = [token for token in ids if token != self._ids[TURN_END]]
        return self.tokenizer.decode(shown, skip_special_tokens=False).strip()

    def _id(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(
                f"the tokenizer lacks the token {token}", "use the tokenizer.json of a DEViL checkpoint"
            )
        return found


def _around_query(is_image: bool) -> tuple[str, str]:
    """The instruction's text before and behind the query."""
    template = image_instruction if is_image else stvg_instruction
    before, after = template("\0").split(f"{QUERY_START}\0{QUERY_END}")
    return before, after
