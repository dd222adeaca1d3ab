"""Resizes, patches and token compression, against transformers' VideoLLaMA3 processor and torch."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import (
    VideoLlama3ImageProcessorPil,
    smart_resize,
)

from devil.config import PRESETS, DetectorConfig, VisionConfig, level_shapes
from devil.errors import ConfigError
from devil.preprocess import detector_size, kept_tokens, patch_positions, patchify, resize, vision_size

SEVEN = PRESETS["7b"]
TINY = PRESETS["tiny"]
SIDES = st.integers(1, 5000)


def picture(height, width, seed=0):
    """Smooth shapes with noise: uint8 [H, W, 3]."""
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 9), np.cos(columns / 7), np.sin((rows + columns) / 5)], axis=-1)
    noise = np.random.default_rng(seed).normal(0, 20, waves.shape)
    return np.clip(waves * 100 + 128 + noise, 0, 255).astype(np.uint8)


@settings(deadline=None)
@given(SIDES, SIDES, st.integers(1, 256))
def test_frames_always_fit_the_token_budget(height, width, frames):
    for config in (SEVEN, TINY):
        side = config.vision.side
        new_height, new_width = vision_size(height, width, frames, config)
        assert new_height % side == new_width % side == 0
        assert new_height >= side
        assert new_width >= side
        assert frames * (new_height // side) * (new_width // side) <= config.max_tokens


@given(st.integers(56, 2000), st.integers(56, 2000), st.integers(1, 180))
def test_frames_within_the_budget_take_the_size_transformers_gives_them(height, width, frames):
    # Only where both rules count alike: sizes whose tokens, rounded up, fit the budget.
    if frames * math.ceil(height / 28) * math.ceil(width / 28) <= SEVEN.max_tokens:
        most = SEVEN.max_tokens // frames * 28 * 28
        assert vision_size(height, width, frames, SEVEN) == smart_resize(height, width, 28, 56 * 56, most)


def test_a_large_clip_is_scaled_by_the_root_of_its_excess():
    # 64 frames of 720 × 1280: 26 × 46 tokens each, 76,544 together against 16,384: both sides shrink by 2.1614.
    assert vision_size(720, 1280, 64, SEVEN) == (11 * 28, 21 * 28)
    assert vision_size(360, 640, 64, SEVEN) == (11 * 28, 21 * 28)
    assert vision_size(1, 4000, 64, SEVEN) == (28, 143 * 28)
    assert vision_size(1, 1, 1, SEVEN) == (28, 28)
    assert vision_size(3, 50_000, 64, SEVEN) == (28, 256 * 28)


def test_more_frames_than_tokens_are_refused():
    with pytest.raises(ConfigError, match="257 frames do not fit 256"):
        vision_size(100, 100, 257, dataclasses.replace(TINY, max_tokens=256))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((720, 1280), (360, 640)),
        ((1280, 720), (640, 360)),
        ((240, 320), (360, 480)),
        ((271, 641), (360, 851)),  # 851.5 is cut, as torchvision cuts it
        ((360, 360), (360, 360)),
        ((1, 1), (360, 360)),
        ((10, 1000), (360, 1333)),
        ((1000, 10), (1333, 360)),
    ],
)
def test_the_shorter_side_of_detector_frames_is_fixed(size, expected):
    assert detector_size(*size, SEVEN.detector) == expected


@given(SIDES, SIDES)
def test_detector_frames_give_enough_proposals_for_the_queries(height, width):
    for config in (SEVEN.detector, TINY.detector, DetectorConfig(max_side=100)):
        size = detector_size(height, width, config)
        assert min(size) == config.min_side
        assert max(size) <= max(config.max_side, config.min_side)
        assert sum(rows * columns for rows, columns in level_shapes(*size)) >= config.queries


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("size", "new"), [((97, 131), (28, 56)), ((31, 17), (84, 112)), ((1, 1), (28, 28)), ((1, 300), (360, 360))]
)
def test_resizing_equals_torch_antialiased_interpolation(method, size, new):
    image = picture(*size)
    # Bytes in torch too: between their two passes both round and clip, which floats would not.
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(planes, new, mode=method, antialias=True)[0].permute(1, 2, 0).numpy()
    resized = resize(image, new, method)
    assert resized.dtype == np.uint8
    assert resized.shape == (*new, 3)
    assert np.abs(resized.astype(int) - expected).max() <= 1


def test_resizing_to_the_same_size_changes_nothing():
    image = picture(31, 17)
    assert np.array_equal(resize(image, (31, 17), "bicubic"), image)


@pytest.mark.parametrize("size", [(101, 67), (56, 57), (113, 300), (211, 83)])
def test_patches_equal_the_pixel_values_of_transformers(size):
    config = dataclasses.replace(SEVEN, max_tokens=64)
    mean, std = np.float32((0.48, 0.46, 0.41)), np.float32((0.27, 0.26, 0.28))
    processor = VideoLlama3ImageProcessorPil(
        merge_size=2, image_mean=mean.tolist(), image_std=std.tolist(),
        size={"shortest_edge": 56 * 56, "longest_edge": 64 * 28 * 28},
    )  # fmt: skip
    image = picture(*size)
    expected = processor(images=[image], return_tensors="np")
    new = vision_size(*size, 1, config)
    patches = patchify(resize(image, new, "bicubic")[None], config.vision)
    assert expected["image_grid_thw"].tolist() == [[1, new[0] // 14, new[1] // 14]]
    pixels = expected["pixel_values"].reshape(-1, 3, 196) * std[:, None] + mean[:, None]
    assert patches.dtype == np.uint8
    assert np.abs(patches[0].reshape(-1, 3, 196) - pixels * 255).max() < 1e-3


def test_patch_positions_follow_the_order_of_the_patches():
    vision = VisionConfig(patch=2, merge=2)
    rows, columns = np.mgrid[:12, :20]
    frame = np.stack([rows // 2, columns // 2, rows * 0], axis=-1).astype(np.uint8)  # every pixel tells its patch
    told = patchify(frame[None], vision)[0].reshape(-1, 3, 4)
    positions = patch_positions(12, 20, vision)
    assert positions.dtype == np.int64
    assert np.array_equal(told[:, :2, 0], positions)
    assert positions[:5].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2]]


def test_several_frames_are_patched_one_by_one():
    frames = np.stack([picture(56, 84, seed) for seed in range(3)])
    together = patchify(frames, SEVEN.vision)
    assert together.shape == (3, 24, 588)
    for frame, patches in zip(frames, together, strict=True):
        assert np.array_equal(patchify(frame[None], SEVEN.vision)[0], patches)


def nearly_still(seed, frames=6, tokens=12):
    """Patches uint8 [F, 4·tokens, 588] with differences on both sides of the threshold."""
    rng = np.random.default_rng(seed)
    patches = np.repeat(rng.integers(0, 256, (1, tokens * 4, 588), np.uint8), frames, axis=0)
    for index in range(1, frames):
        patches[index] = patches[index - 1]
        flat = patches[index].reshape(tokens, -1)
        for token in range(tokens):
            changed = rng.choice(flat.shape[1], rng.integers(0, 240), replace=False)
            flat[token, changed] ^= 1
    patches[2] = patches[1]  # a frame that repeats the one before it
    return patches


def compression_by_definition(patches, vision):
    """Reference §2.6 on normalised values in float64."""
    mean, std = (np.array(values)[:, None] for values in (vision.mean, vision.std))
    values = (patches.reshape(len(patches), -1, 4, 3, 196) / 255 - mean) / std
    change = np.abs(np.diff(values, axis=0)).mean(axis=(2, 3, 4)) * 255
    kept = np.concatenate([np.ones_like(change[:1], dtype=bool), change > 0.1])
    kept[~kept.any(axis=1), 0] = True
    return kept


@pytest.mark.parametrize("std", [(0.5, 0.5, 0.5), (0.27, 0.26, 0.28)])
@pytest.mark.parametrize("seed", range(3))
def test_tokens_that_repeat_are_dropped_as_defined_on_normalised_pixels(seed, std):
    config = dataclasses.replace(SEVEN, vision=VisionConfig(std=std))
    patches = nearly_still(seed)
    kept = kept_tokens(patches, config)
    assert kept[0].all()
    assert kept[2].tolist() == [True] + [False] * 11
    assert 0 < kept[3:].mean() < 1
    assert np.array_equal(kept, compression_by_definition(patches, config.vision))


def test_the_difference_of_bytes_does_not_wrap():
    patches = np.zeros((2, 4, 588), np.uint8)
    patches[0] = 255
    patches = np.concatenate([patches, patches[:1]])
    assert kept_tokens(patches, SEVEN).all()


def test_compression_can_be_off_and_single_frames_are_whole():
    patches = np.zeros((3, 8, 588), np.uint8)
    assert kept_tokens(patches, dataclasses.replace(SEVEN, compress_tokens=False)).all()
    assert kept_tokens(patches[:1], SEVEN).tolist() == [[True, True]]
