"""Second moments of what the layers of a graph take, and the weights that are rounded by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from devil.calibration.activations import ActivationReader, one_by_one
from devil.calibration.captures import Captures
from devil.calibration.forms import Grid
from devil.calibration.language.statistics import InputStatistics
from devil.calibration.layers import Layer
from devil.calibration.weights import Stored, compensated, nearest
from devil.progress import Progress, no_progress

MOMENT_BYTES = 512_000_000  # of moments that are held at once
_ROWS = 1024  # of a frame, evenly spread, that count


class Compensation:
    """Quantises the weights of a graph's matrix products by what the layers take; others to nearest.

    Args:
        model: the graph, in floats.
        layers: its layers.
        captures: what it was fed.
        folder: where its weights lie.
        threads: CPU threads; 0 takes the physical cores.
    """

    def __init__(
        self, model: ir.Model, layers: Sequence[Layer], captures: Captures, folder: Path, threads: int = 0,
        progress: Progress = no_progress,
    ):  # fmt: skip
        products = {node.name for node in model.graph if node.op_type == "MatMul"}
        self._model, self._captures, self._folder, self._threads = model, captures, folder, threads
        self._progress = progress
        self._layers = [layer for layer in layers if layer.name in products]
        self._found: dict[str, dict[str, Stored]] = {}

    def __call__(self, layer: Layer, weight: np.ndarray, grid: Grid) -> Stored:
        """Codes and scales of a layer's weight.

        Raises:
            CalibrationError: a weight has values that are no numbers.
        """
        if layer not in self._layers:
            return nearest(layer, weight, grid)
        if grid.form not in self._found:
            self._found[grid.form] = self._all(grid)
        return self._found[grid.form][layer.name]

    def _all(self, grid: Grid) -> dict[str, Stored]:
        """Of every product, while moments of a few are in memory: one run of the graph over the frames for each few."""
        found = {}
        groups = list(self._groups())
        for done, names in enumerate(groups):
            self._progress(f"weights of {self._model.graph.name}", done, len(groups))
            moments = self._moments(names)
            for layer in (one for one in self._layers if one.input in moments):
                values = self._model.graph.initializers[layer.weight].const_value.numpy()
                found[layer.name] = compensated(layer, values, grid, moments[layer.input])
        self._progress(f"weights of {self._model.graph.name}", len(groups), len(groups))
        return found

    def _groups(self) -> Iterator[list[str]]:
        """The layers' inputs, in the graph's order, as many together as their moments have room for."""
        names: list[str] = []
        held = 0
        for name, width in {layer.input: layer.inputs for layer in self._layers}.items():
            size = 4 * width * width
            if names and held + size > MOMENT_BYTES:
                yield names
                names, held = [], 0
            names.append(name)
            held += size
        if names:
            yield names

    def _moments(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        reader = ActivationReader(self._model, names, self._folder, self._threads)
        found: dict[str, InputStatistics] = {}
        for run in self._captures.runs(self._model.graph.name):
            for feeds in one_by_one(self._model.graph.name, run.feeds):
                for name, values in reader.read(feeds):
                    rows = values.reshape(-1, values.shape[-1])
                    rows = rows[:: -(-len(rows) // _ROWS)].astype(np.float32)
                    found.setdefault(name, InputStatistics(rows.shape[1])).add(torch.from_numpy(rows))
        return {name: statistics.mean_moment for name, statistics in found.items()}
