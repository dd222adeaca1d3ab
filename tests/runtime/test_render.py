"""Rendered files: size, times, orientation, boxes and text, read back from what was written."""

from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from devil.errors import OutputError, VideoError
from devil.runtime import render as module
from devil.runtime.overlay import Overlay, wrap
from devil.runtime.render import common_tick, render
from devil.video import iterate_frames, probe, read_frames
from tests.media import damaged, encode, numbered, read_number

YELLOW = (255, 214, 0)


def yellow(image):
    """Where the box's colour is, also after coding: bool [H, W]."""
    return np.abs(image.astype(int) - YELLOW).sum(axis=-1) < 110


def grey(count, height=128, width=160):
    return [np.full((height, width, 3), 90, np.uint8)] * count


@pytest.fixture
def clip(tmp_path):
    return probe(encode(tmp_path / "clip.mp4", grey(12)))


def test_each_box_is_drawn_on_its_frame_and_nowhere_else(clip, tmp_path):
    boxes = {index: np.array([10.0 + 5 * index, 20, 40 + 5 * index, 60]) for index in range(3, 9)}
    render(clip, boxes, "a circle", (0.12, 0.32), tmp_path / "out.mp4")
    picture = slice(0, 80)  # above the strip
    for index, image in iterate_frames(probe(tmp_path / "out.mp4"), range(12)):
        rows, columns = np.nonzero(yellow(image[picture]))
        if index not in boxes:
            assert len(rows) == 0
            continue
        found = (columns.min(), rows.min(), columns.max(), rows.max())
        assert np.abs(np.array(found) - boxes[index]).max() <= 2


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97), (1, 1), (31, 2), (225, 101)])
def test_size_stays_except_that_odd_sides_grow_by_one(height, width, tmp_path):
    frames = [np.full((height, width, 3), 20 * index, np.uint8) for index in range(4)]
    info = probe(encode(tmp_path / "a.mkv", frames, "ffv1", pixels="bgr0"))
    render(info, {0: np.array([0, 0, width, height])}, "x" * 50, None, tmp_path / "out.mp4")
    made = probe(tmp_path / "out.mp4")
    assert (made.height, made.width) == (height + height % 2, width + width % 2)
    assert made.times == info.times


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(
    "settings",
    [
        {"rate": 25},
        {"rate": Fraction(1001, 100)},
        {"times": [Fraction(index * index, 100) for index in range(12)], "time_base": Fraction(1, 100)},
        {"times": [Fraction(index + 70, 25) for index in range(12)], "options": {"bf": "3"}},
    ],
    ids=["steady", "odd rate", "variable", "late"],
)
def test_every_frame_keeps_its_time(settings, suffix, tmp_path):
    info = probe(encode(tmp_path / "a.mp4", grey(12), **settings))
    render(info, {}, "a circle", None, tmp_path / f"out.{suffix}")
    made = probe(tmp_path / f"out.{suffix}")
    # Matroska stores whole milliseconds.
    tolerance = Fraction(1, 1000) if suffix == "mkv" else 0
    assert max(abs(a - b) for a, b in zip(made.times, info.times, strict=True)) <= tolerance
    assert abs(made.duration - info.duration) <= tolerance


def test_times_are_kept_to_the_tick_without_libx264(tmp_path, monkeypatch):
    times = [Fraction(index * 3003 + index % 2, 90000) for index in range(12)]
    info = probe(encode(tmp_path / "a.ts", grey(12), times=times, time_base=Fraction(1, 90000), options={"bf": "0"}))
    monkeypatch.setattr(module.av, "codecs_available", {"mpeg4"})
    render(info, {}, "a circle", None, tmp_path / "out.mp4")
    made = probe(tmp_path / "out.mp4")
    assert max(abs(a - b) for a, b in zip(made.times, info.times, strict=True)) <= Fraction(1, 60000)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"


def test_turned_video_is_rendered_upright(tmp_path):
    stored = [np.ascontiguousarray(np.rot90(numbered(index, 128, 160))) for index in range(4)]
    info = probe(encode(tmp_path / "a.mp4", stored, rotation=-90))
    render(info, {}, "", None, tmp_path / "out.mp4")
    made = probe(tmp_path / "out.mp4")
    assert (made.width, made.height, made.rotation) == (160, 128, 0)
    for index, image in enumerate(read_frames(made, range(4), np.copy)):
        image = image.copy()
        image[-40:] = numbered(index, 128, 160)[-40:]  # the strip hides this part
        assert read_number(image) == index
        assert np.abs(image.astype(int) - numbered(index, 128, 160)).mean() < 6


def test_colours_survive_and_sound_does_not(tmp_path):
    red = [np.full((1088, 1920, 3), (200, 30, 40), np.uint8)] * 2  # large: players would guess other colours
    info = probe(encode(tmp_path / "a.mp4", red, sound=True, options={"preset": "ultrafast"}))
    render(info, {}, "", None, tmp_path / "out.mp4")
    (seen,) = read_frames(probe(tmp_path / "out.mp4"), [1], lambda image: image[:500].reshape(-1, 3).mean(axis=0))
    assert np.abs(seen - (200, 30, 40)).max() < 4
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_an_image_becomes_an_image(suffix, tmp_path):
    Image.fromarray(grey(1)[0]).save(tmp_path / "a.png")
    render(probe(tmp_path / "a.png"), {0: np.array([30, 20, 90, 60])}, "a circle", None, tmp_path / f"out.{suffix}")
    image = np.asarray(Image.open(tmp_path / f"out.{suffix}").convert("RGB"))
    rows, columns = np.nonzero(yellow(image))
    assert image.shape == (128, 160, 3)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == pytest.approx((30, 20, 90, 60), abs=2)


@pytest.mark.parametrize(
    "box", [(-50, -50, 500, 500), (0, 0, 160, 128), (159.6, 127.6, 160, 128), (50, 50, 50, 50), (300, 300, 400, 400)]
)
def test_boxes_at_and_over_the_border_stay_visible(box):
    overlay = Overlay(160, 128, "", None, 0)
    drawn = overlay.draw(grey(1)[0], np.array(box, dtype=float), 0)
    assert drawn.shape == (128, 160, 3)
    assert (np.abs(drawn.astype(int) - 90).sum(axis=-1) > 30).any()


def test_drawing_leaves_the_frame_alone():
    frame = grey(1)[0].copy()
    Overlay(160, 128, "a circle", (0, 1), 2).draw(frame, np.array([1, 2, 30, 40]), 0.5)
    assert np.all(frame == 90)


def test_the_bar_shows_the_span_and_the_time_moves_along_it():
    overlay = Overlay(400, 300, "a circle", (2, 6), 10)
    starts = []
    for time in (0, 4, 9.9):
        row = overlay.draw(grey(1, 300, 400)[0], None, time)[-1]
        span = np.flatnonzero(yellow(row))
        assert abs(span.min() - 80) <= 4
        assert abs(span.max() - 240) <= 4
        starts.append(np.flatnonzero(row.min(axis=-1) > 240).mean())
    assert starts == sorted(starts)
    assert abs(starts[1] - 160) <= 2


@given(st.text(max_size=200), st.integers(20, 400), st.integers(1, 3))
def test_wrapped_lines_fit(text, width, lines):
    font = ImageFont.load_default(12)
    wrapped = wrap(text, font, width, lines)
    assert len(wrapped) <= lines
    assert all(font.getlength(line) <= width for line in wrapped)
    if font.getlength(" ".join(text.split())) <= width:
        assert " ".join(wrapped) == " ".join(text.split())


def test_a_sentence_of_ten_thousand_words_is_cut_with_an_ellipsis():
    wrapped = wrap("word " * 10_000, ImageFont.load_default(12), 200, 2)
    assert len(wrapped) == 2
    assert wrapped[1].endswith("word…")
    assert not wrapped[0].endswith("…")


@given(st.lists(st.fractions(min_value=0, max_value=100, max_denominator=90000), min_size=1, max_size=20))
def test_every_time_is_a_multiple_of_the_common_tick(times):
    times = (*times, Fraction(101))
    tick = common_tick(times)
    assert all((time / tick).denominator == 1 for time in times)


def test_steady_frames_have_the_frame_time_as_tick():
    assert common_tick(tuple(index * Fraction(1001, 30000) for index in range(5))) == Fraction(1001, 30000)


def test_progress_counts_every_frame(clip, tmp_path):
    seen = []
    render(clip, {}, "a circle", None, tmp_path / "out.mp4", lambda done, total: seen.append((done, total)))
    assert seen == [(index + 1, 12) for index in range(12)]


def test_outputs_that_do_not_fit_are_refused_and_leave_nothing(clip, tmp_path):
    for name, says in (
        ("out.png", "is a video: end the name in .mp4"),
        ("out", "does not fit"),
        ("clip.mp4", "itself"),
    ):
        with pytest.raises(OutputError, match=says):
            render(clip, {}, "a circle", None, tmp_path / name)
    Image.fromarray(grey(1)[0]).save(tmp_path / "a.png")
    with pytest.raises(OutputError, match="is a still image"):
        render(probe(tmp_path / "a.png"), {}, "", None, tmp_path / "out.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "clip.mp4"]


def test_a_damaged_source_leaves_the_old_file(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(30)]
    whole = encode(tmp_path / "whole.mp4", noise, options={"g": "5"})
    info = probe(damaged(whole, tmp_path / "a.mp4", 0.5, 0.6))
    (tmp_path / "out.mp4").write_bytes(b"old")
    with pytest.raises(VideoError, match="damaged"):
        render(info, {}, "", None, tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 3


def test_an_existing_file_is_replaced(clip, tmp_path):
    (tmp_path / "out.mp4").write_bytes(b"old")
    render(clip, {}, "", None, tmp_path / "out.mp4")
    assert len(probe(tmp_path / "out.mp4")) == 12
