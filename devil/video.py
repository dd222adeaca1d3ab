"""Reading video: when each frame is shown, which frames to sample, and their upright RGB pixels.

Times are exact rationals (timestamp × time base) in seconds after the first frame. A still image is a video of one
frame.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import numpy as np

from devil.decode import decode
from devil.errors import VideoError
from devil.media import UPRIGHT, Converter, Orientation, read_image
from devil.scan import scan

Result = TypeVar("Result")


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before its frames are read.

    Attributes:
        path: the file.
        width, height: pixels as displayed, after the orientation in the file's metadata.
        times: seconds from the first frame to each frame, exact, rising, starting at 0.
        duration: seconds from the first frame to the end of the last one.
        rate: frames per second, average.
        is_image: a still image: one frame, whose duration means nothing.
        orientation: how stored pixels become upright.
        time_base: seconds per timestamp tick.
        ticks: timestamp of each frame; empty where frames must be counted because the file's timestamps are unusable.
        keyframes: timestamps at which decoding can start.
    """

    path: str
    width: int
    height: int
    times: tuple[Fraction, ...]
    duration: Fraction
    rate: Fraction
    is_image: bool = False
    orientation: Orientation = UPRIGHT
    time_base: Fraction = Fraction(1)
    ticks: tuple[int, ...] = ()
    keyframes: tuple[int, ...] = ()

    @property
    def rotation(self) -> int:
        """Clockwise degrees by which stored frames are turned to be upright."""
        return self.orientation.rotation

    def __len__(self) -> int:
        """How many frames there are."""
        return len(self.times)


def probe(path: str | os.PathLike) -> VideoInfo:
    """Size, orientation and frame times of a video or image, without decoding more than it must.

    Sample aspect ratios are ignored: boxes refer to pixels.

    Raises:
        VideoError: the file is missing, empty, cut short, neither video nor image, only sound, or has no frame that can
            be decoded.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        raise VideoError(f"{path} is a folder", "name a video or image file")
    try:
        empty = Path(path).stat().st_size == 0
        with open(path, "rb"):
            pass
    except FileNotFoundError:
        raise VideoError(f"{path} does not exist", "check the path") from None
    except OSError as error:
        raise VideoError(f"{path} cannot be read ({error.strerror})", "check its permissions") from error
    if empty:
        raise VideoError(f"{path} is empty", "copy it again")
    image = read_image(path)
    if image is not None:
        height, width = image.shape[:2]
        return VideoInfo(path, width, height, (Fraction(0),), Fraction(1), Fraction(1), is_image=True)
    found = scan(path)
    sides = (found.width, found.height)
    width, height = sides[::-1] if found.orientation.transpose else sides
    duration = found.times[-1] + found.last
    return VideoInfo(
        path, width, height, found.times, duration, len(found.times) / duration,
        orientation=found.orientation, time_base=found.time_base, ticks=found.ticks, keyframes=found.keyframes,
    )  # fmt: skip


def sample_times(info: VideoInfo, count: int) -> tuple[Fraction, ...]:
    """`count` times from 0 to the duration, evenly spaced and including both ends; for an image a single 0.

    These are what the prompt prints (reference §2.1).
    """
    if info.is_image:
        return (Fraction(0),)
    return tuple(info.duration * index / max(count - 1, 1) for index in range(count))


def frame_at(info: VideoInfo, time: Fraction | float) -> int:
    """Index of the frame on screen at `time` seconds; the first before the clip, the last after it."""
    return max(bisect_right(info.times, time) - 1, 0)


def sample_indices(info: VideoInfo, count: int) -> tuple[int, ...]:
    """The frame on screen at each of `sample_times`.

    The reference samples frames and stamps them apart: it thins a long clip to `count` frames with rounded linspace
    indices, and fills a short one by repeating its last frame at the end, so that a stamp may lie seconds away from its
    frame. Here the stamp decides: on clips of constant rate with more than `count` frames the result is at most one
    frame from the reference's, short clips repeat every frame in its place, and variable rates stay true to time.
    """
    return tuple(frame_at(info, time) for time in sample_times(info, count))


def read_frames(info: VideoInfo, indices: Iterable[int], transform: Callable[[np.ndarray], Result]) -> list[Result]:
    """`transform(frame)` for each index, in the order given; memory holds one frame and the results.

    Args:
        indices: frames of the video, in any order; a repeated one is read and transformed once.
        transform: takes an upright RGB uint8 [H, W, 3].

    Raises:
        VideoError: a wanted frame cannot be decoded, or only damaged.
    """
    indices = list(indices)
    results = {index: transform(frame) for index, frame in iterate_frames(info, indices)}
    return [results[index] for index in indices]


def iterate_frames(info: VideoInfo, indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (index, upright RGB uint8 [H, W, 3]) for the distinct `indices`, rising, one decoded frame at a time.

    Seeks where that skips enough frames, so `range(start, stop)` costs its own frames and at most one group of pictures
    before them.

    Raises:
        VideoError: a wanted frame cannot be decoded, or only damaged.
    """
    wanted = sorted(set(indices))
    if wanted and not 0 <= wanted[0] <= wanted[-1] < len(info):
        raise VideoError(f"frames {wanted[0]} to {wanted[-1]} were asked of {info.path}, which has {len(info)}")
    if info.is_image:
        yield from ((index, read_image(info.path)) for index in wanted)
        return
    sides = (info.height, info.width) if info.orientation.transpose else (info.width, info.height)
    convert = Converter(*sides, info.orientation)
    yield from ((index, convert(frame)) for index, frame in decode(info, wanted))
