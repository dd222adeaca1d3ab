"""Images, which are videos of one frame."""

import numpy as np
import pytest
from PIL import Image

from devil.video import probe, read_frames, sample_times
from tests.media import numbered, read_number


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff"])
def test_images_are_videos_of_one_frame(suffix, tmp_path):
    Image.fromarray(numbered(37)).save(tmp_path / f"a.{suffix}")
    info = probe(tmp_path / f"a.{suffix}")
    assert info.is_image
    assert (info.width, info.height, info.times) == (96, 64, (0,))
    assert sample_times(info, 64) == (0,)
    assert read_frames(info, [0, 0], read_number) == [37, 37]


def test_photos_are_turned_by_their_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(np.ascontiguousarray(np.rot90(numbered(37)))).save(tmp_path / "a.png", exif=exif)
    info = probe(tmp_path / "a.png")
    assert (info.width, info.height) == (96, 64)
    assert np.array_equal(read_frames(info, [0], np.copy)[0], numbered(37))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16"])
def test_images_of_any_mode_become_rgb(mode, tmp_path):
    grey = np.full((5, 3), 200, np.uint8)
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    image.save(tmp_path / "a.png")
    (seen,) = read_frames(probe(tmp_path / "a.png"), [0], np.copy)
    assert seen.shape == (5, 3, 3)
    if mode != "1":
        assert np.all(seen == 200)


def test_one_pixel_image(tmp_path):
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "a.png")
    assert read_frames(probe(tmp_path / "a.png"), [0], np.ndarray.tolist) == [[[[1, 2, 3]]]]
