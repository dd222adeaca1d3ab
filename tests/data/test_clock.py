"""Clocks: the sampled frames are the ones on screen, in exact arithmetic."""

from bisect import bisect_right
from fractions import Fraction

import pytest

from devil.data.clock import draw_clock
from devil.data.dice import Dice


@pytest.mark.parametrize("frames", [1, 4, 8, 16, 64])
def test_sampled_frames_are_those_on_screen_and_never_at_a_change(frames):
    for seed in range(60):
        clock = draw_clock(Dice(str(seed)), frames)
        starts = [index / clock.rate for index in range(clock.count)]
        duration = clock.count / clock.rate
        moments = [duration * Fraction(index, max(frames - 1, 1)) for index in range(frames)]
        assert clock.times.tolist() == [float(moment) for moment in moments]
        assert clock.ids.tolist() == [bisect_right(starts, moment) - 1 for moment in moments]
        assert not set(moments[1:-1]) & set(starts)
        assert clock.shown.tolist() == [float(starts[index]) for index in clock.ids]
        assert 4 <= clock.duration < 13


def test_dice_draw_what_they_always_drew():
    dice = Dice("golden")
    draws = [dice.integer(0, 9) for _ in range(8)], dice.choice("abcdef"), dice.weighted({"x": 1, "y": 0})
    again = Dice("golden")
    assert draws == ([again.integer(0, 9) for _ in range(8)], again.choice("abcdef"), "x")
    assert all(0 <= draw <= 9 for draw in draws[0])
