"""devil-profile as its user meets it."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from devil.runtime.profile.cli import ProfileOptions, main, name_contenders
from tests.runtime.profile.conftest import SENTENCE


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def little(clip_path):
    return (
        "--video",
        clip_path,
        "--sentence",
        SENTENCE,
        "--runs",
        1,
        "--iterations",
        2,
        "--warm-up",
        0,
        "--threads",
        1,
    )


def test_it_measures_writes_and_is_documented(capsys, bundle, little, tmp_path):
    folder = tmp_path / "new" / "profile"
    code, out, err = run(capsys, bundle, *little, "--layers", "--output", folder, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out.splitlines()[-1])
    assert json.loads((folder / "profile.json").read_text()) == document
    assert (folder / "profile.txt").read_text() in out
    assert Image.open(folder / "profile.png").size[0] == 1200
    (contender,) = document["contenders"]
    assert contender["graphs"]["decode"]["count"] == 2
    assert contender["layers"]["backbone"]["layers"][0]["seconds"] > 0
    assert sorted(path.name for path in folder.iterdir()) == ["profile.json", "profile.png", "profile.txt"]
    assert _documented() == {*document, *contender, *contender["graphs"]["vision"], *document["workload"]}
    again = run(capsys, bundle, *little, "--output", folder)
    assert (again[0], "--force" in again[2]) == (1, True)


def _documented():
    """Keys that the tables of docs/profiling.md name."""
    docs = (Path(__file__).parents[3] / "docs" / "profiling.md").read_text()
    section = docs.split("## The document")[1].split("\n## ")[0]
    names = [
        key
        for line in section.splitlines()
        if line.startswith("| `")
        for key in re.findall(r"`([\w.]+)`", line.split("|")[1])
    ]
    return {name.split(".")[-1] for name in names}


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("--runs", 0), 2, "--runs is 0"),
        (("--accuracy",), 2, "there is one"),
        (("--threads", -1), 2, "--threads"),
        (("--video", "none.mp4"), 1, "does not exist"),
        (("--sentence", " "), 1, "is empty"),
        (("--max-frames", 0), 2, "--max-frames is 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(capsys, bundle, little, arguments, code, line):
    found = run(capsys, bundle, *little, *arguments)
    assert found[0] == code
    assert line in found[2]
    assert found[2].count("\n") == 1


def test_a_video_needs_a_sentence(capsys, clip_path):
    code, _, err = run(capsys, "--video", clip_path)
    assert (code, "no sentence" in err) == (2, True)


def test_contenders_have_the_shortest_names_that_tell_them_apart():
    one, other = Path("/a/fp32"), Path("/a/fp16")

    def names(bundles, *engines):
        return list(name_contenders(bundles, ProfileOptions(engine=engines)))

    assert names((one, other), "onnxruntime") == ["fp32", "fp16"]
    assert names((one,), "onnxruntime", "cuda") == ["onnxruntime", "cuda"]
    assert names((one, other), "onnxruntime", "cuda")[1:3] == ["fp32, cuda", "fp16, onnxruntime"]
    assert names((one, Path("/b/fp32")), "cuda") == ["/a/fp32", "/b/fp32"]
