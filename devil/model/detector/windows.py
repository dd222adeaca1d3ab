"""Which token of a map lies where in Swin's windows, by arithmetic that also holds for sizes unknown at export.

Every size is one rounded-up division of the frame's: ⌈⌈a/b⌉/c⌉ = ⌈a/(b·c)⌉, and an exporter that reasons about nested
divisions takes minutes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

OTHER_REGION = -100.0  # added to the score of tokens that only the cyclic shift made neighbours


class WindowLayout(NamedTuple):
    """A map of L = height × width tokens, padded to whole windows and cyclically shifted; T is window²."""

    order: Tensor  # int64 [windows, T]: the flat position that each slot reads; L beyond the map
    place: Tensor  # int64 [L]: the slot, counted through all windows, that holds each position
    mask: Tensor | None  # [windows, 1, T, T], added to the scores; None where nothing is shifted


def map_size(frame: tuple[int, int], stride: int) -> tuple[int, int]:
    """(height, width) of the map of that stride over a frame of (H, W) pixels."""
    return (frame[0] + stride - 1) // stride, (frame[1] + stride - 1) // stride


def window_layout(frame: tuple[int, int], stride: int, window: int, shift: int, like: Tensor) -> WindowLayout:
    """The layout of a map shifted up and left by `shift`, on the device and in the dtype of `like`."""
    height, width = map_size(frame, stride)
    rows, columns = map_size(frame, stride * window)
    order = _flat(_sources(rows, window, shift, like), _sources(columns, window, shift, like), height, width)
    row, down = _slots(height, rows, window, shift, like)
    column, across = _slots(width, columns, window, shift, like)
    tile = row[:, None] * columns + column[None, :]  # [height, width]
    place = (tile * window + down[:, None]) * window + across[None, :]
    mask = _mask(rows, columns, window, shift, like) if shift else None
    return WindowLayout(order, place.reshape(-1), mask)


def neighbours(frame: tuple[int, int], stride: int, like: Tensor) -> Tensor:
    """int64 [L/4, 4]: the flat positions of every 2 × 2 neighbours of a map, column by column; L beyond the map."""
    height, width = map_size(frame, stride)
    rows, columns = map_size(frame, stride * 2)
    y, x = _sources(rows, 2, 0, like), _sources(columns, 2, 0, like)
    return _flat(y, x, height, width).view(-1, 2, 2).transpose(1, 2).reshape(rows * columns, 4)


def _flat(y: Tensor, x: Tensor, height: int, width: int) -> Tensor:
    """[rows·columns, w·w]: flat positions of y [rows, w] and x [columns, w]; height·width beyond the map."""
    y, x = y[:, None, :, None], x[None, :, None, :]
    flat = torch.where((y < height) & (x < width), y * width + x, height * width)
    return flat.reshape(y.shape[0] * x.shape[1], y.shape[2] * x.shape[3])


def _sources(tiles: int, window: int, shift: int, like: Tensor) -> Tensor:
    """[tiles, window]: the coordinate that each place of a shifted axis reads."""
    coordinate = torch.arange(tiles * window, device=like.device) + shift
    wrapped = torch.where(coordinate < tiles * window, coordinate, coordinate - tiles * window)
    return wrapped.reshape(tiles, window)


def _slots(length: int, tiles: int, window: int, shift: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """([length], [length]): the tile each coordinate ends up in, and where in it."""
    place = torch.arange(length, device=like.device) - shift
    place = torch.where(place < 0, place + tiles * window, place)
    tile = place // window
    return tile, place - tile * window


def _mask(rows: int, columns: int, window: int, shift: int, like: Tensor) -> Tensor:
    """[windows, 1, T, T]: OTHER_REGION between tokens of different pieces of the map."""

    def pieces(tiles: int) -> Tensor:
        """[tiles, window]: 0 before the last tile, 1 in it, 2 for what the shift wrapped around."""
        place = torch.arange(tiles * window, device=like.device)
        return ((place >= (tiles - 1) * window).long() + (place >= tiles * window - shift).long()).reshape(
            tiles, window
        )

    piece = 3 * pieces(rows)[:, None, :, None] + pieces(columns)[None, :, None, :]
    piece = piece.reshape(rows * columns, window * window)
    return ((piece[:, None, :, None] != piece[:, None, None, :]) * OTHER_REGION).to(like.dtype)
