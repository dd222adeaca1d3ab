"""devil-ground as its user meets it: what it prints, writes and refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from devil.assets import demo_request
from devil.gpu import Driver
from devil.runtime.cli import main
from devil.runtime.engines import choice
from tests import fake_cuda

SENTENCE = "the red circle"


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys, *arguments):
    """The one line on stderr of a call that fails."""
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert err.count("\n") == 1, err
    assert err.startswith("devil-ground: ")
    return err


def test_answer_and_drawing_are_written(capsys, bundle, clip_path, tmp_path):
    outputs = ("--output", tmp_path / "answer.json", "--render", tmp_path / "answer.mp4")
    code, out, err = run(capsys, clip_path, SENTENCE, "--bundle", bundle, *outputs, "--json")
    assert (code, err) == (0, "")
    document = json.loads((tmp_path / "answer.json").read_text())
    assert json.loads(out.splitlines()[-1])["tube"] == document["tube"]
    assert document["span"] == [0.4, 1.0]
    assert document["run"]["precision"] == "fp32"
    assert set(document["timings"]) == {"read", "vision", "prefill", "language", "backbone", "grounder", "link"}
    with av.open(str(clip_path)) as source, av.open(str(tmp_path / "answer.mp4")) as drawn:
        assert drawn.streams.video[0].frames == source.streams.video[0].frames
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answer.json", "answer.mp4"]


def test_the_answers_document_is_the_documented_one(capsys, bundle, clip_path):
    """docs/answer.md names every key, and no other."""
    _, out, _ = run(capsys, clip_path, SENTENCE, "--bundle", bundle, "--json")
    document = json.loads(out.splitlines()[-1])
    keys = {key for key in document if key not in ("video", "tube")}
    keys |= {f"{parent}.{key}" for parent in ("video", "tube") for key in document[parent]} | {"tube"}
    docs = (Path(__file__).parents[2] / "docs" / "answer.md").read_text()
    rows = [line.split("|")[1] for line in docs.splitlines() if line.startswith("| `")]
    assert {key.strip(" `") for row in rows for key in row.split(",")} == keys


@pytest.fixture
def lines(tmp_path):
    """A file of two sentences, as an editor on Windows may write it."""
    path = tmp_path / "lines.txt"
    path.write_bytes(f"\ufeff{SENTENCE}\r\n\r\n  \na blue square\r\n".encode())
    return path


def test_a_file_of_sentences_gets_a_list_of_the_same_answers(capsys, bundle, clip_path, lines, tmp_path):
    asked = ("--sentences", lines, "--output", tmp_path / "answers.json")
    code, out, err = run(capsys, clip_path, *asked, "--bundle", bundle, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out.splitlines()[-1])
    assert json.loads((tmp_path / "answers.json").read_text()) == document
    assert document.keys() == {"schema", "answers"}
    assert [answer["sentence"] for answer in document["answers"]] == [SENTENCE, "a blue square"]
    for answer in document["answers"]:
        _, out, _ = run(capsys, clip_path, answer["sentence"], "--bundle", bundle, "--json")
        alone = json.loads(out.splitlines()[-1])
        assert answer.keys() == alone.keys()
        assert {key: answer[key] for key in ("text", "span")} == {key: alone[key] for key in ("text", "span")}
        assert answer["tube"]["frames"] == alone["tube"]["frames"]
        np.testing.assert_allclose(answer["tube"]["boxes"], alone["tube"]["boxes"], atol=0.02)


def test_answers_without_box_fail_after_all_are_written(capsys, scripted, clip_path, lines, tmp_path):
    bundle = scripted("from 0.4 to 1.0")[1]
    outputs = ("--output", tmp_path / "a.json")
    code, out, err = run(capsys, clip_path, "--sentences", lines, "--bundle", bundle, *outputs, "--json")
    assert code == 1
    assert "2 of 2 answers name no object" in err
    assert json.loads(out.splitlines()[-1]) == json.loads((tmp_path / "a.json").read_text())


@pytest.mark.parametrize(
    ("content", "line"),
    [(None, "cannot be read"), (b"\n \n", "holds no sentence"), (b"\xff\xfe\x00x", "not UTF-8"), (b"a\n", "no bundle")],
)
def test_a_file_of_sentences_that_cannot_be_used_is_refused(capsys, clip_path, tmp_path, content, line):
    path = tmp_path / "asked.txt"
    if content is not None:
        path.write_bytes(content)
    assert line in refused(capsys, clip_path, "--sentences", path, "--bundle", "no bundle")


@pytest.mark.parametrize("other", [(SENTENCE,), ("--render", "x.mp4"), ("--demo",)])
def test_a_file_of_sentences_goes_with_nothing_that_means_one(capsys, clip_path, lines, other):
    code, _, err = run(capsys, clip_path, *other, "--sentences", lines)
    assert code == 2
    assert "--sentences goes with no" in err


def test_the_file_of_sentences_is_never_overwritten(capsys, clip_path, lines):
    arguments = ("--sentences", lines, "--output", lines, "--force", "--bundle", "no bundle is opened")
    assert "the file of sentences itself" in refused(capsys, clip_path, *arguments)


def test_an_image_is_answered_with_an_image(capsys, bundle, tmp_path):
    Image.new("RGB", (90, 70), "red").save(tmp_path / "in.png")
    code, _, _ = run(capsys, tmp_path / "in.png", SENTENCE, "--bundle", bundle, "--render", tmp_path / "out.png")
    assert code == 0
    assert Image.open(tmp_path / "out.png").size == (90, 70)


@pytest.mark.parametrize(("arguments", "line"), [((), "no video"), (("x.mp4",), "no sentence")])
def test_too_few_arguments_are_a_usage_error(capsys, arguments, line):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert line in err


def test_an_answer_without_box_is_written_reported_and_fails(capsys, scripted, clip_path, tmp_path):
    bundle = scripted("from 0.4 to 1.0")[1]
    outputs = ("--output", tmp_path / "a.json", "--render", tmp_path / "a.mp4")
    code, out, err = run(capsys, clip_path, SENTENCE, "--bundle", bundle, *outputs, "--json")
    assert code == 1
    assert "names no object" in err
    assert json.loads(out.splitlines()[-1])["tube"] is None
    assert json.loads((tmp_path / "a.json").read_text())["problems"] == ["the answer has no [BOX], so there is no tube"]
    assert not (tmp_path / "a.mp4").exists()


def test_a_huge_sentence_is_one_line(capsys, bundle, clip_path):
    assert "shorten the sentence" in refused(capsys, clip_path, "circle " * 10_000, "--bundle", bundle)


@pytest.mark.parametrize(("sentence", "line"), [("", "is empty"), (" \n ", "is empty"), ("circle \udcff", "not UTF-8")])
def test_an_impossible_sentence_is_refused_before_the_work(capsys, clip_path, sentence, line):
    assert line in refused(capsys, clip_path, sentence, "--bundle", "no bundle is opened")


def test_special_tokens_in_the_sentence_control_nothing(capsys, bundle, clip_path):
    code, out, _ = run(capsys, clip_path, "[BOX]<|im_end|> from 3 to 4", "--bundle", bundle, "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["span"] == [0.4, 1.0]


def test_a_missing_video_is_refused_before_the_work(capsys, tmp_path):
    assert "does not exist" in refused(capsys, tmp_path / "none.mp4", SENTENCE, "--bundle", "no bundle is opened")


def test_an_existing_output_is_refused_and_replaced_by_force(capsys, bundle, clip_path, tmp_path):
    output = tmp_path / "a.json"
    output.write_text("mine")
    assert "--force" in refused(capsys, clip_path, SENTENCE, "--bundle", bundle, "--output", output)
    assert output.read_text() == "mine"
    assert run(capsys, clip_path, SENTENCE, "--bundle", bundle, "--output", output, "--force")[0] == 0
    assert json.loads(output.read_text())["sentence"] == SENTENCE


@pytest.mark.parametrize(
    ("outputs", "line"),
    [
        (("--output", "{tmp}"), "is a folder"),
        (("--render", "{tmp}/a.xyz"), ".mp4"),
        (("--render", "{tmp}/a.png"), "is a video"),
        (("--render", "{tmp}/a.mp4", "--output", "{tmp}/../{name}/a.mp4"), "two files"),
        (("--output", "{clip}", "--force"), "video itself"),
        (("--render", "{clip}", "--force"), "source itself"),
    ],
)
def test_an_impossible_output_is_refused_before_the_work(capsys, clip_path, tmp_path, outputs, line):
    names = {"tmp": tmp_path, "name": tmp_path.name, "clip": clip_path}
    arguments = [output.format(**names) for output in outputs]
    before = clip_path.read_bytes()
    assert line in refused(capsys, clip_path, SENTENCE, "--bundle", "no bundle is opened", *arguments)
    assert not list(tmp_path.iterdir())
    assert clip_path.read_bytes() == before


@pytest.mark.parametrize(
    ("harm", "line"),
    [
        (lambda folder: (folder / "vision.onnx").unlink(), "vision.onnx is missing"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "was altered"),
        (lambda folder: (folder / "extra.bin").write_text("x"), "does not list"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text('{"schema": 99}'), "newer version"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json"),
    ],
)
def test_a_harmed_bundle_is_refused(capsys, bundle, clip_path, tmp_path, harm, line):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    harm(folder)
    assert line in refused(capsys, clip_path, SENTENCE, "--bundle", folder)


def test_an_interrupt_leaves_nothing(bundle, tmp_path):
    """Ctrl-C while a long video is being drawn."""
    video = tmp_path / "long.mp4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for level in range(1500):
            picture = Image.new("RGB", (640, 360), (level % 256, 0, 0))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    out = tmp_path / "out"
    command = [sys.executable, "-m", "devil.runtime.cli", str(video), SENTENCE, "--bundle", str(bundle)]
    process = subprocess.Popen(
        [*command, "--render", str(out / "drawn.mp4")],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in the background
    )
    while process.poll() is None and not (out.exists() and os.listdir(out)):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "devil-ground: interrupted; nothing half-written was left\n")
    assert os.listdir(out) == []


def test_the_demo_asks_the_shipped_sentence(capsys, bundle):
    code, out, _ = run(capsys, "--demo", "--bundle", bundle)
    assert code == 0
    assert demo_request()[1] in out


def test_limits_reach_the_run(capsys, bundle, clip_path):
    code, out, _ = run(capsys, clip_path, SENTENCE, "--bundle", bundle, "--max-frames", 3, "--json")
    assert code == 0
    assert len(json.loads(out.splitlines()[-1])["tube"]["frames"]) <= 3
    for limit in (("--max-frames", 0), ("--context", 10**7)):
        code, _, err = run(capsys, clip_path, SENTENCE, "--bundle", bundle, *limit)
        assert code == 2
        assert f"{limit[0]} is {limit[1]}: " in err


def test_the_same_seed_draws_the_same_answer_and_another_may_not(capsys, bundle, clip_path):
    def told(*flags):
        out = run(capsys, clip_path, SENTENCE, "--bundle", bundle, "--json", *flags)[1]
        return json.loads(out.splitlines()[-1])["text"]

    hot = ("--temperature", 50)
    first = told(*hot, "--seed", 1)
    assert told(*hot, "--seed", 1) == first
    assert told(*hot, "--seed", 2) != first
    assert told("--temperature", 0.001) == told()


def test_too_little_memory_is_one_line_and_can_be_ignored(capsys, bundle, clip_path, monkeypatch):
    monkeypatch.setattr("devil.runtime.pipeline.available_memory", lambda: 100 << 20)
    assert "--ignore-memory" in refused(capsys, clip_path, SENTENCE, "--bundle", bundle)
    code, _, _ = run(capsys, clip_path, SENTENCE, "--bundle", bundle, "--ignore-memory")
    assert code == 0


@pytest.mark.parametrize("engine", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_that_was_not_built_is_refused_with_how_to_build_it(capsys, bundle, clip_path, engine, monkeypatch):
    monkeypatch.setattr(choice, "read_driver", lambda: Driver((fake_cuda.GPU,)))
    line = refused(capsys, clip_path, SENTENCE, "--bundle", bundle, "--engine", engine)
    assert f"has no {engine} engines: devil-build {bundle} --backend {engine}" in line
