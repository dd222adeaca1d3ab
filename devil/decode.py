"""Finding wanted frames in a video file: seeking where it pays, skipping what nothing needs, refusing damage."""

from __future__ import annotations

import contextlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING

import av

from devil.errors import VideoError
from devil.media import opened

if TYPE_CHECKING:
    from devil.video import VideoInfo

# Decoders that drop single frames on request: those that no other frame refers to need not be decoded.
_SKIPPING_CODECS = ("h264", "hevc", "mpeg4", "mpeg2video")
_SEEK_GAP = 16  # frames that must be saved before a seek pays: it empties the decoder's pipeline


def decode(info: VideoInfo, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields (index, decoded frame) for the `wanted` indices, which rise, in runs that each start at a keyframe.

    A run is tried again from the start of the file where a container's seek went too far.

    Raises:
        VideoError: a wanted frame cannot be decoded, or only damaged.
    """
    with opened(info.path) as (container, stream):
        stream.thread_type = "AUTO"
        for start, run in _runs(info, wanted):
            missing = run
            if start is None or _seek(container, stream, start):
                missing = yield from _found(info, container, stream, run)
            if missing:
                yield from _decoded_from_start(info, missing)


def _decoded_from_start(info: VideoInfo, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    with opened(info.path) as (container, stream):
        stream.thread_type = "AUTO"
        missing = yield from _found(info, container, stream, wanted)
    if missing:
        time = float(info.times[missing[0]])
        raise VideoError(
            f"{info.path} is damaged: the frame at {time:.2f} s cannot be decoded", "copy it again or re-encode it"
        )


def _seek(container: av.container.InputContainer, stream: av.VideoStream, start: int) -> bool:
    """Whether the container could go to `start`; some formats cannot."""
    try:
        container.seek(start, stream=stream)
    except av.FFmpegError:
        return False
    return True


def _runs(info: VideoInfo, wanted: list[int]) -> list[tuple[int | None, list[int]]]:
    """Splits the wanted frames where seeking pays: (timestamp to seek to or None for the start of the file, frames)."""
    runs: list[tuple[int | None, list[int]]] = []
    reached = 0
    for index in wanted:
        key = _keyframe_before(info, index)
        saved = bisect_left(info.ticks, key) - reached if key is not None else 0
        if saved > _SEEK_GAP:
            runs.append((key, [index]))
        elif runs:
            runs[-1][1].append(index)
        else:
            runs.append((None, [index]))
        reached = index + 1
    return runs


def _keyframe_before(info: VideoInfo, index: int) -> int | None:
    if not info.ticks:
        return None
    at = bisect_right(info.keyframes, info.ticks[index])
    return info.keyframes[at - 1] if at else None


def _found(
    info: VideoInfo, container: av.container.InputContainer, stream: av.VideoStream, wanted: list[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields wanted frames (rising) from where the container stands; returns those from the first missing one on."""
    done = 0
    for index, frame in _good_frames(info, container, stream, {info.ticks[index] for index in wanted if info.ticks}):
        if index > wanted[done]:
            break
        if index == wanted[done]:
            yield index, frame
            done += 1
            if done == len(wanted):
                break
    return wanted[done:]


def _good_frames(
    info: VideoInfo, container: av.container.InputContainer, stream: av.VideoStream, wanted: set[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """(index, frame) in presentation order, possibly without unwanted ones.

    After an error frames count as damaged until the next keyframe.

    Args:
        wanted: timestamps that matter; empty where frames are counted.
    """
    damaged, count = False, -1
    skipping = wanted and stream.codec_context.name in _SKIPPING_CODECS
    for packet in _packets(container, stream):
        if skipping:
            stream.codec_context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        try:
            frames = packet.decode()
        except av.FFmpegError:
            damaged = True
            continue
        for frame in frames:
            count += 1
            damaged = frame.is_corrupt or (damaged and not frame.key_frame)
            index = _index_of(info, frame.pts) if info.ticks else count
            if index is not None and not damaged:
                yield index, frame


def _packets(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """Packets up to the end, or to where the file cannot be read any further: what is missing then shows."""
    with contextlib.suppress(av.FFmpegError):
        yield from container.demux(stream)


def _index_of(info: VideoInfo, pts: int | None) -> int | None:
    if pts is None:
        return None
    at = bisect_left(info.ticks, pts)
    return at if at < len(info.ticks) and info.ticks[at] == pts else None
