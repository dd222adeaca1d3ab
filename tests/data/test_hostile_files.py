"""Whatever stands in an annotation file: what cannot be used is left out, or the file is refused in one line."""

import copy
import json
import warnings

import numpy as np
import pytest

from devil.data.hcstvg import read_hcstvg
from devil.data.moments import read_activitynet, read_charades
from devil.data.records import read_records
from devil.data.refcoco import read_refcoco
from devil.data.vidstg import read_vidstg
from devil.errors import AnnotationError

BOX = {"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}
HC = {"bbox": [[1, 2, 3, 4]], "img_num": 400, "st_frame": 3}
VIDSTG = {
    "vid": "7", "width": 20, "height": 10, "frame_count": 9, "fps": 5,
    "used_segment": {"begin_fid": 1, "end_fid": 8}, "temporal_gt": {"begin_fid": 2, "end_fid": 4},
    "captions": [{"description": "a dog", "target_id": 1, "type": "subject"}], "questions": [],
}  # fmt: skip
CHAT = {
    "video": ["7.mp4"], "fps": 10, "width": 20, "height": 10, "frame_count": 20, "kind": "life", "form": "declarative",
    "conversations": [{"from": "human", "value": "<query>a dog</query>"}, {"from": "gpt", "value": "Here. [BOX]"}],
    "ground_truth": {"start_time": 4, "end_time": 5, "bboxs": [BOX, None]},
    "used_segment": {"begin_fid": 2, "end_fid": 9},
}  # fmt: skip
REFCOCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 10, "caption": "a cup"}],
    "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}],
}
READERS = {
    "chat": (read_records, [CHAT]),
    "hc_stvg_v1": (read_hcstvg, {"7.mp4": HC | {"width": 20, "height": 10, "caption": "a dog"}}),
    "hc_stvg_v2": (read_hcstvg, {"7.mp4": HC | {"img_size": [10, 20], "English": "a dog"}}),
    "vidstg": (lambda path, root: read_vidstg(path, root, root / "vidor"), [VIDSTG]),
    "refcoco": (read_refcoco, REFCOCO),
    "activitynet": (read_activitynet, {"7": {"duration": 4, "timestamps": [[0, 1]], "sentences": ["x"]}}),
}
TRACKS = {"trajectories": [[{"tid": 1, "bbox": BOX}]] * 9}


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


HOSTILE = [
    None, True, 0, -1, 0.5, 10**308, 10**309, -(10**400), 1e308, 5e-324, float("nan"), float("-inf"), 2**63, "", " ",
    "x" * 5000, "a\0b", "\ud800", "..", [], [[]], [None], {}, {"a": 1}, [1] * 9, [{}], nested(60),
]  # fmt: skip


def places(value, keys=()):
    """The keys that lead to every part of a JSON value."""
    yield keys
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*keys, key))


def changed(value, keys, new):
    """`value` with one part replaced."""
    if not keys:
        return new
    found = copy.copy(value)
    found[keys[0]] = changed(value[keys[0]], keys[1:], new)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "vidor").mkdir()
    for name in ("7.mp4", "a.png"):
        (folder / name).write_bytes(b"not opened where the annotation tells the size")
    write(folder / "vidor" / "7.json", TRACKS)
    return folder


def write(path, value):
    return write_text(path, json.dumps(value))


def write_text(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def check(read, path, root):
    """What was read is what a video can have; returns how many records it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found, problems = read(path, root)
    except AnnotationError as refusal:
        refused = str(refusal)
        assert "\n" not in refused
        return 0
    for one in found:
        for name in ("sentence", "answer", "kind", "form"):
            getattr(one, name, "").encode()
        if hasattr(one, "boxes"):
            assert one.boxes.shape == (one.end - one.start + 1, 4)
            assert not np.isnan(one.boxes).all()
            assert ((one.boxes >= 0) & (one.boxes <= 1) | np.isnan(one.boxes)).all()
            assert 0 < 1 / one.fps < 2**32
    numbers = [one.number for one in found] + [problem.index for problem in problems]
    assert sorted(numbers) == list(range(len(numbers)))
    return len(found)


@pytest.mark.parametrize("name", READERS)
def test_any_value_anywhere_leaves_out_its_record_and_no_more(folder, name):
    read, good = READERS[name]
    path = folder / f"{name}.json"
    assert check(read, write(path, good), folder) == 1
    for keys in places(good):
        for value in HOSTILE:
            check(read, write(path, changed(good, keys, value)), folder)


def test_any_value_in_a_track_of_vidor_leaves_out_its_sentences(folder, tmp_path):
    path = write(folder / "tracks.json", [VIDSTG])
    for turn, keys in enumerate(keys for keys in places(TRACKS) if keys[1:2] in ((), (3,))):
        for index, value in enumerate(HOSTILE):
            root = tmp_path / f"{turn}-{index}"
            root.mkdir()
            write(root / "7.json", changed(TRACKS, keys, value))
            check(lambda path, media, root=root: read_vidstg(path, media, root), path, folder)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 5000, "", "3", '"x"', "null", "\ufeff[]"])
def test_any_file_is_read_or_refused_in_one_line(folder, name, text):
    assert check(READERS[name][0], write_text(folder / "file.json", text), folder) == 0


@pytest.mark.parametrize("value", ["1e999", "-1e999", "nan", "1" * 400, "1_0", "٣", "0x10", "5e-324"])
def test_charades_lines_with_other_numbers(folder, value):
    found, problems = read_charades(write_text(folder / "lines.txt", f"7 0 {value}##x\n7 0 1##good"), folder)
    assert [one.sentence for one in found][-1] == "good"
    assert len(found) + len(problems) == 2
    assert all(0 <= one.span[0] < one.span[1] < 2**32 for one in found)
