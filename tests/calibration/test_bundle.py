"""Calibrated bundles: what they hold, that they run, and what is refused."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from devil.bundle import open_bundle
from devil.calibration.activations import ActivationReader, one_by_one
from devil.calibration.bundle import check_source, write_calibrated
from devil.calibration.forms import GRIDS
from devil.calibration.graph import GraphCalibration
from devil.calibration.histogram import Histogram
from devil.calibration.observing import observe
from devil.calibration.parts import build_parts, quantised_part
from devil.calibration.ranges import Range
from devil.calibration.rules import chosen_by_rule
from devil.calibration.starting import open_recording
from devil.contract import GRAPHS
from devil.errors import CalibrationError
from devil.progress import no_progress
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine
from devil.runtime.pipeline import Grounder
from tests.calibration.conftest import QUANTISED


def test_the_bundle_says_what_was_quantised_and_keeps_the_rest(recording, calibrated):
    bundle, source = open_bundle(calibrated), recording.bundle
    assert bundle.precision == "int8"
    assert set(bundle.manifest.quantisation) == set(QUANTISED)
    assert {bundle.manifest.graph_precision(graph) for graph in QUANTISED} == {"fp32"}
    assert bundle.graph_hash("language") == source.graph_hash("language")
    for graph in QUANTISED:
        assert bundle.manifest.weight_bytes[graph] < source.manifest.weight_bytes[graph]
        stored = ir.load(bundle.path(graph)).graph.initializers.values()
        assert sum(value.const_value.nbytes for value in stored) == bundle.manifest.weight_bytes[graph]


def test_the_bundle_answers_as_the_original_does(recording, calibrated):
    clip = recording.captures.clip(0)
    answers = [
        Grounder(bundle, OnnxRuntimeEngine(threads=1)).encode(clip.path).ground(clip.sentences[0])
        for bundle in (recording.bundle, open_bundle(calibrated))
    ]
    assert answers[0].text == answers[1].text
    cosine = np.dot(answers[0].rst, answers[1].rst) / np.linalg.norm(answers[0].rst) / np.linalg.norm(answers[1].rst)
    assert cosine > 0.999


def test_the_same_clips_give_the_same_bytes_of_every_graph(bundle, alone, tmp_path):
    """Recorded, observed and chosen anew, in folders of their own."""
    for name in ("one", "two"):
        options = alone(precision="int4", ranges="mse", block_size=16)  # larger ones do not fit the small model
        recording = open_recording(options, bundle, no_progress)
        made = build_parts(recording, options, {}, no_progress).graphs
        assert tuple(made) == GRAPHS
        write_calibrated(recording.bundle, tmp_path / name, "int4", made)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_a_calibrated_bundle_is_not_calibrated_again(calibrated):
    with pytest.raises(CalibrationError, match="is quantised already"):
        check_source(open_bundle(calibrated))


def test_a_bundle_of_bf16_is_refused(recording):
    bundle = replace(recording.bundle, manifest=replace(recording.bundle.manifest, precision="bf16"))
    with pytest.raises(CalibrationError, match="bf16"):
        check_source(bundle)


def test_all_range_rules_are_measured_and_the_best_is_taken(graphs):
    graph = graphs["vision"]
    chosen = chosen_by_rule(graph.layers, "int8")
    rule, errors = graph.best_rule(chosen)
    assert errors[rule] == min(errors.values())
    assert errors[rule] < 0.1
    assert len(set(errors.values())) > 1


def test_quantising_more_layers_errs_more_and_none_not_at_all(graphs):
    graph = graphs["vision"]
    every = dict.fromkeys(graph.layers, "int8")
    assert graph.error({}, "mse") < 1e-6 < graph.error(chosen_by_rule(graph.layers, "int8"), "mse")
    assert graph.error(chosen_by_rule(graph.layers, "int8"), "mse") < graph.error(every, "mse")


def test_histograms_count_what_the_graph_computes(recording, graphs):
    """Of one activation, against the values read out of the graph whole."""
    graph = graphs["backbone"]
    name = next(layer.input for layer in graph.layers if layer.role == "down")
    reader = ActivationReader(graph.model, [name], recording.bundle.folder, 1)
    values = np.concatenate([
        value.ravel() for run in recording.captures.runs("backbone") for feeds in one_by_one("backbone", run.feeds)
        for _, value in reader.read(feeds)
    ])  # fmt: skip
    found = graph.histograms[name]
    assert (found.total, found.lowest, found.highest) == (values.size, values.min(), values.max())
    assert graph.ranges("max", "int8")[name] == Range(values.max())


def test_only_the_vision_encoder_is_centred(graphs, monkeypatch):
    one_sided = Histogram()
    one_sided.add(np.linspace(0, 4, 1000))
    for name, graph in graphs.items():
        monkeypatch.setattr(graph, "histograms", dict.fromkeys(graph.histograms, one_sided))
        centred = {value for value, its in graph.ranges("max", "int8").items() if its.centre}
        assert centred == (set(graph.histograms) if name == "vision" else set())


def test_the_manifest_counts_the_layers_that_are_centred(graphs):
    graph = graphs["vision"]
    part = quantised_part(graph, chosen_by_rule(graph.layers, "int8"), "mse", {}, "by rule", 16)
    centred = [node.name for node in part.model.graph if node.name.endswith("_uncentred")]
    assert part.record["centred"] == len(centred) > 0


def test_what_a_convolution_takes_stays_around_zero(graphs, monkeypatch):
    """Also where products take it too."""
    graph, one_sided = graphs["backbone"], Histogram()
    one_sided.add(np.linspace(0, 4, 1000))
    monkeypatch.setattr("devil.calibration.graph.is_centred", lambda _graph: True)
    monkeypatch.setattr(graph, "histograms", dict.fromkeys(graph.histograms, one_sided))
    convolved = {node.inputs[0].name for node in graph.model.graph if node.op_type == "Conv"}
    assert convolved
    around_zero = {value for value, its in graph.ranges("max", "int8").items() if not its.centre}
    assert around_zero == convolved


def test_values_are_read_in_groups_that_fit(recording, graphs, monkeypatch):
    graph = graphs["grounder"]
    names = [layer.input for layer in graph.layers]
    feeds = next(iter(recording.captures.runs("grounder"))).feeds
    whole = dict(ActivationReader(graph.model, names, recording.bundle.folder, 1).read(feeds))
    monkeypatch.setattr("devil.calibration.activations.GROUP_BYTES", 20_000)
    reader = ActivationReader(graph.model, names, recording.bundle.folder, 1)
    pieces = dict(reader.read(feeds))
    assert len(reader._grouped(feeds)) > 2
    assert whole.keys() == pieces.keys() == set(names)
    for name, values in whole.items():
        np.testing.assert_array_equal(values, pieces[name])


def test_observing_is_not_repeated_unless_something_changed(recording, graphs):
    names = {layer.input for layer in graphs["vision"].layers}
    asked = []

    def told(stage, *_count):
        asked.append(stage)

    observe(recording.bundle, "vision", names, recording.captures, recording.work, 1, told)
    assert not asked
    observe(recording.bundle, "vision", set(sorted(names)[1:]), recording.captures, recording.work, 1, told)
    assert asked
    observe(recording.bundle, "vision", names, recording.captures, recording.work, 1, no_progress)


def test_an_activation_that_is_no_number_is_named(recording, graphs, tmp_path):
    """A weight of infinity in the middle of the graph: the first layer behind it is told."""
    graph = graphs["vision"]
    model, layer = graph.model.clone(), next(one for one in graph.layers if one.role == "linear")
    value = model.graph.initializers[layer.weight]
    value.const_value = ir.tensor(np.full(value.const_value.shape.numpy(), np.inf, np.float32), name=layer.weight)
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in recording.bundle.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    ir.save(model, folder / "vision.onnx")
    bundle = replace(recording.bundle, folder=folder)
    with pytest.raises(CalibrationError, match=r"tensor \S+ of graph vision .* no numbers"):
        observe(bundle, "vision", {one.input for one in graph.layers}, recording.captures, tmp_path, 1, no_progress)


def test_deformable_attention_is_left_alone_with_its_function(recording, calibrated):
    found, before = (ir.load(bundle.path("grounder")) for bundle in (open_bundle(calibrated), recording.bundle))
    assert set(before.functions) <= set(found.functions)
    attention = [node for node in found.graph if node.op_type == "MultiScaleDeformableAttention"]
    assert len(attention) == Counter(node.op_type for node in before.graph)["MultiScaleDeformableAttention"]
    for node in attention:  # the points that are sampled are not rounded
        assert all(value.producer() is None or value.producer().op_type != "DequantizeLinear" for value in node.inputs)


def test_a_bundle_of_fp8_stores_such_weights_and_runs(recording, graphs, tmp_path):
    graph = graphs["vision"]
    part = quantised_part(graph, chosen_by_rule(graph.layers, "fp8"), "mse", {}, "by rule")
    stored = [value for value in part.model.graph.initializers.values() if value.dtype == GRIDS["fp8"].ir_type]
    assert len([value for value in stored if value.shape]) > 4
    assert part.error < 0.1
    assert part.record["centred"] == 0
    write_calibrated(recording.bundle, tmp_path / "fp8", "fp8", {"vision": part})
    bundle, clip = open_bundle(tmp_path / "fp8"), recording.captures.clip(0)
    answer = Grounder(bundle, OnnxRuntimeEngine(threads=1)).encode(clip.path).ground(clip.sentences[0])
    assert answer.text == recording.captures.answers(0)[0].text


def test_weights_with_a_second_name_are_read(recording, graphs, tmp_path):
    """As those of a bundle that shares files with another are; ONNX IR alone refuses to read them."""
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in recording.bundle.folder.iterdir():
        (linked / path.name).hardlink_to(path)
    with pytest.raises(ValueError, match="hard links"):
        next(
            value.const_value.numpy()
            for value in ir.load(linked / "vision.onnx").graph.initializers.values()
            if isinstance(value.const_value, ir.ExternalTensor)
        )
    graph = GraphCalibration(replace(recording.bundle, folder=linked), "vision", recording.captures, recording.work, 1)
    chosen = chosen_by_rule(graph.layers, "int8")
    assert graph.error(chosen, "mse") == graphs["vision"].error(chosen, "mse")
