"""Activations on one side of zero: the numbers of a zero point, by engines that take none."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
import torch

from devil.calibration.centre import CentreActivations
from devil.calibration.layers import find_layers
from devil.calibration.qdq import InsertQDQ
from devil.calibration.ranges import Range
from devil.calibration.weights import StoredWeights
from tests.calibration.graphs import Build, kernels, run

X = np.random.default_rng(0).normal(size=(2, 5, 16)).astype(np.float32)
STEP, ZERO = 0.02, -100  # the grid's numbers are STEP · (code − ZERO): from −0.54 to 4.54
CENTRED = Range(127 * STEP, -ZERO * STEP)


def behind_gelu(*widths, bias=True, dtype=np.float32):
    """x [2, 5, 16] → Gelu → layers that share it, one per width."""
    rng = np.random.default_rng(1)

    def weight(*shape):
        return (rng.normal(size=shape) * rng.uniform(0.1, 3, shape[-1])).astype(dtype)

    build = Build(x=("N", "S", 16))
    hidden = build.op("Gelu", build["x"], name="gelu")
    if dtype == np.float16:
        hidden = build.op("Cast", hidden, to=ir.DataType.FLOAT16, dtype=ir.DataType.FLOAT16, name="half")
    outputs = []
    for index, width in enumerate(widths):
        matrix, name = build.constant(f"w{index}", weight(16, width)), f"layer{index}"
        made = build.op("MatMul", hidden, matrix, name=name, dtype=hidden.dtype)
        offset = build.constant(f"b{index}", weight(width))
        outputs.append(build.op("Add", made, offset, name=f"{name}.add", dtype=hidden.dtype) if bias else made)
    return build.model(*outputs)


def quantised(model, ranges):
    found = model.clone()
    InsertQDQ(dict.fromkeys(find_layers(model), "int8"), ranges)(found)
    return found


def with_zero_point(x, model, index):
    """PyTorch's own asymmetric fake quantisation of the activation, and its symmetric one of the weight."""
    hidden = torch.fake_quantize_per_tensor_affine(torch.nn.functional.gelu(torch.from_numpy(x)), STEP, ZERO, -128, 127)
    w, b = (
        torch.from_numpy(model.graph.initializers[f"{n}{index}"].const_value.numpy().astype(np.float32)) for n in "wb"
    )
    zeros = torch.zeros(w.shape[1], dtype=torch.int32)
    return hidden @ torch.fake_quantize_per_channel_affine(w, w.abs().amax(0) / 127, zeros, 1, -127, 127) + b


@pytest.mark.parametrize("widths", [(8,), (8, 3), (1,)])
def test_a_centred_activation_has_the_numbers_of_a_zero_point(widths, tmp_path):
    model = behind_gelu(*widths)
    found = run(quantised(model, {"gelu_out": CENTRED}), tmp_path, x=2 * X)
    for index in range(len(widths)):
        np.testing.assert_allclose(found[index], with_zero_point(2 * X, model, index), rtol=1e-4, atol=1e-4)


def test_zeros_give_the_bias_and_nothing_else(tmp_path):
    model = behind_gelu(8)
    (found,) = run(quantised(model, {"gelu_out": CENTRED}), tmp_path, x=0 * X)
    bias = model.graph.initializers["b0"].const_value.numpy()
    np.testing.assert_allclose(found, np.broadcast_to(bias, found.shape), atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_in_floats_the_function_stays_as_it_is(bias, tmp_path):
    """Weights that 8 bits hold exactly: all that is left is the moving."""
    model = behind_gelu(8, bias=bias)
    codes = np.random.default_rng(3).integers(-127, 128, (16, 8)).astype(np.float32)
    codes[0] = 127
    value = model.graph.initializers["w0"]
    value.const_value = ir.tensor(codes / 64, name="w0")
    found = model.clone()
    centre = CentreActivations(dict.fromkeys(find_layers(model), "int8"), {"gelu_out": CENTRED}, StoredWeights())
    assert centre(found).modified
    assert centre.ranges["gelu_out_centred"] == Range(CENTRED.threshold)
    assert [value.name for value in found.graph.outputs] == [value.name for value in model.graph.outputs]
    for ours, exact in zip(run(found, tmp_path, x=X), run(model, tmp_path, x=X), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-4)


def test_layers_that_are_not_chosen_or_not_centred_keep_their_input(tmp_path):
    model = behind_gelu(8, 4)
    one, two = find_layers(model)
    found = model.clone()
    InsertQDQ({one: "int8"}, {"gelu_out": CENTRED})(found)
    assert next(node for node in found.graph if node.name == two.name).inputs[0].name == "gelu_out"
    np.testing.assert_array_equal(run(found, tmp_path, x=X)[1], run(model, tmp_path, x=X)[1])
    untouched = model.clone()
    assert not CentreActivations({one: "int8", two: "int8"}, {"gelu_out": Range(3.0)}, StoredWeights())(
        untouched
    ).modified


def test_a_convolution_stays_around_zero():
    build = Build(x=("N", 4, 6, 6))
    kernel = build.constant("w", np.ones((3, 4, 3, 3), np.float32))
    model = build.model(build.op("Conv", build["x"], kernel, name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    assert not CentreActivations(dict.fromkeys(find_layers(model), "int8"), {"x": CENTRED}, StoredWeights())(
        model
    ).modified


def test_centred_layers_run_on_one_integer_kernel(tmp_path):
    ran = kernels(quantised(behind_gelu(8, 4), {"gelu_out": CENTRED}), tmp_path, x=X)
    assert (ran["MatMulIntegerToFloat"], ran["MatMul"], ran["DequantizeLinear"]) == (1, 0, 0)


def test_fp16_is_centred_in_fp16(tmp_path):
    model = behind_gelu(8, dtype=np.float16)
    found = quantised(model, {"half_out": CENTRED})
    kinds = Counter(value.dtype for value in found.graph.initializers.values())
    assert set(kinds) == {ir.DataType.FLOAT16, ir.DataType.INT8}
    (ours,) = run(found, tmp_path, x=2 * X)
    expected = with_zero_point(2 * X, model, 0).numpy()
    assert np.abs(ours - expected).max() < 0.01 * np.abs(expected).max()


def test_the_order_of_the_choice_changes_nothing():
    model, made = behind_gelu(8, 4), []
    layers = find_layers(model)
    for chosen in (layers, layers[::-1]):
        found = model.clone()
        InsertQDQ(dict.fromkeys(chosen, "int8"), {"gelu_out": CENTRED})(found)
        made.append(ir.to_proto(found).SerializeToString(deterministic=True))
    assert made[0] == made[1]
