"""Recorded inputs: what is kept, in which order, and what an interrupted recording leaves."""

from pathlib import Path

import numpy as np
import pytest

from devil.calibration.captures import CalibrationClip, CapturedAnswer, Captures, Run, begin, write_clip
from devil.calibration.recording import Recorder
from devil.errors import CalibrationError

CLIP = CalibrationClip(Path("a.mp4"), ("one", "two"), (3, 9))


def frames(count, first=0):
    return np.arange(first, first + count, dtype=np.uint8)[:, None, None, None].repeat(3, -1)


@pytest.mark.parametrize("batches", [[10], [1] * 10, [4, 4, 2], [3, 7]])
def test_the_same_frames_are_kept_however_they_are_batched(batches):
    recorder, first = Recorder(every=4), 0
    recorder.begin(5)
    for count in batches:
        recorder.add("backbone", {"frames": frames(count, first)})
        first += count
    kept = np.concatenate([run.feeds["frames"] for run in recorder.runs])
    assert kept[:, 0, 0, 0].tolist() == [0, 4, 8]
    assert {run.clip for run in recorder.runs} == {5}


def test_what_a_graph_writes_into_its_feeds_later_is_not_recorded():
    recorder, rst = Recorder(), np.zeros(3, np.float32)
    recorder.add("grounder", {"features": np.zeros((1, 2, 3)), "rst": rst})
    rst += 1
    assert not recorder.runs[0].feeds["rst"].any()


def test_runs_and_answers_come_back_as_they_were_recorded(tmp_path):
    runs = [
        Run("language", 2, {"token_ids": np.array([[1, 2]]), "mask": np.ones((1, 1, 2, 2), bool)}, 0, 256),
        Run("backbone", 2, {"frames": frames(2)}),
        Run("language", 2, {"token_ids": np.array([[3]])}, 0, 512),
    ]
    rst = np.array([1, 2], np.float32)
    said = [CapturedAnswer("one", "no box", None, None), CapturedAnswer("two", "It is.", (0.5, 1.25), rst)]
    begin(tmp_path, {"bundle": "x"})
    write_clip(tmp_path, 2, CLIP, runs, said, left_out=["grounder"])

    captures = begin(tmp_path, {"bundle": "x"})
    assert (captures.clips, captures.clip(2), captures.left_out("grounder")) == ([2], CLIP, [2])
    found = list(captures.runs("language"))
    assert [(run.cache, run.capacity) for run in found] == [(0, 256), (0, 512)]
    assert found[0].feeds["mask"].dtype == bool
    np.testing.assert_array_equal(found[1].feeds["token_ids"], [[3]])
    one, two = captures.answers(2)
    assert (one.rst, one.span, two.span, two.rst.tolist()) == (None, None, (0.5, 1.25), [1, 2])
    assert captures.bytes == sum(path.stat().st_size for path in (tmp_path / "clip-0002").iterdir())


def test_a_folder_of_another_recording_is_refused(tmp_path):
    begin(tmp_path, {"bundle": "x"})
    with pytest.raises(CalibrationError, match="something else"):
        begin(tmp_path, {"bundle": "y"})


def test_a_clip_whose_writing_failed_leaves_nothing(tmp_path):
    begin(tmp_path, {})
    with pytest.raises(TypeError):
        write_clip(tmp_path, 0, CLIP, [Run("vision", 0, {"patches": frames(1)}, cache=object())], [])
    assert Captures(tmp_path).clips == []
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("left", [0, 20, 200])
def test_a_recorded_run_that_was_cut_is_named(tmp_path, left):
    begin(tmp_path, {})
    write_clip(tmp_path, 0, CLIP, [Run("backbone", 0, {"frames": frames(9)})], [])
    path = tmp_path / "clip-0000" / "000000.npz"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(CalibrationError, match=r"000000\.npz cannot be read"):
        list(Captures(tmp_path).runs("backbone"))
