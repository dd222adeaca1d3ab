"""Recording a bundle on clips: what is chosen, kept, bounded, resumed and refused."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest

from devil.bundle import open_bundle, write_manifest
from devil.calibration.capture import affordable, check_recorded
from devil.calibration.captures import CalibrationClip, CapturedAnswer, Captures, Run, begin, write_clip
from devil.calibration.clips import calibration_clips
from devil.calibration.loading import load_graph
from devil.calibration.starting import open_recording
from devil.contract import contract
from devil.errors import CalibrationError, DevilError, OutputError, SentenceError, UsageError
from devil.export.onnx_file import store_model
from devil.progress import no_progress
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine


def test_every_graph_is_recorded_with_its_own_inputs(recording):
    captures, specs = recording.captures, contract(recording.bundle.config)
    assert captures.clips == [0, 1]
    for graph, spec in specs.items():
        for run in captures.runs(graph):
            expected = {tensor.name for tensor in spec.inputs if not tensor.name.startswith("past_")}
            assert set(run.feeds) == expected
    assert all(len(run.feeds["frames"]) == 2 for run in captures.runs("backbone"))


def test_a_recorded_conversation_can_be_replayed(recording):
    """The language graph's runs, on caches that are empty at first, give the answer's RST again."""
    bundle, captures = recording.bundle, recording.captures
    runner = OnnxRuntimeEngine(threads=1).load(
        bundle.path("language"), contract(bundle.config)["language"], bundle.manifest.graph_precision("language")
    )
    caches, states = {}, []
    for run in captures.runs("language", [0]):
        cache = caches.setdefault(run.cache, runner.cache(1, run.capacity))
        cache.grow(run.capacity)
        states.append(cache.run(run.feeds)["hidden"][0])
    rst = captures.answers(0)[0].rst
    assert np.abs(np.concatenate(states) - rst).max(1).min() < 1e-6


def test_the_clips_chosen_are_the_same_and_differ_from_each_other(options):
    first, again = (calibration_clips(options, no_progress) for _ in range(2))
    assert first == again
    assert len(set(first.clips)) == 2
    assert len(first.others) == 2
    assert not set(first.others) & set(first.clips)


def test_a_stopped_recording_goes_on(bundle, alone):
    options = alone()

    def stop(stage, done, _total):
        if stage == "recording" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_recording(options, bundle, stop)
    (folder,) = options.work.glob("*/captures")
    assert Captures(folder).clips == [0]
    written = (folder / "clip-0000" / "clip.json").stat().st_mtime_ns
    assert open_recording(options, bundle, no_progress).captures.clips == [0, 1]
    assert (folder / "clip-0000" / "clip.json").stat().st_mtime_ns == written


def test_a_clip_that_was_replaced_is_recorded_anew(bundle, alone, clips, tmp_path):
    """It has the same name, and may be all that changed."""
    first, other, _, second = sorted((clips.parent / "clips").glob("*.mp4"), key=lambda path: path.stat().st_size)
    (tmp_path / "asked.txt").write_text("the red circle")
    videos = tuple(tmp_path / f"{name}.mp4" for name in ("clip", "one", "two"))
    for path in videos[1:]:  # alike, so that the other one is recorded
        shutil.copy(other, path)
    options = alone(annotations=None, videos=videos, sentences=tmp_path / "asked.txt", clips=1)
    works = []
    for source in (first, second):
        shutil.copy(source, tmp_path / "clip.mp4")
        works.append(open_recording(options, bundle, no_progress).work)
    assert works[0] != works[1]


def run_of(graph, size):
    return Run(graph, 0, {"x": np.zeros(size, np.uint8)})


def test_the_smallest_graphs_are_kept_where_there_is_no_room_for_all():
    runs = [run_of("grounder", 900), run_of("vision", 40), run_of("language", 50), run_of("vision", 10)]
    kept, left_out = affordable(runs, 200)
    assert (kept, left_out) == ([runs[1], runs[2], runs[3]], ["grounder"])


def recorded(folder, runs, left_out=(), text="Nothing."):
    begin(folder, {})
    write_clip(folder, 0, CalibrationClip(folder, ("x",)), runs, [CapturedAnswer("x", text, None, None)], left_out)
    return Captures(folder)


def test_a_graph_that_never_had_room_is_refused_with_the_flag_that_helps(tmp_path, options):
    captures = recorded(tmp_path, [run_of("vision", 1), run_of("language", 1), run_of("backbone", 1)], ["grounder"])
    with pytest.raises(CalibrationError, match="graph grounder: raise --capture-mb"):
        check_recorded(captures, [], options)


def test_answers_without_a_box_are_refused_where_the_detector_is_calibrated(tmp_path, options):
    captures = recorded(tmp_path, [run_of("vision", 1), run_of("language", 1)])
    with pytest.raises(CalibrationError, match=r"no answer names an object.*Nothing"):
        check_recorded(captures, [], options)
    check_recorded(captures, [], replace(options, graphs=("vision", "language")))


def test_clips_that_cannot_be_used_are_told_and_the_others_are_used(bundle, alone, clips, tmp_path):
    good = next((clips.parent / "clips").glob("*.mp4"))
    for name in ("good", "other"):
        shutil.copy(good, tmp_path / f"{name}.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "asked.txt").write_text("the red circle\nnone.mp4\tnot asked of these\n")
    options = alone(annotations=None, videos=(tmp_path,), sentences=tmp_path / "asked.txt")
    recording = open_recording(options, bundle, no_progress)
    assert [recording.captures.clip(number) for number in recording.captures.clips] == [
        CalibrationClip(tmp_path / "good.mp4", ("the red circle",))
    ]
    assert any("broken.mp4" in problem for problem in recording.problems)
    assert [clip.path.name for clip in recording.others] == ["other.mp4"]  # the broken one tells nothing


@pytest.mark.parametrize(
    ("names", "told"), [((), "there is no file in"), (("good", "broken"), "no clip is left to judge")]
)
def test_too_few_clips_are_refused_before_anything_is_recorded(alone, clips, tmp_path, names, told):
    (tmp_path / "asked.txt").write_text("the red circle")
    (videos := tmp_path / "videos").mkdir()
    for name in names:
        good = next((clips.parent / "clips").glob("*.mp4")).read_bytes()
        (videos / f"{name}.mp4").write_bytes(good if name == "good" else b"no video")
    with pytest.raises(DevilError, match=told):
        calibration_clips(alone(annotations=None, videos=(videos,), sentences=tmp_path / "asked.txt"), no_progress)


def test_a_disk_without_room_for_the_recording_is_told_what_helps(bundle, alone, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000_000))
    with pytest.raises(OutputError, match=r"are free.*lower --capture-mb"):
        open_recording(alone(), bundle, no_progress)


def test_a_tensor_that_is_no_number_is_named(bundle, alone, tmp_path):
    shutil.copytree(bundle, tmp_path / "poisoned")
    (tmp_path / "poisoned" / "vision.onnx.data").unlink()
    model = load_graph(bundle / "vision.onnx")
    norm = next(node for node in model.graph if node.op_type == "LayerNormalization")
    for value in model.graph.initializers.values():
        values = value.const_value.numpy().copy()
        if value is norm.inputs[1]:
            values[0] = np.nan
        value.const_value = ir.tensor(values, name=value.name)
    manifest = open_bundle(bundle).manifest
    records = store_model(model, tmp_path / "poisoned" / "vision.onnx")
    write_manifest(tmp_path / "poisoned", replace(manifest, files={**manifest.files, **records}))
    named = rf"tensor {norm.outputs[0].name} of graph vision has values that are no numbers on .*\.mp4"
    with pytest.raises(CalibrationError, match=named):
        open_recording(alone(), tmp_path / "poisoned", no_progress)


def test_no_usable_clip_is_refused(bundle, alone, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "asked.txt").write_text("the red circle")
    options = alone(annotations=None, videos=(tmp_path / "broken.mp4",), sentences=tmp_path / "asked.txt")
    with pytest.raises(CalibrationError, match="no clip can be decoded"):
        open_recording(options, bundle, no_progress)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"videos": ("x.mp4",), "annotations": None}, UsageError),
        ({"sentences": "asked.txt", "annotations": None}, UsageError),
        ({"videos": ("x.mp4",)}, UsageError),
    ],
)
def test_sources_that_contradict_each_other_are_refused(alone, changes, error):
    with pytest.raises(error):
        calibration_clips(alone(**changes), no_progress)


def test_a_file_that_asks_nothing_of_the_videos_is_refused(alone, clips, tmp_path):
    (tmp_path / "asked.txt").write_text("other.mp4\tthe red circle\n")
    videos = tuple((clips.parent / "clips").glob("*.mp4"))
    with pytest.raises(SentenceError, match="asks nothing"):
        calibration_clips(alone(annotations=None, videos=videos, sentences=tmp_path / "asked.txt"), no_progress)
