"""The two grids against ONNX's own reference of QuantizeLinear, and against numbers worked out by hand."""

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from devil.calibration.forms import GRIDS


def reference(values, scale, kind, zero):
    """What ONNX says of Q → DQ."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
        [helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]), helper.make_tensor("zero", kind, [], [zero])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    return ReferenceEvaluator(model).run(None, {"x": values})[0]


def test_int8_rounds_ties_to_even_and_never_uses_minus_128():
    grid = GRIDS["int8"]
    codes = grid.codes(np.array([0.5, 1.5, -2.5, 126.6, 500, -500], np.float32), 1.0)
    assert codes.tolist() == [0, 2, -2, 127, 127, -127]
    assert grid.scale(254.0) == 2.0


@pytest.mark.parametrize(("form", "kind"), [("int8", TensorProto.INT8), ("fp8", TensorProto.FLOAT8E4M3FN)])
def test_rounding_is_what_quantize_linear_does(form, kind):
    grid = GRIDS[form]
    values = np.random.default_rng(0).normal(0, 3, 4000).astype(np.float32)
    scale = float(grid.scale(np.abs(values).max()))
    np.testing.assert_allclose(grid.rounded(values, scale), reference(values, scale, kind, 0), rtol=1e-6)


def test_fp8_keeps_the_relative_error_of_three_bits_of_mantissa():
    values = np.geomspace(2.0**-6, 448, 5000).astype(np.float32)
    error = np.abs(GRIDS["fp8"].rounded(values, 1.0) / values - 1)
    assert error.max() <= 2.0**-4  # half a unit in the last of four significant bits
    assert GRIDS["fp8"].codes(np.array([1e9], np.float32), 1.0)[0] == ml_dtypes.float8_e4m3fn(448)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_scale_is_never_zero(dtype):
    assert GRIDS["int8"].scale(0.0, dtype) == 1
    assert GRIDS["int8"].scale(1e-30, dtype) > 0
