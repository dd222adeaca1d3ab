"""Clips on disk: the runtime's own reader finds in them what the generator knows."""

import json

import numpy as np
import pytest

from devil.answer import parse_span
from devil.data import demo
from devil.data.records import read_records
from devil.data.scene import make_scene
from devil.data.shapes import HELD_OUT_PAIRS
from devil.data.writer import ANNOTATIONS, CONTROL, write_dataset
from devil.tube import frames_in_span
from devil.video import probe, read_frames, sample_indices, sample_times

COUNT = 6


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    told = []
    path = write_dataset(tmp_path_factory.mktemp("data") / "heldout", "heldout", COUNT, progress=told.append)
    assert told == list(range(1, COUNT + 1))
    return path


def test_every_written_record_is_read_back(dataset):
    records, problems = read_records(dataset)
    assert problems == []
    assert len(records) == COUNT
    assert dataset.name == ANNOTATIONS
    assert all(
        record.sentence == make_scene(seed, "heldout").queries[0].sentence for seed, record in enumerate(records)
    )


def test_files_show_the_scene_that_training_sees(dataset):
    for seed, record in enumerate(read_records(dataset)[0]):
        scene, info = make_scene(seed, "heldout"), probe(record.path)
        frames = sample_indices(info, 16)
        assert list(frames) == scene.clock.ids.tolist()
        assert [float(time) for time in sample_times(info, 16)] == scene.clock.times.tolist()
        seen = np.stack(read_frames(info, frames, lambda frame: frame)).astype(int)
        rendered = scene.render(scene.clock.shown, (info.height, info.width))
        assert np.abs(seen - rendered).max() <= 3  # 8-bit YUV and back, nothing else


def test_records_hold_the_same_truth_as_the_scene(dataset):
    for seed, record in enumerate(read_records(dataset)[0]):
        scene = make_scene(seed, "heldout")
        query, clock = scene.queries[0], scene.clock
        inside, boxes = record.at(clock.ids)
        assert np.flatnonzero(inside).tolist() == list(range(query.first, query.last + 1))
        np.testing.assert_allclose(boxes[inside], scene.boxes(query.target, clock.shown[inside])[0], atol=2e-4)
        assert np.isnan(boxes[~inside]).all()
        assert frames_in_span(clock.times, parse_span(record.answer)).tolist() == np.flatnonzero(inside).tolist()


def test_control_asks_the_same_clips_about_another_shape(dataset):
    own = {record.path: record for record in read_records(dataset)[0]}
    controls, problems = read_records(dataset.parent / CONTROL)
    assert problems == []
    assert controls
    for control in controls:
        assert control.sentence != own[control.path].sentence
        scene = make_scene(int(control.path.stem.split("-")[1]), "heldout")
        assert {query.target for query in scene.queries if query.sentence == control.sentence}.isdisjoint({0})


def test_writing_again_gives_the_same_annotations(dataset, tmp_path):
    again = write_dataset(tmp_path / "again", "heldout", 2)
    assert json.loads(again.read_text()) == json.loads(dataset.read_text())[:2]


def test_shipped_demo_is_the_held_out_scene_it_says_it_is():
    from importlib.resources import files

    assets = files("devil") / "assets"
    records, problems = read_records(assets / "demo.json")
    assert (len(records), problems) == (1, [])
    record, scene = records[0], make_scene(demo.SEED, "heldout")
    query = scene.queries[0]
    actor = scene.actors[query.target]
    assert (actor.colour, actor.shape) in HELD_OUT_PAIRS
    assert record.sentence == query.sentence
    assert record.path.stat().st_size < 300_000
    info = probe(record.path)
    assert min(info.width, info.height) == demo.SIDE
    inside, _ = record.at(sample_indices(info, 16))
    assert np.flatnonzero(inside).tolist() == list(range(query.first, query.last + 1))
    middle = (query.first + query.last) // 2
    shown = read_frames(info, [int(scene.clock.ids[middle])], lambda frame: frame)[0].astype(int)
    rendered = scene.render(scene.clock.shown[middle : middle + 1], (info.height, info.width))[0]
    assert np.abs(shown - rendered).mean() < 4  # a lossy file
