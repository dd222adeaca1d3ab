"""A tokenizer of Qwen2.5's size and special tokens, for checkpoints with random weights.

It knows all bytes and the words of the dialogue; the other ids stand for tokens that no text contains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devil.prompt import (
    BOX,
    IMAGE,
    QUERY_END,
    QUERY_START,
    image_answer,
    image_instruction,
    stvg_answer,
    stvg_instruction,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY = 151_643  # Qwen2.5's, before its special tokens
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
    IMAGE, "<|stream_start|>", "<|stream_end|>", QUERY_START, QUERY_END, BOX,
)  # fmt: skip

# Letters with what stands before them, single digits, signs, line ends, spaces.
_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def stand_in_tokenizer() -> Tokenizer:
    """Always the same one; its special tokens have the ids of `devil.config.TokenConfig`."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words = {word for word, _ in split.pre_tokenize_str(_dialogue()) if len(word) > 1}
    known = sorted(pre_tokenizers.ByteLevel.alphabet()) + sorted(words)
    unused = (f"unused-{number}" for number in range(VOCABULARY - len(known)))
    vocabulary = {token: number for number, token in enumerate([*known, *unused])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))  # whole words that are known stay whole
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def _dialogue() -> str:
    prompts = f"user\nTime 0.0s:\n,Time 0.5s:\n{stvg_instruction(' ')}\n{image_instruction(' ')}\nassistant\n"
    return prompts + f"{stvg_answer(0, 1)}\n{image_answer()}"
