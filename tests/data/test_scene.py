"""Scenes: what is said about them is what an onlooker sees, and only one shape fits."""

import math
from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest

from devil.data.backgrounds import FAMILIES, HELD_OUT_FAMILIES, TRAIN_FAMILIES, background
from devil.data.clips import picture_size, training_clip
from devil.data.scene import SPLITS, make_scene
from devil.data.script import KINDS
from devil.data.shapes import COLOURS, HELD_OUT_PAIRS, SHAPES

SEEDS = range(120)
VERBS = {
    "blink": "blinks", "flash": "blinks", "enter": "appears", "appear": "appears", "comes in": "appears",
    "leave": "leaves", "goes away": "leaves", "stop": "stops_moving", "rest": "stops_moving",
    "start": "starts_moving", "begin": "starts_moving",
}  # fmt: skip


def scenes(frames=16):
    return [make_scene(seed, split, frames) for split in SPLITS for seed in SEEDS]


def watched(actor, clock):
    """What an onlooker notes in each sampled frame: "absent", "moving", "still", or "pale"."""
    notes = []
    for time in clock.shown:
        around = np.clip([time - 1e-4, time + 1e-4], 0, clock.duration)
        if not actor.visible(np.array([time]))[0]:
            notes.append("absent")
        elif actor.pale(np.array([time]))[0]:
            notes.append("pale")
        else:
            moved = np.abs(np.diff(actor.centres(around), axis=0)).max() > 1e-7
            notes.append("moving" if moved else "still")
    return notes


def asked_about(sentence):
    """(colour or None, shape or None, size or None, kind) that a sentence names."""
    words = sentence.rstrip("?").split()
    colour = next((word for word in words if word in COLOURS), None)
    shape = next((word for word in words if word in SHAPES), None)
    size = next((word for word in words if word in ("small", "large")), None)
    kind = next((kind for verb, kind in VERBS.items() if verb in sentence), "life")
    return colour, shape, size, kind


def could_be(kind, notes):
    """Whether an onlooker could, reading generously, say that a shape with these notes does `kind`."""
    steps = list(pairwise(notes))
    return {
        "life": True,
        "blinks": "pale" in notes,
        "appears": notes[0] == "absent",
        "leaves": notes[-1] == "absent",
        "starts_moving": "moving" in notes,
        "stops_moving": ("moving", "still") in steps,
    }[kind]


def test_a_seed_gives_the_same_scene_and_pixels_every_time():
    one, two = training_clip(7), training_clip(7)
    assert one.scene == two.scene
    np.testing.assert_array_equal(one.frames, two.frames)
    assert make_scene(7, "calibration").actors != one.scene.actors


@pytest.mark.parametrize("scene", scenes(), ids=lambda scene: scene.name)
def test_sentences_name_their_event_and_fit_no_other_shape(scene):
    notes = [watched(actor, scene.clock) for actor in scene.actors]
    for query in scene.queries:
        colour, shape, size, kind = asked_about(query.sentence)
        assert kind == query.kind
        assert (query.form == "interrogative") == query.sentence.endswith("?")
        assert size in (None, scene.actors[query.target].size)
        fitting = [
            index
            for index, actor in enumerate(scene.actors)
            if colour in (None, actor.colour) and shape in (None, actor.shape)
            and (query.form == "declarative" or could_be(kind, notes[index]))
        ]  # fmt: skip
        assert fitting == [query.target]


@pytest.mark.parametrize("frames", [4, 8, 16, 64])
def test_spans_are_what_an_onlooker_sees(frames):
    for scene in scenes(frames)[::5]:
        for query in scene.queries:
            notes = watched(scene.actors[query.target], scene.clock)
            inside, before, after = notes[query.first : query.last + 1], notes[: query.first], notes[query.last + 1 :]
            if query.kind == "life":
                assert "absent" not in inside
                assert set(before + after) == {"absent"}
            elif query.kind == "blinks":
                assert inside == ["pale" if index % 2 == 0 else "still" for index in range(len(inside))]
                assert "pale" not in before + after
                assert inside[-1] == "pale"
            elif query.kind == "stops_moving":
                assert set(inside) == {"still"}
                assert before[-1] == "moving"
                assert after[:1] in ([], ["moving"], ["absent"])
            else:
                context = {
                    "starts_moving": ("still", None),
                    "appears": ("absent", "still"),
                    "leaves": ("still", "absent"),
                }
                assert set(inside) == {"moving"}
                assert before[-1] == context[query.kind][0]
                assert context[query.kind][1] in (None, *after[:1])


def test_exact_limits_lie_between_the_sampled_frames():
    for scene in scenes():
        shown = scene.clock.shown
        for query in scene.queries:
            inside = (shown >= query.start) & (shown < query.end)
            assert np.flatnonzero(inside).tolist() == list(range(query.first, query.last + 1))


def test_a_clips_own_question_has_a_short_span_that_starts_anywhere():
    own = [scene.queries[0] for scene in scenes()]
    assert all(query.main and query.target == 0 for query in own)
    assert {query.last - query.first + 1 for query in own} == set(range(3, 10))
    assert {query.first for query in own} >= set(range(13))
    assert set(Counter(query.kind for query in own)) == set(KINDS)


def test_prompts_print_distinct_times():
    for scene in scenes():
        printed = [f"{time:.1f}" for time in scene.clock.times]
        assert len(set(printed)) == len(printed)


def test_held_out_pairs_and_backgrounds_stay_out_of_the_other_splits():
    assert not set(HELD_OUT_FAMILIES) & set(TRAIN_FAMILIES)
    for scene in scenes():
        pairs = [(actor.colour, actor.shape) for actor in scene.actors]
        assert len(set(pairs)) == len(pairs)
        assert 2 <= len(pairs) <= 4
        if scene.name.startswith("heldout"):
            assert pairs[0] in HELD_OUT_PAIRS
            assert scene.family in HELD_OUT_FAMILIES
        else:
            assert not set(pairs) & HELD_OUT_PAIRS
            assert scene.family in TRAIN_FAMILIES
    assert {colour for colour, _ in HELD_OUT_PAIRS} == set(COLOURS)


def test_shapes_stay_inside_the_picture_and_hardly_cover_each_other():
    for scene in scenes()[::3]:
        times = scene.clock.shown
        tracks = [scene.boxes(index, times) for index in range(len(scene.actors))]
        for boxes, _ in tracks:
            assert (boxes > 0).all()
            assert (boxes < 1).all()
        for (one, seen), (two, also_seen) in combinations(tracks, 2):
            for frame in np.flatnonzero(seen & also_seen):
                a, b = one[frame].astype(float), two[frame].astype(float)
                shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
                smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
                assert shared <= 0.2 * smaller + 1e-6


@pytest.mark.parametrize("size", [(96, 96), (61, 97), (128, 40)])
def test_boxes_hold_exactly_the_pixels_that_a_shape_paints(size):
    for seed in range(25):
        scene = make_scene(seed, aspect="1:1")
        empty = background(scene.family, scene.name, *size)
        height, width = size
        painted = (scene.render(scene.clock.shown, size) != empty).any(axis=-1)
        for frame, picture in enumerate(painted):
            left = picture.copy()
            for index, actor in enumerate(scene.actors):
                boxes, visible = scene.boxes(index, scene.clock.shown)
                if not visible[frame]:
                    continue
                x1, y1, x2, y2 = boxes[frame] * (width, height, width, height)
                # One pixel around the box catches the anti-aliased rim.
                rows = slice(max(math.floor(y1) - 1, 0), math.ceil(y2) + 1)
                columns = slice(max(math.floor(x1) - 1, 0), math.ceil(x2) + 1)
                left[rows, columns] = False
                middle = picture[math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)]
                assert middle.any(axis=1).mean() > 0.7, actor.shape
                assert middle.any(axis=0).mean() > 0.7, actor.shape
            assert not left.any()


def test_any_instant_renders_alone_as_it_does_among_others():
    scene = make_scene(3, "heldout")
    size = picture_size(scene, 96)
    together = scene.render(scene.clock.shown, size)
    for frame in (0, 7, 15):
        np.testing.assert_array_equal(scene.render(scene.clock.shown[frame : frame + 1], size)[0], together[frame])


def test_sampled_clips_carry_the_scenes_truth():
    clip = training_clip(11, "train", size=(80, 112), aspect="4:3")
    assert clip.frames.shape == (16, 80, 112, 3)
    assert clip.boxes.shape == (*clip.visible.shape, 4)
    assert not clip.boxes[~clip.visible].any()
    for query in clip.queries:
        assert clip.visible[query.target, clip.inside(query)].all()
        assert clip.span(query) == (clip.times[query.first], clip.times[query.last])


@pytest.mark.parametrize("family", FAMILIES)
def test_backgrounds_are_muted_and_the_same_picture_at_any_size(family):
    small, large = background(family, "a", 60, 80), background(family, "a", 240, 320)
    assert (small.max(axis=-1).astype(int) - small.min(axis=-1)).max() <= 60
    pooled = large.reshape(60, 4, 80, 4, 3).mean(axis=(1, 3))
    assert np.abs(pooled - small).mean() < 8
