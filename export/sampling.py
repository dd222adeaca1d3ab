"""Seeded inputs of every graph: what it is traced with, and cases of other sizes to verify it with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from devil.config import DevilConfig, level_shapes
from devil.preprocess import patch_positions

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Frames:
    """A batch of detector frames and the RST to look for in them."""

    frames: np.ndarray  # uint8 [N, H, W, 3]
    rst: np.ndarray  # float32 [hidden]

    @property
    def level_shapes(self) -> np.ndarray:
        return np.array(level_shapes(*self.frames.shape[1:3]), np.int64)


def vision_case(config: DevilConfig, frames: int, rows: int, columns: int) -> Arrays:
    """Feeds of the vision graph for frames of rows × columns merged blocks of patches."""
    random = np.random.default_rng(0)
    positions = patch_positions(rows * config.vision.side, columns * config.vision.side, config.vision)
    shape = (frames, len(positions), 3 * config.vision.patch**2)
    return {"patches": random.integers(0, 256, shape, np.uint8), "positions": positions}


def vision_cases(config: DevilConfig) -> list[Arrays]:
    """Several frames, and the smallest image there is."""
    return [vision_case(config, 3, 2, 5), vision_case(config, 1, 1, 1)]


def traced_frames(config: DevilConfig, frame_size: tuple[int, int] | None = None) -> Frames:
    """Frames to trace the detector with.

    They are so large that no level and no number of windows is 1 anywhere: the tracer takes a 1 for a fixed size.
    """
    side = max(32 * config.detector.backbone.window, config.detector.min_side)
    height, width = frame_size or (side + 33, side + 70)
    return Frames(np.zeros((2, height, width, 3), np.uint8), np.zeros(config.language.hidden, np.float32))


def frame_cases(config: DevilConfig, frame_size: tuple[int, int] | None = None) -> list[Frames]:
    """Three frames and a single one, of sizes that are no multiple of anything; with a fixed size, of that one."""
    random = np.random.default_rng(1)
    side = config.detector.min_side
    sizes = (frame_size,) * 2 if frame_size else ((side, side + side // 3), (side + 17, side + 5))
    return [
        Frames(picture(random, number, *size), random.normal(size=config.language.hidden).astype(np.float32))
        for number, size in zip((3, 1), sizes, strict=True)
    ]


def picture(random: np.random.Generator, number: int, height: int, width: int) -> np.ndarray:
    """Blocks of colour under noise: uint8 [number, height, width, 3]."""
    block = 16
    small = random.integers(0, 225, (number, -(-height // block), -(-width // block), 3))
    large = small.repeat(block, 1).repeat(block, 2)[:, :height, :width]
    return (large + random.integers(0, 31, large.shape)).astype(np.uint8)


def language_cases(config: DevilConfig) -> list[Arrays]:
    """Prompts with text and visual tokens: token_ids [1, n] and visual_table [V, hidden] of each."""
    random = np.random.default_rng(2)
    language, cases = config.language, []
    for length, visual in ((13, 4), (30, 9)):
        ids = random.integers(0, language.vocab, (1, length))
        ids[0, 2 : 2 + visual] = language.vocab + np.arange(visual)
        table = random.normal(size=(visual, language.hidden)) * 0.05  # about as large as text embeddings
        cases.append({"token_ids": ids.astype(np.int64), "visual_table": table.astype(np.float32)})
    return cases
