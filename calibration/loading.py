"""Graphs of a bundle as ONNX IR, weights left in their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir


class MappedTensor(ir.ExternalTensor):
    """A weight in a file beside its graph, read through a map of it.

    ONNX IR does not read files that have more than one name, and a bundle's may have: linked weights of a checkpoint,
    and bundles that share what they have in common.
    """

    def numpy(self) -> np.ndarray:
        """The weight; pages are read when they are looked at."""
        shape = self.shape.numpy()
        if 0 in shape:
            return np.zeros(shape, self.dtype.numpy())
        return np.memmap(self.path, self.dtype.numpy(), "r", self.offset or 0, shape)

    def tobytes(self) -> bytes:
        return self.numpy().tobytes()


def load_graph(path: Path) -> ir.Model:
    """The graph at `path`, whose floats are stored plainly."""
    model = ir.load(path)
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            value.const_value = MappedTensor(
                tensor.location, tensor.offset, tensor.length, tensor.dtype, shape=tensor.shape, name=tensor.name,
                base_dir=tensor.base_dir,
            )  # fmt: skip
    return model
