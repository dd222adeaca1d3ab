"""What flows between the nodes of a graph: chosen values as extra outputs, read without holding all of them at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from devil.calibration.sessions import open_session
from devil.errors import CalibrationError

GROUP_BYTES = 256_000_000  # of values that are held at once
_SIZE = "{}::size"


class ActivationReader:
    """Reads values of a graph by name.

    Values are fetched in groups that fit into `GROUP_BYTES`; the graph runs once per group.

    Args:
        model: the graph; it is copied.
        names: of values; inputs and outputs of the graph too.
        folder: where its weights lie.
        threads: CPU threads; 0 takes the physical cores.

    Raises:
        CalibrationError: the graph has no such value.
        EngineError: ONNX Runtime refuses the graph.
    """

    def __init__(self, model: ir.Model, names: Collection[str], folder: Path, threads: int = 0):
        model = model.clone()
        values = {value.name: value for node in model.graph for value in node.outputs}
        self._inputs = [value.name for value in model.graph.inputs if value.name in names]
        self._read = [name for name in dict.fromkeys(names) if name not in self._inputs]
        outputs = {value.name for value in model.graph.outputs}
        for name in self._read:
            if name not in values:
                raise CalibrationError(f"graph {model.graph.name} has no value {name}", "export the bundle again")
            size = ir.node("Size", [values[name]])
            size.outputs[0].name, size.outputs[0].type = _SIZE.format(name), ir.TensorType(ir.DataType.INT64)
            size.outputs[0].shape = ir.Shape([])
            model.graph.append(size)
            model.graph.outputs.extend([size.outputs[0], *([values[name]] if name not in outputs else [])])
        self._session = open_session(model, folder, threads)
        self._groups: dict[tuple, list[list[str]]] = {}

    def read(self, feeds: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """(name, value) of every wanted value, for one set of the graph's inputs."""
        yield from ((name, feeds[name]) for name in self._inputs)
        for group in self._grouped(feeds):
            yield from zip(group, self._session.run(group, dict(feeds)), strict=True)

    def _grouped(self, feeds: Mapping[str, np.ndarray]) -> list[list[str]]:
        """Names whose values fit together, for inputs of these sizes."""
        key = tuple((name, feeds[name].shape) for name in sorted(feeds))
        if key not in self._groups and self._read:
            sizes = self._session.run([_SIZE.format(name) for name in self._read], dict(feeds))
            groups: list[list[str]] = []
            held = GROUP_BYTES
            for name, size in zip(self._read, sizes, strict=True):
                held += 4 * int(size)
                if held > GROUP_BYTES or not groups:
                    groups.append([])
                    held = 4 * int(size)
                groups[-1].append(name)
            self._groups[key] = groups
        return self._groups.get(key, [])


def one_by_one(graph: str, feeds: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """A recorded run, frame by frame, in whose memory one frame counts."""
    along = {"vision": "patches", "backbone": "frames", "grounder": "features"}[graph]
    for index in range(len(feeds[along])):
        yield {**feeds, along: feeds[along][index : index + 1]}
