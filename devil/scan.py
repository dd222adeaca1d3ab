"""When every frame of a video file is shown: timestamps from its packets, whatever the container does to them."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from fractions import Fraction

import av

from devil.errors import VideoError
from devil.media import COPY_AGAIN, Orientation, opened, orientation_of, reason

_CHECKED_FRAMES = 120  # where frames are reordered at all, some of the first are


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


def scan(path: str) -> Scan:
    """Reads the timestamps of all frames, decoding only the first unless the container's timestamps are unusable.

    Raises:
        VideoError: the file is no video, is cut short, or no frame can be decoded.
    """
    with opened(path) as (container, stream):
        first, seen, refused = _packets(path, container, stream)
        base, rate = stream.time_base, stream.average_rate or stream.guessed_rate or Fraction(25)
        indexed = stream.frames > 0
        reorders, avi = bool(stream.codec_context.has_b_frames), container.format.name == "avi"
    shape = {"width": first.width, "height": first.height, "orientation": orientation_of(first), "time_base": base}
    stamps = [pts for pts, _, _ in seen]
    usable = None not in stamps and len(set(stamps)) == len(stamps) and first.pts in stamps
    # Reordered frames have timestamps out of order, unless the file (any AVI, some MP4) only has decoding times.
    doubtful = reorders and (avi or _rising(stamps))
    if not usable or (doubtful and not _rising(_decoded_stamps(path, _CHECKED_FRAMES))):
        return Scan(ticks=(), keyframes=(), **shape, **_counted_times(_decoded_stamps(path), stamps, base, rate))
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
        broken = reason(error)
    if first is None:
        raise VideoError(f"{path} has no frame that can be decoded", COPY_AGAIN)
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
        raise VideoError(f"{path} is cut short: it ends after {float(reached):.1f} s{extent}{why}", COPY_AGAIN)


def _rising(stamps: list[int | None]) -> bool:
    return None not in stamps and all(a < b for a, b in itertools.pairwise(stamps))


def _decoded_stamps(path: str, limit: int | None = None) -> list[int | None]:
    """The timestamp of every frame that decodes, in order; at least `limit` of them are enough."""
    with opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        found = []
        for packet in container.demux(stream):
            with contextlib.suppress(av.FFmpegError):
                found.extend(frame.pts for frame in packet.decode())
            if limit and len(found) >= limit:
                break
    return found


def _counted_times(frames: list[int | None], packets: list[int | None], base: Fraction, rate: Fraction) -> dict:
    """Times of frames whose packets do not tell them: their own timestamps where these rise, else the packets' in
    rising order where they are enough, else the rate."""
    stamps = frames if _rising(frames) else sorted({pts for pts in packets if pts is not None})[: len(frames)]
    if len(stamps) == len(frames):
        times = tuple((pts - stamps[0]) * base for pts in stamps)
    else:
        times = tuple(index / rate for index in range(len(frames)))
    return {"times": times, "last": _typical_gap(times, rate)}


def _typical_gap(times: tuple[Fraction, ...], rate: Fraction) -> Fraction:
    return times[-1] / (len(times) - 1) if len(times) > 1 else 1 / rate
