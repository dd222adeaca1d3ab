"""Checking a language graph whose weights are integers: that it is the model with these weights, and what they cost.

How far rounded weights move a model is a property of the model, and no error of the export: what that does to answers
is for devil-eval and devil-calibrate to say. So the graph is held against PyTorch with
the weights that its integers stand for; its distance from the original is told beside that and refuses nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from devil.export.graphs import GraphBuilder
from devil.export.plan import Plan
from devil.export.spot_check import check_stored
from devil.export.verify import METHOD, Fidelity, compare, judged
from devil.fidelity import Measures
from devil.model.devil import DevilModel
from devil.model.fitting import EMBEDDING


def verify_integers(path: Path, builder: GraphBuilder, plan: Plan) -> Fidelity:
    """Checks the language graph at `path` against a reference that has all of its layers.

    Raises:
        ExportFidelityError: the stored weights are not the checkpoint's, or it is not the model with them and the plan
            does not accept that.
    """
    check_stored(path, builder.source, plan.scheme)
    found, from_original = compare_integers(path, builder.model, plan)
    graph = judged("language", METHOD[plan.language], found, plan)
    return Fidelity(integer_method(METHOD[plan.language], found), from_original, graph.accepted)


def compare_integers(path: Path, model: DevilModel, plan: Plan) -> tuple[Measures, Measures]:
    """Measures against PyTorch with the stored weights, and against the original. Both without graph optimisations: an
    engine's own may round activations too."""
    with stored_weights(path, model):
        found = compare(path, "language", model, plan.language, lean=True)
    return found, compare(path, "language", model, plan.language, lean=True)


def integer_method(method: str, found: Measures) -> str:
    """What the manifest says of the check, for the distance from the original that stands beside it."""
    exact = ", ".join(f"{name} {value:.3g}" for name, value in found.items())
    return f"{method}, unoptimised; against PyTorch with the stored integers: {exact}"


@contextlib.contextmanager
def stored_weights(path: Path, model: DevilModel) -> Iterator[None]:
    """The model with the weights that the graph at `path` has as integers; afterwards its own again."""
    before = []
    try:
        for name, weight in _dequantised(path):
            module = model.get_submodule(name)
            before.append((module, module.weight))
            module.weight = nn.Parameter(torch.from_numpy(weight), requires_grad=False)
        yield
    finally:
        for module, weight in before:
            module.weight = weight


def _dequantised(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names of modules and their weights float32 [N, K]."""
    graph = onnx.load(path, load_external_data=False).graph
    stored = {proto.name: proto for proto in graph.initializer}

    def values(name: str) -> np.ndarray:
        return onnx.numpy_helper.to_array(stored[name], str(path.parent))

    for name in stored:
        key, _, kind = name.rpartition(".")
        module = key.removesuffix(".weight")
        if kind.startswith("int"):  # [K, N]; a tied readout is named after the embedding
            weight = _scaled(values(name).astype(np.float32).T, values(f"{key}.scales").T)
            yield ("lm_head" if key == EMBEDDING else module), weight
        elif kind.startswith("rows"):
            codes, bits = values(name), int(kind.removeprefix("rows"))
            if bits == 4:
                codes = np.concatenate([codes & 15, codes >> 4], 1)
            centred = codes.astype(np.float32) - 2 ** (bits - 1)
            yield module, _scaled(centred, values(f"{key}.row_scales"))


def _scaled(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Codes float32 [N, K] times scales [N, K / block], in the scales' type as the graph has it, as float32."""
    product = codes * scales.astype(np.float32).repeat(codes.shape[1] // scales.shape[1], 1)
    return np.ascontiguousarray(product.astype(scales.dtype).astype(np.float32))
