"""What PyAV and Pillow know about a file: its video stream, its orientation, the pixels of a frame or of an image."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageOps, UnidentifiedImageError

from devil.errors import VideoError

_IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF")
_ANIMATED_FORMATS = ("PNG", "WEBP", "GIF")  # a JPEG with several frames is a phone's photo with its preview
COPY_AGAIN = "copy it again or convert it to mp4"


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


@contextlib.contextmanager
def opened(path: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The container and its video stream.

    Raises:
        VideoError: the file is no video, or only holds sound.
    """
    try:
        container = av.open(path, metadata_errors="ignore")  # tags may be in any encoding
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(f"{path} is not a readable video or image ({reason(error)})", COPY_AGAIN) from error
    with container:
        # A song's cover is a video stream of one picture.
        covers = av.stream.Disposition.attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & covers]
        if not streams:
            kinds = sorted({stream.type for stream in container.streams} - {"video"}) or ["an empty container"]
            raise VideoError(f"{path} has no video, only {', '.join(kinds)}", "give a file with a picture")
        stream = streams[0]
        if stream.codec_context is None:
            raise VideoError(f"{path} is cut short or coded in a way that this FFmpeg cannot decode", COPY_AGAIN)
        yield container, stream


def orientation_of(frame: av.VideoFrame) -> Orientation:
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


def reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or os.path.basename(str(error))).strip()
