"""What the language model's attention is led to in training: where an answer, or a visual token, should look.

Places are indices into the sequences of a collated batch of B clips; `owner` int64 [B, T, G] says which shape each
visual token shows. All masks are bool, over the S places of a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from devil.data.clips import SyntheticClip
from devil.data.scene import Query
from devil.data.script import KINDS
from devil.training.labels import TokenLabels
from devil.training.packing import Packed

_TIME_BEFORE_PICTURE = 2  # a frame reads `Time`, t, `s:`, picture


def wanted_frames(packed: Packed, queries: Sequence[Sequence[Query]], end: str) -> Tensor:
    """[B, Q, S]: the tokens of the frame in which each answer begins (`first`) or ends (`last`)."""
    frames = np.array([[getattr(query, end) for query in asked] for asked in queries])
    return torch.from_numpy(packed.frame_of[:, None] == frames[..., None])


def wanted_shapes(
    packed: Packed, owner: np.ndarray, clips: Sequence[SyntheticClip], queries: Sequence[Sequence[Query]]
) -> Tensor:
    """[B, Q, S]: the visual tokens that show the shape asked about, in the frames that tell of the event."""
    wanted = np.zeros((len(clips), len(queries[0]), packed.token_ids.shape[1]), bool)
    for number, (clip, asked) in enumerate(zip(clips, queries, strict=True)):
        for question, query in enumerate(asked):
            told = (owner[number] == query.target) & evidence(clip, query)[:, None]
            wanted[number, question, packed.is_visual[number]] = told.reshape(-1)
    return torch.from_numpy(wanted)


def sentence_words(packed: Packed, questions: int, start: int, end: int) -> Tensor:
    """[B, Q, S]: each question's words, between the tokens `start` and `end`."""
    opened = np.cumsum(packed.token_ids == start, axis=1) - np.cumsum(packed.token_ids == end, axis=1) > 0
    words = opened & (packed.token_ids != start)
    return torch.from_numpy(words[:, None] & (packed.segments[:, None] == np.arange(1, questions + 1)[:, None]))


def evidence(clip: SyntheticClip, query: Query) -> np.ndarray:
    """In which frames a question's shape can be seen doing it, bool [T]."""
    telling = clip.inside(query) & clip.visible[query.target]
    if query.kind == "blinks":
        telling &= clip.scene.actors[query.target].pale(clip.scene.clock.shown)
    return telling


def event_labels(clips: Sequence[SyntheticClip], owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each visual token's shape is in an event of each kind, and whether one begins, bool [B, T, G, kinds]."""
    holds = np.zeros((*owner.shape, len(KINDS)), bool)
    begins = np.zeros_like(holds)
    for clip, shown, holding, beginning in zip(clips, owner, holds, begins, strict=True):
        for query in clip.queries:
            mine, kind = shown == query.target, KINDS.index(query.kind)
            holding[..., kind] |= mine & clip.inside(query)[:, None]
            beginning[query.first, :, kind] |= mine[query.first]
    return holds, begins


def some_owned(packed: Packed, owner: np.ndarray, count: int) -> np.ndarray:
    """Places of `count` visual tokens per clip that show a shape, spread evenly over them, int64 [B, count]."""
    rows = []
    for visual, owned in zip(packed.is_visual, owner, strict=True):
        places = np.flatnonzero(visual)[owned.reshape(-1) >= 0]
        rows.append(places[np.linspace(0, len(places) - 1, count).round().astype(int)])
    return np.stack(rows)


def own_times(packed: Packed, rows: np.ndarray) -> Tensor:
    """[B, R, S]: for visual tokens at places `rows` [B, R], the time told before their frame."""
    wanted = np.zeros((*rows.shape, packed.token_ids.shape[1]), bool)
    for clip, places in enumerate(rows):
        visual, frames = packed.is_visual[clip], packed.frame_of[clip]
        for row, place in enumerate(places):
            first = np.flatnonzero(visual & (frames == frames[place]))[0]
            wanted[clip, row, first - _TIME_BEFORE_PICTURE] = True
    return torch.from_numpy(wanted)


def shapes_before(packed: Packed, owner: np.ndarray, rows: np.ndarray) -> Tensor:
    """[B, R, S]: for visual tokens at places `rows` [B, R], the token of the same shape in the frame before, if any."""
    shown = np.full(packed.token_ids.shape, -1)
    shown[packed.is_visual] = owner.reshape(-1)
    clip = np.arange(len(rows))[:, None]
    same = shown[:, None] == shown[clip, rows][..., None]
    return torch.from_numpy(same & (packed.frame_of[:, None] == packed.frame_of[clip, rows][..., None] - 1))


def places_kept(packed: Packed, labels: TokenLabels, rows: np.ndarray) -> Tensor:
    """[B, R, S]: for visual tokens at places `rows` [B, R], their shape in the earlier frames of its present rest.

    Where it does not rest, the sequence's first token, which stands for "nowhere". To compare two places is what
    attention does by itself; a feed-forward layer takes thousands of steps to learn it.
    """
    since = np.full(packed.token_ids.shape, -1)
    since[packed.is_visual] = _resting_since(labels).reshape(-1)
    shown = np.full(packed.token_ids.shape, -1)
    shown[packed.is_visual] = labels.owner.reshape(-1)
    clip = np.arange(len(rows))[:, None]
    wanted = shown[:, None] == shown[clip, rows][..., None]
    wanted &= since[:, None] == since[clip, rows][..., None]
    wanted &= packed.frame_of[:, None] < packed.frame_of[clip, rows][..., None]
    wanted[..., 0] = ~wanted.any(-1)
    return torch.from_numpy(wanted)


def _resting_since(labels: TokenLabels) -> np.ndarray:
    """The frame since when each token's shape has been where it is, int64 [B, T, G]."""
    frames = labels.owner.shape[1]
    since = np.broadcast_to(np.arange(frames)[:, None], labels.owner.shape).copy()
    for frame in range(1, frames):
        same = labels.owner[:, frame] == labels.owner[:, frame - 1]
        rests = same & labels.had[:, frame] & ~labels.moved[:, frame]
        since[:, frame] = np.where(rests, since[:, frame - 1], frame)
    return since
