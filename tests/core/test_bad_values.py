"""What a command can know to be wrong is told at once: one line, an exit code, and no heavy package loaded before."""

import json
import subprocess
import sys

import pytest

from devil.assets import demo_request
from tests.tiny import write_listed_files

HEAVY = ("torch", "transformers", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "tensorrt_rtx", "tensorrt")

# Command, arguments, exit code, what its line says. {here} is a folder that exists and is not empty; {tiny} the shipped
# checkpoint; {bundle} a folder with a manifest.
CASES = [
    ("export", "--precision int5", 2, "--precision is 'int5': give fp32, fp16, bf16, int8 or int4"),
    ("export", "--block-size 7", 2, "--block-size is '7': give 32, 64 or 128"),
    ("export", "--graphs x", 2, "--graphs is 'x': give vision, language, backbone or grounder"),
    ("export", "--precisoin int4", 2, "there is no --precisoin: perhaps --precision"),
    ("export", "--layers two", 2, "--layers is 'two': give a whole number"),
    ("export", "--frame-size 360", 2, "is not HxW"),
    ("export", "--frame-size 8x8", 2, "too small for this detector"),
    ("export", "--layers 0", 2, "--layers is 0"),
    ("export", "--layers 99", 2, "the model has 1 to"),
    ("export", "--head-bits 4", 2, "--head-bits is for int8 and int4"),
    ("export", "--precision int4 --link-weights", 2, "leave --link-weights out"),
    ("export", "--context 0", 2, "--context is 0"),
    ("export", "--context 9999999", 2, "the model takes"),
    ("export", "--image-tokens 9999999", 2, "the model takes at most"),
    ("export", "--max-frame 8x8", 2, "have at least"),
    ("export", "--builder-memory nan", 2, "--builder-memory is nan"),
    ("export", "--effort 9", 2, "--effort is 9"),
    ("export", "--target ampere", 2, "--target"),
    ("export", "--target sm89,sm120", 2, "--target sm89 sm120"),
    ("export", "--backend onnxruntime --target sm89", 2, "has no engines"),
    ("export", "--precision bf16 --target sm75", 1, "--precision fp16"),
    ("export", "--precision int8 --head-bits 4 --target sm89 sm75", 1, "--head-bits 4 needs (sm86 and up)"),
    ("export", "--precision int4 --target sm86 sm80", 1, "sm86 and up"),
    ("export", "--output {here}", 1, "is not a bundle"),
    ("export", "--output {here}/file/out", 1, "is a file"),
    ("export", "--output /proc/out", 1, "cannot write /proc/out"),
    ("export", "--output {bundle}", 1, "--force"),
    ("export", "--model {here}/none", 1, "is not a folder"),
    ("export", "--model {here}", 1, "config.json"),
    ("build", "", 2, "BUNDLE must be given"),
    ("build", "{here}/none", 1, "is not a folder"),
    ("build", "{bundle} --context 9999999", 2, "the model takes"),
    ("build", "{bundle} --max-frame 360", 2, "is not HxW"),
    ("build", "{bundle} --target ampere", 2, "--target"),
    ("build", "{bundle} --batch 0", 2, "--batch is 0"),
    ("ground", "", 2, "no video"),
    ("ground", "{clip} word --threads -1", 2, "--threads is -1"),
    ("ground", "{clip} word --temperature 0", 2, "temperature is 0"),
    ("ground", "{clip} word --temperature nan", 2, "temperature is nan"),
    ("ground", "{clip} word --seed 3", 2, "--seed goes with --temperature"),
    ("ground", "{clip} word --seed -3 --temperature 1", 2, "seed is -3"),
    ("ground", "{clip} word --context 0", 2, "--context is 0"),
    ("ground", "{clip} word --max-frames -1 --bundle {here}/none", 2, "--max-frames is -1"),
    ("ground", "{clip} word --bundle {here}/none", 1, "is not a folder"),
    ("ground", "{clip} word --context 9999999", 2, "the model takes at most"),
    ("ground", "{clip} word --bundle {bundle} --context 9999999", 2, "the model takes at most"),
    ("ground", "{clip} word --engine cuda", 1, "there is none"),
    ("ground", "{clip} word --engine tensorrt-rtx", 1, "--engine tensorrt-rtx runs on NVIDIA GPUs"),
    ("ground", "{clip} word --engine mixed", 1, "there is none"),
    ("ground", "{here}/none.mp4 word", 1, "does not exist"),
    ("ground", "{clip} word --output {here}/file", 1, "--force"),
    ("ground", "{here}/none.mp4 word --output /proc/a.json", 1, "cannot write /proc/a.json"),
    ("ground", "{here}/none.mp4 word --render /proc/none/a.mp4", 1, "cannot write /proc/none/a.mp4"),
    ("ground", "{here}/none.mp4 word --render {here}/file/a.mp4", 1, "is a file"),
    ("ground", "{here}/none.mp4 word --render {here}", 1, "is a folder"),
    ("eval", "--limit 0", 2, "--limit is 0"),
    ("eval", "--max-tokens 0", 2, "--max-tokens is 0"),
    ("eval", "--context 9999999", 2, "the model takes at most"),
    ("eval", "--bundle {bundle} --context 1", 2, "--context is 1"),
    ("eval", "--model {here}/none --engine tensorrt", 2, "a checkpoint takes no --engine"),
    ("eval", "--model {here}/none --threads 2 --max-frames 4", 2, "a checkpoint takes no --max-frames, --threads"),
    ("eval", "--model {here}/none --trust-engines --ignore-memory", 2, "takes no --ignore-memory, --trust-engines"),
    ("eval", "--bundle {here}/none", 1, "is not a folder"),
    ("eval", "--model {here}/none", 1, "is not a folder"),
    ("eval", "--dataset nonsense", 2, "known are"),
    ("eval", "--dataset vidstg", 2, "--root"),
    ("eval", "--dataset {here}/file --annotations {here}/file", 2, "--annotations says where a published data set's"),
    ("eval", "--output {here}", 1, "something else than an evaluation"),
    ("eval", "--output {here}/file/out", 1, "is a file"),
    ("eval", "--output /proc/out", 1, "cannot write /proc/out"),
    ("eval", "--engine tensorrt", 1, "there is none"),
    ("profile", "--engine auto cuda", 1, "there is none"),
    ("profile", "--engine auto auto", 2, "named twice"),
    ("profile", "{bundle} {bundle}", 2, "named twice"),
    ("profile", "--runs 0", 2, "--runs is 0"),
    ("profile", "--seconds 0", 2, "--seconds is 0"),
    ("profile", "--seconds nan", 2, "--seconds is nan"),
    ("profile", "--context 0", 2, "--context is 0"),
    ("profile", "--context 9999999", 2, "the model takes at most"),
    ("profile", "--output /proc/out", 1, "cannot write /proc/out"),
    ("profile", "--accuracy", 2, "--accuracy compares"),
    ("profile", "{here}/none", 1, "is not a folder"),
    ("profile", "{bundle} --context 9999999", 2, "the model takes at most"),
    ("profile", "--video {clip}", 2, "no sentence"),
    ("train", "--stage 9 --data {here}/none --output {here}/new", 2, "--stage is '9': give 1, 2 or 3"),
    ("train", "", 2, "--stage {1,2,3}, --data FILE, --output DIR must be given"),
    ("train", "--stage 1 --data {here}/none --output {here}/new", 1, "is not a file"),
    ("train", "--stage 1 --data {here}/none --output {here}/new --steps 0", 2, "--steps is 0"),
    ("train", "--stage 1 --data {here}/none --output {here}", 1, "no part of a checkpoint"),
    ("train", "--stage 1 --data {here}/none --output /proc/out", 1, "cannot write /proc/out"),
    ("train", "--stage 1 --data {here}/none --output {here}/file/out", 1, "is a file"),
    ("train", "--stage 1 --data {here}/none --output {here}/new --epochs inf", 2, "--epochs is inf"),
    ("train", "--stage 1 --data {here}/none --output {here}/new --flash-attention", 2, "--flash-attention has no fp32"),
    (
        "train",
        "--stage 1 --data {here}/none --output {here}/new --flash-attention --precision bf16",
        1,
        "needs flash-attn",
    ),
    ("train", "--stage 1 --data {here}/file --output {here}/new --model {here}/none", 1, "is not a folder"),
    ("calibrate", "--clips 0", 2, "--clips is 0"),
    ("calibrate", "--frames-per-clip -1", 2, "--frames-per-clip is -1"),
    ("calibrate", "--capture-mb 0", 2, "--capture-mb is 0"),
    ("calibrate", "--threads -1", 2, "--threads is -1"),
    ("calibrate", "--budget speed=1", 2, "names nothing known"),
    ("calibrate", "--budget viou=nan", 2, "has no value from 0 to 100"),
    ("calibrate", "--videos {clip}", 2, "--videos and --sentences go together"),
    ("calibrate", "--precision fp8 --target sm86", 1, "sm86 has no 8-bit floats"),
    ("calibrate", "--target ampere", 2, "is no compute capability"),
    ("calibrate", "--output {here}", 1, "is not a bundle"),
    ("calibrate", "--output /proc/out", 1, "cannot write /proc/out"),
    ("calibrate", "--bundle {here}/none", 1, "is not a folder"),
    ("calibrate", "--beside {here}/none", 1, "is not a folder"),
    ("doctor", "{here}/none", 1, "is not a folder"),
]

_RUN = """
import contextlib, io, json, sys
from devil import commands
for command, arguments in json.loads(sys.stdin.read()):
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = getattr(commands, {"eval": "evaluate"}.get(command, command))(arguments)
        except SystemExit as stop:
            code = stop.code
    loaded = [name for name in sys.argv[1:] if name in sys.modules]
    print(json.dumps({"code": code, "line": shown.getvalue(), "loaded": loaded}))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """By case, what a command said; all in one process, whose modules are looked at after each."""
    here = tmp_path_factory.mktemp("here")
    (here / "file").touch()
    write_listed_files(here / "bundle")
    places = {"here": here, "bundle": here / "bundle", "clip": demo_request()[0]}
    asked = [(command, [word.format(**places) for word in words.split()]) for command, words, *_ in CASES]
    environment = {"XDG_CACHE_HOME": str(here / "cache"), "CUDA_VISIBLE_DEVICES": "", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *HEAVY],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env=environment,
        cwd=here,
    )
    assert not done.stderr
    assert sorted(path.name for path in here.iterdir()) == ["bundle", "file"]  # nothing was begun
    return dict(zip(CASES, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[1]}".replace("/", "-"))
def test_a_bad_value_is_told_before_anything_heavy_is_loaded(case, told):
    command, _, code, phrase = case
    found = told[case]
    lines = found["line"].splitlines()
    assert [line.split(":")[0] for line in lines] == [f"devil-{command}"], found["line"]
    assert phrase in lines[0]
    assert (found["code"], found["loaded"]) == (code, [])
