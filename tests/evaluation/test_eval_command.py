"""devil-eval on a small random model: bundle and checkpoint answer alike, and the figures come out as promised."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from devil.evaluation.answerers import BundleAnswerer, ModelAnswerer
from devil.evaluation.cli import METRICS, REPORT, EvalOptions, _answerer, evaluate, main
from devil.evaluation.datasets import Dataset
from devil.evaluation.samples import SAMPLES, read_samples
from devil.metrics import METRICS as NAMES
from devil.metrics import box_iou
from devil.progress import no_progress
from devil.runtime import pipeline
from devil.video import probe


@pytest.fixture(scope="module")
def evaluated(annotations, bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval") / "bundle"
    return folder, evaluate(EvalOptions(dataset=str(annotations), bundle=bundle, output=folder, threads=1))


def test_json_has_the_promised_shape(annotations, bundle, evaluated, capsys):
    folder, values = evaluated
    args = ["--dataset", str(annotations), "--bundle", str(bundle), "--output", str(folder), "--threads", "1", "--json"]
    assert main(args) == 0  # nothing left to ask
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == values == json.loads((folder / METRICS).read_text())
    assert set(told["metrics"]) == {*NAMES, "box_iou"}
    assert set(told["metrics"]) == set(told["intervals"]) == set(told["baseline"])
    assert told["samples"] == 4
    assert all(set(row) == {*told["metrics"], "samples"} for row in told["by_type"].values())
    assert all(0 <= value <= 1 for value in told["metrics"].values())
    assert (folder / REPORT).read_text().startswith("<!doctype html>")


def test_checkpoint_and_bundle_answer_alike(annotations, checkpoint, evaluated, tmp_path):
    folder, values = evaluated
    twin = evaluate(EvalOptions(dataset=str(annotations), model=checkpoint, output=tmp_path / "model"))
    one, two = read_samples(folder), read_samples(tmp_path / "model")
    assert [asked.text for asked in one.values()] == [asked.text for asked in two.values()]
    assert all(asked.sample.span == (0.4, 1.0) for asked in one.values())
    for index in one:
        overlap = box_iou(one[index].sample.boxes, two[index].sample.boxes)
        assert overlap.min() > 0.99  # fp32 both, another order of sums
    assert twin["metrics"]["m_tIoU"] == values["metrics"]["m_tIoU"]
    assert twin["run"]["model"]["engine"] == "PyTorch"


def test_both_look_at_the_same_segment_and_follow_the_slot_outside_the_span(checkpoint, bundle, records):
    path, segment = records[0].path, (5, 24)
    one = BundleAnswerer(bundle, threads=1).ask(path, "the red circle", segment)
    two = ModelAnswerer(checkpoint).ask(path, "the red circle", segment)
    assert one.times[0] == 0
    assert (one.frames.min(), one.frames.max()) == segment
    for name in ("text", "span"):
        assert getattr(one, name) == getattr(two, name)
    np.testing.assert_array_equal(one.times, two.times)
    np.testing.assert_array_equal(one.frames, two.frames)
    np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-4)
    assert np.isfinite(one.boxes).all()  # also where the told span, 0.4 to 1.0 s, is not
    assert one.times[-1] > 1.0


def test_a_video_is_encoded_once_for_its_sentences(bundle, records, monkeypatch):
    answerer = BundleAnswerer(bundle, threads=1)
    encoded, encode = [], answerer._grounder.encode
    monkeypatch.setattr(
        answerer._grounder, "encode", lambda path, **k: encoded.append(k["segment"]) or encode(path, **k)
    )
    for segment in (None, None, (0, 9), (0, 9), None):
        answerer.ask(records[0].path, "the red circle", segment)
    assert encoded == [None, (0, 9), None]


def test_another_model_in_the_folder_is_refused_with_one_line(annotations, checkpoint, evaluated, capsys):
    folder, _ = evaluated
    before = (folder / SAMPLES).read_text()
    assert main(["--dataset", str(annotations), "--model", str(checkpoint), "--output", str(folder)]) == 1
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    assert "holds the evaluation of another model" in error
    assert (folder / SAMPLES).read_text() == before


def test_an_interrupted_run_says_how_to_continue_and_leaves_no_figures_of_another(
    annotations, bundle, tmp_path, monkeypatch, capsys
):
    folder, ask = tmp_path / "run", BundleAnswerer.ask
    args = ["--dataset", str(annotations), "--bundle", str(bundle), "--output", str(folder), "--threads", "1"]

    def interrupted(answerer, path, sentence, segment):
        if len((folder / SAMPLES).read_text().splitlines()) == 2:
            raise KeyboardInterrupt
        return ask(answerer, path, sentence, segment)

    assert main([*args, "--limit", "1"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(BundleAnswerer, "ask", interrupted)
        assert main([*args, "--force"]) == 130
    line = f"devil-eval: interrupted; {folder} holds 2 answers, the same command without --force continues\n"
    assert capsys.readouterr().err == line
    assert sorted(path.name for path in folder.iterdir()) == ["run.json", SAMPLES]
    assert main(args) == 0
    assert json.loads((folder / METRICS).read_text())["samples"] == len(read_samples(folder)) == 4


def test_a_data_set_of_which_nothing_can_be_asked_says_why(annotations, bundle, tmp_path, capsys):
    record = json.loads(annotations.read_text())[0]
    (tmp_path / "cut.mp4").write_bytes((annotations.parent / record["video"][0]).read_bytes()[:5000])
    (tmp_path / "cut.json").write_text(json.dumps([record | {"video": "cut.mp4"}] * 2))
    args = ["--dataset", str(tmp_path / "cut.json"), "--bundle", str(bundle), "--output", str(tmp_path / "run")]
    assert main([*args, "--threads", "1"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "2 × video unreadable; the first: video unreadable: " in error
    assert "cut.mp4" in error
    assert not (tmp_path / "run" / METRICS).exists()


def test_a_folder_that_may_be_written_needs_no_rights_to_the_one_around_it(annotations, bundle, evaluated, monkeypatch):
    folder, values = evaluated
    access = os.access  # patched, because root may write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder.parent and access(path, mode))
    assert evaluate(EvalOptions(dataset=str(annotations), bundle=bundle, output=folder, threads=1)) == values


def test_limits_are_part_of_what_was_evaluated(annotations, bundle, evaluated, tmp_path, capsys):
    args = ["--dataset", str(annotations), "--bundle", str(bundle), "--threads", "1", "--max-frames", "3"]
    assert main([*args, "--limit", "1", "--output", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["run"]["model"]["limits"] == "frames 3"
    assert len(read_samples(tmp_path / "run")[0].frames) == 3
    assert main([*args, "--output", str(evaluated[0])]) == 1
    assert "holds the evaluation of another model" in capsys.readouterr().err


def test_what_a_refusal_for_memory_names_is_there(bundle, annotations, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("devil.runtime.pipeline.available_memory", lambda: 100 << 20)
    args = ["--dataset", str(annotations), "--bundle", str(bundle), "--output", str(tmp_path / "run"), "--limit", "1"]
    assert main(args) == 1
    assert "--ignore-memory" in capsys.readouterr().err
    assert main([*args, "--ignore-memory"]) == 0


def test_a_folder_that_cannot_be_the_output_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "photo.png").touch()
    assert main(["--dataset", "no data set is read", "--output", str(tmp_path)]) == 1
    assert "something else than an evaluation" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args",
    [
        ["--limit", "0"],
        ["--threads", "-1"],
        ["--bundle", "a", "--model", "b"],
        ["--model", "a", "--max-frames", "3"],
        ["--dataset", "nonsense"],
        ["--dataset", "vidstg"],
    ],
)
def test_usage_errors_exit_with_two(args):
    assert main(args) == 2


def test_a_bundle_is_evaluated_without_pytorch(annotations, bundle, tmp_path):
    code = """
import sys
from devil.evaluation.cli import main
assert main(sys.argv[1:]) == 0
assert not {"torch", "transformers", "onnx"} & set(sys.modules)
"""
    args = ["--dataset", annotations, "--bundle", bundle, "--output", tmp_path / "run", "--limit", "1", "--debug"]
    subprocess.run([sys.executable, "-c", code, *map(str, args)], check=True, cwd="/")
    assert len(read_samples(tmp_path / "run")) == 1


def test_a_checkpoint_without_pytorch_says_what_to_install(checkpoint, monkeypatch, annotations, tmp_path, capsys):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    args = ["--dataset", str(annotations), "--model", str(checkpoint), "--output", str(tmp_path / "run")]
    assert main(args) == 1
    assert "pip install 'devil-deploy[model]'" in capsys.readouterr().err


def test_memory_is_planned_for_the_files_that_are_asked_about(bundle, records, tmp_path, monkeypatch):
    """An image has one frame and all visual tokens; a file that cannot be read says nothing of the others."""
    Image.new("RGB", (90, 160)).save(tmp_path / "one.png")
    planned, planning = [], pipeline.check_fits

    def check_fits(manifest, config, available, size, is_image):
        planned.append((size, is_image))
        planning(manifest, config, available, size, is_image)

    monkeypatch.setattr(pipeline, "check_fits", check_fits)
    for files in (["none.mp4", "one.png"], [records[0].path], ["none.mp4"]):
        cases = tuple(replace(records[0], path=tmp_path / file) for file in files)
        dataset = Dataset("made up", "0", cases, ())
        _answerer(EvalOptions(bundle=bundle, threads=1), dataset, no_progress)
    info = probe(records[0].path)
    assert planned == [((160, 90), True), ((info.height, info.width), False), (None, False)]
