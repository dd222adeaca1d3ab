"""Measures of how far a graph is from PyTorch."""

import numpy as np
import pytest

from devil.fidelity import compare_detections, compare_tensors, over_budget, worst


def detections(frames=2, queries=5, seed=0):
    random = np.random.default_rng(seed)
    return {
        "logits": random.normal(size=(frames, queries)),
        "boxes": random.uniform(0.2, 0.8, (frames, queries, 4)),
        "embeddings": random.normal(size=(frames, queries, 16)),
    }


def test_equal_detections_in_another_order_are_equal():
    expected = detections()
    order = [3, 1, 4, 0, 2]
    found = {name: values[:, order] for name, values in expected.items()}
    measures = compare_detections(found, expected)
    assert measures == {"matched_iou": pytest.approx(1), "same_slots": 1, "logit": pytest.approx(0)}


def test_a_slot_that_found_something_else_counts_as_lost_and_not_as_imprecise():
    expected = detections(frames=1, queries=4)
    found = {name: values.copy() for name, values in expected.items()}
    found["boxes"][0, 2] = (5, 5, 0.1, 0.1)
    measures = compare_detections(found, expected)
    assert measures["same_slots"] == 0.75
    assert measures["matched_iou"] == pytest.approx(1)


def test_detections_that_are_not_numbers_are_out_of_every_budget():
    found = detections() | {"boxes": np.full((2, 5, 4), np.nan)}
    assert len(over_budget(compare_detections(found, detections()), "bf16")) == 3


def test_tensor_measures():
    expected = np.array([[3.0, 4.0], [0.0, 8.0]])
    measures = compare_tensors(expected + np.array([[0, 0], [0.8, 0]]), expected)
    assert measures["relative"] == pytest.approx(0.1)
    assert measures["cosine"] == pytest.approx(8 / np.hypot(8, 0.8))


def test_worst_takes_the_largest_error_and_the_smallest_likeness():
    assert worst([{"relative": 1, "cosine": 0.5}, {"relative": 2, "cosine": 0.9}]) == {"relative": 2, "cosine": 0.5}
    assert np.isnan(worst([{"relative": float("nan")}, {"relative": 0.0}])["relative"])
    assert over_budget({"relative": float("nan")}, "fp32") == ["relative nan (budget 0.0001)"]
