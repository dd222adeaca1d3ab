"""The sizes that engines are built for are those the runtime asks for, and flags move them."""

from dataclasses import replace

import numpy as np
import pytest

from devil.config import PRESETS, level_shapes
from devil.contract import GRAPHS, contract
from devil.engine_profile import Range, chosen, named_sizes
from devil.errors import UsageError
from devil.export.tensorrt.options import EngineOptions
from devil.export.tensorrt.profiles import Sizes, level_shape_values
from devil.preprocess import detector_size, vision_size

CONFIGS = pytest.mark.parametrize("config", [PRESETS["7b"], PRESETS["tiny"]], ids=["7b", "tiny"])


def profiles(config, graph, frame=None, **options):
    return Sizes(config, frame, EngineOptions(**options)).profiles(graph)


@CONFIGS
@pytest.mark.parametrize("graph", GRAPHS)
def test_every_input_of_every_graph_gets_ordered_shapes(config, graph):
    spec = contract(config)[graph]
    for profile in profiles(config, graph):
        shapes = profile.shapes(spec)
        assert shapes.keys() == {tensor.name for tensor in spec.inputs}
        for smallest, usual, largest in shapes.values():
            assert np.all(np.array(smallest) <= usual)
            assert np.all(np.array(usual) <= largest)


@CONFIGS
@pytest.mark.parametrize("size", [(360, 640), (640, 360), (480, 640), (1080, 1920), (1920, 1080), (500, 500)])
def test_usual_videos_fit_the_detectors_profile(config, size):
    height, width = detector_size(*size, config.detector)
    frames = named_sizes(contract(config)["backbone"], {"frames": (4, height, width, 3)})
    assert chosen(profiles(config, "backbone"), frames) == 0
    length = sum(rows * columns for rows, columns in level_shapes(height, width))
    assert chosen(profiles(config, "grounder"), {"N": 4, "L": length}) == 0


def test_a_wide_video_is_refused_with_the_flag_that_takes_it():
    config = PRESETS["7b"]
    height, width = detector_size(360, 1280, config.detector)
    [profile] = profiles(config, "backbone")
    [reason] = profile.misfits({"N": 1, "H": height, "W": width})
    assert "W is 1280" in reason
    assert "--max-frame" in reason
    [wider] = profiles(config, "backbone", max_frame="360x1280")
    assert not list(wider.misfits({"N": 8, "H": height, "W": width}))


@CONFIGS
@pytest.mark.parametrize("frames", ["all", 1])
def test_a_video_of_the_models_own_size_and_an_image_fit_the_vision_profiles(config, frames):
    count = config.frames if frames == "all" else 1
    tokens = config.max_tokens if frames == "all" else min(config.max_tokens, 1024)
    height, width = vision_size(1080, 1920, count, replace(config, max_tokens=tokens))
    patches = (height // config.vision.patch) * (width // config.vision.patch)
    sizes = {"F": min(count, 16), "P": patches}
    index = chosen(profiles(config, "vision"), sizes)
    assert profiles(config, "vision")[index].name == ("video" if count > 1 else "image")


@CONFIGS
def test_chunks_are_read_by_one_profile_and_steps_by_the_other(config):
    language = profiles(config, "language")
    slots = config.language.context
    prompt = {"B": 1, "S": 256, "K": 1, "V": 256, "T": slots // 2, "M": slots}
    step = {"B": 1, "S": 1, "K": 1, "V": 1, "T": slots, "M": slots}
    assert [language[chosen(language, sizes)].name for sizes in (prompt, step)] == ["prefill", "decode"]


@CONFIGS
def test_where_kernels_are_not_tuned_one_profile_takes_all_that_the_two_take(config):
    [both] = Sizes(config, None, EngineOptions(), tuned=False).profiles("language")
    for profile in profiles(config, "language"):
        for name, sizes in profile.ranges.items():
            assert both.ranges[name].min <= sizes.min <= sizes.max <= both.ranges[name].max
    assert len(Sizes(config, None, EngineOptions(), tuned=False).profiles("vision")) == len(profiles(config, "vision"))


def test_the_cache_has_a_length_of_its_own():
    config = PRESETS["7b"]
    assert Sizes(config, None, EngineOptions(context=4096)).fixed == {"M": 4096}
    assert {profile.ranges["M"] for profile in profiles(config, "language", context=4096)} == {Range.fixed(4096)}
    assert max(profile.ranges["T"].max for profile in profiles(config, "language", context=4096)) == 4096


def test_a_fixed_frame_is_the_only_one():
    config = PRESETS["7b"]
    [profile] = profiles(config, "grounder", frame=(360, 640))
    assert profile.ranges["H"].is_fixed
    assert profile.ranges["L"] == Range.fixed(4820)
    assert len(set(level_shape_values(profile))) == 1


def test_level_shapes_grow_with_the_frame_and_sum_to_its_length():
    config = PRESETS["7b"]
    [profile] = profiles(config, "grounder", max_frame="640x640", batch=2)
    lengths = profile.ranges["L"]
    for values, length in zip(level_shape_values(profile), (lengths.min, lengths.opt, lengths.max), strict=True):
        assert np.reshape(values, (4, 2)).prod(1).sum() == length
    assert level_shape_values(profile)[1] == tuple(size for level in level_shapes(360, 640) for size in level)


@pytest.mark.parametrize(
    "options",
    [
        {"context": 40000},
        {"context": 128},
        {"image_tokens": 20000},
        {"max_frame": "100x640"},
        {"batch": 0},
        {"effort": 6},
        {"target": ("89",)},
        {"backend": "onnxruntime", "target": ("sm89",)},
    ],
)
def test_sizes_and_flags_that_cannot_be_meant_are_usage_errors(options):
    with pytest.raises(UsageError):
        for graph in GRAPHS:
            EngineOptions(**options).check()
            _ = EngineOptions(**options).capabilities
            profiles(PRESETS["7b"], graph, **options)


def test_a_malformed_frame_is_refused():
    with pytest.raises(UsageError, match="--max-frame 360x640"):
        profiles(PRESETS["7b"], "backbone", max_frame="360")


def test_targets_and_graphs_are_sorted_and_single():
    options = EngineOptions(target=("sm120", "sm89", "sm_89"), graphs=("grounder", "vision"))
    assert options.capabilities == ("sm89", "sm120")
    assert options.chosen_graphs == ("vision", "grounder")
