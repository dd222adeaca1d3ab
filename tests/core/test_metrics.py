"""Metrics against plain loops, on ordinary and hostile answers."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devil.metrics import (
    METRICS,
    Sample,
    bootstrap,
    box_iou,
    constant_answer,
    is_exact,
    scores,
    span_iou,
    true_span_box_iou,
    tube_iou,
)

moments = st.integers(0, 40).map(lambda tenths: tenths / 4)
spans = st.tuples(moments, moments)  # reversed and empty ones too
corners = st.integers(0, 12).map(lambda part: part / 12)
boxes = st.tuples(corners, corners, corners, corners)
maybe_boxes = st.one_of(st.just((np.nan,) * 4), boxes)


def counted_iou(one, two, steps=12):
    """IoU of boxes on a grid of `steps`, by counting cells."""
    cells = np.arange(steps) + 0.5

    def mask(box):
        x1, y1, x2, y2 = (value * steps for value in box)
        return ((cells > x1) & (cells < x2))[None] & ((cells > y1) & (cells < y2))[:, None]

    union = (mask(one) | mask(two)).sum()
    return (mask(one) & mask(two)).sum() / union if union else 0.0


@given(boxes, boxes)
def test_box_iou_counts_cells(one, two):
    assert box_iou(np.array(one), np.array(two)) == pytest.approx(counted_iou(one, two), abs=1e-12)


def test_boxes_broadcast():
    one, two = np.random.RandomState(0).rand(5, 1, 4), np.random.RandomState(1).rand(3, 4)
    assert box_iou(one, two).shape == (5, 3)


@given(spans, spans)
def test_span_iou_counts_quarter_seconds(one, two):
    ticks = np.arange(40) / 4 + 0.125
    first, second = (((ticks > min(span)) & (ticks < max(span))) for span in (one, two))
    union = (first | second).sum()
    expected = (first & second).sum() / union if union else float(sorted(one) == sorted(two))
    assert span_iou(one, two) == pytest.approx(expected, abs=1e-12)
    assert span_iou(one, None) == span_iou(None, two) == 0


def looped_tube_iou(sample):
    """vIoU, frame by frame, from its definition."""
    total, union = 0.0, 0
    for index, time in enumerate(sample.times):
        inside = [
            span is not None and min(span) - 0.051 < time < max(span) + 0.051
            for span in (sample.true_span, sample.span)
        ]
        union += any(inside)
        true, told = sample.true_boxes[index], sample.boxes[index]
        if all(inside) and not np.isnan(true).any() and not np.isnan(told).any():
            total += counted_iou(true, told)
    return total / union if union else 0.0


@st.composite
def samples(draw, frames=None):
    frames = frames or draw(st.sampled_from([1, 2, 7, 16]))
    tracks = [np.array(draw(st.lists(maybe_boxes, min_size=frames, max_size=frames))) for _ in range(2)]
    kind = draw(st.sampled_from(["life", "blinks"]))
    return Sample(
        np.linspace(0, 10, frames), draw(spans), tracks[0], draw(st.one_of(st.none(), spans)), tracks[1], kind
    )


@settings(max_examples=200)
@given(samples())
def test_tube_iou_equals_a_plain_loop(sample):
    assert tube_iou(sample) == pytest.approx(looped_tube_iou(sample), abs=1e-9)


def track(frames, box=(0.1, 0.1, 0.5, 0.5)):
    return np.tile(np.array(box, float), (frames, 1))


def test_tube_iou_takes_the_whole_union_not_its_shorter_end():
    times = np.arange(10.0)
    sample = Sample(times, (2.0, 4.0), track(10), (2.0, 9.0), track(10))
    assert tube_iou(sample) == pytest.approx(3 / 8)  # the inflated form would say 3 / 3
    late = Sample(times, (5.0, 9.0), track(10), (0.0, 6.0), track(10))
    assert tube_iou(late) == pytest.approx(2 / 10)


def test_missing_answers_and_boxes_score_nothing():
    times, nothing = np.arange(4.0), np.full((4, 4), np.nan)
    assert tube_iou(Sample(times, (0.0, 3.0), track(4), None, track(4))) == 0
    assert tube_iou(Sample(times, (0.0, 3.0), track(4), (0.0, 3.0), nothing)) == 0
    assert scores([Sample(times, (0.0, 3.0), track(4), None, nothing)]).tolist() == [[0] * 5]


def test_thresholds_are_strict():
    times = np.arange(10.0)
    half = Sample(times, (0.0, 9.0), track(10), (0.0, 4.0), track(10))
    assert tube_iou(half) == 0.5
    assert scores([half])[0].tolist() == [pytest.approx(4 / 9), 0.5, 1, 0, 0]


def test_exact_means_the_same_sampled_frames_as_printed():
    times = np.linspace(0, 8, 16)
    true = (float(times[3]), float(times[9]))
    told = (float(f"{true[0]:.1f}"), float(f"{true[1]:.1f}"))
    assert is_exact(Sample(times, true, track(16), told, track(16)))
    assert is_exact(Sample(times, true, track(16), told[::-1], track(16)))
    assert not is_exact(Sample(times, true, track(16), (told[0], float(f"{times[10]:.1f}")), track(16)))
    assert not is_exact(Sample(times, (0.2, 0.3), track(16), (0.2, 0.3), track(16)))  # between two frames
    one = Sample(np.zeros(1), (0.0, 0.0), track(1), (0.0, 0.0), track(1))
    assert is_exact(one)
    assert tube_iou(one) == span_iou(one.true_span, one.span) == 1


def test_box_iou_on_the_true_span_ignores_where_the_answer_lies():
    boxes = track(6)
    boxes[4:] = np.nan
    true = track(6)
    true[1] = np.nan
    sample = Sample(np.arange(6.0), (1.0, 4.0), true, (0.0, 0.0), boxes)
    assert true_span_box_iou(sample) == pytest.approx(2 / 3)
    assert np.isnan(true_span_box_iou(Sample(np.arange(6.0), (1.0, 4.0), np.full((6, 4), np.nan), None, boxes)))


@settings(max_examples=30, deadline=None)
@given(st.lists(samples(frames=7), min_size=1, max_size=6))
def test_scores_have_a_row_per_sample(group):
    found = scores(group)
    tubes = [looped_tube_iou(sample) for sample in group]
    np.testing.assert_allclose(found[:, METRICS.index("m_vIoU")], tubes, atol=1e-9)
    np.testing.assert_array_equal(found[:, METRICS.index("vIoU@0.5")], np.array(tubes) > 0.5)


def resampled_means(table, draws=2000):
    """The means of every draw, all at once and row by row."""
    picks = np.random.RandomState(0).randint(len(table), size=(draws, len(table)))
    return np.array([table[rows].mean(axis=0) for rows in picks])


@pytest.mark.parametrize("rows", [1, 2, 37, 1009])
def test_intervals_are_those_of_plain_resampling_however_many_rows_are_held_at_once(rows, monkeypatch):
    table = np.random.RandomState(4).rand(rows, 3)
    table[:, 1] = table[:, 1] > 0.5
    expected = np.quantile(resampled_means(table), [0.025, 0.975], axis=0)
    found = bootstrap(table)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)  # another order of sums
    for column in range(3):
        np.testing.assert_allclose(bootstrap(table[:, [column]]), np.array(found)[:, [column]], rtol=0, atol=1e-13)
    monkeypatch.setattr("devil.metrics._PICKS", 5 * rows)
    np.testing.assert_allclose(bootstrap(table), expected, rtol=0, atol=1e-13)


def test_intervals_of_many_rows_take_little_memory():
    table = np.random.RandomState(4).rand(10_000, 6)
    tracemalloc.start()
    bootstrap(table, draws=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6  # all picks at once are 8 MB, and their counts as much again


def test_intervals_match_the_normal_approximation_on_many_samples():
    values = np.random.RandomState(3).rand(400, 2)
    low, high = bootstrap(values)
    half = 1.96 * values.std(axis=0) / np.sqrt(400)
    np.testing.assert_allclose(low, values.mean(axis=0) - half, atol=0.1 * half.max())
    np.testing.assert_allclose(high, values.mean(axis=0) + half, atol=0.1 * half.max())


def test_constant_answer_is_the_best_one_on_its_grid():
    random = np.random.RandomState(5)
    group = []
    for _ in range(30):
        length = random.uniform(4, 12)
        first, last = np.sort(random.choice(16, 2, replace=False))
        times = np.linspace(0, length, 16)
        group.append(Sample(times, (times[first], times[last]), track(16, random.rand(4)), None, track(16)))
    best = scores(constant_answer(group))[:, 0].mean()
    for first in range(16):
        for last in range(first + 1, 16):
            told = [span_iou(s.true_span, (s.times[first], s.times[last])) for s in group]
            assert np.mean(told) <= best + 1e-9


def test_samples_whose_shapes_disagree_are_an_error():
    with pytest.raises(ValueError, match="boxes are"):
        Sample(np.arange(3.0), (0, 1), track(3), None, track(2))
