"""Engines of the fake TensorRT in a bundle's store, and what their answers are compared with."""

import dataclasses
import shutil

import numpy as np

from devil.bundle import open_bundle
from devil.config import level_shapes
from devil.contract import contract
from devil.engine_key import EngineKey
from devil.engine_profile import Profile, Range
from devil.engine_store import EngineStore
from devil.runtime.engines.tensorrt.engine import TensorRtEngine
from tests import fake_tensorrt
from tests.fake_cuda import GPU

SLOTS = 512
SENTENCES = ["the red circle", "a blue square that appears"]
RTX = "1.7.1.116"


def profiles(config, slots=SLOTS, batch=3, side=None):
    """Profiles of every graph, as devil-build makes them but small."""
    least = config.detector.min_side
    height, width = Range(least, least, side or 2 * least), Range(least, least, side or 4 * least)
    lengths = (level_shapes(getattr(height, end), getattr(width, end)) for end in ("min", "opt", "max"))
    length = Range(*(sum(rows * columns for rows, columns in levels) for levels in lengths))
    frames = Profile("frames", {"N": Range(1, 1, batch), "H": height, "W": width, "L": length})
    common = {"B": Range.fixed(1), "M": Range.fixed(slots), "T": Range(1, slots // 2, slots)}
    few, many = Range(1, 1, 32), Range(1, 64, 64)
    return {
        "vision": (Profile("video", {"F": Range(1, 2, 4), "P": Range(4, 16, 4 * config.max_tokens)}),),
        "language": (
            Profile("prefill", {**common, "S": many, "K": many, "V": many}),
            Profile("decode", {**common, "S": few, "K": few, "V": few}),
        ),
        "backbone": (frames,),
        "grounder": (frames,),
    }


def add_engine(bundle, graph, content=None, graph_profiles=None, **changes):
    """Puts an engine of a graph into the bundle's store; returns what the store says of it."""
    store = EngineStore(bundle)
    spec = contract(bundle.config)[graph]
    graph_profiles = graph_profiles or profiles(bundle.config)[graph]
    key = EngineKey(
        graph, bundle.graph_hash(graph), "tensorrt", "11.1.0", ("sm89",), graph_profiles, device=GPU.name,
    )  # fmt: skip
    key = dataclasses.replace(key, **changes)
    with store.building(key) as scratch:
        scratch.write_bytes(content or fake_tensorrt.content(bundle.path(graph), graph_profiles, spec))
        return store.add(key, scratch, {})


def add_engines(bundle, **options):
    for graph, ranges in profiles(bundle.config, **options).items():
        add_engine(bundle, graph, graph_profiles=ranges)


def copied(bundle, folder):
    shutil.copytree(bundle, folder)
    return open_bundle(folder)


def alike(found, expected):
    """Answers are the same but for rounding."""
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.text == theirs.text
        np.testing.assert_allclose(ours.rst, theirs.rst, atol=1e-5)
        np.testing.assert_allclose(ours.tube.boxes, theirs.tube.boxes, atol=1e-2)  # pixels


def one_line(error):
    return "\n" not in str(error.value)


def language(small, gate):
    """The language graph's engine, loaded."""
    spec = contract(small.config)["language"]
    return TensorRtEngine(small, "tensorrt", gate).load(small.path("language"), spec, "fp32")


def wrong_engine(small):
    """An engine of the language graph whose logits are off by a hundredth."""
    ranges, spec = profiles(small.config)["language"], contract(small.config)["language"]
    content = fake_tensorrt.content(small.path("language"), ranges, spec, wrong=0.01)
    return add_engine(small, "language", content)
