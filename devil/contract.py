"""Names, shapes and dtypes of every graph of a bundle: the one place where they are said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from devil.config import DetectorConfig, DevilConfig, LanguageConfig

Precision = Literal["fp32", "fp16", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
# Of an exported bundle: integers stand for the language model's weights alone. Every graph still has a type of floats.
BundlePrecision = Literal["fp32", "fp16", "bf16", "int8", "int4"]
# Of a calibrated one: activations may have 8 bits too; `quantisation` in the manifest says of which graphs.
CalibratedPrecision = Literal["int8", "fp8", "int4", "mixed"]
BUNDLE_PRECISIONS: tuple[BundlePrecision | CalibratedPrecision, ...] = (*PRECISIONS, "int8", "int4", "fp8", "mixed")
GraphName = Literal["vision", "language", "backbone", "grounder"]
GRAPHS: tuple[GraphName, ...] = ("vision", "language", "backbone", "grounder")

# ONNX/NumPy name of the "float" of a graph, per precision.
FLOAT = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph.

    Attributes:
        name: its name in the ONNX file.
        dtype: a NumPy name, or "float" for the graph's own floating type.
        shape: sizes; a string is a dynamic dimension, the same string the same size.
        meaning: what it holds, for docs and error messages.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    meaning: str

    def numpy_dtype(self, precision: Precision) -> str:
        return FLOAT[precision] if self.dtype == "float" else self.dtype


@dataclass(frozen=True)
class GraphSpec:
    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def key_name(layer: int, side: Literal["past", "present"]) -> str:
    return f"{side}_key_{layer}"


def value_name(layer: int, side: Literal["past", "present"]) -> str:
    return f"{side}_value_{layer}"


def contract(config: DevilConfig) -> dict[str, GraphSpec]:
    """The four graphs of a bundle of this model, by name.

    Dimensions: F frames of the language model's video, P patches of one frame, V rows of the visual table, B rows of a
    batch, S new tokens per row, T attended cache length (≤ M), M cache capacity, K outputs read per row, N detector
    frames of H × W pixels, L flattened positions of all feature levels.
    """
    graphs = (_vision(config), _language(config.language), _backbone(config.detector), _grounder(config))
    return {graph.name: graph for graph in graphs}


def _vision(config: DevilConfig) -> GraphSpec:
    patch_values, merged = 3 * config.vision.patch**2, config.vision.merge**2
    return GraphSpec(
        "vision",
        (
            TensorSpec("patches", "uint8", ("F", "P", patch_values), "RGB patches, merge-block first, each (c, y, x)"),
            TensorSpec("positions", "int64", ("P", 2), "(row, column) of each patch in its frame"),
        ),
        (
            TensorSpec(
                "visual_tokens", "float", ("F", f"P/{merged}", config.language.hidden), "projected visual tokens"
            ),
        ),
    )


def _language(language: LanguageConfig) -> GraphSpec:
    def cache(side: Literal["past", "present"]) -> tuple[TensorSpec, ...]:
        shape = ("B", language.kv_heads, "M", language.head_dim)
        return tuple(
            TensorSpec(name(layer, side), "float", shape, f"KV cache of layer {layer}, {side}")
            for layer in range(language.layers)
            for name in (key_name, value_name)
        )

    return GraphSpec(
        "language",
        (
            TensorSpec("token_ids", "int64", ("B", "S"), "ids; vocab + i is row i of visual_table"),
            TensorSpec("visual_table", "float", ("V", language.hidden), "visual tokens of the video"),
            TensorSpec("positions", "int64", ("B", "S"), "rotary position of each new token"),
            TensorSpec("write_index", "int64", ("B",), "cache slot of each row's first new token"),
            TensorSpec("mask", "bool", ("B", 1, "S", "T"), "True where a new token may attend to a cache slot"),
            TensorSpec("output_index", "int64", ("B", "K"), "which of the S new tokens to read out"),
            *cache("past"),
        ),
        (
            TensorSpec("logits", "float32", ("B", "K", language.vocab), "next-token logits"),
            TensorSpec("hidden", "float32", ("B", "K", language.hidden), "final-norm hidden states"),
            *cache("present"),
        ),
    )


def _backbone(detector: DetectorConfig) -> GraphSpec:
    return GraphSpec(
        "backbone",
        (TensorSpec("frames", "uint8", ("N", "H", "W", 3), "RGB frames"),),
        (TensorSpec("features", "float", ("N", "L", detector.hidden), "projected features, level after level"),),
    )


def _grounder(config: DevilConfig) -> GraphSpec:
    detector, queries = config.detector, config.detector.kept_queries[-1]
    return GraphSpec(
        "grounder",
        (
            TensorSpec("features", "float", ("N", "L", detector.hidden), "the backbone's output"),
            TensorSpec("level_shapes", "int64", (detector.levels, 2), "(height, width) of each level"),
            TensorSpec("rst", "float32", (config.language.hidden,), "hidden state of the [BOX] token"),
        ),
        (
            TensorSpec("logits", "float32", ("N", queries), "match with the sentence, before the sigmoid"),
            TensorSpec("boxes", "float32", ("N", queries, 4), "cx, cy, w, h as fractions of the frame"),
            TensorSpec("embeddings", "float32", ("N", queries, detector.hidden), "query states for the linker"),
        ),
    )
