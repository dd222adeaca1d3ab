"""The whole path on real clips and what people do to them: right frames, boxes in the picture, a video that plays."""

from fractions import Fraction

import av
import numpy as np
import pytest

from devil.runtime.pipeline import Grounder
from devil.video import frame_at, iterate_frames, probe, sample_times
from tests.media import encode, real_video

SHOWN = 60  # frames of the real clip that are transcoded
EVEN = [Fraction(index, 25) for index in range(SHOWN)]
UNEVEN = [Fraction(sum(2 + step * 7 % 5 for step in range(index)), 100) for index in range(SHOWN)]

TRANSCODED = {
    "hevc": ("a.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
    "vp9": ("a.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    "av1": ("a.mkv", {"codec": "libsvtav1", "options": {"preset": "12"}}),
    "variable frame rate": ("a.mp4", {"times": UNEVEN, "time_base": Fraction(1, 100)}),
    "rotated": ("a.mp4", {"rotation": 90}),
    "first timestamp not zero": ("a.mp4", {"sound": True, "times": [time + 2 for time in EVEN]}),
    "no duration in the header": ("a.mkv", {"container": {"live": "1"}}),
    "odd dimensions": ("a.mkv", {"codec": "ffv1", "pixels": "bgr0"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def grounder(bundle):
    return Grounder.open(bundle, threads=1)


@pytest.fixture(scope="module")
def real_frames():
    """RGB frames of a real clip, with odd sides."""
    info = probe(real_video("carphone_pristine.mp4"))
    height, width = (side // 2 * 2 - 1 for side in (info.height, info.width))
    return [frame[:height, :width] for _, frame in iterate_frames(info, range(SHOWN))]


def check(grounder, path, folder):
    """Asks and draws, and checks what must hold whatever the model says; returns the drawn video's properties."""
    info = probe(path)
    answer = grounder.encode(path).ground("the man")
    tube = answer.tube
    # The scripted model says 0.4 to 1.0 seconds: the samples inside, or the one nearest to the middle.
    sampled = sample_times(info, grounder.config.frames)
    inside = [time for time in sampled if 0.35 <= time <= 1.05] or [min(sampled, key=lambda time: abs(time - 0.7))]
    assert tube.frames.tolist() == sorted({frame_at(info, time) for time in inside})
    assert (tube.boxes >= 0).all()
    assert (tube.boxes <= [info.width, info.height] * 2).all()
    answer.render(folder / "drawn.mp4")
    drawn = probe(folder / "drawn.mp4")
    assert drawn.times == info.times
    assert drawn.rotation == 0
    return info, drawn


@pytest.mark.parametrize("name", ["bikes.mp4", "carphone_pristine.mp4"])
def test_real_clips_go_through_the_whole_path(grounder, name, tmp_path):
    info, drawn = check(grounder, real_video(name), tmp_path)
    assert (drawn.width, drawn.height) == (info.width, info.height)


@pytest.mark.parametrize("case", TRANSCODED)
def test_transcoded_clips_go_through_the_whole_path(grounder, real_frames, case, tmp_path):
    file, settings = TRANSCODED[case]
    odd = case == "odd dimensions"
    frames = real_frames if odd else [np.ascontiguousarray(frame[:-1, :-1]) for frame in real_frames]
    path = encode(tmp_path / file, frames, **settings)
    info, drawn = check(grounder, path, tmp_path)
    height, width = frames[0].shape[:2]
    shown = (height, width) if case == "rotated" else (width, height)
    assert (info.width, info.height) == shown
    assert (drawn.width, drawn.height) == tuple(side + side % 2 for side in shown)
    times = settings.get("times", EVEN)
    expected = [float(time - times[0]) for time in times]
    assert [float(time) for time in info.times] == pytest.approx(expected, abs=0.002)  # WebM and MKV count milliseconds


def test_a_drawn_video_opens_in_any_player(grounder, tmp_path):
    """H.264 in 8-bit 4:2:0, the one combination that every player knows."""
    check(grounder, real_video("carphone_pristine.mp4"), tmp_path)
    with av.open(str(tmp_path / "drawn.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
