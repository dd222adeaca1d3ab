"""A video (or image) as the model sees it: sampled, resized, cut into patches. Everything before the first graph."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np

from devil.answer import Span
from devil.config import DevilConfig
from devil.errors import VideoError
from devil.preprocess import detector_size, kept_tokens, patch_positions, patchify, resize, vision_size
from devil.tube import frames_in_span
from devil.video import VideoInfo, probe, read_frames, sample_indices, sample_times


@dataclass(frozen=True)
class Clip:
    """Sampled frames, ready for the graphs.

    Attributes:
        info: what is known of the file.
        times: float64 [F], seconds of each sample, as the prompt tells them: from the first frame of the segment.
        origin: seconds of the file at which the segment begins.
        rows: int64 [F], for each sample its row in `frames`; short clips repeat rows.
        indices: int64 [U], for each row its index among the video's frames, increasing.
        patches: uint8 [F, P, 3·patch²], for the vision encoder.
        positions: int64 [P, 2]
        kept: bool [F, P / merge²], visual tokens left after token compression.
        frames: uint8 [U, H, W, 3], for the detector.
    """

    info: VideoInfo
    times: np.ndarray
    origin: float
    rows: np.ndarray
    indices: np.ndarray
    patches: np.ndarray
    positions: np.ndarray
    kept: np.ndarray
    frames: np.ndarray

    def rows_in_span(self, span: Span | None) -> np.ndarray:
        """int64 [R], increasing: rows of `frames` that the prompt placed inside the span; all without one."""
        return np.unique(self.rows[frames_in_span(self.times, span)])


def load_clip(
    path: str | os.PathLike,
    config: DevilConfig,
    frame_size: tuple[int, int] | None = None,
    segment: tuple[int, int] | None = None,
) -> Clip:
    """Reads the sampled frames of a video or image; only resized pixels are ever kept.

    Args:
        path: the file.
        config: of the model.
        frame_size: (height, width) of `frames`, for a detector fixed to one size; by default the reference's resize.
        segment: first and last frame of the file, both included, of the part to look at; by default all of it.

    Raises:
        VideoError: the file cannot be read, or has no such segment.
    """
    info = probe(path)
    count = 1 if info.is_image else config.frames
    part, first = _part(info, segment)
    sampled = [first + index for index in sample_indices(part, count)]
    for_vision = vision_size(info.height, info.width, count, config)
    for_detector = frame_size or detector_size(info.height, info.width, config.detector)

    def both(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return resize(image, for_vision, "bicubic"), resize(image, for_detector, "bilinear")

    indices, rows = np.unique(np.array(sampled, np.int64), return_inverse=True)
    seen, frames = zip(*read_frames(info, indices.tolist(), both), strict=True)
    patches = patchify(np.stack(seen), config.vision)[rows]
    return Clip(
        info=info,
        times=np.array([float(time) for time in sample_times(part, count)]),
        origin=float(info.times[first]),
        rows=rows,
        indices=indices,
        patches=patches,
        positions=patch_positions(*for_vision, config.vision),
        kept=kept_tokens(patches, config),
        frames=np.stack(frames),
    )


def _part(info: VideoInfo, segment: tuple[int, int] | None) -> tuple[VideoInfo, int]:
    """A segment as a video of its own, for sampling its times, and the file's frame that it begins at."""
    first, last = segment or (0, len(info) - 1)
    if not 0 <= first <= last < len(info):
        raise VideoError(f"frames {first} to {last} were asked of {info.path}, which has {len(info)}")
    start = info.times[first]
    end = info.times[last + 1] if last + 1 < len(info) else info.duration
    times = tuple(time - start for time in info.times[first : last + 1])
    return replace(info, times=times, duration=end - start), first
