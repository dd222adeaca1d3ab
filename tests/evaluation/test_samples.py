"""The folder of an evaluation survives being killed, and never mixes two runs."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from devil.data.records import read_records
from devil.errors import OutputError
from devil.evaluation.asking import ask_all, run_values
from devil.evaluation.datasets import Dataset, load_dataset
from devil.evaluation.samples import RUN, SAMPLES, Asked, SampleLog, read_samples
from devil.metrics import Sample

RUN_OF = {"model": {"name": "a"}, "dataset": {"name": "b"}}


def quiet(*_):
    pass


def lines(folder):
    return (folder / SAMPLES).read_text().splitlines()


def asked(index):
    boxes = np.array([[0.1, 0.2, 0.3, 0.4], [np.nan] * 4])
    sample = Sample(np.array([0.0, 1 / 3]), (0.0, 0.3), boxes, (0.1, 0.2), boxes[::-1], "life")
    return Asked(index, "a.mp4", "the dog", "life", "declarative", "", "from 0.1 to 0.2", (0, 7), sample)


def test_a_line_reads_back_as_it_was_written(tmp_path):
    log = SampleLog(tmp_path / "run", RUN_OF)
    rivals = np.stack([asked(0).sample.boxes] * 2)
    written = [
        asked(0),
        Asked(1, "b.mp4", "x", problem="video unreadable: b"),
        Asked(**vars(asked(2)) | {"rivals": rivals}),
    ]
    for one in written:
        log.add(one)
    found = read_samples(log.folder)
    assert [one.to_json() for one in found.values()] == [one.to_json() for one in written]
    np.testing.assert_array_equal(found[0].sample.times, asked(0).sample.times)  # to the last bit
    np.testing.assert_array_equal(found[0].sample.boxes, asked(0).sample.boxes)
    np.testing.assert_array_equal(found[2].rivals, rivals)


def test_a_killed_run_asks_only_what_is_missing(oracle, records, tmp_path):
    dataset = Dataset("test", "digest", tuple(records), ())
    run = run_values(oracle, dataset)
    folder = tmp_path / "run"
    ask_all(dataset, oracle, SampleLog(folder, run), 3, quiet)
    text = (folder / SAMPLES).read_text()
    (folder / SAMPLES).write_text(text[:-40])  # killed in the middle of the third line
    oracle.asked.clear()
    found = ask_all(dataset, oracle, SampleLog(folder, run), None, quiet)
    assert oracle.asked == [record.sentence for record in records[2:]]
    assert [one.index for one in found] == list(range(len(records)))
    assert [json.loads(line)["index"] for line in lines(folder)] == list(range(len(records)))
    oracle.asked.clear()
    assert len(ask_all(dataset, oracle, SampleLog(folder, run), 2, quiet)) == 2
    assert oracle.asked == []


def test_a_video_that_is_added_between_runs_neither_hides_nor_doubles_another(oracle, annotations, tmp_path):
    data, folder = tmp_path / "data", tmp_path / "run"
    shutil.copytree(annotations.parent, data)

    def run(limit=None):
        dataset = load_dataset(str(data / annotations.name), None, None, False, tmp_path, quiet)
        oracle.records[:], oracle.asked[:] = dataset.cases, []
        found = ask_all(dataset, oracle, SampleLog(folder, run_values(oracle, dataset)), limit, quiet)
        assert [(one.index, one.path, one.sentence) for one in found] == [
            (case.number, str(case.path), case.sentence) for case in dataset.cases[:limit]
        ]
        return [one.index for one in found], len(oracle.asked)

    first = read_records(data / annotations.name)[0][0].path
    first.rename(tmp_path / "away.mp4")
    assert run(limit=2) == ([1, 2], 2)
    (tmp_path / "away.mp4").rename(first)
    assert run(limit=2) == ([0, 1], 1)
    assert run() == ([0, 1, 2, 3], 1)
    assert [json.loads(line)["index"] for line in lines(folder)] == [0, 1, 2, 3]
    first.unlink()
    assert run() == ([1, 2, 3], 0)


def test_answers_about_other_videos_or_sentences_are_not_taken(oracle, records, tmp_path):
    dataset, folder = Dataset("test", "digest", tuple(records), ()), tmp_path / "run"
    ask_all(dataset, oracle, SampleLog(folder, RUN_OF), None, quiet)
    one, two, *others = lines(folder)
    elsewhere = json.loads(two) | {"video": "/elsewhere/" + records[1].path.name}
    changed = json.loads(one) | {"sentence": "the dog"}
    (folder / SAMPLES).write_text("\n".join([json.dumps(changed), json.dumps(elsewhere), *others]))
    oracle.asked.clear()
    found = ask_all(dataset, oracle, SampleLog(folder, RUN_OF), None, quiet)
    assert oracle.asked == [record.sentence for record in records[:2]]
    assert [one.path for one in found] == [str(record.path) for record in records]
    assert len(read_samples(folder)) == len(records)


def test_a_video_that_was_repaired_is_asked_about(oracle, records, tmp_path):
    path = tmp_path / "video.mp4"
    path.write_bytes(b"cut short")
    cases = replace(records[0], path=path), records[1]
    dataset, folder = Dataset("test", "digest", cases, ()), tmp_path / "run"
    oracle.records[:] = cases
    broken, _ = ask_all(dataset, oracle, SampleLog(folder, RUN_OF), None, quiet)
    assert "video unreadable" in broken.problem
    shutil.copy(records[0].path, path)
    oracle.asked.clear()
    mended, _ = ask_all(dataset, oracle, SampleLog(folder, RUN_OF), None, quiet)
    assert (mended.problem, oracle.asked) == ("", [records[0].sentence])
    assert len(lines(folder)) == 2


@pytest.mark.parametrize(
    "line", ["[]", "3", "{}", '{"index": 1e999}', "[" * 100_000, '{"index": 0, "problem": ""}', "\0"]
)
def test_lines_that_nobody_wrote_are_asked_again(oracle, records, tmp_path, line):
    dataset, folder = Dataset("test", "digest", tuple(records), ()), tmp_path / "run"
    SampleLog(folder, RUN_OF)
    (folder / SAMPLES).write_text(line + "\n")
    ask_all(dataset, oracle, SampleLog(folder, RUN_OF), 1, quiet)
    assert [json.loads(line)["index"] for line in lines(folder)] == [0]


def test_an_interrupt_leaves_whole_lines(oracle, records, tmp_path):
    dataset = Dataset("test", "digest", tuple(records), ())

    def interrupt(_stage, done, _total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask_all(dataset, oracle, SampleLog(tmp_path / "run", RUN_OF), None, interrupt)
    assert [json.loads(line)["index"] for line in lines(tmp_path / "run")] == [0, 1]


@pytest.mark.parametrize("key", ["model", "dataset"])
def test_another_run_in_the_same_folder_is_refused(tmp_path, key):
    SampleLog(tmp_path / "run", RUN_OF).add(asked(0))
    other = RUN_OF | {key: {"name": "c"}}
    with pytest.raises(OutputError, match=f"another {key}: .*--force"):
        SampleLog(tmp_path / "run", other)
    assert len(lines(tmp_path / "run")) == 1
    assert SampleLog(tmp_path / "run", other, force=True).asked == {}
    assert json.loads((tmp_path / "run" / RUN).read_text()) == other
    assert lines(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("there", "here", "words"),
    [
        ("synthetic control", "synthetic", r"synthetic with --control \(this run is without\): "),
        ("synthetic", "synthetic control", r"synthetic without --control \(this run is with it\): "),
        ("vidstg", "synthetic control", "another dataset: "),
        ("synthetic", "synthetic", "another dataset: "),
    ],
)
def test_a_control_run_is_told_from_the_run_without(tmp_path, there, here, words):
    first, second = (RUN_OF | {"dataset": {"name": name, "digest": at}} for at, name in enumerate((there, here)))
    SampleLog(tmp_path, first)
    with pytest.raises(OutputError, match=f"holds the evaluation of {words}"):
        SampleLog(tmp_path, second)


@pytest.mark.parametrize("found", [3, {"dataset": 3}, {"dataset": None}])
def test_a_run_file_that_was_edited_is_another_run(tmp_path, found):
    (tmp_path / RUN).write_text(json.dumps(found))
    with pytest.raises(OutputError, match="another dataset and another model"):
        SampleLog(tmp_path, RUN_OF)


def test_foreign_folders_and_files_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(OutputError, match="something else"):
            SampleLog(tmp_path, RUN_OF, force)
        with pytest.raises(OutputError, match="is a file"):
            SampleLog(tmp_path / "notes.txt", RUN_OF, force)
    with pytest.raises(OutputError, match="no evaluation"):
        read_samples(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
