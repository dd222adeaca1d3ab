"""Writes the answer as a picture to look at: the source with the tube, the sentence and the time drawn on it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from devil.errors import OutputError
from devil.files import atomic_file
from devil.runtime.overlay import Overlay
from devil.video import VideoInfo, iterate_frames

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

# RGB becomes YUV by BT.601, and the file says so, because players guess BT.709 for large frames.
_COLOURS = {"colorspace": "smpte170m", "color_range": "tv"}
# Without B-frames packets leave in the order of the frames and store how long each is shown.
_ENCODERS = {"libx264": {"preset": "veryfast", "crf": "20", "bf": "0"}, "mpeg4": {"qmin": "2", "qmax": "5", "bf": "0"}}
_FINEST_MPEG4_TICK = Fraction(1, 60000)  # its time base has 16 bits


def render(
    info: VideoInfo,
    tube_boxes: Mapping[int, np.ndarray],
    caption: str,
    span: tuple[float, float] | None,
    output: str | os.PathLike,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes the video of `info` with a box per frame, a caption strip, the time and the span.

    Frames are streamed: memory does not grow with the clip. Size and orientation are as displayed, odd sides grow by
    one repeated pixel (H.264 needs even ones), every frame keeps its exact time, and sound is dropped. Frames below 64
    pixels get no strip. The file appears when it is complete.

    Args:
        tube_boxes: frame index → (x1, y1, x2, y2) in pixels of the displayed frame; frames without one get no box.
        caption: usually the sentence; cut when two lines do not hold it.
        span: start and end in seconds, or None.
        output: .mp4, .m4v, .mov or .mkv; .png, .jpg or .webp for a still image.
        progress: called with (frames done, frames in all).

    Raises:
        OutputError: a suffix that does not fit, the source itself, or a place that cannot be written.
        VideoError: the source cannot be decoded to its end.
    """
    output = Path(output)
    check_output(info, output)
    overlay = Overlay(info.width, info.height, caption, span, 0 if info.is_image else float(info.duration))

    def drawn() -> Iterator[tuple[int, np.ndarray]]:
        for index, frame in iterate_frames(info, range(len(info))):
            yield index, overlay.draw(frame, tube_boxes.get(index), float(info.times[index]))
            if progress:
                progress(index + 1, len(info))

    with atomic_file(output) as temporary:
        if info.is_image:
            Image.fromarray(next(drawn())[1]).save(temporary, quality=95)
        else:
            _write_video(temporary, info, drawn())


def check_output(info: VideoInfo, output: Path) -> None:
    """Whether `render` could write that file.

    Raises:
        OutputError: a suffix that does not fit, or the source itself.
    """
    kind, suffixes = ("still image", IMAGE_SUFFIXES) if info.is_image else ("video", VIDEO_SUFFIXES)
    if output.suffix.lower() not in suffixes:
        raise OutputError(f"{output} does not fit, {info.path} is a {kind}", f"end the name in {', '.join(suffixes)}")
    if output.exists() and output.samefile(info.path):
        raise OutputError(f"{output} is the source itself", "choose another output path")


def _write_video(path: Path, info: VideoInfo, frames: Iterator[tuple[int, np.ndarray]]) -> None:
    """Encodes (index, RGB frame) pairs with the source's timestamps."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    tick = common_tick((*info.times, info.duration))
    if codec == "mpeg4" and tick.denominator > _FINEST_MPEG4_TICK.denominator:
        tick = _FINEST_MPEG4_TICK
    ends = iter((*info.times[1:], info.duration))
    with av.open(str(path), "w") as container:
        rate = info.rate.limit_denominator(1 << 16)
        stream = container.add_stream(codec, rate=rate, options=_ENCODERS[codec] | _COLOURS)
        stream.width, stream.height = info.width + info.width % 2, info.height + info.height % 2
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = tick
        for index, image in frames:
            padded = np.pad(image, ((0, info.height % 2), (0, info.width % 2), (0, 0)), "edge")
            frame = av.VideoFrame.from_ndarray(padded, format="rgb24")
            frame.pts, frame.time_base = round(info.times[index] / tick), tick
            _mux(container, stream.encode(frame), ends, tick)
        _mux(container, stream.encode(), ends, tick)


def _mux(container: av.container.OutputContainer, packets: list[av.Packet], ends: Iterator[Fraction], tick: Fraction):
    """Writes packets, each shown until the next of `ends`; the encoder leaves that open for the last one."""
    for packet in packets:
        packet.duration = round(next(ends) / tick) - packet.pts
        container.mux(packet)


def common_tick(times: tuple[Fraction, ...]) -> Fraction:
    """The longest time of which all `times` are multiples, so that a file can hold them exactly."""
    denominator = math.lcm(*(time.denominator for time in times))
    return Fraction(math.gcd(*(int(time * denominator) for time in times)), denominator)
