"""The detector against transformers' Grounding DINO with the same weights and one text token.

transformers computes fusion and text attention unreduced, keeps every query, and clamps the inverse sigmoid at 1e-5
where the published detector clamps at 1e-3; the last is aligned by replacing transformers' logit.
"""

import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection
from transformers import SwinConfig as TransformersSwinConfig

from devil.config import DetectorConfig, SwinConfig, level_shapes
from devil.model.detector import Detector

DEPTHS, HEADS, HIDDEN, LANGUAGE = (1, 2, 2, 1), (1, 2, 4, 8), 64, 48
CONFIG = DetectorConfig(
    backbone=SwinConfig(embed=32, depths=DEPTHS, heads=HEADS, window=4),
    hidden=HIDDEN, heads=8, encoder_layers=2, decoder_layers=3, ffn=128, queries=60, query_decay=1.0,
)  # fmt: skip
FRAMES = [(97, 131), (64, 200), (40, 440)]  # the last is so wide that border anchors are ruled out

# Ours → transformers', applied in order.
RENAMES = [
    (r"^backbone\.0\.patch_embed\.proj", "swin.embeddings.patch_embeddings.projection"),
    (r"^backbone\.0\.patch_embed", "swin.embeddings"),
    (r"^backbone\.0\.layers", "swin.encoder.layers"),
    (r"^backbone\.0\.norm(\d)", lambda found: f"hidden_states_norms.stage{int(found[1]) + 1}"),
    (r"attn\.relative_position_bias_table", "attention.relative_position_bias.relative_position_bias_table"),
    (r"blocks\.(\d+)\.attn\.proj", r"blocks.\1.attention.o_proj"),
    (r"blocks\.(\d+)\.norm1", r"blocks.\1.layernorm_before"),
    (r"blocks\.(\d+)\.norm2", r"blocks.\1.layernorm_after"),
    (r"^(swin|hidden_states_norms)", r"model.backbone.conv_encoder.model.\1"),
    (r"^input_proj", "model.input_proj_vision"),
    (r"^llm_feat_map", "model.text_projection"),
    (r"^transformer\.tgt_embed", "model.query_position_embeddings"),
    (r"^transformer\.enc_out_bbox_embed", "model.encoder_output_bbox_embed"),
    (r"^transformer\.decoder\.norm", "model.decoder.layer_norm"),
    (r"^transformer\.decoder\.ref_point_head", "model.decoder.reference_points_head"),
    (r"^transformer\.encoder\.fusion_layers\.(\d+)", r"model.encoder.layers.\1.fusion_layer"),
    (r"fusion_layer\.gamma_v", "fusion_layer.vision_param"),
    (r"fusion_layer\.gamma_l", "fusion_layer.text_param"),
    (r"fusion_layer\.layer_norm_v", "fusion_layer.layer_norm_vision"),
    (r"fusion_layer\.layer_norm_l", "fusion_layer.layer_norm_text"),
    (r"(fusion_layer\.attn\.(?:values_|out_)?)v_proj", r"\1vision_proj"),
    (r"(fusion_layer\.attn\.(?:values_|out_)?)l_proj", r"\1text_proj"),
    (r"^transformer\.encoder\.text_layers\.(\d+)", r"model.encoder.layers.\1.text_enhancer_layer"),
    (r"text_enhancer_layer\.norm1", "text_enhancer_layer.layer_norm_before"),
    (r"text_enhancer_layer\.norm2", "text_enhancer_layer.layer_norm_after"),
    (r"^transformer\.encoder\.layers\.(\d+)", r"model.encoder.layers.\1.deformable_layer"),
    (r"deformable_layer\.norm1", "deformable_layer.self_attn_layer_norm"),
    (r"deformable_layer\.norm2", "deformable_layer.final_layer_norm"),
    (r"decoder\.layers\.(\d+)\.norm1", r"decoder.layers.\1.encoder_attn_layer_norm"),
    (r"decoder\.layers\.(\d+)\.norm2", r"decoder.layers.\1.self_attn_layer_norm"),
    (r"decoder\.layers\.(\d+)\.norm3", r"decoder.layers.\1.final_layer_norm"),
    (r"decoder\.layers\.(\d+)\.catext_norm", r"decoder.layers.\1.encoder_attn_text_layer_norm"),
    (r"decoder\.layers\.(\d+)\.ca_text", r"decoder.layers.\1.encoder_attn_text"),
    (r"decoder\.layers\.(\d+)\.cross_attn", r"decoder.layers.\1.encoder_attn"),
    (r"\.linear([12])\.", r".fc\1."),
    (r"^transformer\.", "model."),
]
SPLITS = [
    (r"blocks\.(\d+)\.attn\.qkv\.", r"blocks.\1.attention.{}_proj.", "qkv"),
    (r"\.in_proj_", ".{}.", ("query", "key", "value")),
]


class GivenText(nn.Module):
    """Stands in for BERT: whatever it is asked, it answers with one given token per frame."""

    def __init__(self, text):
        super().__init__()
        self.text = text

    def forward(self, *_arguments, **_keywords):
        return SimpleNamespace(last_hidden_state=self.text[:, None])


def transformers_weights(state):
    """Our weights under transformers' names."""
    renamed = {}
    for key, value in state.items():
        pieces = [(key, value)]
        for pattern, replacement, parts in SPLITS:
            if re.search(pattern, key):
                names = [re.sub(pattern, replacement.format(part), key) for part in parts]
                pieces = list(zip(names, value.chunk(3), strict=True))
        for name, piece in pieces:
            for pattern, replacement in RENAMES:
                name = re.sub(pattern, replacement, name)
            copies = range(CONFIG.decoder_layers) if name.startswith("bbox_embed.0.") else ()
            for copy in copies:
                own = name.replace("bbox_embed.0.", f"bbox_embed.{copy}.")
                renamed[own] = renamed[f"model.decoder.{own}"] = piece
            renamed.setdefault(name, piece)
    return renamed


@pytest.fixture(scope="module")
def detectors():
    torch.manual_seed(1)
    ours = Detector(CONFIG, LANGUAGE).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.08 * torch.randn_like(parameter))
    backbone = TransformersSwinConfig(
        embed_dim=32, depths=list(DEPTHS), num_heads=list(HEADS), window_size=4, out_indices=[2, 3, 4]
    )
    text = BertConfig(
        hidden_size=LANGUAGE, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32, vocab_size=30
    )
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=HIDDEN, encoder_layers=2, decoder_layers=3,
        encoder_ffn_dim=128, decoder_ffn_dim=128, num_queries=60, disable_custom_kernels=True,
    )  # fmt: skip
    theirs = GroundingDinoForObjectDetection(config).eval()
    report = theirs.load_state_dict(transformers_weights(ours.state_dict()), strict=False)
    assert not report.unexpected_keys
    assert all("text_backbone" in key or ".swin.layernorm." in key for key in report.missing_keys)
    return ours, theirs


@pytest.fixture(autouse=True)
def published_inverse_sigmoid(monkeypatch):
    def logit(values, eps):  # noqa: ARG001
        return torch.log(values.clamp(min=1e-3) / (1 - values).clamp(min=1e-3))

    monkeypatch.setattr(torch.special, "logit", logit)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def random_frames(count, height, width):
    return torch.randint(
        0, 256, (count, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )


def pixels(frames):
    mean, std = torch.tensor(CONFIG.mean), torch.tensor(CONFIG.std)
    return ((frames / 255 - mean) / std).permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", FRAMES)
def test_backbone_equals_transformers_swin(detectors, size):
    ours, theirs = detectors
    image = pixels(random_frames(2, *size))
    expected = theirs.model.backbone.conv_encoder.model(image).feature_maps
    found = ours.backbone[0](image)
    assert [tuple(level.shape[2:]) for level in found] == list(level_shapes(*size)[:3])
    for ours_level, theirs_level in zip(found, expected, strict=True):
        torch.testing.assert_close(ours_level, theirs_level, atol=2e-5, rtol=0)


def test_features_normalise_and_project_every_level(detectors):
    ours, theirs = detectors
    frames = random_frames(2, 97, 131)
    maps = theirs.model.backbone.conv_encoder.model(pixels(frames)).feature_maps
    expected = [
        project(level).flatten(2).transpose(1, 2)
        for project, level in zip(theirs.model.input_proj_vision, [*maps, maps[-1]], strict=True)
    ]
    torch.testing.assert_close(ours.features(frames), torch.cat(expected, 1), atol=2e-5, rtol=0)


@pytest.mark.parametrize("length", [1, 7, 300])
def test_reduced_fusion_equals_the_unreduced_layer(detectors, length):
    ours, theirs = detectors
    image, text = 3 * torch.randn(2, length, HIDDEN), 3 * torch.randn(2, HIDDEN)
    for reduced, layer in zip(ours.transformer.encoder.fusion_layers, theirs.model.encoder.layers, strict=True):
        (expected_image, _), (expected_text, _) = layer.fusion_layer(image, text[:, None])
        found_image, found_text = reduced(image, text)
        torch.testing.assert_close(found_image, expected_image, atol=5e-6, rtol=0)
        torch.testing.assert_close(found_text, expected_text[:, 0], atol=5e-6, rtol=0)


def test_reduced_text_layer_equals_self_attention_with_positions(detectors):
    ours, theirs = detectors
    text = torch.randn(3, HIDDEN)
    layer = theirs.model.encoder.layers[1]
    positions = layer.get_text_position_embeddings(text[:, None], None, torch.zeros(3, 1, dtype=torch.long))
    allowed = torch.ones(3, 1, 1, dtype=torch.bool)
    expected, _ = layer.text_enhancer_layer(text[:, None], allowed, positions)
    found = ours.transformer.encoder.text_layers[1](text)
    torch.testing.assert_close(found, expected[:, 0], atol=5e-6, rtol=0)


def test_level_positions_equal_transformers_sine_embedding(detectors):
    ours, theirs = detectors
    shapes = level_shapes(97, 131)
    expected = []
    for level, (height, width) in zip(theirs.model.level_embed, shapes, strict=True):
        mask = torch.ones(1, height, width, dtype=torch.long)
        sine = theirs.model.backbone.position_embedding(mask, mask)
        expected.append(sine.flatten(2).transpose(1, 2)[0] + level)
    features = torch.zeros(1, sum(h * w for h, w in shapes), HIDDEN)
    grid = ours.transformer.grid(torch.tensor(shapes), features)
    found = ours.transformer.encoder.positions(grid, ours.transformer.level_embed)
    torch.testing.assert_close(found, torch.cat(expected), atol=5e-6, rtol=0)


@pytest.mark.parametrize("size", FRAMES)
def test_whole_detector_equals_transformers(detectors, size):
    ours, theirs = detectors
    frames, shapes = random_frames(2, *size), torch.tensor(level_shapes(*size))
    rst = torch.randn(2, LANGUAGE, generator=torch.Generator().manual_seed(5))
    theirs.model.text_backbone = GivenText(rst)
    expected = theirs(pixels(frames), torch.full((2, 1), 7))
    found = ours(frames, shapes, rst)

    assert len(found.layers) == CONFIG.decoder_layers
    torch.testing.assert_close(found.proposals.boxes, expected.init_reference_points, atol=2e-5, rtol=0)
    torch.testing.assert_close(found.logits, expected.logits[..., 0], atol=2e-4, rtol=2e-5)
    torch.testing.assert_close(found.boxes, expected.pred_boxes, atol=2e-5, rtol=0)
    for layer in range(CONFIG.decoder_layers):
        hidden = expected.intermediate_hidden_states[:, layer]
        torch.testing.assert_close(found.layers[layer].embeddings, hidden, atol=5e-5, rtol=0)
    ruled_out = (ours.transformer.anchors(ours.transformer.grid(shapes, ours.features(frames)))[1]).logical_not().any()
    assert ruled_out == (size[1] > 400)
