"""Chat records: good ones are read, broken ones are left out with a reason."""

import copy
import json

import numpy as np
import pytest
from PIL import Image

from devil.data.annotation import summary
from devil.data.records import read_records
from devil.errors import AnnotationError

BOX = {"xmin": 10, "ymin": 20, "xmax": 50, "ymax": 60}
GOOD = {
    "video": ["clip.mp4"],
    "conversations": [
        {"from": "human", "value": "<video>\nLocate <query>the  red\ncircle</query> in the video."},
        {"from": "gpt", "value": "From 0.4 to 0.6 seconds. [BOX]"},
    ],
    "ground_truth": {"start_time": 4, "end_time": 6, "bboxs": [BOX, None, BOX]},
    "used_segment": {"begin_fid": 2, "end_fid": 9},
    "fps": 10,
    "width": 100,
    "height": 80,
    "frame_count": 20,
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"not opened where the record tells the size")
    Image.new("RGB", (100, 80)).save(tmp_path / "photo.png")
    return tmp_path


def write(folder, *records):
    path = folder / "records.json"
    path.write_text(json.dumps(list(records)))
    return path


def changed(*keys_and_value):
    """GOOD with one value, named by its keys, replaced or (by ...) removed."""
    *keys, last, value = keys_and_value
    record = copy.deepcopy(GOOD)
    inner = record
    for key in keys:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return record


def test_a_good_record_is_understood(folder):
    (record,), problems = read_records(write(folder, GOOD))
    assert problems == []
    assert record.path == folder / "clip.mp4"
    assert record.sentence == "the red circle"
    assert record.answer.endswith("[BOX]")
    assert (record.start, record.end, record.segment, record.fps) == (4, 6, (2, 9), 10.0)
    inside, boxes = record.at([3, 4, 5, 6, 7])
    assert inside.tolist() == [False, True, True, True, False]
    np.testing.assert_allclose(boxes[1], [0.1, 0.25, 0.5, 0.75])
    assert np.isnan(boxes[[0, 2, 4]]).all()


def test_boxes_may_cover_the_whole_segment(folder):
    listed = [None, None, BOX, BOX, None, None, None, None]
    (record,), _ = read_records(write(folder, changed("ground_truth", "bboxs", listed)))
    assert np.isnan(record.boxes).any(axis=1).tolist() == [False, False, True]


def test_without_a_segment_the_whole_file_is_used(folder):
    (record,), _ = read_records(write(folder, changed("used_segment", ...)))
    assert record.segment == (0, 19)


def test_a_segment_that_excludes_its_end_may_end_behind_the_last_frame(folder):
    record = changed("used_segment", {"begin_fid": 2, "end_fid": 20})
    record["ground_truth"]["bboxs"] = [None, None, BOX, BOX, BOX, *[None] * 13]  # one per frame of the segment
    (found,), problems = read_records(write(folder, record))
    assert (problems, found.segment, len(found.boxes)) == ([], (2, 19), 3)


def test_images_have_one_box_and_no_times(folder):
    image = {
        "image": ["photo.png"],
        "conversations": GOOD["conversations"],
        "ground_truth": {"bboxs": [BOX]},
    }
    (record,), problems = read_records(write(folder, image))
    assert problems == []
    assert record.is_image
    np.testing.assert_allclose(record.boxes, [[0.1, 0.25, 0.5, 0.75]])


def test_lines_of_json_are_read_too_and_paths_may_start_elsewhere(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("elsewhere") / "records.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(GOOD) + "\n")
    assert len(read_records(path, root=folder)[0]) == 2
    assert summary(read_records(path)[1]) == {"file missing": 2}


NO_SIDES = "box is not an object of xmin, ymin, xmax, ymax in pixels"
BROKEN = [
    ([], "not a JSON object"),
    (changed("video", ["gone.mp4"]), "file missing"),
    (changed("video", []), "no video or image named"),
    (changed("video", ...), "no video or image named"),
    (changed("video", ["."]), "file missing"),
    (changed("width", ...), "file unreadable"),
    (changed("fps", 0), "fps is not a positive number"),
    (changed("fps", "25"), "fps is not a positive number"),
    (changed("fps", float("nan")), "fps is not a positive number"),
    (changed("fps", 10**309), "fps is not a positive number"),
    (changed("fps", 1e-12), "fps is not a positive number"),
    (changed("conversations", 0, "from", []), "no question with an answer"),
    (changed("conversations", 1, "value", "\ud800"), "half a character in the text"),
    (changed("video", ["x" * 5000]), "file missing"),
    (changed("conversations", []), "no question with an answer"),
    (changed("conversations", None), "no question with an answer"),
    (changed("conversations", 0, "value", "where is the circle?"), "no sentence between query marks"),
    (changed("conversations", 0, "value", "<query> </query>"), "no sentence between query marks"),
    (changed("ground_truth", ...), "no ground truth with boxes"),
    (changed("ground_truth", "bboxs", [BOX]), "number of boxes fits neither span nor segment"),
    (changed("ground_truth", "bboxs", [None] * 3), "no box in the whole span"),
    (changed("ground_truth", "bboxs", 0, {**BOX, "xmax": 180}), "box outside the picture"),
    (changed("ground_truth", "bboxs", 0, {**BOX, "ymin": -9}), "box outside the picture"),
    (changed("ground_truth", "bboxs", 0, {**BOX, "xmax": 10}), "box without area"),
    (changed("ground_truth", "bboxs", 0, {**BOX, "xmax": None}), NO_SIDES),
    (changed("ground_truth", "bboxs", 0, {**BOX, "xmax": 10**309}), NO_SIDES),
    (changed("ground_truth", "bboxs", 0, [1, 2, 3, 4]), NO_SIDES),
    (changed("ground_truth", "start_time", 8), "span ends before it starts"),
    (changed("ground_truth", "start_time", 1), "span outside the clip"),
    (changed("ground_truth", "end_time", 99), "span outside the clip"),
    (changed("ground_truth", "start_time", None), "start_time is not a whole number"),
    (changed("ground_truth", "start_time", 4.5), "start_time is not a whole number"),
    (changed("used_segment", {"begin_fid": 2, "end_fid": 21}), "segment outside the video"),
    (changed("used_segment", {"begin_fid": 20, "end_fid": 20}), "segment outside the video"),
    (changed("used_segment", "end_fid", 10**309), "end_fid is not a whole number"),
    (changed("used_segment", 7), "used_segment is not an object"),
]


@pytest.mark.parametrize(("record", "reason"), BROKEN, ids=lambda value: value if isinstance(value, str) else "")
def test_a_broken_record_is_left_out_with_its_reason(folder, record, reason):
    records, problems = read_records(write(folder, GOOD, record, GOOD))
    assert len(records) == 2
    assert [problem.index for problem in problems] == [1]
    assert summary(problems) == {reason: 1}


@pytest.mark.parametrize("text", [None, "{broken", '[{"video": ', "\xff"])
def test_a_file_that_is_not_json_is_one_clear_error(tmp_path, text):
    path = tmp_path / "records.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(AnnotationError, match=r"records\.json"):
        read_records(path)
