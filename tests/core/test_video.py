"""Frame times and frames of files that are hard to read, against the truth known by construction."""

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest

from devil.video import frame_at, iterate_frames, probe, read_frames, sample_indices, sample_times
from tests.media import COUNT, FRAMES, STEADY, encode, numbered, read_number, real_video

# Gaps of 1 to 5 ticks of 1/100 s.
VARIABLE = [Fraction(sum(1 + step * 7 % 5 for step in range(index)), 100) for index in range(COUNT)]
B_FRAMES = {"g": "10", "bf": "3"}
SVT = {"preset": "12", "svtav1-params": "keyint=10"}
X265 = "keyint=10:bframes=3:open-gop=1:log-level=none"

CASES = {
    "h264 with B-frames": ("a.mp4", {"options": B_FRAMES}),
    "h264 with open groups": ("a.mp4", {"options": B_FRAMES | {"x264-params": "open-gop=1"}}),
    "h264 in mkv": ("a.mkv", {"options": B_FRAMES}),
    "hevc with open groups": ("a.mp4", {"codec": "libx265", "options": {"x265-params": X265}}),
    "hevc of 10 bits": ("a.mp4", {"codec": "libx265", "options": {"x265-params": X265}, "pixels": "yuv420p10le"}),
    "vp9": ("a.webm", {"codec": "libvpx-vp9", "options": {"g": "10", "lag-in-frames": "10", "auto-alt-ref": "1"}}),
    "av1": ("a.mkv", {"codec": "libsvtav1", "options": SVT}),
    "mpeg2 program stream": ("a.mpg", {"codec": "mpeg2video", "options": {"g": "10", "bf": "2", "b": "4M"}}),
    "mpeg4 in avi": ("a.avi", {"codec": "mpeg4", "options": {"g": "10", "bf": "2", "b": "4M"}}),
    "avi that stores decoding order": ("a.avi", {"options": B_FRAMES}),
    "elementary stream without timestamps": ("a.h264", {"options": B_FRAMES, "file_format": "h264"}),
    "transport stream that starts late": ("a.ts", {"options": B_FRAMES, "container": {"output_ts_offset": "5"}}),
    "variable rate": ("a.mp4", {"options": B_FRAMES, "times": VARIABLE, "time_base": Fraction(1, 100)}),
    "variable rate in mkv": ("a.mkv", {"options": B_FRAMES, "times": VARIABLE, "time_base": Fraction(1, 100)}),
    "no duration in the header": ("a.mkv", {"options": B_FRAMES, "container": {"live": "1"}}),
    "with sound": ("a.mp4", {"options": B_FRAMES, "sound": True}),
    "first frame later than the sound": (
        "a.mp4", {"options": B_FRAMES, "sound": True, "times": [time + 2 for time in STEADY]},
    ),
    "fragmented mp4": ("a.mp4", {"options": B_FRAMES, "container": {"movflags": "frag_keyframe+empty_moov"}}),
    "lossless": ("a.mkv", {"codec": "ffv1", "pixels": "bgr0"}),
    "gif": ("a.gif", {"codec": "gif", "pixels": "rgb8"}),
}  # fmt: skip


def made(case, folder):
    name, settings = CASES[case]
    encode(folder / name, FRAMES, **settings)
    times = settings.get("times", STEADY)
    return folder / name, [time - times[0] for time in times]


@pytest.mark.parametrize("case", CASES)
def test_every_frame_has_its_time_and_its_pixels(case, tmp_path):
    path, times = made(case, tmp_path)
    info = probe(path)
    assert list(info.times) == times
    assert (info.width, info.height, info.rotation, info.is_image) == (96, 64, 0, False)
    found = [(index, read_number(image)) for index, image in iterate_frames(info, range(COUNT))]
    assert found == [(index, index) for index in range(COUNT)]


@pytest.mark.parametrize("case", CASES)
def test_frames_far_apart_are_found_by_seeking_and_counting(case, tmp_path):
    info = probe(made(case, tmp_path)[0])
    wanted = [49, 2, 31, 2, 28]
    assert read_frames(info, wanted, read_number) == wanted
    for index in (0, 19, 20, 41, 49):
        assert read_frames(info, [index], read_number) == [index]


@pytest.mark.parametrize("case", ["h264 with B-frames", "variable rate", "avi that stores decoding order"])
def test_duration_and_rate_are_exact(case, tmp_path):
    path, times = made(case, tmp_path)
    info = probe(path)
    assert info.duration > times[-1]
    assert info.rate == COUNT / info.duration
    if case != "variable rate":
        assert info.duration == 2
        assert info.rate == 25


def test_mp4_that_stores_decoding_order_keeps_its_variable_rate(tmp_path):
    whole = encode(tmp_path / "whole.mp4", FRAMES, options=B_FRAMES)
    with av.open(str(whole)) as source, av.open(str(tmp_path / "a.mp4"), "w") as output:
        video = source.streams.video[0]
        stream = output.add_stream_from_template(video)
        for time, packet in zip(VARIABLE, source.demux(video), strict=False):
            packet.pts = packet.dts = int(time / video.time_base)
            packet.stream = stream
            output.mux(packet)
    info = probe(tmp_path / "a.mp4")
    assert list(info.times) == VARIABLE
    assert read_frames(info, [49, 3, 30], read_number) == [49, 3, 30]


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_orientation_in_the_metadata_is_undone(degrees, mirrored, tmp_path):
    upright = [numbered(index) for index in range(3)]
    # A player turns counter-clockwise, then mirrors; stored frames are the inverse of that.
    stored = [np.rot90(image[:, ::-1] if mirrored else image, -degrees // 90) for image in upright]
    stored = [np.ascontiguousarray(image) for image in stored]
    info = probe(encode(tmp_path / "a.mp4", stored, rotation=degrees, mirrored=mirrored, options={"qp": "10"}))
    assert (info.width, info.height) == (96, 64)
    if not mirrored:
        assert info.rotation == -degrees % 360
    for image, seen in zip(upright, read_frames(info, range(3), np.copy), strict=True):
        assert seen.shape == image.shape
        assert np.abs(seen.astype(int) - image).mean() < 5  # coding noise; a wrong turn is above 60


@pytest.mark.parametrize(("height", "width"), [(65, 97), (1, 1), (1, 7), (31, 2)])
def test_odd_and_tiny_frames_keep_their_size(height, width, tmp_path):
    frames = [np.full((height, width, 3), 30 * index, np.uint8) for index in range(4)]
    info = probe(encode(tmp_path / "a.mkv", frames, "ffv1", pixels="bgr0"))
    assert (info.height, info.width, len(info)) == (height, width, 4)
    seen = read_frames(info, range(4), np.copy)
    assert np.array_equal(seen, frames)


def test_odd_frames_of_subsampled_colour_are_whole(tmp_path):
    frames = [numbered(index, 65, 97) for index in range(5)]
    info = probe(encode(tmp_path / "a.webm", frames, "libvpx-vp9", options={"crf": "10", "b": "0"}))
    assert (info.height, info.width) == (65, 97)
    assert read_frames(info, range(5), lambda image: (image.shape, read_number(image))) == [
        ((65, 97, 3), index) for index in range(5)
    ]


def test_one_frame_is_a_video(tmp_path):
    info = probe(encode(tmp_path / "a.mp4", FRAMES[:1]))
    assert info.times == (0,)
    assert info.duration == Fraction(1, 25)
    assert sample_indices(info, 8) == (0,) * 8
    assert read_frames(info, sample_indices(info, 8), read_number) == [0] * 8


def test_tagged_colours_are_converted_by_their_tag(tmp_path):
    red = [np.full((64, 64, 3), (200, 30, 40), np.uint8)] * 2
    settings = {"qp": "1", "colorspace": "bt709", "color_range": "tv"}
    info = probe(encode(tmp_path / "a.mp4", red, options=settings))
    # The encoder was fed BT.601 values, so reading them as tagged shifts red by a known amount.
    luma, blue, chroma = 16 + (65.738 * 200 + 129.057 * 30 + 25.064 * 40) / 256, None, None
    blue = (-37.945 * 200 - 74.494 * 30 + 112.439 * 40) / 256
    chroma = (112.439 * 200 - 94.154 * 30 - 18.285 * 40) / 256
    scaled = 1.164 * (luma - 16)
    expected = [scaled + 1.793 * chroma, scaled - 0.213 * blue - 0.533 * chroma, scaled + 2.112 * blue]
    (seen,) = read_frames(info, [1], lambda image: image.reshape(-1, 3).mean(axis=0))
    assert np.abs(seen - np.clip(expected, 0, 255)).max() < 3


def test_sample_times_are_an_exact_linspace(tmp_path):
    info = probe(encode(tmp_path / "a.mp4", FRAMES, rate=Fraction(30000, 1001)))
    times = sample_times(info, 64)
    assert times[0] == 0
    assert times[-1] == info.duration == COUNT * Fraction(1001, 30000)
    assert len({b - a for a, b in itertools.pairwise(times)}) == 1
    assert np.allclose([float(time) for time in times], np.linspace(0, float(info.duration), 64))
    assert sample_times(info, 1) == (0,)


def test_the_frame_at_a_time_is_the_one_on_screen(tmp_path):
    info = probe(encode(tmp_path / "a.mkv", FRAMES, times=VARIABLE, time_base=Fraction(1, 100)))
    tick = Fraction(1, 1000)
    for index, time in enumerate(VARIABLE):
        assert frame_at(info, time) == index
        assert frame_at(info, time - tick) == max(index - 1, 0)
    assert frame_at(info, -1) == 0
    assert frame_at(info, 1e9) == COUNT - 1
    indices = sample_indices(info, 200)
    assert list(indices) == sorted(indices)
    assert set(indices) == set(range(COUNT))


@pytest.mark.parametrize("name", ["bikes.mp4", "carphone_pristine.mp4"])
def test_real_clips_read_alike_by_seeking_and_in_order(name):
    info = probe(real_video(name))
    wanted = sample_indices(info, 6)
    sparse = dict(zip(wanted, read_frames(info, wanted, np.copy), strict=True))
    for index, image in iterate_frames(info, range(len(info))):
        if index in sparse:
            assert np.array_equal(image, sparse[index])
