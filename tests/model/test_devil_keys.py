"""The 7B model has the released checkpoint's keys and shapes (reference §7), written out here by hand.

The detector's are in test_detector_keys.py.
"""

import torch

from devil.config import PRESETS
from devil.model.devil import DevilModel


def linear(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def language():
    keys = {"model.embed_tokens.weight": (152064, 3584), "model.norm.weight": (3584,), "lm_head.weight": (152064, 3584)}
    for layer in range(28):
        name = f"model.layers.{layer}"
        keys |= linear(f"{name}.self_attn.q_proj", 3584, 3584)
        keys |= linear(f"{name}.self_attn.k_proj", 3584, 512) | linear(f"{name}.self_attn.v_proj", 3584, 512)
        keys |= {
            f"{name}.self_attn.o_proj.weight": (3584, 3584),
            f"{name}.mlp.gate_proj.weight": (18944, 3584),
            f"{name}.mlp.up_proj.weight": (18944, 3584),
            f"{name}.mlp.down_proj.weight": (3584, 18944),
            f"{name}.input_layernorm.weight": (3584,),
            f"{name}.post_attention_layernorm.weight": (3584,),
        }
    return keys


def vision():
    root = "model.vision_encoder.vision_encoder"
    patch = f"{root}.embeddings.patch_embedding"
    keys = {f"{patch}.weight": (1152, 3, 14, 14), f"{patch}.bias": (1152,)} | norm(f"{root}.post_layernorm", 1152)
    for layer in range(27):
        name = f"{root}.encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            keys |= linear(f"{name}.self_attn.{part}", 1152, 1152)
        keys |= norm(f"{name}.layer_norm1", 1152) | norm(f"{name}.layer_norm2", 1152)
        keys |= linear(f"{name}.mlp.fc1", 1152, 4304) | linear(f"{name}.mlp.fc2", 4304, 1152)
    return keys


def projector():
    name = "model.mm_projector.readout"
    return linear(f"{name}.0", 1152, 3584) | linear(f"{name}.2", 3584, 3584)


def test_7b_model_has_the_released_keys_and_shapes_around_the_detector():
    with torch.device("meta"):
        model = DevilModel(PRESETS["7b"])
    found = {key: tuple(value.shape) for key, value in model.state_dict().items() if ".g_dino." not in key}
    assert found == language() | vision() | projector()
    detector = {key.removeprefix("model.g_dino.") for key in model.state_dict() if key.startswith("model.g_dino.")}
    assert detector == set(model.detector.state_dict())
