import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devil.answer import Span
from devil.tube import Detections, SlotTracker, Tube, frames_in_span, to_pixels


def test_frames_whose_printed_time_is_inside_belong_to_the_span():
    times = np.array([0.0, 0.9, 1.04, 1.06, 2.94, 3.04, 3.06])
    assert frames_in_span(times, Span(1.0, 3.0)).tolist() == [2, 3, 4, 5]


def test_without_a_span_all_frames_count():
    assert frames_in_span(np.arange(5.0), None).tolist() == [0, 1, 2, 3, 4]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20), st.floats(0, 200), st.floats(0, 200))
def test_a_span_always_has_a_frame(times, first, second):
    times = np.sort(np.array(times))
    rows = frames_in_span(times, Span(*sorted((first, second))))
    assert len(rows) >= 1
    assert (np.diff(rows) == 1).all()


def test_the_tube_follows_the_slot_that_scores_best_inside_the_span():
    """Two objects swap query places in every frame; the second scores higher, but only outside the span."""
    identity = np.array([[1.0, 0.0], [0.0, 1.0]])
    boxes = np.array([[0.2, 0.5, 0.1, 0.1], [0.8, 0.5, 0.1, 0.1]])
    swap = [[0, 1], [1, 0], [0, 1], [1, 0]]
    logits = [[2.0, -2.0], [2.0, -2.0], [-3.0, 9.0], [-3.0, 9.0]]
    detections = Detections(
        np.array([np.array(row)[order] for row, order in zip(logits, swap, strict=True)]),
        np.stack([boxes[order] for order in swap]),
        np.stack([identity[order] for order in swap]),
    )
    tracker = SlotTracker()
    tracker.add(detections)
    found, _ = tracker.track(np.arange(4))
    assert found.tolist() == [boxes[1].tolist()] * 4
    everywhere, scores = tracker.track(np.array([0, 1]))
    assert everywhere.tolist() == [boxes[0].tolist()] * 4
    np.testing.assert_allclose(scores, 1 / (1 + np.exp([-2.0, -2.0, 3.0, 3.0])), rtol=1e-6)


def test_boxes_become_pixels_inside_the_picture():
    boxes = np.array([[0.5, 0.5, 0.5, 0.25], [0.0, 1.0, 0.5, 0.5], [0.5, 0.5, 9.0, 9.0]])
    assert to_pixels(boxes, 200, 100).tolist() == [[50, 37.5, 150, 62.5], [0, 75, 50, 100], [0, 0, 200, 100]]


def test_part_of_a_tube_is_a_tube():
    tube = Tube(
        np.array([3, 5, 8]), np.array([0.3, 0.5, 0.8]), np.arange(12.0).reshape(3, 4), np.array([0.1, 0.2, 0.6])
    )
    part = tube.at(np.array([0, 2]))
    assert (part.frames.tolist(), part.times.tolist(), part.scores.tolist()) == ([3, 8], [0.3, 0.8], [0.1, 0.6])
    assert part.boxes.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert tube.at(np.array([2])).score == pytest.approx(0.6)


def test_detections_that_disagree_are_refused():
    with pytest.raises(ValueError, match="disagree"):
        Detections(np.zeros((2, 3)), np.zeros((2, 4, 4)), np.zeros((2, 3, 8)))


def test_an_empty_or_unordered_tube_is_refused():
    one = np.ones(1)
    with pytest.raises(ValueError, match="one time, box and score"):
        Tube(np.zeros(0, int), np.zeros(0), np.zeros((0, 4)), np.zeros(0))
    with pytest.raises(ValueError, match="ordered"):
        Tube(np.zeros(1, int), one, np.array([[5.0, 0, 1, 1]]), one)
