"""What cannot be trained on is left out with a reason, before the first step or when it is met."""

import dataclasses

import pytest

from devil.data.annotation import summary
from devil.data.records import read_records
from devil.data.writer import write_dataset
from devil.errors import VideoError
from devil.progress import no_progress
from devil.training.grounding import record_batch
from devil.training.loop import permuted
from devil.training.usable import Draw, unusable
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("usable")
    found, problems = read_records(write_dataset(folder / "set", "train", count=3, frames=tiny_config().frames))
    assert not problems
    return found


def broken_within(path, copy):
    """A copy of a clip that opens, and whose pictures are damaged from its middle on."""
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + 4 + (data.index(b"moov") - data.index(b"mdat")) // 2
    data[middle : data.index(b"moov") - 4] = bytes(data.index(b"moov") - 4 - middle)
    copy.write_bytes(bytes(data))
    return copy


def test_every_reason_is_found_before_training(records, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    first, last = records[0].segment
    strange = [
        records[0],
        dataclasses.replace(records[1], path=tmp_path / "bad.mp4"),
        dataclasses.replace(records[0], segment=(first, last + 5)),  # files end a little early
        dataclasses.replace(records[0], start=last + 50, end=last + 50 + len(records[0].boxes) - 1),
        dataclasses.replace(records[1], is_image=True),
        dataclasses.replace(records[2], sentence="the \ud800 circle"),
        dataclasses.replace(records[2], answer="\ud800"),
    ]
    seen = []
    problems = unusable(strange, (0, 1), lambda *told: seen.append(told))
    assert [problem.index for problem in sorted(problems, key=lambda problem: problem.index)] == [1, 3, 4, 5, 6]
    reasons = {"video unreadable": 1, "annotation does not fit the video": 2, "sentence refused": 2}
    assert summary(problems) == reasons
    assert seen[-1] == ("reading the files", 4, 4)
    shared = [problem for k in range(3) for problem in unusable(strange, (k, 3), no_progress)]
    assert sorted(shared, key=lambda problem: problem.index) == sorted(problems, key=lambda problem: problem.index)


def test_a_clip_that_breaks_off_gives_its_place_to_the_next(records, writer, tmp_path):
    broken = dataclasses.replace(records[1], path=broken_within(records[1].path, tmp_path / "broken.mp4"))
    chosen = [records[0], broken, records[2]]
    assert not unusable(chosen, (0, 1), no_progress)
    with pytest.raises(VideoError):
        record_batch(broken, tiny_config(), writer)
    loaded = []

    def load(record):
        batch = record_batch(record, tiny_config(), writer)
        loaded.append(record)
        return batch

    draw = Draw(chosen, load, seed=3)
    for number in range(3):
        draw(number)
    order = [permuted(number, 3, 3) for number in range(6)]
    wanted = [next(which for which in order[number:] if which != 1) for number in range(3)]
    assert [str(record.path) for record in loaded] == [str(chosen[which].path) for which in wanted]
    assert [problem.index for problem in draw.problems] == [1]
    assert summary(draw.problems) == {"video breaks off": 1}


def test_nothing_readable_at_all_ends_in_one_line(records):
    def load(record):
        raise VideoError(f"{record.path} is gone")

    with pytest.raises(VideoError, match=r"20 clips in a row .*start the same command again: it continues"):
        Draw(records, load, 0)(5)
