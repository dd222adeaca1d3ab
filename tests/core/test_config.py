import dataclasses
import json

import pytest

from devil.config import PRESETS, DetectorConfig, DevilConfig, SwinConfig, level_shapes
from devil.config_json import from_hf, load_config, to_hf
from devil.contract import GRAPHS, contract
from devil.errors import CheckpointError, ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_its_config_json(name):
    assert from_hf(json.loads(json.dumps(to_hf(PRESETS[name])))) == PRESETS[name]


def test_the_7b_preset_has_the_published_sizes():
    config = PRESETS["7b"]
    assert config.detector.kept_queries == (450, 225, 113, 57, 29, 15)
    assert config.language.head_dim == 128
    assert config.detector.backbone.channels == (256, 512, 1024)


def test_a_released_config_without_our_fields_is_the_7b_model():
    values = {
        "model_type": "devil_qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064, "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-06, "tie_word_embeddings": False, "max_position_embeddings": 32768,
        "mm_projector_type": "mlp2x_gelu", "image_token_index": 151665, "tbox_index": 151670,
        "query_start_index": 151668, "query_end_index": 151669, "eos_token_id": [151645, 151643],
        "use_token_compression": True, "vision_encoder_config": None,
    }  # fmt: skip
    assert from_hf(values) == PRESETS["7b"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"model_type": "qwen2"}, "model_type 'qwen2'"),
        ({"mm_projector_type": "linear"}, "projector 'linear'"),
        ({"tbox_index": None}, "lacks tbox_index"),
        ({"hidden_size": "wide"}, "is broken"),
        ({"num_attention_heads": 0}, "is broken"),
        ({"vision_encoder_config": 3}, "is broken"),
        ({"detector_config": {"colour": "red"}}, "is broken .*colour"),
    ],
)
def test_a_foreign_config_is_refused(change, line):
    values = {key: value for key, value in (to_hf(PRESETS["tiny"]) | change).items() if value is not None}
    with pytest.raises(CheckpointError, match=line):
        from_hf(values)


@pytest.mark.parametrize("content", [None, "", "[1]", "{"])
def test_an_unreadable_config_file_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_config(tmp_path)


def test_the_preprocessors_mean_and_deviation_win(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_hf(PRESETS["tiny"])))
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]})
    )
    vision = load_config(tmp_path).vision
    assert (vision.mean, vision.std) == ((0.1, 0.2, 0.3), (1, 2, 3))


@pytest.mark.parametrize(
    "detector",
    [
        DetectorConfig(hidden=100),
        DetectorConfig(backbone=SwinConfig(depths=(2, 2), heads=(2, 4))),
        DetectorConfig(min_side=64),
    ],
)
def test_impossible_detectors_are_refused(detector):
    with pytest.raises(ConfigError):
        DevilConfig(detector=detector)


def test_an_unknown_rst_position_is_refused():
    with pytest.raises(ConfigError, match="rst_position"):
        dataclasses.replace(PRESETS["tiny"], rst_position="middle")


@pytest.mark.parametrize(
    ("size", "shapes"),
    [
        ((360, 640), ((45, 80), (23, 40), (12, 20), (6, 10))),
        ((1, 1), ((1, 1),) * 4),
        ((97, 131), ((13, 17), (7, 9), (4, 5), (2, 3))),
    ],
)
def test_feature_levels_are_halved_and_rounded_up(size, shapes):
    assert level_shapes(*size) == shapes


def test_the_contract_names_every_graph_and_each_tensor_once():
    graphs = contract(PRESETS["tiny"])
    assert tuple(graphs) == GRAPHS
    for graph in graphs.values():
        for tensors in (graph.inputs, graph.outputs):
            assert len({tensor.name for tensor in tensors}) == len(tensors)
