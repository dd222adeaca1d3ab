"""Sampling a part of a video is sampling a video that consists of that part."""

from fractions import Fraction

import numpy as np
import pytest

from devil.clip import load_clip
from devil.config import PRESETS
from devil.errors import VideoError
from tests.media import encode, numbered, read_number

CONFIG = PRESETS["tiny"]
RATE = 10


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "whole.mp4"
    return encode(path, [numbered(index, 96, 96) for index in range(100)], rate=RATE)


@pytest.mark.parametrize(("first", "last"), [(0, 99), (20, 69), (63, 99), (40, 47), (99, 99)])
def test_a_segment_is_sampled_like_a_file_of_its_own(whole, tmp_path, first, last):
    frames = [numbered(index, 96, 96) for index in range(first, last + 1)]
    alone = load_clip(encode(tmp_path / "part.mp4", frames, rate=RATE), CONFIG)
    part = load_clip(whole, CONFIG, segment=(first, last))
    assert part.times.tolist() == alone.times.tolist()
    assert part.times[-1] == (last - first + 1) / RATE
    assert (part.indices - first).tolist() == alone.indices.tolist()
    assert part.rows.tolist() == alone.rows.tolist()
    assert [read_number(frame) for frame in part.frames] == part.indices.tolist()


def test_a_segment_of_irregular_frames_lasts_until_the_next_frame(tmp_path):
    times = [Fraction(tenth, 10) for tenth in (0, 1, 5, 7, 20, 21)]
    frames = [numbered(index, 96, 96) for index in range(6)]
    path = encode(tmp_path / "odd.mp4", frames, times=times, time_base=Fraction(1, 10))
    part = load_clip(path, CONFIG, segment=(1, 3))
    np.testing.assert_allclose(part.times, np.linspace(0, 1.9, CONFIG.frames), rtol=1e-12)
    assert part.indices.tolist() == [1, 2, 3]


@pytest.mark.parametrize("segment", [(-1, 5), (5, 4), (0, 100)])
def test_a_segment_that_is_not_there_is_refused(whole, segment):
    with pytest.raises(VideoError, match="has 100"):
        load_clip(whole, CONFIG, segment=segment)
