"""Histograms that stream, and the thresholds that are chosen from them."""

import numpy as np
import pytest

from devil.calibration.forms import GRIDS
from devil.calibration.histogram import BINS, Histogram
from devil.calibration.ranges import RULES, threshold


def counted(*parts):
    histogram = Histogram()
    for part in parts:
        histogram.add(np.asarray(part, np.float32))
    return histogram


@pytest.fixture(scope="module")
def heavy_tailed():
    """Most values within ±4, a few far outside: what is hard to round."""
    rng = np.random.default_rng(1)
    return np.concatenate([rng.normal(0, 1, 200_000), rng.normal(0, 1, 20) * 60]).astype(np.float32)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_the_order_of_the_batches_changes_nothing(order):
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, size, 999) for size in (1e-6, 1.0, 300.0)]
    found, expected = counted(*(parts[index] for index in order)), counted(np.concatenate(parts))
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert (found.exponent, found.largest, found.total) == (expected.exponent, expected.largest, expected.total)


def test_counts_are_numpys_and_half_of_the_bins_are_used():
    values = np.abs(np.random.default_rng(2).normal(0, 5, 5000)).astype(np.float32)
    found = counted(values)
    expected, _ = np.histogram(values, BINS, (0, BINS * found.width))
    np.testing.assert_array_equal(found.counts, expected)
    assert BINS / 2 * found.width <= found.largest == values.max() < BINS * found.width


def test_zeros_are_counted_apart():
    assert (found := counted([0, 0, 1e-30, 3])).zeros == 2
    assert found.total == found.counts.sum() == 4


@pytest.mark.parametrize("rule", RULES)
def test_a_tensor_of_zeros_has_no_range_and_a_constant_one_its_own(rule):
    assert threshold(counted(np.zeros(5)), rule, "int8") == 0
    assert threshold(counted(np.full(1000, -2.5)), rule, "int8") == pytest.approx(2.5, rel=1e-2)


@pytest.mark.parametrize("values", [[1, np.nan], [np.inf], [-np.inf, 0]])
def test_what_is_no_number_is_refused(values):
    with pytest.raises(ValueError, match="not finite"):
        counted(values)


def test_the_largest_value_is_exact(heavy_tailed):
    assert threshold(counted(heavy_tailed), "max", "int8") == np.abs(heavy_tailed).max()


def test_the_percentile_is_numpys_to_a_bin(heavy_tailed):
    found = counted(heavy_tailed)
    expected = np.percentile(np.abs(heavy_tailed), 99.99)
    assert threshold(found, "percentile", "int8") == pytest.approx(expected, abs=2 * found.width)


@pytest.mark.parametrize("form", ["int8", "fp8"])
def test_least_squares_finds_what_an_exhaustive_search_on_the_values_finds(heavy_tailed, form):
    grid, largest = GRIDS[form], np.abs(heavy_tailed).max()
    candidates = largest * np.arange(1, 129) / 128
    errors = [((grid.rounded(heavy_tailed, grid.scale(one)) - heavy_tailed) ** 2).mean() for one in candidates]
    chosen = threshold(counted(heavy_tailed), "mse", form)
    error = ((grid.rounded(heavy_tailed, grid.scale(chosen)) - heavy_tailed) ** 2).mean()
    assert error <= 1.02 * min(errors)  # values are known to a bin


def test_entropy_cuts_rare_values_off_and_leaves_even_ones_alone(heavy_tailed):
    assert 3 < threshold(counted(heavy_tailed), "entropy", "int8") < 0.5 * np.abs(heavy_tailed).max()
    even = np.linspace(-1, 1, 100_001)
    assert threshold(counted(even), "entropy", "int8") == pytest.approx(1, rel=0.02)


def test_entropy_sees_past_the_zeros_behind_a_relu():
    values = np.maximum(np.random.default_rng(3).normal(0, 1, 100_000), 0)
    assert threshold(counted(values), "entropy", "int8") > 2
