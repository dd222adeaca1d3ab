"""The tokenizer of devil-tiny: byte-level BPE, so any text can be written, with the constant parts of a dialogue and
every time of a short clip as one token each.

The 7B model's tokenizer comes with its checkpoint; this one is trained in a second and keeps prompts short.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from devil.data.scene import make_scene
from devil.prompt import (
    BOX,
    IMAGE,
    QUERY_END,
    QUERY_START,
    TURN_END,
    TURN_START,
    image_answer,
    image_instruction,
    stvg_answer,
    stvg_instruction,
    timestamp,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL_TOKENS = (
    "<|endoftext|>", TURN_START, TURN_END, IMAGE, "<|stream_start|>", "<|stream_end|>", QUERY_START, QUERY_END, BOX,
)  # fmt: skip
LONGEST_CLIP = 20.0  # seconds; every tenth up to here is one token
MERGED_VOCABULARY = 1000  # at most so many bytes and merges; special tokens and phrases follow
_SCENES = 1000  # synthetic clips whose sentences give the words
_SPLIT = r"\d+\.\d|,?[A-Za-z]+ (?=\d)| [a-z]+ (?=\d)| ?[A-Za-z]+| ?[^\sA-Za-z\d]+|\d|\s+"


def tiny_tokenizer() -> Tokenizer:
    """The tokenizer of devil-tiny: always the same one."""
    return train_tokenizer(query.sentence for seed in range(_SCENES) for query in make_scene(seed).queries)


def train_tokenizer(sentences: Iterable[str]) -> Tokenizer:
    """A tokenizer whose words come from `sentences`."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MERGED_VOCABULARY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    times = [timestamp(tenth / 10) for tenth in range(round(LONGEST_CLIP * 10) + 1)]
    dialogue = [f"from {time} to {time}" for time in times]
    tokenizer.train_from_iterator([*dialogue * 50, *sentences], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(phrase, special=False, normalized=False) for phrase in _phrases()])
    return tokenizer


def _phrases() -> list[str]:
    """The constant texts of a dialogue, as `devil.prompt` cuts them."""
    before, video_tail = stvg_instruction("\0").split(f"{QUERY_START}\0{QUERY_END}")
    image_tail = image_instruction("\0").split(QUERY_END)[1]
    opening = stvg_answer(0, 0).split("0.0")[0]
    ending = stvg_answer(0, 0).split("0.0")[2].removesuffix(BOX)
    return [
        "user\nTime ", ",Time ", "s:", "user\n", "assistant\n", "\n" + before, video_tail, image_tail,
        opening, ending, image_answer().removesuffix(BOX),
    ]  # fmt: skip
