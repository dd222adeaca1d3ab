"""Names of the detector's weights in transformers' GroundingDinoForObjectDetection, turned into ours."""

from __future__ import annotations

import re

# transformers' files → ours, applied in order. A name that ends in #i is the i-th of several that are stacked.
_RENAMES = [
    (r"^model\.backbone\.conv_encoder\.model\.", "backbone.0."),
    (r"^backbone\.0\.embeddings\.patch_embeddings\.projection\.", "backbone.0.patch_embed.proj."),
    (r"^backbone\.0\.embeddings\.", "backbone.0.patch_embed."),
    (r"^backbone\.0\.encoder\.", "backbone.0."),
    (r"^backbone\.0\.hidden_states_norms\.stage(\d+)\.", lambda found: f"backbone.0.norm{int(found[1]) - 1}."),
    (r"\.attention\.self\.relative_position", ".attn.relative_position"),
    (r"\.attention\.self\.(query|key|value)\.(\w+)$", r".attn.qkv.\2#\1"),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^model\.input_proj_vision\.", "input_proj."),
    (r"^model\.decoder\.bbox_embed\.", "bbox_embed."),
    (r"^model\.query_position_embeddings\.", "transformer.tgt_embed."),
    (r"^model\.encoder_output_bbox_embed\.", "transformer.enc_out_bbox_embed."),
    (r"^model\.decoder\.layer_norm\.", "transformer.decoder.norm."),
    (r"^model\.decoder\.reference_points_head\.", "transformer.decoder.ref_point_head."),
    (r"^model\.encoder\.layers\.(\d+)\.deformable_layer\.", r"transformer.encoder.layers.\1."),
    (r"^model\.encoder\.layers\.(\d+)\.fusion_layer\.", r"transformer.encoder.fusion_layers.\1."),
    (r"^model\.encoder\.layers\.(\d+)\.text_enhancer_layer\.", r"transformer.encoder.text_layers.\1."),
    (r"^model\.", "transformer."),
    (r"(fusion_layers\.\d+)\.vision_param$", r"\1.gamma_v"),
    (r"(fusion_layers\.\d+)\.text_param$", r"\1.gamma_l"),
    (r"(fusion_layers\.\d+\.layer_norm)_vision\.", r"\1_v."),
    (r"(fusion_layers\.\d+\.layer_norm)_text\.", r"\1_l."),
    (r"(fusion_layers\.\d+\.attn\.(?:values_|out_)?)vision_proj\.", r"\1v_proj."),
    (r"(fusion_layers\.\d+\.attn\.(?:values_|out_)?)text_proj\.", r"\1l_proj."),
    (r"(text_layers\.\d+)\.layer_norm_before\.", r"\1.norm1."),
    (r"(text_layers\.\d+)\.layer_norm_after\.", r"\1.norm2."),
    (r"(encoder\.layers\.\d+)\.self_attn_layer_norm\.", r"\1.norm1."),
    (r"(encoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm2."),
    (r"(decoder\.layers\.\d+)\.encoder_attn_layer_norm\.", r"\1.norm1."),
    (r"(decoder\.layers\.\d+)\.self_attn_layer_norm\.", r"\1.norm2."),
    (r"(decoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm3."),
    (r"(decoder\.layers\.\d+)\.encoder_attn_text_layer_norm\.", r"\1.catext_norm."),
    (r"(decoder\.layers\.\d+)\.encoder_attn_text\.", r"\1.ca_text."),
    (r"(decoder\.layers\.\d+)\.encoder_attn\.", r"\1.cross_attn."),
    (r"^(transformer\..*)\.fc([12])\.", r"\1.linear\2."),
    (r"\.(query|key|value)\.(\w+)$", r".in_proj_\2#\1"),
    (r"#query$", "#0"),
    (r"#key$", "#1"),
    (r"#value$", "#2"),
]

# What the one text token replaces, and a norm that transformers makes and never uses.
_DROPPED = re.compile(
    r"^model\.(?:text_backbone|text_projection|backbone\.conv_encoder\.model\.(?:swin\.)?layernorm)\."
)


def renamed(key: str) -> str | None:
    """Our name of a transformers key; None for the text encoder and what is never used."""
    if _DROPPED.match(key):
        return None
    for pattern, replacement in _RENAMES:
        key = re.sub(pattern, replacement, key)
    return key
