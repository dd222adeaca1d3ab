"""Readers of published data sets, on small files written by hand in each one's real format."""

import json

import numpy as np
import pytest

from devil.data.annotation import summary
from devil.data.hcstvg import read_hcstvg
from devil.data.moments import read_activitynet, read_charades
from devil.data.refcoco import read_refcoco
from devil.data.vidstg import read_vidstg
from devil.errors import AnnotationError


@pytest.fixture
def videos(tmp_path):
    """A folder with files at several depths; readers never open them, as the annotations tell the sizes."""
    root = tmp_path / "media"
    for name in ("part1/1_a.mp4", "part2/2_b.mp4", "train2014/COCO_1.jpg", "0001/100.mp4", "AB12C.mp4", "v_xyz.mkv"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def write(folder, name, value):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


HC1 = {
    "bbox": [[10, 20, 30, 40], [12, 20, 30, 40], [14, 20, 30, 40]], "width": 100, "height": 80, "img_num": 400,
    "st_frame": 101, "st_time": 5.0, "ed_time": 5.15, "caption": "The man  stands up.",
}  # fmt: skip
HC2 = {
    "bbox": HC1["bbox"], "img_size": [80, 100], "img_num": 400, "st_frame": 101, "st_time": 5.0, "ed_time": 5.15,
    "English": "The man stands up.", "Chinese": "…",
}  # fmt: skip


@pytest.mark.parametrize("values", [HC1, HC2], ids=["v1", "v2"])
def test_hc_stvg_counts_frames_from_one_and_lists_sized_boxes(tmp_path, videos, values):
    (record,), problems = read_hcstvg(write(tmp_path, "train.json", {"1_a.mp4": values}), videos)
    assert problems == []
    assert record.path == videos / "part1" / "1_a.mp4"
    assert record.sentence == "The man stands up."
    assert (record.start, record.end, record.fps, record.segment) == (100, 102, 20.0, (0, 399))
    inside, boxes = record.at([99, 100, 102, 103])
    assert inside.tolist() == [False, True, True, False]
    np.testing.assert_allclose(boxes[2], [0.14, 0.25, 0.44, 0.75])


HC_BROKEN = [
    ({"bbox": [[10, 20, 95, 40]] * 3}, "box outside the picture"),
    ({"bbox": [[10, 20, 0, 40]] * 3}, "box without area"),
    ({"bbox": [[10, 20, 30]] * 3}, "box is not four numbers"),
    ({"bbox": []}, "span ends before it starts"),
    ({"bbox": None}, "bbox is missing or not a list"),
    ({"st_frame": 399}, "span outside the clip"),
    ({"st_frame": 0}, "span outside the clip"),
    ({"img_num": 0}, "img_num is not positive"),
    ({"img_num": 10**309}, "img_num is not a whole number"),
    ({"bbox": [[10, 20, 30, 10**309]] * 3}, "box is not four numbers"),
    ({"width": 0}, "width is not positive"),
    ({"img_size": [0, 100]}, "height is not positive"),
    ({"width": None}, "width is not a whole number"),
    ({"caption": " "}, "caption is empty"),
    ({"caption": 3}, "caption is missing or not a string"),
    ({"img_size": [80]}, "img_size is not [height, width]"),
]


@pytest.mark.parametrize(("change", "reason"), HC_BROKEN)
def test_broken_hc_stvg_records_are_left_out(tmp_path, videos, change, reason):
    entries = {"2_b.mp4": HC1 | change, "1_a.mp4": HC1, "3_gone.mp4": HC1}
    records, problems = read_hcstvg(write(tmp_path, "train.json", entries), videos)
    assert [record.path.name for record in records] == ["1_a.mp4"]
    assert summary(problems) == {reason: 1, "file missing": 1}


def vidstg_entry(**change):
    return {
        "vid": "100", "frame_count": 300, "fps": 29.97, "width": 640, "height": 360,
        "used_segment": {"begin_fid": 30, "end_fid": 120}, "temporal_gt": {"begin_fid": 40, "end_fid": 43},
        "captions": [{"target_id": 0, "type": "subject", "description": "a dog runs"}],
        "questions": [{"target_id": 1, "type": "object", "description": "who is beside the dog?"}],
    } | change  # fmt: skip


@pytest.fixture
def vidor(tmp_path):
    def box(tid, x):
        return {
            "tid": tid,
            "bbox": {"xmin": x, "ymin": 36, "xmax": x + 64, "ymax": 72},
            "generated": 0,
            "tracker": "none",
        }

    frames = [[] for _ in range(40)] + [[box(0, 64), box(1, 320)], [box(0, 128)], [box(0, 192), box(1, 384)]]
    frames += [[] for _ in range(257)]
    write(tmp_path, "vidor/training/0001/100.json", {"video_id": "100", "trajectories": frames})
    return tmp_path / "vidor"


def test_vidstg_joins_sentences_with_vidor_tracks(tmp_path, videos, vidor):
    records, problems = read_vidstg(write(tmp_path, "val_annotations.json", [vidstg_entry()]), videos, vidor)
    assert problems == []
    told, asked = records
    assert (told.form, told.kind, asked.form, asked.kind) == ("declarative", "subject", "interrogative", "object")
    assert (told.start, told.end, told.segment, told.fps) == (40, 42, (30, 119), 29.97)
    np.testing.assert_allclose(told.boxes, [[x, 0.1, x + 0.1, 0.2] for x in (0.1, 0.2, 0.3)], rtol=1e-6)
    assert np.isnan(asked.boxes).any(axis=1).tolist() == [False, True, False]
    assert told.path == videos / "0001" / "100.mp4"


VIDSTG_BROKEN = [
    ({"vid": "999"}, "VidOR annotation missing"),
    ({"fps": 0}, "fps is not a positive number"),
    ({"temporal_gt": {"begin_fid": 40, "end_fid": 40}}, "span ends before it starts"),
    ({"temporal_gt": {"begin_fid": 20, "end_fid": 41}}, "span outside the clip"),
    ({"temporal_gt": {"begin_fid": 50, "end_fid": 60}}, "no box in the whole span"),
    ({"temporal_gt": None}, "temporal_gt is missing or not an object"),
    ({"used_segment": {"begin_fid": 30, "end_fid": 301}}, "segment outside the video"),
    ({"width": 100}, "box outside the picture"),
    ({"width": 0}, "width is not positive"),
    ({"fps": 10**309}, "fps is not a positive number"),
    ({"frame_count": 10**309}, "frame_count is not a whole number"),
    ({"frame_count": "many"}, "frame_count is not a whole number"),
]


@pytest.mark.parametrize(("change", "reason"), VIDSTG_BROKEN)
def test_broken_vidstg_entries_are_left_out_sentence_by_sentence(tmp_path, videos, vidor, change, reason):
    path = write(tmp_path, "val_annotations.json", [vidstg_entry(**change), vidstg_entry()])
    records, problems = read_vidstg(path, videos, vidor)
    assert len(records) == 2
    assert [problem.index for problem in problems] == [0, 1]
    assert summary(problems) == {reason: 2}


def test_vidstg_reports_broken_sentences_and_broken_tracks(tmp_path, videos, vidor):
    write(vidor, "training/0001/7.json", "{")
    entries = [
        "nothing",
        vidstg_entry(captions="none", questions=[{"description": "who?"}, {"target_id": 5, "description": "who?"}]),
        vidstg_entry(vid="7", questions=[]),
    ]
    records, problems = read_vidstg(write(tmp_path, "val_annotations.json", entries), videos, vidor)
    assert records == []
    assert summary(problems) == {
        "description is missing or not a string": 3,
        "target_id is not a whole number": 1,
        "no box in the whole span": 1,
        "VidOR annotation unreadable": 1,
    }


def test_refcoco_images_are_read_and_broken_ones_named(tmp_path, videos):
    image = {"id": 1, "file_name": "COCO_1.jpg", "width": 200, "height": 100, "caption": "the left cup"}
    images = [
        image,
        image | {"id": 2, "file_name": "COCO_2.jpg"},
        image | {"id": 3},
        image | {"id": 4},
        image | {"id": 5, "caption": ""},
        image | {"id": 1, "width": 0},
        image | {"id": 1, "height": 10**309},
        image | {"id": 6},
        image | {"id": [6]},
        [],
    ]
    annotations = [
        {"image_id": 1, "bbox": [20, 10, 40, 50]}, {"image_id": 2, "bbox": [20, 10, 40, 50]},
        {"image_id": 3, "bbox": [180, 10, 40, 50]}, {"image_id": 5, "bbox": [20, 10, 40, 50]},
        {"image_id": 6, "bbox": [20, 10, 40, 10**309]}, {"image_id": [6], "bbox": [20, 10, 40, 50]},
    ]  # fmt: skip
    path = write(tmp_path, "refcoco.json", {"images": images, "annotations": annotations})
    (record,), problems = read_refcoco(path, videos)
    assert record.is_image
    np.testing.assert_allclose(record.boxes, [[0.1, 0.1, 0.3, 0.6]])
    assert summary(problems) == {
        "file missing": 1, "box outside the picture": 1, "not exactly one box": 2, "caption is empty": 1,
        "caption is missing or not a string": 1, "width is not positive": 1, "height is not a whole number": 1,
        "box is not four numbers": 1,
    }  # fmt: skip
    with pytest.raises(AnnotationError, match="lacks the lists"):
        read_refcoco(write(tmp_path, "other.json", {"images": []}), videos)


def test_charades_lines_are_read_and_broken_ones_named(tmp_path, videos):
    lines = [
        "AB12C 1.5 9.25##a person opens  a door.", "", "GONE1 0.0 1.0##x", "AB12C 5 5##x", "AB12C -1 5##x",
        "AB12C one two##x", "AB12C 1 2 no mark", "AB12C 1 2##",
    ]  # fmt: skip
    (moment,), problems = read_charades(write(tmp_path, "charades_sta_test.txt", "\n".join(lines)), videos)
    assert moment.span == (1.5, 9.25)
    assert moment.sentence == "a person opens a door."
    assert summary(problems) == {
        "file missing": 1, "span ends before it starts": 1, "span outside the clip": 1, "span is not two numbers": 1,
        "not 'video start end##sentence'": 2,
    }  # fmt: skip


def test_activitynet_sentences_are_read_and_broken_ones_named(tmp_path, videos):
    entries = {
        "v_xyz": {
            "duration": 30.5, "timestamps": [[0, 4.5], [4, 31], [4, 40], [9, 3], [None, 3], [0, 10**309]],
            "sentences": [" A man jumps. ", "He lands.", "x", "x", "x", "x", "x"],
        },
        "v_gone": {"duration": 3, "timestamps": [[0, 1]], "sentences": ["x"]},
        "v_huge": {"duration": 10**309, "timestamps": [[0, 1]], "sentences": ["x"]},
        "v_none": {"duration": 0, "timestamps": [], "sentences": ["x"]},
        "v_bad": 3,
    }  # fmt: skip
    moments, problems = read_activitynet(write(tmp_path, "val_1.json", entries), videos)
    assert [(moment.sentence, moment.span) for moment in moments] == [
        ("A man jumps.", (0.0, 4.5)),
        ("He lands.", (4.0, 31.0)),
    ]
    assert summary(problems) == {
        "span outside the clip": 3, "span ends before it starts": 1, "no timestamps for sentence": 1,
        "file missing": 1, "duration is not a positive number": 3,
    }  # fmt: skip


def test_two_files_with_the_wanted_name_are_not_guessed_between(tmp_path, videos):
    (videos / "part3").mkdir()
    (videos / "part3" / "1_a.mp4").write_bytes(b"y")
    records, problems = read_hcstvg(write(tmp_path, "train.json", {"1_a.mp4": HC1}), videos)
    assert records == []
    assert summary(problems) == {"several files fit": 1}


@pytest.mark.parametrize("content", ["[]", "{", "3"])
def test_files_of_another_kind_are_one_clear_error(tmp_path, videos, content):
    with pytest.raises(AnnotationError, match="train"):
        read_hcstvg(write(tmp_path, "train.json", content), videos)
