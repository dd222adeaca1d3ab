"""What PyAV and Pillow know about a file: its video stream, the timestamp of every frame, its orientation, its pixels.

`devil.video` is the interface; this module keeps the containers' peculiarities in one place.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageOps, UnidentifiedImageError

from devil.errors import VideoError

_IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF")
_ANIMATED_FORMATS = ("PNG", "WEBP", "GIF")  # a JPEG with several frames is a phone's photo with its preview
_COPY_AGAIN = "copy it again or convert it to mp4"


@dataclass(frozen=True)
class Orientation:
    """How stored pixels become upright: first transposed, then flipped."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @property
    def rotation(self) -> int:
        """Clockwise degrees; for a mirrored picture those of its rotated twin."""
        if self.transpose:
            return 270 if self.flip_rows else 90
        return 180 if self.flip_rows else 0

    def upright(self, image: np.ndarray) -> np.ndarray:
        """`image` [H, W, 3] as it should be seen, contiguous."""
        if self.transpose:
            image = image.transpose(1, 0, 2)
        return np.ascontiguousarray(image[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1])


UPRIGHT = Orientation()


@dataclass(frozen=True)
class Scan:
    """What one pass over a video file found.

    Attributes:
        width, height: stored pixels, before the orientation is applied.
        ticks: presentation timestamp of every frame, rising; empty where the packets' timestamps are missing or
            contradict the order of the frames, which then can only be counted.
        times: seconds of every frame after the first.
        last: seconds the last frame is shown.
        keyframes: timestamps at which decoding can start.
    """

    width: int
    height: int
    orientation: Orientation
    time_base: Fraction
    ticks: tuple[int, ...]
    times: tuple[Fraction, ...]
    last: Fraction
    keyframes: tuple[int, ...]


@contextlib.contextmanager
def opened(path: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The container and its video stream.

    Raises:
        VideoError: the file is no video, or only holds sound.
    """
    try:
        container = av.open(path)
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(f"{path} is not a readable video or image ({_reason(error)})", _COPY_AGAIN) from error
    with container:
        # A song's cover is a video stream of one picture.
        covers = av.stream.Disposition.attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & covers]
        if not streams:
            kinds = sorted({stream.type for stream in container.streams} - {"video"}) or ["an empty container"]
            raise VideoError(f"{path} has no video, only {', '.join(kinds)}", "give a file with a picture")
        stream = streams[0]
        if stream.codec_context is None:
            raise VideoError(f"{path} is cut short or coded in a way that this FFmpeg cannot decode", _COPY_AGAIN)
        # Without this, H.264 patches over damaged parts and hands out the result as a good frame.
        stream.codec_context.options = {"err_detect": "explode"}
        yield container, stream


def scan(path: str) -> Scan:
    """Reads the timestamps of all frames, decoding only the first unless the container's timestamps are unusable.

    Raises:
        VideoError: the file is no video, is cut short, or no frame can be decoded.
    """
    with opened(path) as (container, stream):
        first, seen, refused = _packets(path, container, stream)
        base, rate = stream.time_base, stream.average_rate or stream.guessed_rate or Fraction(25)
        indexed = stream.frames > 0
        only_decoding_order = container.format.name == "avi" and stream.codec_context.has_b_frames
    shape = {"width": first.width, "height": first.height, "orientation": _orientation(first), "time_base": base}
    stamps = [pts for pts, _, _ in seen]
    usable = None not in stamps and len(set(stamps)) == len(stamps) and first.pts in stamps
    if not usable or only_decoding_order:
        frames = _decoded_stamps(path)
        if not usable or not _rising(frames):
            return Scan(ticks=(), keyframes=(), **shape, **_counted_times(frames, stamps, base, rate))
    # A recording may start between keyframes, where nothing decodes. Lost frames after a keyframe, or in a file with a
    # table of contents, are damage: they keep their time, and reading them says so.
    start = min([first.pts, *(pts for pts, _, key in seen if key), *(refused if indexed else ())])
    shown = sorted((pts, duration, key) for pts, duration, key in seen if pts >= start)
    ticks = tuple(pts for pts, _, _ in shown)
    times = tuple((pts - ticks[0]) * base for pts in ticks)
    return Scan(
        ticks=ticks,
        keyframes=tuple(pts for pts, _, key in shown if key),
        times=times,
        last=shown[-1][1] * base or _typical_gap(times, rate),
        **shape,
    )


def _packets(
    path: str, container: av.container.InputContainer, stream: av.VideoStream
) -> tuple[av.VideoFrame, list[tuple[int | None, int, bool]], list[int | None]]:
    """The first frame, (timestamp, duration, is keyframe) of every packet, and the timestamps before the first frame
    that the decoder refused."""
    stream.codec_context.thread_count = 1  # so that an error comes with the packet that caused it
    first, seen, refused, broken = None, [], [], None
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                seen.append((packet.pts, packet.duration or 0, packet.is_keyframe))
                broken = "its last frame is cut" if packet.is_corrupt else None
            if first is None:
                try:
                    first = next(iter(packet.decode()), None)
                except av.FFmpegError:
                    refused.append(packet.pts)
    except av.FFmpegError as error:
        broken = _reason(error)
    if first is None:
        raise VideoError(f"{path} has no frame that can be decoded", _COPY_AGAIN)
    _refuse_cut(path, stream, seen, broken)
    return first, seen, refused


def _refuse_cut(path: str, stream: av.VideoStream, seen: list[tuple], broken: str | None) -> None:
    """Raises for a file that ends before its own table of contents says so."""
    ends = [pts + duration for pts, duration, _ in seen if pts is not None]
    reached = (max(ends) - (stream.start_time or 0)) * stream.time_base if ends else Fraction(0)
    declared = (stream.duration or 0) * stream.time_base
    missing = stream.frames > len(seen) and declared - reached > 2 * declared / stream.frames
    if broken or missing:
        extent = f" of {float(declared):.1f} s" if declared > reached else ""
        why = f" ({broken})" if broken else ""
        raise VideoError(f"{path} is cut short: it ends after {float(reached):.1f} s{extent}{why}", _COPY_AGAIN)


def _rising(stamps: list[int | None]) -> bool:
    return None not in stamps and all(a < b for a, b in itertools.pairwise(stamps))


def _decoded_stamps(path: str) -> list[int | None]:
    """The timestamp of every frame that decodes, in order."""
    with opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        found = []
        for packet in container.demux(stream):
            with contextlib.suppress(av.FFmpegError):
                found.extend(frame.pts for frame in packet.decode())
    return found


def _counted_times(frames: list[int | None], packets: list[int | None], base: Fraction, rate: Fraction) -> dict:
    """Times of frames whose packets do not tell them: their own timestamps where these rise, else the packets' in
    rising order where they match one to one, else the rate."""
    known = sorted({pts for pts in packets if pts is not None})
    stamps = frames if _rising(frames) else known
    if len(stamps) == len(frames):
        times = tuple((pts - stamps[0]) * base for pts in stamps)
    else:
        times = tuple(index / rate for index in range(len(frames)))
    return {"times": times, "last": _typical_gap(times, rate)}


def _typical_gap(times: tuple[Fraction, ...], rate: Fraction) -> Fraction:
    return times[-1] / (len(times) - 1) if len(times) > 1 else 1 / rate


def _orientation(frame: av.VideoFrame) -> Orientation:
    """From the display matrix: x' = a·x + c·y and y' = b·x + d·y, up to scale; only right angles are meant."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, d < 0, a < 0)
    return Orientation(True, b < 0, c < 0)


class Converter:
    """Turns decoded frames into upright RGB uint8 [H, W, 3] of one size, whatever their pixel format or depth."""

    def __init__(self, width: int, height: int, orientation: Orientation):
        self._size = {"width": width, "height": height}
        self._orientation = orientation
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        return self._orientation.upright(self._reformatter.reformat(frame, format="rgb24", **self._size).to_ndarray())


def read_image(path: str) -> np.ndarray | None:
    """The upright RGB uint8 [H, W, 3] of a still image, None for any other file (also for an animation).

    Raises:
        VideoError: an image that is damaged or absurdly large.
    """
    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=[name for name in _IMAGE_FORMATS if name in Image.OPEN]) as image:
                if image.format in _ANIMATED_FORMATS and getattr(image, "is_animated", False):
                    return None
                upright = ImageOps.exif_transpose(image)
                if upright.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8 instead of scaling them
                    upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
                return np.array(upright.convert("RGB"))
    except UnidentifiedImageError:
        return None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise VideoError(f"{path} has too many pixels ({error})", "scale it down") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise VideoError(f"{path} is a damaged image ({error})", "copy it again") from error


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or os.path.basename(str(error))).strip()
