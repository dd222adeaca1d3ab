"""What the runtime asks of engines fits what devil-build makes by default."""

import pytest

from devil.config import PRESETS, level_shapes
from devil.engine_profile import chosen
from devil.export.tensorrt.options import EngineOptions
from devil.export.tensorrt.profiles import Sizes
from devil.preprocess import detector_size, vision_size
from devil.runtime.engines.tensorrt.decode import StepSizes
from devil.runtime.packed_run import CHUNK

VIDEOS = [(1080, 1920), (720, 1280), (480, 640), (500, 500), (1920, 1080), (360, 640)]


@pytest.fixture(params=["tiny", "7b"])
def config(request):
    return PRESETS[request.param]


def profiles(config, graph):
    return Sizes(config, None, EngineOptions()).profiles(graph)


@pytest.mark.parametrize("size", VIDEOS, ids=str)
def test_usual_videos_fit(config, size):
    height, width = detector_size(*size, config.detector)
    length = sum(rows * columns for rows, columns in level_shapes(height, width))
    assert chosen(profiles(config, "backbone"), {"N": 1, "H": height, "W": width}) is not None
    assert chosen(profiles(config, "grounder"), {"N": 1, "L": length}) is not None
    rows, columns = (side // config.vision.patch for side in vision_size(*size, config.frames, config))
    assert chosen(profiles(config, "vision"), {"F": 1, "P": rows * columns}) is not None


def test_prompts_fit_and_decoding_steps_have_a_profile_of_their_own(config):
    language = profiles(config, "language")
    slots = config.language.context
    whole = {"B": 1, "S": CHUNK, "T": slots, "K": 1, "V": CHUNK, "M": slots}
    assert language[chosen(language, whole)].name == "prefill"
    for tokens in (1, 2, 4, 8, 16, 32):
        step = StepSizes(tokens, slots)
        sizes = {"B": 1, "S": step.tokens, "T": step.slots, "K": step.tokens, "V": 1, "M": slots}
        assert language[chosen(language, sizes)].name == "decode"
