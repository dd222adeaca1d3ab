"""How large random weights must be for a model that no training has tamed to stay finite and steady in float16."""

from __future__ import annotations

import math
import re

from devil.config import DevilConfig

_WRITERS = re.compile(  # layers that write to a residual stream
    r"(o_proj|out_proj|down_proj|fc2|linear2|output_proj|out_[vl]_proj|attn\.proj)\.weight$"
)
_BOXES = re.compile(r"(sampling_offsets|bbox_embed\..*layers\.2)\.weight$")  # all zero as training begins
_SCORES = ("transformer.decoder.norm.weight", "transformer.enc_output_norm.weight")
_QUIET = 0.1


def moments(name: str, shape: tuple[int, ...], config: DevilConfig) -> tuple[float, float]:
    """Mean and deviation of a weight.

    A layer's outputs are about as large as its inputs, and all layers that write to a residual stream together as large
    as it. In the detector they are smaller still, boxes stay near their anchors and scores below one: otherwise the
    rounding of half precision decides which queries survive, and an exported graph cannot be compared with the model.
    """
    if name.endswith(_SCORES):
        return _QUIET, 0.1 * _QUIET
    if len(shape) == 1:
        return (1.0, 0.1) if name.endswith(".weight") else (0.0, 0.02)  # scales of norms; biases
    deviation = 1 / math.sqrt(math.prod(shape[1:]))
    if _BOXES.search(name):
        return 0.0, _QUIET * deviation
    return 0.0, deviation / _sharers(name, config) if _WRITERS.search(name) else deviation


def _sharers(name: str, config: DevilConfig) -> float:
    """What divides the writers of a stream so that their sum is no larger than one of them."""
    if name.startswith("model.g_dino."):
        detector = config.detector
        depth = sum(detector.backbone.depths) + detector.encoder_layers + detector.decoder_layers
        return 2 * math.sqrt(2 * depth)
    layers = config.vision.layers if name.startswith("model.vision_encoder.") else config.language.layers
    return math.sqrt(2 * layers)
