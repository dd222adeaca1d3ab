"""Several questions about one clip in one sequence: the video once, then every question seeing the video and itself.

The block mask makes each question's numbers equal to those of a sequence that holds only it; the video, which is most
of the tokens, is computed once for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from devil.prompt import PromptWriter

PADDING = -1  # segment number of padding


@dataclass(frozen=True)
class Packed:
    """One clip with Q questions, S tokens. Segment 0 is the video, k ≥ 1 is question k, padding is -1.

    Attributes:
        token_ids: int64 [S]; id `vocab + k` is the clip's k-th visual token.
        positions: int64 [S]; every question continues from the end of the video.
        segments: int64 [S].
        read: int64 [R], places whose next token is learned.
        targets: int64 [R], those next tokens.
        answers: int64 [Q], the place before each answer: what predicts its first token.
        boxes: int64 [Q], the place of each question's first [BOX], or -1.
        frame_of: int64 [S], the frame whose time or picture a token of the video carries; -1 outside the video.
        is_visual: bool [S], the visual tokens.
    """

    token_ids: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    read: np.ndarray
    targets: np.ndarray
    answers: np.ndarray
    boxes: np.ndarray
    frame_of: np.ndarray
    is_visual: np.ndarray


def pack_video(
    writer: PromptWriter, times: Sequence[float], kept: Sequence[int], dialogue: Sequence[tuple[str, str]]
) -> Packed:
    """Questions (sentence, answer text) about a video whose frames keep `kept` visual tokens each."""
    prefix = writer.video_prefix(times, kept)
    return _pack(writer, prefix, _frames_of(prefix, kept, writer), dialogue, is_image=False)


def pack_image(writer: PromptWriter, kept: int, dialogue: Sequence[tuple[str, str]]) -> Packed:
    """As `pack_video`, for one image of `kept` visual tokens."""
    prefix = writer.image_prefix(kept)
    vocab = writer.config.language.vocab
    frame_of = np.array([0 if token >= vocab else -1 for token in prefix], np.int64)
    return _pack(writer, prefix, frame_of, dialogue, is_image=True)


def collate(clips: Sequence[Packed], visual_tokens: int, vocab: int, multiple: int = 1) -> Packed:
    """Clips as one batch: every array gains a leading axis B, padded; visual ids count through the batch.

    Args:
        visual_tokens: rows of the visual table per clip.
        vocab: first visual id.
        multiple: sequence lengths are padded to a multiple of this.

    `read`, `targets`, `answers` and `boxes` become flat, as indices into the flattened [B·S] (boxes stay -1 where
    there is none).
    """
    longest = -(-max(len(clip.token_ids) for clip in clips) // multiple) * multiple

    def padded(name: str, fill: int) -> np.ndarray:
        rows = np.full((len(clips), longest), fill, np.int64)
        for row, clip in zip(rows, clips, strict=True):
            values = getattr(clip, name)
            row[: len(values)] = values
        return rows

    def flat(name: str) -> np.ndarray:
        shifted = [
            np.where(getattr(clip, name) < 0, -1, getattr(clip, name) + row * longest) for row, clip in enumerate(clips)
        ]
        return np.concatenate(shifted)

    token_ids = padded("token_ids", 0)
    token_ids += (token_ids >= vocab) * np.arange(len(clips))[:, None] * visual_tokens
    return Packed(
        token_ids=token_ids,
        positions=padded("positions", 0),
        segments=padded("segments", PADDING),
        read=flat("read"),
        targets=np.concatenate([clip.targets for clip in clips]),
        answers=flat("answers"),
        boxes=flat("boxes"),
        frame_of=padded("frame_of", -1),
        is_visual=padded("is_visual", 0).astype(bool),
    )


def block_mask(segments: np.ndarray) -> np.ndarray:
    """bool [B, S, S], True where a token (row) may attend to another: earlier, and of the video or its own segment."""
    own, other = segments[:, :, None], segments[:, None, :]
    earlier = np.tril(np.ones((segments.shape[1],) * 2, bool))
    return earlier & ((other == 0) | (own == other))


def _pack(
    writer: PromptWriter, prefix: list[int], frame_of: np.ndarray, dialogue: Sequence[tuple[str, str]], is_image: bool
) -> Packed:
    ids, positions, segments = list(prefix), list(range(len(prefix))), [0] * len(prefix)
    read: list[int] = []
    answers, boxes = [], []
    for number, (sentence, answer) in enumerate(dialogue, start=1):
        asked, answered = writer.instruction(sentence, is_image), writer.answer(answer)
        start = len(ids) + len(asked)
        box = writer.config.tokens.box
        read += range(start - 1, start + len(answered) - 1)
        answers.append(start - 1)
        boxes.append(start + answered.index(box) if box in answered else -1)
        ids += asked + answered
        positions += range(len(prefix), len(prefix) + len(asked) + len(answered))
        segments += [number] * (len(asked) + len(answered))
    frames = np.full(len(ids), -1, np.int64)
    frames[: len(frame_of)] = frame_of
    where = np.array(read, np.int64)
    token_ids = np.array(ids, np.int64)
    return Packed(
        token_ids=token_ids,
        positions=np.array(positions, np.int64),
        segments=np.array(segments, np.int64),
        read=where,
        targets=token_ids[where + 1],
        answers=np.array(answers, np.int64),
        boxes=np.array(boxes, np.int64),
        frame_of=frames,
        is_visual=token_ids >= writer.config.language.vocab,
    )


def _frames_of(prefix: list[int], kept: Sequence[int], writer: PromptWriter) -> np.ndarray:
    """Frame number of every visual token, and of the words (its time) that stand before it."""
    vocab = writer.config.language.vocab
    owner = np.repeat(np.arange(len(kept)), kept)
    frames = np.full(len(prefix), -1, np.int64)
    current = -1
    for place in range(len(prefix) - 1, -1, -1):
        if prefix[place] >= vocab:
            current = owner[prefix[place] - vocab]
        frames[place] = current
    return frames
