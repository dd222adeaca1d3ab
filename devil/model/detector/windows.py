"""Which token of a map lies where in Swin's windows, by arithmetic that also holds for sizes unknown at export."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

OTHER_REGION = -100.0  # added to the score of tokens that only the cyclic shift made neighbours


class WindowLayout(NamedTuple):
    """A map of H × W tokens, padded to whole windows and cyclically shifted.

    T is window².
    """

    order: Tensor  # int64 [windows, T]: the flat position that each slot reads; H·W beyond the map
    place: Tensor  # int64 [H·W]: the slot, counted through all windows, that holds each position
    mask: Tensor | None  # [windows, 1, T, T], added to the scores; None where nothing is shifted


def window_layout(height: int, width: int, window: int, shift: int, like: Tensor) -> WindowLayout:
    """The layout of a height × width map shifted up and left by `shift`, on the device and in the dtype of `like`."""
    rows, columns = (height + window - 1) // window, (width + window - 1) // window
    y, x = _sources(rows, window, shift, like), _sources(columns, window, shift, like)  # [rows, w], [columns, w]
    y, x = y[:, None, :, None], x[None, :, None, :]
    flat = torch.where((y < height) & (x < width), y * width + x, height * width)
    order = flat.reshape(rows * columns, window * window)
    (row, down), (column, across) = (
        _slots(height, rows, window, shift, like),
        _slots(width, columns, window, shift, like),
    )
    tile = row[:, None] * columns + column[None, :]  # [H, W]
    place = (tile * window + down[:, None]) * window + across[None, :]
    mask = _mask(rows, columns, window, shift, like) if shift else None
    return WindowLayout(order, place.reshape(-1), mask)


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
