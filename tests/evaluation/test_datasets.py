"""Which questions a name stands for, and what is true of the frames a model sampled."""

import dataclasses
import json
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from devil.data.annotation import Record
from devil.data.moments import Moment
from devil.data.scene import make_scene
from devil.data.writer import CONTROL
from devil.errors import AnnotationError, UsageError
from devil.evaluation.datasets import _READERS, held_out_split, load_dataset, shown_objects
from devil.evaluation.truth import segment_of, truth_of
from devil.video import VideoInfo, probe


def quiet(*_):
    pass


def load(name, root=None, annotations=None, control=False, cache=None):
    return load_dataset(str(name), root, annotations, control, cache, quiet)


def test_held_out_clips_are_written_once(tmp_path):
    told = []
    path = held_out_split(tmp_path, lambda *args: told.append(args), 2)
    assert told == [("writing clips", 1, 2), ("writing clips", 2, 2)]
    before = path.stat().st_mtime_ns
    assert held_out_split(tmp_path, lambda *args: told.append(args), 2) == path
    assert (path.stat().st_mtime_ns, len(told)) == (before, 2)


def test_clips_are_named_by_all_the_code_that_makes_them_and_by_no_reader():
    code = "import sys, devil.data.writer; print(*(name for name in sys.modules if name.startswith('devil.data.')))"
    used = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "devil.data.scene" in used
    assert not {f"devil.data.{name}" for name in _READERS} & set(used)


def test_a_file_of_chat_records_is_a_data_set(annotations, records):
    dataset = load(annotations)
    assert [case.sentence for case in dataset.cases] == [record.sentence for record in records]
    assert (dataset.problems, dataset.is_temporal) == ((), False)


@pytest.mark.parametrize(
    ("name", "annotation", "temporal"),
    [
        ("charades_sta", "clip 0.5 2.0##a person sits down.\n", True),
        ("activitynet", json.dumps({"clip": {"duration": 4, "timestamps": [[0, 1]], "sentences": ["x"]}}), True),
        (
            "hc_stvg_v1",
            json.dumps(
                {
                    "clip.mp4": {
                        "bbox": [[1, 2, 3, 4]], "width": 90, "height": 80, "img_num": 400, "st_frame": 3,
                        "caption": "the man",
                    }
                }
            ),
            False,
        ),
    ],
)  # fmt: skip
def test_published_data_sets_are_read_from_their_root(tmp_path, name, annotation, temporal):
    (tmp_path / "clip.mp4").write_bytes(b"x")
    file = tmp_path / "elsewhere.txt"
    file.write_text(annotation)
    dataset = load(name, tmp_path, file)
    assert (len(dataset.cases), dataset.is_temporal) == (1, temporal)
    with pytest.raises(AnnotationError, match=str(tmp_path)):
        load(name, tmp_path)  # the published file name is not there


def test_vidstg_takes_the_boxes_from_its_root(tmp_path):
    box = {"tid": 1, "bbox": {"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}}
    entry = {
        "vid": "7", "width": 20, "height": 10, "frame_count": 9, "fps": 5,
        "used_segment": {"begin_fid": 1, "end_fid": 8},
        "temporal_gt": {"begin_fid": 2, "end_fid": 4}, "captions": [{"description": "a dog", "target_id": 1}],
        "questions": [{"description": "what runs?", "target_id": 1}],
    }  # fmt: skip
    for file, values in (("test_annotations.json", [entry]), ("vidor/7.json", {"trajectories": [[box]] * 9})):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(json.dumps(values))
    (tmp_path / "7.mp4").write_bytes(b"x")
    dataset = load("vidstg", tmp_path)
    assert [case.form for case in dataset.cases] == ["declarative", "interrogative"]


def test_what_does_not_fit_together_is_refused(annotations, tmp_path):
    with pytest.raises(UsageError, match="--root"):
        load("vidstg")
    with pytest.raises(UsageError, match="known are synthetic"):
        load("nonsense")
    with pytest.raises(UsageError, match="--control"):
        load(annotations, control=True)
    with pytest.raises(UsageError, match="--annotations"):
        load(annotations, annotations=annotations)
    with pytest.raises(UsageError, match="--annotations"):
        load("synthetic", annotations=annotations)
    with pytest.raises(UsageError, match="--root"):
        load("synthetic", tmp_path)
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(AnnotationError, match="no record"):
        load(tmp_path / "none.json")


def test_control_knows_both_objects_where_both_are_visible(annotations):
    for case in load(annotations.parent / CONTROL).cases:
        scene = make_scene(int(case.path.stem[-4:]), "heldout")
        frames = scene.clock.ids
        named, own = shown_objects(case, frames)
        expected = [actor.visible(scene.clock.shown) for actor in scene.actors]
        target = next(query.target for query in scene.queries if query.sentence == case.sentence)
        assert (~np.isnan(named[:, 0])).tolist() == (expected[0] & expected[target]).tolist()
        assert np.isnan(own).tolist() == np.isnan(named).tolist()
        inside, boxes = case.at(frames)
        both = inside & ~np.isnan(named[:, 0])
        np.testing.assert_allclose(named[both], boxes[both], atol=2e-4)  # annotated in hundredths of a pixel


def test_the_annotated_words_are_the_true_span(records):
    for seed, record in enumerate(records):
        scene = make_scene(seed, "heldout")
        query = scene.queries[0]
        truth = truth_of(record, probe(record.path), None, scene.clock.ids)
        assert truth.span == tuple(round(float(scene.clock.times[k]), 1) for k in (query.first, query.last))
        assert np.flatnonzero(~np.isnan(truth.boxes[:, 0])).tolist() == list(range(query.first, query.last + 1))


def info(frames, rate):
    times = tuple(Fraction(index, rate) for index in range(frames))
    return VideoInfo("x.mp4", 100, 50, times, Fraction(frames, rate), Fraction(rate))


def record(start, end, segment, fps=10.0, answer=""):
    boxes = np.tile(np.arange(start, end + 1)[:, None] / 1000, (1, 4)).astype(np.float32)
    return Record("x.mp4", "a dog", answer, False, fps, segment, start, end, boxes)


def test_spans_count_from_the_segments_start():
    case, video = record(30, 49, (20, 79)), info(100, 10)
    assert segment_of(case, video) == (20, 79)
    assert truth_of(case, video, (20, 79), np.array([20, 35])).span == (1.0, 2.9)


def test_a_segment_that_is_the_whole_file_is_none():
    assert segment_of(record(30, 49, (0, 99)), info(100, 10)) is None
    assert segment_of(record(30, 49, (0, 99)), info(98, 10)) is None  # files end a little early


def test_annotations_at_another_rate_meet_the_file_in_time():
    case, video = record(30, 49, (0, 99)), info(250, 25)
    assert segment_of(case, video) is None
    assert segment_of(record(30, 49, (20, 59)), video) == (50, 149)
    truth = truth_of(case, video, None, np.array([74, 75, 100, 124, 125]))
    assert truth.span == (3.0, 4.9)
    np.testing.assert_allclose(truth.boxes[:, 0], [np.nan, 0.030, 0.040, 0.049, np.nan], rtol=1e-6)


@pytest.mark.parametrize("fps", [2.0**-31, 2.0**31])
def test_the_most_hostile_rates_that_readers_let_pass_have_a_truth(fps):
    case, video = record(0, 9, (0, 99), fps), info(100, 10)
    truth = truth_of(case, video, segment_of(case, video), np.arange(100))
    assert np.isfinite(truth.span).all()
    assert truth.boxes.shape == (100, 4)


@pytest.mark.parametrize("rate", [10, 25])
def test_an_event_behind_the_files_end_is_refused(rate):
    with pytest.raises(AnnotationError, match="begins at frame 100"):
        segment_of(record(100, 110, (0, 199)), info(10 * rate, rate))


def test_moments_are_true_as_they_stand():
    truth = truth_of(Moment("x.mp4", "a dog", (0.5, 2.0)), info(100, 10), None, np.arange(3))
    assert truth.span == (0.5, 2.0)
    assert np.isnan(truth.boxes).all()


def test_told_words_win_over_frame_numbers():
    case = dataclasses.replace(record(30, 49, (0, 99)), answer="It happens from 3.1 to 4.7 seconds. [BOX]")
    assert truth_of(case, info(100, 10), None, np.arange(3)).span == (3.1, 4.7)
