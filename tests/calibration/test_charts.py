"""Charts of the report: nothing overlaps, nothing is cut off, and what is no number can be drawn."""

import itertools
import math
import re

import numpy as np
import pytest

from devil.calibration.verdict.charts import Bar, bar_chart, worst_first
from devil.calibration.verdict.scatter import Point, badges, scatter
from devil.calibration.verdict.svg import short, ticks

TEXT = re.compile(r'<text x="([\d.-]+)" y="([\d.-]+)" text-anchor="(\w+)"[^>]*>([^<]*)</text>')
_CHARACTER = 6.6  # pixels, of the widest usual letters at this size


def boxes(chart):
    """Left, right, top and bottom of every text."""
    for x, y, anchor, words in TEXT.findall(chart):
        width, x, y = len(words) * _CHARACTER, float(x), float(y)
        left = {"start": x, "middle": x - width / 2, "end": x - width}[anchor]
        yield left, left + width, y - 10, y + 3


def overlapping(chart):
    return [
        (one, two)
        for one, two in itertools.combinations(boxes(chart), 2)
        if one[0] < two[1] and two[0] < one[1] and one[2] < two[3] and two[2] < one[3]
    ]


def check(chart):
    width, height = (float(size) for size in re.search(r'viewBox="0 0 (\d+) (\d+)"', chart).groups())
    for left, right, top, bottom in boxes(chart):
        assert left >= 0
        assert right <= width
        assert top >= 0
        assert bottom <= height
    assert overlapping(chart) == []


def point(index, milliseconds, change):
    label = f"devil-tiny-int8-calibrated vision language backbone {index} only"
    return Point(label, milliseconds, change, change - 1, change + 1, index == 1)


@pytest.mark.parametrize("spread", [0.0, 0.3, 400.0])
@pytest.mark.parametrize("count", [1, 2, 7, 12])
def test_bundles_that_are_alike_keep_their_numbers_and_names_apart(count, spread):
    drawn = np.random.default_rng(count).random((count, 2))
    points = [point(index, 300 + spread * x, spread / 200 * y) for index, (x, y) in enumerate(drawn)]
    chart = scatter(points, "milliseconds per clip", "change of m_vIoU, points", -0.5)
    check(chart)
    assert chart.count("<circle") == count
    assert chart.count("#b3261e") >= 2  # the result and the limit
    assert all(f">{number}</text>" in chart for number in range(1, count + 1))


def test_no_limit_is_no_line():
    points = [point(0, 100, 0.0), point(1, 50, -1.0)]
    assert "budget" in scatter(points, "ms", "points", -0.5)
    assert "budget" not in scatter(points, "ms", "points")
    assert "stroke-dasharray" not in scatter(points, "ms", "points")


def test_numbers_stand_beside_their_points():
    places = [(200.0, 100.0), (201.0, 101.0), (400.0, 300.0)]
    found = badges(places)
    assert len(set(found)) == 3
    for (x, y), (left, top) in zip(places, found, strict=True):
        assert math.hypot(left - x, top - y) < 40
        assert 30 < top < 314  # inside the frame


def test_layers_of_any_error_are_drawn():
    bars = [
        Bar("linear 384 → 1536, " + "node_" * 20 + "7", "vision", 3e-9, False),
        Bar("fine", "backbone", 0.0, False),
        Bar("no number", "grounder", math.nan, True),
        Bar("huge", "grounder", math.inf, False),
        Bar("usual <&>", "language", 0.02, True),
    ]
    chart = bar_chart(worst_first(bars), "relative error")
    check(chart)
    assert chart.count("<rect") == 4
    assert chart.count("no number</title>") == 2
    assert "usual &lt;&amp;&gt;" in chart
    assert [bar.value for bar in worst_first(bars)][2:] == [0.02, 3e-9, 0.0]
    lengths = {float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', chart)}
    assert max(lengths) == 560
    assert bar_chart([], "x") == ""
    check(bar_chart([Bar("all of it fine", "vision", 0.0, False)], "x"))


def test_a_bar_is_as_long_as_its_logarithm():
    chart = bar_chart([Bar("a", "vision", 1.0, False), Bar("b", "vision", 0.1, False)], "x")
    wide = bar_chart(
        [Bar("a", "vision", 1.0, False), Bar("b", "vision", 0.01, False), Bar("c", "vision", 0.1, False)], "x"
    )
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', wide)]
    assert widths == pytest.approx([560, 1.5, 280])
    assert "10⁻¹" in chart
    assert ">x, logarithmic</text>" in chart


def test_names_are_cut_in_the_middle_and_ticks_are_round():
    assert short("abcdefghij", 10) == "abcdefghij"
    assert len(short("abcdefghijk", 10)) == 10
    assert short("abcdefghijk", 10).endswith("fghijk")
    assert ticks(0, 97) == [0, 20, 40, 60, 80]
    assert ticks(-1.3, 0.4) == pytest.approx([-1, -0.5, 0])
    assert ticks(0, 0.004) == pytest.approx([0, 0.001, 0.002, 0.003, 0.004])
