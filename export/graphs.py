"""The four graphs of a model in any precision; PyTorch is traced once per graph, whatever the number of precisions."""

from __future__ import annotations

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import nn

from devil.config import level_shapes
from devil.contract import contract
from devil.export import sampling
from devil.export.detector import FULL_MODULES, BackboneGraph, GrounderGraph
from devil.export.language import build_language
from devil.export.msda import AttachDeformableAttention
from devil.export.plan import Plan
from devil.export.precision import LowerPrecision
from devil.export.trace import clean_up, trace
from devil.export.vision import VisionGraph
from devil.model.devil import DevilModel
from devil.model.weights import WeightSource


class GraphBuilder:
    """Builds the graphs of one model.

    Args:
        model: fp32, in evaluation mode.
        frame_size: (height, width) that the detector's graphs are fixed to; None keeps them dynamic.
        source: where the language model's weights are read when its graph is written; by default the model has them.
        layers_of: decoder layers of the checkpoint, where the model has only the first of them.
        keep: remember what was traced, to build it in another precision too.
    """

    def __init__(
        self,
        model: DevilModel,
        frame_size: tuple[int, int] | None = None,
        source: WeightSource | None = None,
        layers_of: int | None = None,
        keep: bool = True,
    ):
        self.model, self.frame_size, self.source, self.layers_of = model, frame_size, source, layers_of
        self.contract = contract(model.devil)
        self._keep = keep
        self._traced: dict[str, ir.Model] = {}

    def build(self, name: str, plan: Plan) -> ir.Model:
        """One of devil.contract.GRAPHS, typed as the contract says."""
        precision = plan.floats(name)
        if name == "language":
            read = self.source.read if self.source else self.model.state_dict().__getitem__
            return build_language(self.model.devil.language, read, precision, plan.scheme, plan.quantise)
        graph = self._traced[name].clone() if name in self._traced else self._trace(name)
        if self._keep and name not in self._traced:
            self._traced[name] = graph.clone()
        LowerPrecision(precision, self.contract[name], FULL_MODULES)(graph)
        clean_up(graph)
        AttachDeformableAttention(self.model.devil.detector.levels)(graph)
        ClearMetadataAndDocStringPass()(graph)  # the tracer's stack traces name files of this machine
        return graph

    def _trace(self, name: str) -> ir.Model:
        module, inputs = self._example(name)
        fixed = {}
        if self.frame_size and name != "vision":
            height, width = self.frame_size
            fixed = {"H": height, "W": width, "L": sum(h * w for h, w in level_shapes(height, width))}
        return trace(module, inputs, self.contract[name], fixed)

    def _example(self, name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
        """The module to trace, and its inputs."""
        config = self.model.devil
        if name == "vision":
            case = sampling.vision_case(config, frames=2, rows=2, columns=3)
            return VisionGraph(self.model), tuple(torch.from_numpy(case[name]) for name in ("patches", "positions"))
        sample = sampling.traced_frames(config, self.frame_size)
        frames, shapes = torch.from_numpy(sample.frames), torch.from_numpy(sample.level_shapes)
        if name == "backbone":
            return BackboneGraph(self.model.detector), (frames,)
        length = int(shapes.prod(1).sum())
        features = torch.zeros(len(frames), length, config.detector.hidden)
        module = GrounderGraph(self.model.detector, shapes if self.frame_size else None)
        return module, (features, shapes, torch.from_numpy(sample.rst))
