"""Outlines: anti-aliased coverage against counting many points per pixel."""

import numpy as np
import pytest

from devil.data.shapes import SHAPES, coverage

FINE = 16  # points per pixel and axis


def is_inside(shape, u, v):
    """The shapes as a textbook would define them."""
    a, b, far = np.abs(u), np.abs(v), np.hypot(u, v)
    return {
        "circle": far < 1,
        "ring": (far < 1) & (far > 0.58),
        "square": np.maximum(a, b) < 1,
        "diamond": a + b < 1,
        "triangle": (v < 1) & (v > -1) & (a < (v + 1) / 2),
        "cross": ((a < 0.34) & (b < 1)) | ((b < 0.34) & (a < 1)),
    }[shape]


@pytest.mark.parametrize("radius", [6.3, 11.0, 25.7])
@pytest.mark.parametrize("shape", SHAPES)
def test_coverage_is_the_share_of_a_pixel_inside(shape, radius):
    side = int(2 * radius) + 5
    points = (np.arange(side * FINE) + 0.5) / FINE - side / 2 + 0.3
    fine = is_inside(shape, points[None] / radius, points[:, None] / radius)
    expected = fine.reshape(side, FINE, side, FINE).mean(axis=(1, 3))
    pixels = np.arange(side) + 0.5 - side / 2 + 0.3
    found = coverage(shape, pixels[None] / radius, pixels[:, None] / radius, radius)
    assert np.abs(found - expected).max() <= 0.5  # at sharp corners, where a distance says little
    assert np.abs(found - expected).mean() < 0.01
    assert found.sum() == pytest.approx(expected.sum(), rel=0.03)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_fill_their_box_from_edge_to_edge(shape):
    points = np.linspace(-1.2, 1.2, 481)
    inside = coverage(shape, points[None], points[:, None], 1000.0) > 0
    for axis in (0, 1):
        reached = points[inside.any(axis=axis)]
        assert reached[0] == pytest.approx(-1, abs=0.011)
        assert reached[-1] == pytest.approx(1, abs=0.011)
