"""Checking the language graph of a model that is too large to be compared with PyTorch whole.

Its first and its last decoder layer are each exported alone, with the embedding and readout of the first words, by the
same code and from the same weights, and compared with PyTorch. And what lies in the written file is read back in
samples and compared with the checkpoint. Together: the nodes are right, and the right weights lie where they look.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from devil.export.graphs import GraphBuilder
from devil.export.integer_check import compare_integers, integer_method
from devil.export.language import build_language
from devil.export.mapped import fill_mapped
from devil.export.onnx_file import check_file, store_model
from devil.export.plan import Plan
from devil.export.spot_check import check_stored
from devil.export.verify import METHOD, Fidelity, compare, judged
from devil.fidelity import Measures, worst
from devil.model.fitting import EMBEDDING, HEAD, empty_model
from devil.model.weights import Entry, WeightSource

WORDS = 1024  # of the vocabulary


@dataclass(frozen=True)
class LayerSource:
    """One decoder layer of a checkpoint as a model of one layer, with the first words only."""

    whole: WeightSource
    layer: int
    words: int

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self.whole.entries

    def read(self, key: str) -> Tensor:
        if key in (EMBEDDING, HEAD):
            return self.whole.read(key)[: self.words]
        return self.whole.read(key.replace("model.layers.0.", f"model.layers.{self.layer}."))


def verify_layers(path: Path, builder: GraphBuilder, plan: Plan) -> Fidelity:
    """Checks the language graph at `path` (see above).

    Raises:
        ExportFidelityError: a measure is out of its budget, or the stored weights are not the checkpoint's.
    """
    check_file(path)
    check_stored(path, builder.source, plan.scheme)
    language = builder.model.devil.language
    layers = [_compare_layer(path.parent, builder, plan, layer) for layer in sorted({0, language.layers - 1})]
    found, from_original = (worst(list(measures)) for measures in zip(*layers, strict=True))
    method = f"first and last of {language.layers} layers, each with {min(WORDS, language.vocab)} words, and samples of"
    method = f"{method} the stored weights: {METHOD[plan.language]}"
    graph = judged("language", f"{method}, unoptimised", found, plan)
    return Fidelity(integer_method(method, found), from_original, graph.accepted) if plan.scheme else graph


def _compare_layer(folder: Path, builder: GraphBuilder, plan: Plan, layer: int) -> tuple[Measures, Measures]:
    """The measures of one decoder layer between embedding and readout, against what is stored and the original."""
    whole = builder.model.devil
    language = replace(whole.language, layers=1, vocab=min(WORDS, whole.language.vocab))
    source = LayerSource(builder.source, layer, language.vocab)
    with tempfile.TemporaryDirectory(prefix=".layer-", dir=folder) as scratch:
        model = empty_model(replace(whole, language=language))
        fill_mapped(model, source, ("language",), Path(scratch))
        graph = build_language(language, source.read, plan.language, plan.scheme, plan.quantise)
        path = Path(scratch) / "language.onnx"
        store_model(graph, path)
        if plan.scheme:
            return compare_integers(path, model, plan)
        found = compare(path, "language", model, plan.language, lean=True)
        return found, found
