"""Small ONNX graphs to quantise, and running them: values are named after what they are."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir

from devil.calibration.sessions import open_session


class Build:
    """Collects nodes into a graph; every tensor is float32 unless said."""

    def __init__(self, opset: int = 20, **inputs):
        self.inputs = {name: self._value(name, shape) for name, shape in inputs.items()}
        self.nodes, self.constants, self.opset = [], [], opset

    def __getitem__(self, name):
        return self.inputs[name]

    def constant(self, name, values):
        tensor = ir.tensor(np.asarray(values), name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
        self.constants.append(value)
        return value

    def op(self, op_type, *inputs, name=None, outputs=1, domain="", dtype=ir.DataType.FLOAT, **attributes):
        node = ir.node(
            op_type, inputs, attributes, domain=domain, num_outputs=outputs, name=name or f"{op_type}_{len(self.nodes)}"
        )
        for index, value in enumerate(node.outputs):
            value.name = f"{node.name}_out{index or ''}"
            value.type = ir.TensorType(dtype)
        self.nodes.append(node)
        return node.outputs[0] if outputs == 1 else node.outputs

    def linear(self, value, weight, bias=None, name="linear"):
        found = self.op("MatMul", value, self.constant(f"{name}.weight", weight), name=name)
        return found if bias is None else self.op("Add", found, self.constant(f"{name}.bias", bias), name=f"{name}.add")

    def model(self, *outputs, functions=()):
        graph = ir.Graph(
            list(self.inputs.values()), list(outputs), nodes=self.nodes, initializers=self.constants,
            opset_imports={"": self.opset}, name="vision",
        )  # fmt: skip
        return ir.Model(graph, ir_version=10, functions=functions)

    @staticmethod
    def _value(name, shape):
        kind = ir.DataType.UINT8 if name in ("patches", "frames") else ir.DataType.FLOAT
        return ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shape))


def run(model, tmp_path, **feeds):
    return open_session(model, tmp_path, 1).run(None, feeds)


def kernels(model, tmp_path, **feeds):
    """What ONNX Runtime ran, by its own profile."""
    session = open_session(model, tmp_path, 1, profile=tmp_path / "profile")
    session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text())
    return Counter(event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time"))
