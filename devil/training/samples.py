"""Synthetic clips as training samples: what the model would see of their files, and every label there is."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from devil.config import DevilConfig
from devil.data.clips import SyntheticClip, picture_size, training_clip
from devil.data.dice import Dice
from devil.data.scene import ASPECTS, Split
from devil.preprocess import detector_size, patch_positions, patchify, resize, vision_size
from devil.training.labels import TokenLabels, token_labels

SIDES = (96, 144)  # shorter sides of the clips' pictures, as in the written data sets
_LOSSY = 0.5  # of the clips look as if a lossy codec had stored them
_QUALITY = (50, 95)
_DOT = (8, 8)  # pixels of a picture that nobody looks at


@dataclass(frozen=True)
class ClipSample:
    """A clip ready for the model, T frames.

    Attributes:
        clip: with questions, boxes and visibility.
        patches: uint8 [T, P, 3·patch²]; positions: int64 [P, 2].
        frames: uint8 [T, H, W, 3] for the detector.
        labels: what each visual token shows.
    """

    clip: SyntheticClip
    patches: np.ndarray
    positions: np.ndarray
    frames: np.ndarray
    labels: TokenLabels


def draw_shape(dice: Dice) -> tuple[str, int]:
    """Aspect and shorter side of the pictures of a batch: clips of one batch share them."""
    return dice.choice(list(ASPECTS)), 2 * dice.integer(SIDES[0] // 2, SIDES[1] // 2)


def clip_sample(
    seed: int, config: DevilConfig, aspect: str, side: int, split: Split = "train", frames: int | None = None
) -> ClipSample:
    """The training sample of a seed; `frames` defaults to the model's own number."""
    return sample_of(training_clip(seed, split, frames or config.frames, side, aspect), config)


def unseen_sample(seed: int, config: DevilConfig, aspect: str, side: int, frames: int | None = None) -> ClipSample:
    """A sample of training clip `seed` with labels and questions but no pictures: its arrays of pixels are empty."""
    count = frames or config.frames
    clip = training_clip(seed, "train", count, _DOT, aspect)
    height, width = picture_size(clip.scene, side)
    seen = vision_size(height, width, count, _budgeted(config, count))
    grid = seen[0] // config.vision.side, seen[1] // config.vision.side
    nothing = np.zeros((0,), np.uint8)
    return ClipSample(clip, nothing, nothing, nothing, token_labels(clip, grid))


def sample_of(clip: SyntheticClip, config: DevilConfig) -> ClipSample:
    """A clip as the model would see it; half of them look as if a lossy codec had stored them."""
    pictures = clip.frames
    dice = Dice(f"codec {clip.scene.name}")
    if dice.chance(_LOSSY):
        pictures = np.stack([_recompressed(picture, dice.integer(*_QUALITY)) for picture in pictures])
    height, width = pictures.shape[1:3]
    seen = vision_size(height, width, len(pictures), _budgeted(config, len(pictures)))
    looked_at = detector_size(height, width, config.detector)
    for_vision = np.stack([resize(picture, seen, "bicubic") for picture in pictures])
    side_pixels = config.vision.side
    return ClipSample(
        clip=clip,
        patches=patchify(for_vision, config.vision),
        positions=patch_positions(*seen, config.vision),
        frames=np.stack([resize(picture, looked_at, "bilinear") for picture in pictures]),
        labels=token_labels(clip, (seen[0] // side_pixels, seen[1] // side_pixels)),
    )


def _budgeted(config: DevilConfig, frames: int) -> DevilConfig:
    """Clips of fewer frames keep the tokens per frame that full clips have."""
    return dataclasses.replace(config, max_tokens=config.max_tokens * frames // config.frames)


def _recompressed(picture: np.ndarray, quality: int) -> np.ndarray:
    memory = io.BytesIO()
    Image.fromarray(picture).save(memory, "JPEG", quality=quality)
    return np.asarray(Image.open(memory))
