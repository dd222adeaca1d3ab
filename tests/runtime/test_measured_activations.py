"""The plan's terms for the vision encoder, the detector and the video against what a process really takes."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from devil.assets import demo_request
from devil.bundle import read_manifest
from devil.config import level_shapes
from devil.preprocess import vision_size
from devil.runtime.encoded_video import Video
from devil.runtime.memory_plan import activations, plan
from devil.runtime.pipeline import Grounder
from devil.video import probe

SIDE, FRAMES, TOKENS = 1024, 8, 256  # pixels of the detector's frames, frames, and the most visual tokens of each
# Of what is planned: a plan of several times the need would refuse what runs.
LEAST = {"vision": 0.3, "backbone": 0.3, "grounder": 0.5}

_MEASURE = """
import json, re, sys
from pathlib import Path
import numpy as np
from devil import plugins
from devil.bundle import open_bundle
from devil.contract import contract
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine

plugins.library = lambda: None  # the function made of GridSample takes more than our kernel

def status(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10

def feeds(graph, sizes):
    made = {}
    for tensor in contract(bundle.config)[graph].inputs:
        shape = [sizes.get(size, size) for size in tensor.shape]
        if tensor.dtype == "uint8":
            made[tensor.name] = random.integers(0, 256, shape, np.uint8)
        elif tensor.name == "level_shapes":
            made[tensor.name] = np.array(sizes["levels"], np.int64)
        elif tensor.name == "positions":
            made[tensor.name] = np.stack(np.divmod(np.arange(shape[0]), int(shape[0] ** 0.5)), 1)
        else:
            made[tensor.name] = random.standard_normal(shape, np.float32)
    return made

bundle, random, grown = open_bundle(sys.argv[1]), np.random.default_rng(0), {}
for graph, (small, large) in json.loads(sys.argv[2]).items():
    runner = OnnxRuntimeEngine(threads=1).load(bundle.path(graph), contract(bundle.config)[graph], "fp32")
    runner.run(feeds(graph, small))
    given = feeds(graph, large)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    runner.run(given)
    grown[graph] = status("VmHWM") - before
print(json.dumps(grown))
"""


@pytest.fixture(scope="module")
def config(bundle):
    """The bundle's, for larger frames than its own."""
    own = read_manifest(bundle).config
    detector = replace(own.detector, min_side=SIDE, max_side=SIDE)
    return replace(own, detector=detector, frames=FRAMES, max_tokens=FRAMES * TOKENS)


@pytest.fixture(scope="module")
def grown(bundle, config):
    """Bytes that each graph takes for one batch of large inputs, beyond what it keeps after small ones."""
    large, small = level_shapes(SIDE, SIDE), level_shapes(64, 64)
    height, width = vision_size(SIDE, SIDE, FRAMES, config)
    patches = height * width // config.vision.patch**2

    def positions(shapes):
        return {"L": sum(rows * columns for rows, columns in shapes), "levels": shapes}

    sizes = {
        "vision": ({"F": 1, "P": 16}, {"F": FRAMES, "P": patches}),
        "backbone": ({"N": 1, "H": 64, "W": 64}, {"N": 1, "H": SIDE, "W": SIDE}),
        "grounder": ({"N": 1, **positions(small)}, {"N": 1, **positions(large)}),
    }
    command = [sys.executable, "-c", _MEASURE, str(bundle), json.dumps(sizes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("graph", LEAST)
def test_a_graph_takes_no_more_than_is_planned_and_not_much_less(grown, bundle, config, graph):
    planned = activations(read_manifest(bundle), config, (SIDE, SIDE))[graph]
    assert planned > 40e6  # what is measured is no noise
    assert LEAST[graph] * planned < grown[graph] < planned


def test_an_encoded_video_holds_what_is_planned(bundle, monkeypatch):
    """Its arrays, counted; the plan also has room for the frames' second copy while they are resized."""
    tokens = []
    look = Video._visual_tokens
    monkeypatch.setattr(Video, "_visual_tokens", lambda video: tokens.append(look(video)) or tokens[-1])
    path, sentence = demo_request()
    video = Grounder.open(bundle, threads=1).encode(path)
    video.ground(sentence)
    features = video.tubes.features.values()
    held = [video.clip.frames, video.clip.patches, *tokens, *map(np.asarray, features)]
    told, info = read_manifest(bundle), probe(path)
    planned = plan(told, told.config, (info.height, info.width)).video
    assert len(features) == told.config.frames
    assert planned / 2 <= sum(array.nbytes for array in held) <= planned
