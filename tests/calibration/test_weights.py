"""Weights in 8 bits whose errors cancel, against rounding to nearest and the language model's own GPTQ."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch

from devil.calibration.activations import ActivationReader
from devil.calibration.compensation import Compensation
from devil.calibration.forms import GRIDS
from devil.calibration.language.rounding import gptq
from devil.calibration.layers import Layer
from devil.calibration.rules import chosen_by_rule
from devil.calibration.weights import StoredWeights, compensated, nearest
from devil.errors import CalibrationError

LAYER = Layer("one", "linear", "x", "w", 1, 24, 160)


@pytest.fixture(scope="module")
def weight():
    return np.random.default_rng(0).normal(size=(160, 24)).astype(np.float32)


@pytest.fixture(scope="module")
def inputs():
    """160 channels that are mixtures of 40."""
    rng = np.random.default_rng(1)
    return (rng.normal(size=(4000, 40)) @ rng.normal(size=(40, 160)) + 0.1 * rng.normal(size=(4000, 160))).astype("f4")


@pytest.fixture(scope="module")
def moment(inputs):
    return torch.from_numpy(inputs.T @ inputs / len(inputs))


def values(stored):
    codes, scales = stored
    return codes.astype(np.float32) * scales.astype(np.float32)


def test_weights_of_unrelated_inputs_are_rounded_to_nearest(weight):
    for ours, plain in zip(compensated(LAYER, weight, GRIDS["int8"], torch.eye(160)),
                           nearest(LAYER, weight, GRIDS["int8"]), strict=True):  # fmt: skip
        np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize("form", ["int8", "fp8"])
def test_outputs_err_less_than_half_as_much_where_inputs_are_related(weight, inputs, moment, form):
    ours, plain = (
        np.square(inputs @ (values(stored) - weight)).mean()
        for stored in (compensated(LAYER, weight, GRIDS[form], moment), nearest(LAYER, weight, GRIDS[form]))
    )
    assert ours < 0.25 * plain


def test_the_codes_are_those_of_the_language_models_gptq(weight, moment):
    codes, scales = compensated(LAYER, weight, GRIDS["int8"], moment)
    theirs, their_scales = gptq(torch.from_numpy(weight.T.copy()), moment, 8, 160, torch.float32)
    np.testing.assert_allclose(scales, their_scales.numpy()[:, 0], rtol=1e-6)
    differing = codes != theirs.numpy().T.clip(-127, 127)  # float32 sums in another order: ties go either way
    assert differing.mean() < 0.005


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_outputs_may_lie_along_either_axis(weight, moment, kind):
    weight = weight.astype(kind)
    codes, scales = compensated(LAYER, weight, GRIDS["int8"], moment)
    turned, same = compensated(replace(LAYER, axis=0), np.ascontiguousarray(weight.T), GRIDS["int8"], moment)
    np.testing.assert_array_equal(codes, turned.T)
    np.testing.assert_array_equal(scales, same)
    assert scales.dtype == kind


def test_a_weight_that_is_no_number_is_named(weight, moment):
    broken = weight.copy()
    broken[3, 2] = np.inf
    with pytest.raises(CalibrationError, match="w has values that are no numbers"):
        compensated(LAYER, broken, GRIDS["int8"], moment)


def test_a_weight_is_quantised_once(weight):
    asked = []

    def quantise(layer, values, grid):
        asked.append((layer.name, grid.form))
        return nearest(layer, values, grid)

    weights = StoredWeights(quantise)
    for form in ("int8", "fp8", "int8"):
        weights.of(LAYER, weight, GRIDS[form])
        weights.of(replace(LAYER, name="other", input="y"), weight, GRIDS[form])
    assert asked == [("one", "int8"), ("one", "fp8")]


def compensation(graph, recording):
    return Compensation(graph.model, graph.layers, recording.captures, recording.bundle.folder, 1)


def test_moments_are_those_of_what_the_layers_take(graphs, recording):
    """Against numpy, of the values read out of the graph whole."""
    graph = graphs["vision"]
    name = next(layer.input for layer in graph.layers if layer.role == "down")
    reader = ActivationReader(graph.model, [name], recording.bundle.folder, 1)
    values = np.concatenate([
        value.reshape(-1, value.shape[-1]).astype(np.float64) for run in recording.captures.runs("vision")
        for _, value in reader.read(run.feeds)
    ])  # fmt: skip
    (moment,) = compensation(graph, recording)._moments([name]).values()
    expected = values.T @ values / len(values)
    np.testing.assert_allclose(moment.numpy(), expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_a_few_moments_at_a_time_give_the_same_codes(graphs, recording, monkeypatch):
    graph = graphs["vision"]
    layer = next(one for one in graph.layers if one.role == "down")
    weight = graph.model.graph.initializers[layer.weight].const_value.numpy()
    whole = compensation(graph, recording)(layer, weight, GRIDS["int8"])
    monkeypatch.setattr("devil.calibration.compensation.MOMENT_BYTES", 4 * layer.inputs**2)
    piecewise = compensation(graph, recording)
    assert len(list(piecewise._groups())) > 2
    for ours, theirs in zip(piecewise(layer, weight, GRIDS["int8"]), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_convolutions_are_rounded_to_nearest(graphs, recording):
    graph = graphs["backbone"]
    convolution = graph.layers[0]
    weight = graph.model.graph.initializers[convolution.weight].const_value.numpy()
    assert weight.ndim == 4
    codes, _ = compensation(graph, recording)(convolution, weight, GRIDS["int8"])
    np.testing.assert_array_equal(codes, nearest(convolution, weight, GRIDS["int8"])[0])


def test_the_vision_encoder_errs_less_with_such_weights(graphs, monkeypatch):
    graph = graphs["vision"]
    chosen = chosen_by_rule(graph.layers, "int8")
    found = graph.error(chosen, "mse")
    monkeypatch.setattr(graph, "_weights", StoredWeights())
    assert found < 0.97 * graph.error(chosen, "mse")
    model = graph.quantised(chosen, "mse")
    assert any(value.dtype == ir.DataType.INT8 and value.shape for value in model.graph.initializers.values())
