"""What the detector promises beyond Grounding DINO: decay, batching, gradients, half precision, errors."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import softmax

from devil.config import PRESETS, DetectorConfig, SwinConfig, level_shapes
from devil.errors import CheckpointError, DevilError
from devil.model.detector import Detector
from devil.model.detector.attention import deformable_attention
from devil.model.detector.proposals import KeepScores

LANGUAGE = 48
CONFIG = DetectorConfig(
    backbone=SwinConfig(embed=32, depths=(1, 2, 1, 1), heads=(1, 2, 4, 8), window=4),
    hidden=64, heads=8, encoder_layers=2, decoder_layers=3, ffn=128, queries=50, query_decay=0.5,
)  # fmt: skip
SIZE = (97, 131)
SHAPES = torch.tensor(level_shapes(*SIZE))


def perturbed(config):
    torch.manual_seed(2)
    detector = Detector(config, LANGUAGE).eval()
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(0.08 * torch.randn_like(parameter))
    return detector


@pytest.fixture(scope="module")
def detector():
    return perturbed(CONFIG)


@pytest.fixture(scope="module")
def frames():
    return torch.randint(0, 256, (3, *SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def rst():
    return torch.randn(LANGUAGE, generator=torch.Generator().manual_seed(4))


def test_every_decoder_layer_halves_the_queries(detector, frames, rst):
    output = detector(frames, SHAPES, rst)
    assert [layer.logits.shape for layer in output.layers] == [(3, 25), (3, 13), (3, 7)]
    assert [layer.boxes.shape for layer in output.layers] == [(3, 25, 4), (3, 13, 4), (3, 7, 4)]
    assert output.embeddings.shape == (3, 7, 64)
    assert output.proposals.logits.shape == (3, 50)
    assert (output.boxes >= 0).all()
    assert (output.boxes <= 1).all()


def test_logits_are_dot_products_with_the_encoders_text_token(detector, frames, rst):
    seen = {}
    hook = detector.transformer.encoder.register_forward_hook(lambda _m, _i, out: seen.update(text=out[1]))
    output = detector(frames, SHAPES, rst)
    hook.remove()
    expected = (output.embeddings * seen["text"][:, None]).sum(-1)
    torch.testing.assert_close(output.logits, expected, atol=1e-5, rtol=1e-5)


def test_decayed_queries_are_those_of_the_undecayed_first_layer(detector, frames, rst):
    undecayed = Detector(dataclasses.replace(CONFIG, query_decay=1.0), LANGUAGE).eval()
    undecayed.load_state_dict(detector.state_dict())
    attention = {}
    layer = undecayed.transformer.decoder.layers[0]
    hook = layer.register_forward_hook(lambda _m, _i, out: attention.update(weights=out[1]))
    full = undecayed(frames, SHAPES, rst).layers[0]
    hook.remove()
    found = detector(frames, SHAPES, rst).layers[0]
    scores = looped_scores(full.logits.detach().numpy(), attention["weights"].detach().numpy())
    for frame in range(len(frames)):
        best = np.argsort(-scores[frame])[:25].copy()
        torch.testing.assert_close(found.embeddings[frame], full.embeddings[frame, best], atol=2e-6, rtol=0)
        torch.testing.assert_close(found.boxes[frame], full.boxes[frame, best], atol=2e-6, rtol=0)


def looped_scores(logits, attention):
    """Reference §3, in plain loops."""
    frames, heads, count, _ = attention.shape
    received = np.zeros((frames, count))
    for frame in range(frames):
        for target in range(count):
            for source in range(count):
                if source != target:
                    received[frame, target] += sum(attention[frame, :, source, target]) / heads

    def normalised(rows):
        exponentials = np.exp(rows - rows.max(1, keepdims=True))
        return exponentials / exponentials.sum(1, keepdims=True)

    return (normalised(logits.astype(np.float64)) + normalised(received)) / 2


@pytest.mark.parametrize("count", [1, 2, 13])
def test_keep_scores_equal_plain_loops(count):
    torch.manual_seed(count)
    logits, attention = 3 * torch.randn(2, count), softmax(4 * torch.randn(2, 4, count, count), -1)
    expected = looped_scores(logits.numpy(), attention.numpy())
    np.testing.assert_allclose(KeepScores()(logits, attention).numpy(), expected, rtol=2e-6)


def test_a_batch_gives_what_each_frame_gives_alone(detector, frames, rst):
    together = detector(frames, SHAPES, rst)
    for index in range(len(frames)):
        alone = detector(frames[index : index + 1], SHAPES, rst[None])
        torch.testing.assert_close(alone.logits[0], together.logits[index], atol=2e-4, rtol=0)
        torch.testing.assert_close(alone.boxes[0], together.boxes[index], atol=2e-5, rtol=0)
        torch.testing.assert_close(alone.embeddings[0], together.embeddings[index], atol=2e-5, rtol=0)


def test_each_frame_may_have_its_own_rst(detector, frames, rst):
    both = detector(frames[[0, 0]], SHAPES, torch.stack((rst, -rst)))
    for index, token in enumerate((rst, -rst)):
        torch.testing.assert_close(detector(frames[:1], SHAPES, token).boxes[0], both.boxes[index], atol=2e-5, rtol=0)


def test_gradients_reach_the_rst_and_every_parameter(detector, frames, rst):
    token = rst.clone().requires_grad_()
    output = detector(frames[:1], SHAPES, token)
    loss = sum(layer.logits.sum() + layer.boxes.square().sum() for layer in (*output.layers, output.proposals))
    loss.backward()
    assert token.grad.abs().max() > 0
    without = [name for name, parameter in detector.named_parameters() if parameter.grad is None]
    assert without == []
    detector.zero_grad()


def test_a_fresh_detector_answers_with_its_proposals(frames, rst):
    fresh = Detector(dataclasses.replace(CONFIG, query_decay=1.0), LANGUAGE).eval()
    output = fresh(frames, SHAPES, rst)
    # Box heads start at zero, so boxes only pass through the clamped inverse sigmoid and back.
    torch.testing.assert_close(output.boxes, output.proposals.boxes, atol=1e-6, rtol=0)


def test_half_precision_finds_the_same_boxes(detector, frames, rst):
    undecayed = Detector(dataclasses.replace(CONFIG, query_decay=1.0), LANGUAGE).eval()
    undecayed.load_state_dict(detector.state_dict())
    full = undecayed(frames, SHAPES, rst)
    half = undecayed.half()(frames, SHAPES, rst)
    assert {half.logits.dtype, half.boxes.dtype, half.embeddings.dtype} == {torch.float32}
    # Proposals whose scores nearly tie swap ranks, so boxes are compared with the nearest one, not by index.
    # Measured: medians 2e-4 and 1.3e-3, nine tenths within 5e-4 and 3.3e-3 (a frame is 1 wide).
    for ours, theirs, median, most in (
        (half.proposals.boxes, full.proposals.boxes, 5e-4, 2e-3),
        (half.boxes, full.boxes, 3e-3, 1e-2),
    ):
        distance = torch.cdist(ours, theirs).amin(-1)
        assert distance.median() < median
        assert distance.quantile(0.9) < most


@pytest.mark.parametrize(
    ("change", "words"), [(lambda shapes: shapes + 1, "do not add up"), (None, "cannot make 50 queries")]
)
def test_features_that_do_not_fit_are_refused(detector, change, words):
    size = SIZE if change else (16, 16)
    shapes = torch.tensor(level_shapes(*size))
    features = torch.zeros(1, int(shapes.prod(1).sum()), 64)
    with pytest.raises(DevilError, match=words):
        detector.ground(features, change(shapes) if change else shapes, torch.zeros(LANGUAGE))


def test_deformable_attention_equals_bilinear_sampling_in_plain_loops():
    torch.manual_seed(6)
    shapes, heads, dim, points = [(3, 5), (1, 2)], 2, 3, 2
    value = torch.randn(1, 17, heads, dim, dtype=torch.float64)
    locations = 1.6 * torch.rand(1, 4, heads, 2, points, 2) - 0.3
    weights = torch.rand(1, 4, heads, 2, points, dtype=torch.float64)
    expected = np.zeros((4, heads, dim))
    start = 0
    for level, (height, width) in enumerate(shapes):
        cells = value[0, start : start + height * width].reshape(height, width, heads, dim).numpy()
        start += height * width
        for query, head, point in np.ndindex(4, heads, points):
            x, y = locations[0, query, head, level, point].double().numpy() * (width, height) - 0.5
            for row in (int(np.floor(y)), int(np.floor(y)) + 1):
                for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= row < height and 0 <= column < width:
                        share = (1 - abs(y - row)) * (1 - abs(x - column))
                        weight = weights[0, query, head, level, point].item()
                        expected[query, head] += weight * share * cells[row, column, head]
    found = deformable_attention(value, torch.tensor(shapes), locations, weights)
    np.testing.assert_allclose(found[0].numpy(), expected.reshape(4, -1), atol=2e-6)


def test_published_copies_of_the_box_head_are_merged(detector):
    state = detector.state_dict()
    published = {key: value for key, value in state.items() if not key.startswith("bbox_embed.")}
    for key, value in state.items():
        for layer in range(CONFIG.decoder_layers if key.startswith("bbox_embed.") else 0):
            copy = key.replace("bbox_embed.0", f"bbox_embed.{layer}")
            published[copy] = published[f"transformer.decoder.{copy}"] = value.clone()
    published["backbone.0.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16)
    one_copy = {key: value for key, value in published.items() if not key.startswith("bbox_embed.")}
    for weights in (state, published, one_copy):
        fresh = Detector(CONFIG, LANGUAGE)
        fresh.load_state_dict(weights)
        for key, value in fresh.state_dict().items():
            assert torch.equal(value, state[key]), key


def test_contradicting_copies_of_the_box_head_are_refused(detector):
    state = dict(detector.state_dict())
    state["transformer.decoder.bbox_embed.2.layers.1.bias"] = state["bbox_embed.0.layers.1.bias"] + 1
    with pytest.raises(CheckpointError, match=r"differs from bbox_embed\.0\.layers\.1\.bias"):
        Detector(CONFIG, LANGUAGE).load_state_dict(state)


def test_tiny_preset_is_small():
    config = PRESETS["tiny"]
    with torch.device("meta"):
        detector = Detector(config.detector, config.language.hidden)
    assert sum(parameter.numel() for parameter in detector.parameters()) < 4.5e6
