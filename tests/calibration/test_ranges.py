"""Histograms that stream, and the thresholds that are chosen from them."""

import numpy as np
import pytest
import torch

from devil.calibration.forms import GRIDS
from devil.calibration.histogram import BINS, Histogram
from devil.calibration.ranges import RULES, range_around_zero, range_of


def counted(*parts):
    histogram = Histogram()
    for part in parts:
        histogram.add(np.asarray(part, np.float32))
    return histogram


def threshold(histogram, rule, form):
    return range_around_zero(histogram, rule, form).threshold


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
    for number in ("exponent", "lowest", "highest", "total"):
        assert getattr(found, number) == getattr(expected, number)


def test_counts_are_numpys_and_half_of_the_bins_are_used():
    values = np.random.default_rng(2).normal(0, 5, 5000).astype(np.float32)
    found = counted(values)
    for row, side in enumerate((-values[values < 0], values[values >= 0])):
        expected, _ = np.histogram(side, BINS, (0, BINS * found.width))
        np.testing.assert_array_equal(found.counts[row], expected)
    assert (found.lowest, found.highest) == (values.min(), values.max())
    assert BINS / 2 * found.width <= np.abs(values).max() < BINS * found.width


@pytest.mark.parametrize("centre", [0.0, 2.5, -1.3])
def test_distances_from_a_number_are_those_of_the_values_to_a_bin(centre):
    values = np.random.default_rng(4).normal(1, 3, 5000).astype(np.float32)
    found = counted(values).about(centre)
    expected = np.abs(values.astype(np.float64) - centre)
    assert found.largest == pytest.approx(expected.max(), rel=1e-12)
    assert found.total == values.size
    bins = np.repeat(np.arange(BINS), found.counts)
    assert np.abs(bins - np.sort(expected) / found.width + 0.5).max() <= 1.0  # half a bin by middles, half by flooring


def test_a_range_about_zero_takes_the_distances_from_zero():
    values = np.random.default_rng(5).normal(0, 1, 5000).astype(np.float32)
    assert range_of(counted(values), "mse", "int8") == range_around_zero(counted(values), "mse", "int8")
    assert range_of(counted(values), "max", "int8").threshold == np.abs(values).max()


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


def behind(activation):
    values = torch.from_numpy(np.random.default_rng(6).normal(0, 2, 100_000).astype(np.float32))
    return activation(values).numpy()


@pytest.mark.parametrize("activation", [torch.nn.functional.gelu, torch.nn.functional.relu])
@pytest.mark.parametrize("rule", ["max", "percentile", "mse"])
def test_what_leaves_an_activation_is_rounded_in_half_the_steps(activation, rule):
    values = behind(activation)
    plain, found = (one(counted(values), rule, "int8") for one in (range_around_zero, range_of))
    assert found.threshold < 0.62 * plain.threshold
    step = found.threshold / 127

    def error(its):
        return np.square(GRIDS["int8"].rounded(values - its.centre, its.threshold / 127) + its.centre - values).mean()

    assert error(found) < 0.5 * error(plain)
    assert found.centre / step == pytest.approx(round(found.centre / step), abs=1e-9)  # zeros stay exact
    assert found.centre - found.threshold <= max(values.min(), -0.02)  # next to nothing is cut off below
    if rule == "max":
        assert found.centre + found.threshold == pytest.approx(values.max(), abs=step)


def test_the_centre_that_least_squares_finds_is_nearly_the_best_of_all():
    """Against every pair of centre and threshold on a fine grid, on the values themselves."""
    values = behind(torch.nn.functional.gelu)[:4000]
    found = range_of(counted(values), "mse", "int8")

    def error(centre, threshold):
        return np.square(GRIDS["int8"].rounded(values - centre, threshold / 127) + centre - values).mean()

    thresholds = values.max() * np.linspace(0.3, 0.7, 30)
    best = min(error(low + kept, kept) for kept in thresholds for low in np.linspace(-0.3, 0.0, 10))
    assert error(found.centre, found.threshold) < 1.1 * best


def test_floats_and_entropy_stay_around_zero():
    found = counted(behind(torch.nn.functional.gelu))
    assert range_of(found, "mse", "fp8").centre == 0
    assert range_of(found, "entropy", "int8").centre == 0


@pytest.mark.parametrize(("shift", "moves"), [(0.0, False), (0.2, False), (0.3, True), (1.0, True), (-1.0, True)])
def test_a_range_moves_only_where_a_fifth_is_gained(shift, moves):
    found = range_of(counted(np.linspace(-1, 1, 10_001) + shift), "max", "int8")
    assert (found.centre != 0) == moves
    assert found.centre == pytest.approx(shift if moves else 0, abs=found.threshold / 127)


def test_zero_is_in_the_range_where_all_values_are_far_from_it():
    found = range_of(counted(np.linspace(5, 6, 1001)), "max", "int8")
    assert (found.centre, found.threshold) == pytest.approx((3, 3))
