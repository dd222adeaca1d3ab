"""Losses are measured on clips that nothing was chosen on, where there are enough, and only where the graphs ran."""

import numpy as np
import pytest

from devil.calibration.captures import CalibrationClip, CapturedAnswer, Run, begin, write_clip
from devil.calibration.sensitivity.clips import split_clips
from devil.contract import GRAPHS
from devil.errors import CalibrationError


@pytest.fixture
def recorded(tmp_path):
    """Gives the recording of some clips, told by the graphs that ran on each; an RST is there if asked for."""

    def write(*ran, rst=True):
        for number, graphs in enumerate(ran):
            clip = CalibrationClip(tmp_path / f"{number}.mp4", ("the circle",))
            runs = [Run(graph, number, {"x": np.zeros(1)}) for graph in graphs]
            said = CapturedAnswer("the circle", "It …", None, np.zeros(2, np.float32) if rst else None)
            write_clip(tmp_path, number, clip, runs, [said])
        return begin(tmp_path, {})

    return write


@pytest.mark.parametrize(
    ("count", "held"),
    [(32, [3, 7, 11, 15, 19, 23, 27, 31]), (16, [3, 7, 11, 15]), (48, [3, 7, 11, 15, 19, 23, 27, 31])],
)
def test_every_fourth_clip_is_held_out(recorded, count, held):
    found = split_clips(recorded(*[GRAPHS] * count), GRAPHS)
    assert found.tested_on.clips == held
    assert found.chosen_on.clips == [clip for clip in range(count) if clip not in held]
    assert [run.clip for run in found.chosen_on.runs("vision")] == found.chosen_on.clips
    assert found.record() == {"clips": len(held), "held_out": True, "unfit_clips": 0}
    assert "were not chosen on" in found.words()


def test_of_too_few_clips_none_is_held_out_and_that_is_said(recorded):
    found = split_clips(recorded(*[GRAPHS] * 15), GRAPHS)
    assert found.tested_on.clips == list(range(8))
    assert found.chosen_on.clips == list(range(15))
    assert found.record() == {"clips": 8, "held_out": False, "unfit_clips": 0}
    assert "too small" in found.words()


def test_clips_without_the_needed_runs_are_counted_and_chosen_on_only(recorded):
    silent = ("vision", "language")  # the detector never ran
    captures = recorded(*[GRAPHS, silent] * 16)
    found = split_clips(captures, GRAPHS)
    assert found.tested_on.clips == [6, 14, 22, 30]
    assert set(found.chosen_on.clips) | {6, 14, 22, 30} == set(range(32))
    assert found.unfit == 16
    assert split_clips(captures, ["language"]).unfit == 0


@pytest.mark.parametrize(
    ("ran", "rst", "graphs", "named"),
    [
        (("vision",), True, ["vision"], "language, vision"),
        (("vision", "language"), True, ["grounder"], "grounder"),
        (("backbone",), False, ["backbone"], "backbone"),
    ],
)
def test_clips_that_cannot_tell_are_refused(recorded, ran, rst, graphs, named):
    with pytest.raises(CalibrationError, match=f"no clip has recorded runs of {named} together"):
        split_clips(recorded(*[ran] * 20, rst=rst), graphs)


def test_what_some_clips_take_is_less_than_what_all_take(recorded):
    captures = recorded(*[GRAPHS] * 4)
    assert captures.only([1, 3]).bytes * 2 == captures.bytes
    assert captures.count("vision", [2]) == 1
    assert captures.only([1, 3]).only([3]).clips == [3]
