"""The 7B detector has the published checkpoint's keys and shapes (reference §3), written out here by hand."""

import itertools

import torch

from devil.config import PRESETS
from devil.model.detector import Detector


def linear(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def attention(name):
    return {f"{name}.in_proj_weight": (768, 256), f"{name}.in_proj_bias": (768,)} | linear(f"{name}.out_proj", 256, 256)


def deformable(name):
    return (
        linear(f"{name}.sampling_offsets", 256, 256)  # 8 heads × 4 levels × 4 points × (x, y)
        | linear(f"{name}.attention_weights", 256, 128)
        | linear(f"{name}.value_proj", 256, 256)
        | linear(f"{name}.output_proj", 256, 256)
    )


def mlp(name, *widths):
    keys = {}
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        keys |= linear(f"{name}.layers.{layer}", inputs, outputs)
    return keys


def swin():
    keys = {"backbone.0.patch_embed.proj.weight": (128, 3, 4, 4), "backbone.0.patch_embed.proj.bias": (128,)}
    keys |= norm("backbone.0.patch_embed.norm", 128)
    for stage, (depth, heads, width) in enumerate([(2, 4, 128), (2, 8, 256), (18, 16, 512), (2, 32, 1024)]):
        for number in range(depth):
            block = f"backbone.0.layers.{stage}.blocks.{number}"
            keys |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
            keys[f"{block}.attn.relative_position_bias_table"] = (529, heads)
            keys |= linear(f"{block}.attn.qkv", width, 3 * width) | linear(f"{block}.attn.proj", width, width)
            keys |= linear(f"{block}.mlp.fc1", width, 4 * width) | linear(f"{block}.mlp.fc2", 4 * width, width)
        if stage < 3:
            keys[f"backbone.0.layers.{stage}.downsample.reduction.weight"] = (2 * width, 4 * width)
            keys |= norm(f"backbone.0.layers.{stage}.downsample.norm", 4 * width)
        if stage > 0:
            keys |= norm(f"backbone.0.norm{stage}", width)
    return keys


def input_projections():
    keys = {}
    for level, (width, kernel) in enumerate([(256, 1), (512, 1), (1024, 1), (1024, 3)]):
        keys |= {f"input_proj.{level}.0.weight": (256, width, kernel, kernel), f"input_proj.{level}.0.bias": (256,)}
        keys |= norm(f"input_proj.{level}.1", 256)
    return keys


def encoder():
    keys = {}
    for layer in range(6):
        image = f"transformer.encoder.layers.{layer}"
        keys |= deformable(f"{image}.self_attn") | norm(f"{image}.norm1", 256) | norm(f"{image}.norm2", 256)
        keys |= linear(f"{image}.linear1", 256, 2048) | linear(f"{image}.linear2", 2048, 256)
        text = f"transformer.encoder.text_layers.{layer}"
        keys |= attention(f"{text}.self_attn") | norm(f"{text}.norm1", 256) | norm(f"{text}.norm2", 256)
        keys |= linear(f"{text}.linear1", 256, 1024) | linear(f"{text}.linear2", 1024, 256)
        fusion = f"transformer.encoder.fusion_layers.{layer}"
        keys |= {f"{fusion}.gamma_v": (256,), f"{fusion}.gamma_l": (256,)}
        keys |= norm(f"{fusion}.layer_norm_v", 256) | norm(f"{fusion}.layer_norm_l", 256)
        for projection in ("v_proj", "l_proj", "values_v_proj", "values_l_proj"):
            keys |= linear(f"{fusion}.attn.{projection}", 256, 1024)
        for projection in ("out_v_proj", "out_l_proj"):
            keys |= linear(f"{fusion}.attn.{projection}", 1024, 256)
    return keys


def decoder():
    keys = norm("transformer.decoder.norm", 256) | mlp("transformer.decoder.ref_point_head", 512, 256, 256)
    for number in range(6):
        layer = f"transformer.decoder.layers.{number}"
        keys |= attention(f"{layer}.self_attn") | attention(f"{layer}.ca_text") | deformable(f"{layer}.cross_attn")
        for name in ("norm1", "norm2", "norm3", "catext_norm"):
            keys |= norm(f"{layer}.{name}", 256)
        keys |= linear(f"{layer}.linear1", 256, 2048) | linear(f"{layer}.linear2", 2048, 256)
    return keys


def heads():
    return (
        {"transformer.level_embed": (4, 256), "transformer.tgt_embed.weight": (900, 256)}
        | linear("transformer.enc_output", 256, 256)
        | norm("transformer.enc_output_norm", 256)
        | mlp("transformer.enc_out_bbox_embed", 256, 256, 256, 4)
        | mlp("bbox_embed.0", 256, 256, 256, 4)  # shared by all decoder layers; the original repeats it
        | linear("llm_feat_map", 3584, 256)
    )


def test_7b_detector_has_the_published_keys_and_shapes():
    config = PRESETS["7b"]
    with torch.device("meta"):
        detector = Detector(config.detector, config.language.hidden)
    found = {key: tuple(value.shape) for key, value in detector.state_dict().items()}
    assert found == swin() | input_projections() | encoder() | decoder() | heads()
