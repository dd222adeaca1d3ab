"""The memory planner: what it refuses, and its estimates against measured peaks."""

import dataclasses
import json
import subprocess
import sys

import pytest

from devil.bundle import FileRecord, Manifest, read_manifest
from devil.config import PRESETS
from devil.contract import BUNDLE_PRECISIONS, GRAPHS
from devil.errors import EngineError, UsageError
from devil.runtime.limits import Limits
from devil.runtime.memory_plan import check_fits, largest_frames, plan

SIZES = {"vision": 1_000_000_000, "language": 15_000_000_000, "backbone": 180_000_000, "grounder": 120_000_000}


def manifest(precision="fp32", preset="7b", sizes=SIZES):
    files = {f"{graph}.onnx": FileRecord(sizes[graph], "") for graph in GRAPHS} | {"tokenizer.json": FileRecord(9, "")}
    return Manifest("model", precision, PRESETS[preset], files)


def test_weights_cache_video_and_activations_make_the_whole():
    told = manifest()
    planned = plan(told, told.config)
    assert planned.weights == pytest.approx(1.1 * sum(SIZES.values()))
    parts = planned.weights + planned.cache + planned.video + planned.activations
    assert 0 < planned.total - parts < 1e9  # Python and the engine
    assert f"{planned.total / 1e9:.2f} GB" in str(planned)


@pytest.mark.parametrize("precision", BUNDLE_PRECISIONS)
def test_every_precision_that_a_bundle_can_have_is_planned(precision):
    told = dataclasses.replace(manifest(), precision=precision, graph_precisions=dict.fromkeys(GRAPHS, "fp16"))
    assert plan(told, told.config).weights > sum(SIZES.values())


def test_weights_are_those_that_the_graphs_read_not_all_of_linked_files():
    linked = dataclasses.replace(manifest(), weight_bytes={"language": 1_000_000_000})
    expected = sum(SIZES.values()) - SIZES["language"] + 1_000_000_000
    assert plan(linked, linked.config).weights == pytest.approx(1.1 * expected)


def test_the_cache_is_two_copies_of_keys_and_values_for_every_slot():
    told = manifest()
    language = told.config.language
    small = dataclasses.replace(told.config, language=dataclasses.replace(language, context=1024))
    per_slot = 2 * language.layers * language.kv_heads * (language.hidden // language.heads) * 4
    assert plan(told, small).cache == 2 * 1024 * per_slot


def test_fewer_frames_and_tokens_take_less():
    told = manifest()
    whole = plan(told, told.config)
    half = plan(told, Limits(frames=told.config.frames // 2, tokens=told.config.max_tokens // 4).applied(told.config))
    assert half.video < whole.video
    assert half.cache < whole.cache
    assert half.weights == whole.weights


def test_what_does_not_fit_is_refused_with_the_most_frames_that_do():
    told = manifest()
    needed = plan(told, told.config).total
    check_fits(told, told.config, needed)
    with pytest.raises(EngineError, match="--max-frames") as refused:
        check_fits(told, told.config, needed - 1)
    frames = int(refused.value.mend.split("--max-frames ")[1].split()[0])
    assert 0 < frames < told.config.frames
    tokens = told.config.max_tokens * frames // told.config.frames
    check_fits(told, Limits(frames=frames, tokens=tokens).applied(told.config), needed - 1)


def test_an_image_takes_one_frame_with_the_visual_tokens_of_all():
    told, picture = manifest(), (2160, 3840)
    as_video, as_image = (plan(told, told.config, picture, is_image) for is_image in (False, True))
    # Attention in the vision encoder is quadratic in a frame's patches: heads × patches² scores of 4 bytes at least.
    patches = (2160 // 28) * (3840 // 28) * 4  # a token is 2 × 2 patches of 14 pixels; these are within the budget
    assert as_image.activations > 4 * told.config.vision.heads * patches**2 > as_video.total
    assert as_image.video < as_video.video


def test_an_image_that_does_not_fit_is_refused_with_the_visual_tokens_that_do():
    told, picture = manifest(), (2160, 3840)
    available = plan(told, told.config, picture).total
    with pytest.raises(EngineError, match="--max-tokens") as refused:
        check_fits(told, told.config, available, picture, is_image=True)
    assert "--max-frames" not in refused.value.mend
    tokens = int(refused.value.mend.split("--max-tokens ")[1].split()[0])
    assert 0 < tokens < told.config.max_tokens
    check_fits(told, Limits(tokens=tokens).applied(told.config), available, picture, is_image=True)


def test_a_machine_too_small_for_the_weights_is_told_so():
    told = manifest()
    assert largest_frames(told, told.config, 2 << 30) is None
    with pytest.raises(EngineError, match="even the smallest input is too much") as refused:
        check_fits(told, told.config, 2 << 30)
    assert "--ignore-memory" in refused.value.mend  # an estimate may be wrong


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(frames=0), "--max-frames is 0"),
        (Limits(tokens=-4), "--max-tokens is -4"),
        (Limits(context=10**6), "the model takes at most"),
        (Limits(context=2), "--context is 2: an answer takes"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(limits, message):
    with pytest.raises(UsageError, match=message):
        limits.applied(PRESETS["tiny"])


def test_no_limits_leave_the_config_as_it_is():
    assert Limits().applied(PRESETS["tiny"]) == PRESETS["tiny"]


_PEAK = """
import json, re, sys
from devil.assets import demo_request
from devil.runtime.pipeline import Grounder
path, sentence = demo_request()
Grounder.open(sys.argv[1], threads=1).encode(path).ground(sentence)
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_run_stays_within_its_plan_and_the_plan_is_no_wild_guess(bundle):
    done = subprocess.run([sys.executable, "-c", _PEAK, bundle], capture_output=True, text=True, check=True)
    peak = json.loads(done.stdout.splitlines()[-1])
    told = read_manifest(bundle)
    assert peak <= plan(told, told.config).total <= 3 * peak
