"""Every exported graph against the fp32 PyTorch model, in ONNX Runtime, at sizes that were not traced."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from devil.contract import FLOAT, Precision, contract, key_name, value_name
from devil.errors import ExportFidelityError
from devil.export import sampling
from devil.export.emulation import EmulateBf16
from devil.export.onnx_file import check_file, data_path, save_model
from devil.export.plan import Plan
from devil.fidelity import Measures, compare_detections, compare_tensors, over_budget, worst
from devil.model.devil import DevilModel

if TYPE_CHECKING:
    import onnxruntime

Arrays = dict[str, np.ndarray]
FrameSize = tuple[int, int] | None

LEAN_FROM = 500_000_000  # bytes of weights; a second copy of so many is not for every machine

METHOD = {
    "fp32": "onnxruntime",
    "fp16": "onnxruntime",
    "bf16": "types and shapes of the file; its nodes in onnxruntime in fp32, every result rounded to bf16",
}


@dataclass(frozen=True)
class Fidelity:
    """What the comparison of one graph found.

    Attributes:
        method: how the graph was run.
        measures: each measure's worst over all cases (see devil.fidelity).
        accepted: what is worse than its budget and was accepted all the same.
    """

    method: str
    measures: Measures
    accepted: tuple[str, ...] = ()


def verify(path: Path, name: str, model: DevilModel, plan: Plan, frame_size: FrameSize = None) -> Fidelity:
    """Checks one graph of a bundle.

    Args:
        path: its file.
        name: which of devil.contract.GRAPHS it is.
        model: the reference, fp32 in evaluation mode.
        plan: what the file was made by.
        frame_size: (height, width) that the detector's graphs are fixed to.

    Raises:
        ExportFidelityError: a measure is out of its budget, and the plan does not accept that.
    """
    check_file(path)
    precision = plan.floats(name)
    large = data_path(path).exists() and data_path(path).stat().st_size > LEAN_FROM
    measures = compare(path, name, model, precision, frame_size, lean=large)
    return judged(name, METHOD[precision] + (", unoptimised" if large else ""), measures, plan)


def compare(
    path: Path, name: str, model: DevilModel, precision: Precision, frame_size: FrameSize = None, lean: bool = False
) -> Measures:
    """The worst of each measure over all cases of a graph.

    Args:
        lean: run without the graph optimisations and repacked weights that cost a second copy of the weights.
    """
    comparisons = {"vision": _vision, "language": _language, "backbone": _backbone, "grounder": _grounder}
    graph = _Graph(path, name, model, precision, lean)
    with torch.no_grad():
        return worst(list(comparisons[name](graph, model, frame_size)))


def judged(name: str, method: str, measures: Measures, plan: Plan) -> Fidelity:
    """What the comparison of a graph found, held against the budget of its precision.

    Raises:
        ExportFidelityError: a measure is worse than that precision may be, and the plan does not accept that.
    """
    precision = plan.budget(name)
    broken = over_budget(measures, precision)
    if broken and not plan.accept:
        raise ExportFidelityError(
            f"graph {name} in {precision} differs from PyTorch: {', '.join(broken)}",
            "try another --precision, or --accept to write it all the same; its manifest then says so",
        )
    return Fidelity(method, measures, tuple(broken))


class _Graph:
    """A graph in ONNX Runtime that takes and gives NumPy arrays; floats are cast to what it wants."""

    def __init__(self, path: Path, name: str, model: DevilModel, precision: Precision, lean: bool):
        self.spec = contract(model.devil)[name]
        # What numpy and the CPU provider know; an emulated graph rounds its inputs itself.
        self.float = "float32" if precision == "bf16" else FLOAT[precision]
        self.session = _emulated(path) if precision == "bf16" else _session(path, lean)

    def __call__(self, **feeds: np.ndarray | Tensor) -> Arrays:
        typed = {
            tensor.name: np.asarray(feeds[tensor.name]).astype(self.float if tensor.dtype == "float" else tensor.dtype)
            for tensor in self.spec.inputs
        }
        names = [tensor.name for tensor in self.spec.outputs]
        return dict(zip(names, self.session.run(names, typed), strict=True))


def _session(path: Path, lean: bool = False) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if lean:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.disable_prepacking", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _emulated(path: Path) -> onnxruntime.InferenceSession:
    """The graph with every result rounded to bf16; ONNX Runtime may not fold the rounding away."""
    with tempfile.TemporaryDirectory(prefix="devil-export-") as folder:
        model = ir.load(path)
        EmulateBf16()(model)
        save_model(model, Path(folder) / path.name)
        return _session(Path(folder) / path.name, lean=True)


def _vision(graph: _Graph, model: DevilModel, _frame_size: FrameSize) -> Iterator[Measures]:
    for case in sampling.vision_cases(model.devil):
        expected = model.visual_tokens(torch.from_numpy(case["patches"]), torch.from_numpy(case["positions"]))
        yield compare_tensors(graph(**case)["visual_tokens"], expected.numpy())


def _backbone(graph: _Graph, model: DevilModel, frame_size: FrameSize) -> Iterator[Measures]:
    for case in sampling.frame_cases(model.devil, frame_size):
        expected = model.detector.features(torch.from_numpy(case.frames))
        yield compare_tensors(graph(frames=case.frames)["features"], expected.numpy())


def _grounder(graph: _Graph, model: DevilModel, frame_size: FrameSize) -> Iterator[Measures]:
    for case in sampling.frame_cases(model.devil, frame_size):
        features = model.detector.features(torch.from_numpy(case.frames))
        found = model.detector.ground(features, torch.from_numpy(case.level_shapes), torch.from_numpy(case.rst))
        expected = {name: getattr(found, name).numpy() for name in ("logits", "boxes", "embeddings")}
        yield compare_detections(graph(features=features, level_shapes=case.level_shapes, rst=case.rst), expected)


def _language(graph: _Graph, model: DevilModel, _frame_size: FrameSize) -> Iterator[Measures]:
    """A prefill and, on its cache, the last three tokens one by one, against one pass without a cache."""
    for case in sampling.language_cases(model.devil):
        ids, table = case["token_ids"], case["visual_table"]
        length = ids.shape[1]
        hidden = model.model(
            inputs_embeds=model.embed(torch.from_numpy(ids), torch.from_numpy(table))
        ).last_hidden_state
        expected = {"logits": model.lm_head(hidden).numpy(), "hidden": hidden.numpy()}
        cache = _empty_cache(model, length + 5)
        for start, end in [(0, length - 3), *((last, last + 1) for last in range(length - 3, length))]:
            found = graph(visual_table=table, **_step(ids, start, end), **cache)
            cache = {name.replace("present", "past"): found[name] for name in found if name.startswith("present")}
            for name, values in expected.items():
                yield compare_tensors(found[name], values[:, start:end])


def _step(ids: np.ndarray, start: int, end: int) -> Arrays:
    """Feeds of one row whose tokens start … end − 1 are new, all of them read out."""
    new = np.arange(start, end)
    return {
        "token_ids": ids[:, start:end],
        "positions": new[None],
        "write_index": np.array([start]),
        "mask": (np.arange(end) <= new[:, None])[None, None],
        "output_index": np.arange(end - start)[None],
    }


def _empty_cache(model: DevilModel, capacity: int) -> Arrays:
    language = model.devil.language
    empty = np.zeros((1, language.kv_heads, capacity, language.head_dim), np.float32)
    return {name(layer, "past"): empty for layer in range(language.layers) for name in (key_name, value_name)}
