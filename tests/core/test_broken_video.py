"""Files that are no video, or a damaged one: one line that names them, and never a wrong frame."""

import os
import re
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from devil.errors import VideoError
from devil.video import frame_at, probe, read_frames
from tests.media import COUNT, FRAMES, STEADY, cut, damaged, encode, numbered, read_number, sound_only


def test_frames_outside_the_video_are_refused(tmp_path):
    info = probe(encode(tmp_path / "a.mp4", FRAMES[:3]))
    with pytest.raises(VideoError, match="which has 3"):
        read_frames(info, [3], np.copy)
    assert read_frames(info, [], np.copy) == []


def unreadable(case, folder):
    """Makes a file that must be refused; returns its path and what the line must say."""
    path = folder / "a.mp4"
    if case == "missing":
        return path, "does not exist"
    if case == "folder":
        path.mkdir()
        return path, "is a folder"
    if case == "empty":
        path.touch()
        return path, "is empty"
    if case == "text":
        path.write_text("hello " * 100)
        return path, "not a readable video or image"
    if case == "sound":
        return sound_only(folder / "a.wav"), "has no video, only audio"
    if case == "cut image":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(folder / "whole.png")
        return cut(folder / "whole.png", folder / "a.png", 0.5), "damaged image"
    front = {"movflags": "faststart"}
    whole = encode(folder / "whole.mp4", FRAMES, options={"qp": "1", "g": "10"}, container=front)
    if case == "cut, index in front":
        return cut(whole, path, 0.6), r"cut short: it ends after \d\.\d s of 2\.0 s"
    if case == "no decodable frame":
        return damaged(whole, path, 0.2, 1), "no frame that can be decoded"
    whole = encode(folder / "whole.mp4", FRAMES, options={"qp": "1", "g": "10"})
    return cut(whole, path, 0.6), "not a readable video or image"


@pytest.mark.parametrize(
    "case",
    [
        "missing", "folder", "empty", "text", "sound", "cut image",
        "cut, index in front", "cut, index at the end", "no decodable frame",
    ],
)  # fmt: skip
def test_unreadable_files_get_one_line_that_names_them(case, tmp_path):
    path, says = unreadable(case, tmp_path)
    with pytest.raises(VideoError, match=says) as caught:
        probe(path)
    assert str(path) in caught.value.message
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    path = encode(tmp_path / "a.mp4", FRAMES[:1])
    path.chmod(0)
    with pytest.raises(VideoError, match="cannot be read"):
        probe(path)


def test_a_song_with_a_cover_is_only_sound(tmp_path):
    path = sound_only(tmp_path / "a.m4a", cover=numbered(0))
    with pytest.raises(VideoError, match="has no video, only audio"):
        probe(path)


@pytest.mark.parametrize("suffix", ["mkv", "ts"])
def test_a_file_without_table_of_contents_ends_where_its_frames_end(suffix, tmp_path):
    whole = encode(tmp_path / f"whole.{suffix}", FRAMES, options={"qp": "1", "g": "10", "bf": "0"})
    info = probe(cut(whole, tmp_path / f"a.{suffix}", 0.6))
    assert 10 < len(info) < 40
    assert info.duration == Fraction(len(info), 25)
    assert read_frames(info, range(len(info)), read_number) == list(range(len(info)))


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_damage_in_the_middle_is_an_error_and_not_a_broken_frame(codec, tmp_path):
    rng = np.random.default_rng(0)
    noisy = [np.clip(image + rng.integers(-20, 20, image.shape), 0, 255).astype(np.uint8) for image in FRAMES]
    options = {"qp": "20", "g": "10"} if codec == "libx264" else {"x265-params": "qp=20:keyint=10:log-level=none"}
    whole = encode(tmp_path / "whole.mp4", noisy, codec, options=options)
    info = probe(damaged(whole, tmp_path / "a.mp4", 0.50, 0.53))
    with pytest.raises(VideoError, match=r"damaged: the frame at \d\.\d\d s") as caught:
        read_frames(info, range(COUNT), np.copy)
    at = frame_at(info, float(re.search(r"at (\d\.\d\d) s", str(caught.value)).group(1)) + 0.001)
    assert 15 <= at <= 30
    # Groups of pictures that the damage did not reach are read.
    assert read_frames(info, [0, 9, 45, 49], read_number) == [0, 9, 45, 49]


def test_damage_at_the_start_does_not_move_the_clip(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(30)]
    whole = encode(tmp_path / "whole.mp4", noise, options={"g": "5"})
    info = probe(damaged(whole, tmp_path / "a.mp4", 0.001, 0.1))
    assert len(info) == 30
    with pytest.raises(VideoError, match=r"damaged: the frame at 0\.00 s"):
        read_frames(info, [0], np.copy)
    assert len(read_frames(info, range(10, 30), np.copy)) == 20


def test_a_recording_that_starts_between_keyframes_starts_at_the_first_one(tmp_path):
    whole = encode(tmp_path / "whole.mp4", FRAMES, options={"g": "10", "bf": "0", "sc_threshold": "0"})
    with av.open(str(whole)) as source, av.open(str(tmp_path / "a.ts"), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in list(source.demux(video=0))[3:-1]:
            packet.stream = stream
            output.mux(packet)
    info = probe(tmp_path / "a.ts")
    assert info.times == tuple(STEADY[:40])
    assert read_frames(info, range(40), read_number) == list(range(10, 50))
