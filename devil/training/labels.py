"""What each visual token of a synthetic clip shows: targets of the auxiliary heads, which exist in training only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from devil.data.clips import SyntheticClip

SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class TokenLabels:
    """Labels of T frames of G visual tokens each; a token owns the shape whose centre lies in its cell.

    Attributes:
        owner: int64 [T, G], index of the owned shape, or -1.
        colour, shape, size: int64 [T, G], indices, or -1.
        offset: float32 [T, G, 4], the shape's centre within the cell (0–1) and its width and height in cells.
        pale, moved, new: bool [T, G], whether the owned shape shows its pale face, is on its way since the previous
            frame, was not there in the previous frame.
        before: float32 [T, G, 4], the owned shape's `offset` in the previous frame, within the cell it was in then.
        had: bool [T, G], whether it was there.
        shift: float32 [T, G, 2], how far its centre has come since then, in cells (columns, rows).
    """

    owner: np.ndarray
    colour: np.ndarray
    shape: np.ndarray
    size: np.ndarray
    offset: np.ndarray
    pale: np.ndarray
    moved: np.ndarray
    new: np.ndarray
    before: np.ndarray
    had: np.ndarray
    shift: np.ndarray


def token_labels(clip: SyntheticClip, grid: tuple[int, int]) -> TokenLabels:
    """Labels for a grid of (rows, columns) tokens per frame. Of two centres in one cell, the upper shape owns it."""
    rows, columns = grid
    frames = len(clip.times)
    owner = np.full((frames, rows * columns), -1, np.int64)
    scaled = clip.boxes * np.array([columns, rows, columns, rows], np.float32)  # [K, T, 4], in cells
    centres = (scaled[..., :2] + scaled[..., 2:]) / 2
    cells = np.clip(centres.astype(int), 0, (columns - 1, rows - 1))  # [K, T, 2] (column, row)
    index = cells[..., 1] * columns + cells[..., 0]
    for number, shown in enumerate(clip.visible):
        where = np.flatnonzero(shown)
        owner[where, index[number, where]] = number
    owned = owner >= 0
    who, when = np.maximum(owner, 0), np.arange(frames)[:, None]
    shown_at = clip.scene.clock.shown
    pale = np.stack([actor.pale(shown_at) for actor in clip.scene.actors])
    sizes = np.array([SIZES.index(actor.size) for actor in clip.scene.actors])
    offset = np.concatenate((centres - cells, scaled[..., 2:] - scaled[..., :2]), axis=-1).astype(np.float32)

    shift = np.diff(centres, axis=1, prepend=centres[:, :1]).astype(np.float32)
    had = clip.visible[who, np.maximum(when - 1, 0)] & owned & (when > 0)

    def kept(values: np.ndarray) -> np.ndarray:
        return np.where(owned, values[who], -1)

    return TokenLabels(
        owner=owner,
        colour=kept(clip.colours),
        shape=kept(clip.shapes),
        size=kept(sizes),
        offset=offset[who, when] * owned[..., None],
        pale=pale[who, when] & owned,
        moved=_moved(clip)[who, when] & owned,
        new=_new(clip.visible)[who, when] & owned,
        before=offset[who, np.maximum(when - 1, 0)] * owned[..., None],
        had=had,
        shift=shift[who, when] * had[..., None],
    )


def _new(visible: np.ndarray) -> np.ndarray:
    """bool [K, T]; nothing is new in the first frame."""
    before = np.concatenate((visible[:, :1], visible[:, :-1]), axis=1)
    return visible & ~before


def _moved(clip: SyntheticClip) -> np.ndarray:
    """bool [K, T], whether a shape is under way and was there in the previous frame, so that it can be seen to move.

    A state begins just after the frame before the first that shows it: the first frame of a rest still differs a little
    from the one before, and does not count as moving.
    """
    shown = clip.scene.clock.shown
    moving = np.stack([_within(shown, actor.moving) for actor in clip.scene.actors])
    moving[:, 1:] &= clip.visible[:, 1:] & clip.visible[:, :-1]
    moving[:, 0] = False
    return moving


def _within(times: np.ndarray, intervals: tuple[tuple[float, float], ...]) -> np.ndarray:
    inside = np.zeros(len(times), bool)
    for start, end in intervals:
        inside |= (times >= start) & (times < end)
    return inside
