"""From frames to what the graphs take: both resizes, patches in merge-block order, and which visual tokens are kept.

Pure functions on uint8 arrays; normalisation happens inside the graphs. Reference: §2.3, §2.4, §2.6 and §2.9.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from PIL import Image

from devil.config import DetectorConfig, DevilConfig, VisionConfig
from devil.errors import ConfigError

COMPRESSION_THRESHOLD = 0.1  # mean |Δ normalised pixel| × 255 at or below which a visual token is dropped

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def vision_size(height: int, width: int, frames: int, config: DevilConfig) -> tuple[int, int]:
    """The (height, width) that frames of a clip take for the vision encoder (resize A of the reference).

    Both sides become multiples of the token's side. Frames that fit the token budget are rounded to them; larger ones
    are scaled down by the square root of the excess and floored. A side keeps at least one token, and then the other
    side is cut until the budget holds.

    transformers' VideoLlama3 rule agrees while frames are of ordinary shape and within the budget. It differs in three
    ways: it scales small frames up to at least four tokens; it compares the rounded size with the budget and scales
    by the excess of pixels, where the reference counts tokens rounded up; and it may pass the budget when
    a side is clamped to one token.

    Args:
        height, width: pixels of a frame, at least 1.
        frames: how many frames share the budget `config.max_tokens`.

    Raises:
        ConfigError: more frames than tokens.
    """
    side = config.vision.side
    if frames > config.max_tokens:
        raise ConfigError(
            f"{frames} frames do not fit {config.max_tokens} visual tokens", "lower frames or raise max_tokens"
        )
    total = frames * math.ceil(height / side) * math.ceil(width / side)
    if total <= config.max_tokens:
        rows, columns = round(height / side), round(width / side)
    else:
        shrink = math.sqrt(total / config.max_tokens)
        rows, columns = math.floor(height / shrink / side), math.floor(width / shrink / side)
    per_frame = config.max_tokens // frames
    rows, columns = max(rows, 1), max(columns, 1)
    rows = min(rows, per_frame // columns or 1)
    columns = min(columns, per_frame // rows)
    return rows * side, columns * side


def detector_size(height: int, width: int, config: DetectorConfig) -> tuple[int, int]:
    """The (height, width) that frames take for the detector (resize B of the reference).

    The shorter side becomes `min_side` and the longer keeps the aspect, rounded down as torchvision does. A longer side
    beyond `max_side` is squeezed to it while the shorter stays, because fewer pixels on the shorter side could leave
    fewer proposals than queries. Boxes are fractions of the frame, so squeezing does not move them.
    """
    shorter, longer = min(height, width), max(height, width)
    long_side = min(config.min_side * longer // shorter, max(config.max_side, config.min_side))
    return (config.min_side, long_side) if height <= width else (long_side, config.min_side)


def resize(image: np.ndarray, size: tuple[int, int], method: Literal["bicubic", "bilinear"]) -> np.ndarray:
    """`image` uint8 [H, W, 3] at `size` (height, width), antialiased when it shrinks."""
    height, width = size
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    return np.asarray(Image.fromarray(image).resize((width, height), _FILTERS[method]))


def patchify(frames: np.ndarray, vision: VisionConfig) -> np.ndarray:
    """Frames uint8 [F, H, W, 3] as patches uint8 [F, P, 3·p·p].

    The merge × merge patches of one visual token follow each other, tokens and patches go row by row, and the values
    of a patch are ordered (channel, y, x). H and W are multiples of `vision.side`.
    """
    count, height, width, channels = frames.shape
    patch, merge = vision.patch, vision.merge
    rows, columns = height // vision.side, width // vision.side
    split = frames.reshape(count, rows, merge, patch, columns, merge, patch, channels)
    ordered = split.transpose(0, 1, 4, 2, 5, 7, 3, 6)  # [F, rows, columns, merge, merge, 3, p, p]
    return ordered.reshape(count, rows * columns * merge**2, channels * patch**2)


def patch_positions(height: int, width: int, vision: VisionConfig) -> np.ndarray:
    """(row, column) int64 [P, 2] of every patch of a frame of that size, in the order of `patchify`."""
    grid = np.indices((height // vision.patch, width // vision.patch), dtype=np.int64)
    rows, columns, merge = height // vision.side, width // vision.side, vision.merge
    split = grid.reshape(2, rows, merge, columns, merge)
    return split.transpose(1, 3, 2, 4, 0).reshape(-1, 2)


def kept_tokens(patches: np.ndarray, config: DevilConfig) -> np.ndarray:
    """Which visual tokens stay after token compression: bool [F, P/merge²] for patches uint8 [F, P, 3·p·p].

    A token is dropped when its pixels equal, or nearly equal, those of the frame before (reference §2.6). The
    mean is taken off the difference, so normalising only divides it by the channel's deviation: whole-number sums per
    channel decide exactly what float arithmetic on normalised pixels decides up to rounding. The first frame is
    kept whole; a frame that would lose every token keeps its first one, as VideoLLaMA3 does.
    """
    merge, area = config.vision.merge, config.vision.patch**2
    tokens = patches.reshape(len(patches), -1, merge**2, 3, area)  # [F, tokens, merge², 3, p²]
    kept = np.ones(tokens.shape[:2], dtype=bool)
    if not config.compress_tokens:
        return kept
    weights = 1 / np.asarray(config.vision.std, dtype=np.float64)
    limit = COMPRESSION_THRESHOLD * tokens[0, 0].size
    for index in range(1, len(tokens)):
        current, previous = tokens[index], tokens[index - 1]
        difference = np.maximum(current, previous) - np.minimum(current, previous)
        sums = difference.sum(axis=-1, dtype=np.uint32).sum(axis=1)  # [tokens, 3]
        kept[index] = sums @ weights > limit
        if not kept[index].any():
            kept[index, 0] = True
    return kept
