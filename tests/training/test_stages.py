"""What each stage trains, and where the detector's loss reaches."""

import dataclasses

import numpy as np
import pytest
import torch

from devil.clip import load_clip
from devil.config import level_shapes
from devil.data.annotation import Record
from devil.data.records import read_records
from devil.data.scene import make_scene
from devil.data.writer import write_dataset
from devil.training.grounding import GroundingObjective, record_batch, rsts
from devil.training.language import language_pass
from devil.training.loop import LoopConfig, train
from devil.training.stages import DETECTS, add_lora, parameter_groups
from tests.tiny import tiny_config, tiny_model

WORDS = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    annotations = write_dataset(tmp_path_factory.mktemp("data") / "set", "train", count=1, frames=tiny_config().frames)
    (found,), problems = read_records(annotations)
    assert not problems
    return found


@pytest.fixture(scope="module")
def batch(record, writer):
    return record_batch(record, tiny_config(), writer)


def test_a_batch_holds_the_frames_of_the_span_and_their_boxes(record, writer, batch):
    query = make_scene(0, "train", tiny_config().frames).queries[0]
    assert len(batch.frames) == len(batch.target) == query.last - query.first + 1
    assert batch.present.all()
    assert (batch.target[:, 2:] > 0).all()
    assert record.sentence == query.sentence
    assert writer.decode(batch.packed.targets.tolist()) == record.answer


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_is_frozen_stays_bit_identical_and_the_rest_moves(stage, batch, tmp_path):
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    groups = parameter_groups(model, stage, 1e-3, 1e-3, has_lora=False, vision=False)
    train(GroundingObjective(model, DETECTS[stage]), groups, lambda _: batch, LoopConfig(1), tmp_path)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert WORDS in moved
    assert "model.mm_projector.readout.0.weight" in moved
    assert not any(name.startswith("model.vision_encoder.") for name in moved)
    assert any(name.startswith("model.g_dino.backbone.") for name in moved) == DETECTS[stage]
    assert any(name.startswith("model.g_dino.") for name in moved) == DETECTS[stage]


def test_the_detectors_loss_reaches_language_and_vision_through_the_rst(batch):
    model = tiny_model()
    losses = GroundingObjective(model, detects=True)(batch)
    losses["detector"].backward()
    named = dict(model.named_parameters())
    assert named[WORDS].grad.abs().max() > 0
    patches = "model.vision_encoder.vision_encoder.embeddings.patch_embedding.weight"
    assert named[patches].grad.abs().max() > 0
    assert named["lm_head.weight"].grad is None


def test_stage_2_has_no_detector_loss(batch):
    losses = GroundingObjective(tiny_model(), detects=DETECTS[2])(batch)
    assert set(losses) == {"loss", "answer"}


@pytest.mark.parametrize(("position", "shift"), [("predict", -1), ("input", 0)])
def test_the_rst_is_read_where_the_config_says(position, shift, batch):
    model = tiny_model()
    model.devil = dataclasses.replace(model.devil, rst_position=position)
    output = language_pass(model, batch.packed, model.visual_tokens(batch.patches, batch.positions)[batch.kept])
    place = int(np.flatnonzero(batch.packed.token_ids[0] == model.devil.tokens.box)[0])
    torch.testing.assert_close(rsts(model, output, batch.packed), output.hidden[0, place + shift][None])


def test_lora_trains_adapters_only_and_folds_into_the_same_function(batch, tmp_path):
    model = tiny_model()
    before = model.model.layers[0].self_attn.q_proj.weight.clone()
    adapted = add_lora(model, 4)
    groups = parameter_groups(model, 2, 1e-3, 1e-2, has_lora=True, vision=False)
    train(GroundingObjective(model, False), groups, lambda _: batch, LoopConfig(2), tmp_path)
    assert torch.equal(model.model.layers[0].self_attn.q_proj.base_layer.weight, before)
    with torch.no_grad():
        tuned = GroundingObjective(model, False)(batch)["answer"]
        merged = adapted.merge_and_unload()
        assert set(merged.state_dict()) == set(tiny_model().state_dict())
        assert not torch.equal(merged.model.layers[0].self_attn.q_proj.weight, before)
        torch.testing.assert_close(GroundingObjective(merged, False)(batch)["answer"], tuned, rtol=1e-5, atol=1e-6)


def test_a_span_between_two_sampled_frames_still_teaches_the_answer(record, writer):
    short = dataclasses.replace(record, start=1, end=1, boxes=record.boxes[:1])
    batch = record_batch(short, tiny_config(), writer)
    assert len(batch.frames) == 0
    losses = GroundingObjective(tiny_model(), detects=True)(batch)
    assert set(losses) == {"loss", "answer"}


def test_a_frame_without_a_box_adds_nothing(record, writer):
    indices = load_clip(record.path, tiny_config()).indices
    sampled = indices[(indices >= record.start) & (indices <= record.end)] - record.start
    boxes = record.boxes.copy()
    boxes[sampled[1:-1]] = np.nan
    batch = record_batch(dataclasses.replace(record, boxes=boxes), tiny_config(), writer)
    assert batch.present.tolist() == [True, *[False] * (len(sampled) - 2), True]
    boxes[sampled] = np.nan
    batch = record_batch(dataclasses.replace(record, boxes=boxes), tiny_config(), writer)
    assert set(GroundingObjective(tiny_model(), detects=True)(batch)) == {"loss", "answer"}


def test_level_shapes_of_the_batch_fit_the_detector(batch):
    features = tiny_model().detector.features(batch.frames)
    assert features.shape[1] == sum(h * w for h, w in level_shapes(*batch.frames.shape[1:3]))


def test_image_records_have_one_frame_and_no_times(tmp_path, writer):
    from PIL import Image

    Image.new("RGB", (96, 64), (90, 90, 90)).save(tmp_path / "a.png")
    box = np.array([[0.25, 0.25, 0.5, 0.75]], np.float32)
    record = Record(tmp_path / "a.png", "the red circle", "", True, 1.0, (0, 0), 0, 0, box)
    batch = record_batch(record, tiny_config(), writer)
    assert batch.frames.shape[0] == 1
    np.testing.assert_allclose(batch.target, [[0.375, 0.5, 0.25, 0.5]])
    assert writer.decode(batch.packed.targets.tolist()) == "It is here. [BOX]"
