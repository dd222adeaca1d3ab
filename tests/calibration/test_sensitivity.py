"""Sensitivity and mixed precision: planted bad layers are found and left alone, and the choice is within its limits."""

import itertools
import shutil
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch

from devil.bundle import open_bundle, write_manifest
from devil.calibration.capture import record
from devil.calibration.captures import CalibrationClip, Run
from devil.calibration.graph import GraphCalibration
from devil.calibration.graph_error import relative_error
from devil.calibration.language.calibrate import LanguageRecipe, calibrate_language
from devil.calibration.loading import load_graph
from devil.calibration.options import CalibrateOptions
from devil.calibration.sensitivity import mixed
from devil.calibration.sensitivity.assignment import Option, assign, most_saving, within
from devil.calibration.sensitivity.clips import ClipSplit
from devil.calibration.sensitivity.language import LanguageTask
from devil.calibration.sensitivity.log import TrialLog
from devil.calibration.sensitivity.mixed import MixedChoice, MixedPrecision, chosen_layers, language_scheme, limits
from devil.calibration.sensitivity.tasks import BoxTask, Readout, WordTask, _load, replaced_tokens, replay, word_losses
from devil.calibration.sessions import open_session
from devil.calibration.verdict.budget import Budget
from devil.data.clips import picture_size
from devil.data.scene import make_scene
from devil.data.writer import write_scene
from devil.errors import CalibrationError
from devil.export.onnx_file import store_model
from devil.export.scheme import Scheme
from devil.progress import no_progress
from tests.calibration.test_language_calibration import CONFIG, passes
from tests.qwen2 import devil_config, reference


def option(name, loss, saved=1.0):
    return Option(name, "int8", saved, {"box": loss})


@pytest.mark.parametrize("limit", [0.0, 0.01, 0.05, 0.13, 1.0])
def test_the_longest_row_within_the_limits_is_found(limit):
    losses = [0.03, 0.001, 0.02, 0.2, 0.004, 0.05, 0.0]
    options = [option(f"layer {index}", loss) for index, loss in enumerate(losses)]
    asked = []

    def measure(chosen):
        asked.append(len(chosen))
        return {"box": sum(one.losses["box"] for one in chosen)}

    found = assign(options, {"box": limit}, measure)
    ordered = sorted(loss for loss in losses if loss <= limit)
    expected = max(count for count in range(len(ordered) + 1) if sum(ordered[:count]) <= limit)
    assert [one.losses["box"] for one in found.lowered] == ordered[:expected]
    assert found.losses["box"] == pytest.approx(sum(ordered[:expected]))
    assert len(asked) == found.trials <= 4


def test_what_saves_more_goes_first():
    options = [option("dear", 0.02, saved=1), option("cheap", 0.03, saved=10)]
    found = assign(options, {"box": 0.03}, lambda chosen: {"box": sum(one.losses["box"] for one in chosen)})
    assert [one.layer for one in found.lowered] == ["cheap"]


def test_layers_that_alone_are_out_of_the_limits_are_never_taken():
    options = [option("bad", 0.5), option("broken", float("nan")), option("good", 0.01)]
    found = assign(options, {"box": 0.1}, lambda chosen: {"box": 0.01 * len(chosen)})
    assert [one.layer for one in found.lowered] == ["good"]
    assert assign(options[:2], {"box": 0.1}, None).lowered == ()
    assert not within({"box": float("nan")}, {"box": 1})


def test_of_a_layers_options_the_one_that_saves_most_is_kept():
    options = [option("a", 0.01, 2), option("a", 0.2, 9), option("a", 0.02, 3), option("b", 0.01, 1)]
    kept = most_saving(options, {"box": 0.1})
    assert [(one.layer, one.saved) for one in kept] == [("a", 3), ("b", 1)]


def test_trials_are_measured_once_and_a_cut_line_is_measured_again(tmp_path):
    path, counted = tmp_path / "log.jsonl", itertools.count()

    def measure():
        return {"box": float(next(counted))}

    log = TrialLog(path, {"form": "int8"})
    assert [log.losses(name, measure)["box"] for name in ("a", "b", "a")] == [0, 1, 0]
    path.write_text(path.read_text()[:-8])
    log = TrialLog(path, {"form": "int8"})
    assert ("a" in log, "b" in log) == (True, False)
    assert log.losses("b", measure)["box"] == 2
    assert "a" not in TrialLog(path, {"form": "fp8"})


def test_limits_follow_the_budget():
    assert limits(Budget.of("int8", ["rst=0.98", "box=0.9", "text=6"])) == pytest.approx(
        {"rst": 0.02, "text": 0.06, "box": 0.1}
    )
    assert limits(Budget.of("int8"), 0.5)["text"] == pytest.approx(0.015)


def test_word_losses_by_hand():
    config = devil_config(CONFIG)  # token 1 is [BOX]
    logits = np.zeros((3, CONFIG.vocab), np.float32)
    logits[[0, 1, 2], [5, 1, 7]] = 1
    hidden = np.eye(3, dtype=np.float32)
    expected = Readout(logits, hidden, np.array([0, 0, 1]))
    turned = hidden.copy()
    turned[1] = (0, 0.6, 0.8)
    other = logits.copy()
    other[2] = 0
    other[2, 9] = 1
    # Two words of the third token swap what they are likely by, of which all others have the same.
    likely, rest = np.e / (np.e + CONFIG.vocab - 1), 1 / (np.e + CONFIG.vocab - 1)
    found = word_losses([Readout(other, turned, expected.ids)], [expected], config, answers=2)
    assert found == pytest.approx({"rst": 0.4, "text": (likely - rest) / 2}, rel=1e-5)
    at_it = replace(config, rst_position="input")
    assert word_losses([Readout(other, turned, expected.ids)], [expected], at_it, 2)["rst"] == pytest.approx(0)


def test_the_text_loss_is_how_often_a_small_change_turns_the_likeliest_word():
    random = np.random.default_rng(0)
    logits = np.zeros((200_000, 2), np.float32)
    logits[:, 0] = random.uniform(-8, 8, len(logits))  # all margins alike
    noisy = logits + random.normal(0, 0.3, logits.shape).astype(np.float32)
    hidden, ids = np.ones((len(logits), 1), np.float32), np.zeros(len(logits), np.int64)
    config = devil_config(CONFIG)
    found = word_losses([Readout(noisy, hidden, ids)], [Readout(logits, hidden, ids)], config, len(logits))
    changed = (noisy.argmax(1) != logits.argmax(1)).mean()
    assert found["text"] == pytest.approx(changed, rel=0.05)


def test_a_planted_bad_layer_of_the_language_model_keeps_its_bits(tmp_path):
    bad = "lm_head"
    weights = {key: values.clone() for key, values in reference(CONFIG).state_dict().items()}
    # Two inputs of the readout that are always zero have huge weights: floats do not care, and four bits leave nothing
    # of the other weights of their blocks.
    weights["model.norm.weight"][[20, 90]] = 0
    weights["lm_head.weight"][:, [20, 90]] = 60
    scheme, asked = Scheme(4, 64, 16, 4), passes(CONFIG, 2)
    recipe = LanguageRecipe(scheme, torch.float32)
    calibrated = calibrate_language(weights.__getitem__, CONFIG, asked, recipe, tmp_path)
    task = LanguageTask(devil_config(CONFIG), weights.__getitem__, calibrated, scheme, asked, 2)
    assert task.losses([])["text"] == 0
    options = [Option(name, "int4", count, {"text": task.losses([name])["text"]}) for name, count in task.linears()]
    worst = max(options, key=lambda one: one.losses["text"])
    assert worst.layer == bad
    limit = {"text": worst.losses["text"] * 0.9}
    found = assign(options, limit, lambda chosen: task.losses([one.layer for one in chosen]))
    lowered = {one.layer for one in found.lowered}
    assert lowered
    assert bad not in lowered
    assert task.losses(lowered)["text"] == found.losses["text"] <= limit["text"]
    chosen = language_scheme(MixedChoice("language", tuple(options), found), scheme)
    assert (chosen.head_bits, chosen.bits_of(bad)) == (8, 8)
    assert {name for name, _ in task.linears() if chosen.bits_of(name) == 4} == lowered


@pytest.fixture(scope="module")
def recorded(bundle, tmp_path_factory):
    """The small model's bundle with an outlier planted in its backbone, what it was fed, the planted layer, and the
    same without the outlier."""
    folder = tmp_path_factory.mktemp("planted")
    planted = planted_bundle(bundle, folder / "planted", 500)
    planted_bundle(bundle, folder / "plain", 1)
    clips = []
    for seed in (3, 8):
        scene = make_scene(seed, "calibration")
        write_scene(folder / f"{seed}.mp4", scene, picture_size(scene, 90))
        clips.append(CalibrationClip(folder / f"{seed}.mp4", (scene.queries[0].sentence,)))
    options = CalibrateOptions(threads=1, clips=2, frames_per_clip=2)
    captures = record(folder / "planted", clips, folder / "captures", options, [], no_progress)
    return open_bundle(folder / "planted"), captures, planted, open_bundle(folder / "plain")


def planted_bundle(bundle, output, factor):
    """Writes a bundle whose backbone has a planted outlier; the layer's name."""
    shutil.copytree(bundle, output)
    (output / "backbone.onnx.data").unlink()
    model = load_graph(bundle / "backbone.onnx")
    name = plant_outlier(model, factor)
    for value in model.graph.initializers.values():  # the file of weights is written anew
        value.const_value = ir.tensor(value.const_value.numpy().copy(), name=value.name)
    records = store_model(model, output / "backbone.onnx")
    manifest = open_bundle(bundle).manifest
    write_manifest(output, replace(manifest, files={**manifest.files, **records}))
    return name


def plant_outlier(model, factor):
    """Makes one input of a feed-forward `factor` times as large and its weights as much smaller; the layer's name.

    What the graph computes stays the same, but eight bits for all inputs are then nothing for the others. Before that
    all weights of the layer are made 400 times as large: random ones add next to nothing to the sum around them.
    """
    for node in model.graph:
        producer = node.inputs[0].producer() if node.op_type == "MatMul" else None
        if producer is None or producer.op_type != "LayerNormalization" or len(producer.outputs[0].uses()) != 1:
            continue
        if node.inputs[1].const_value is None:
            continue
        for value, of_one, of_all in ((producer.inputs[1], factor, 1), (producer.inputs[2], factor, 1),
                                      (node.inputs[1], 1 / factor, 400)):  # fmt: skip
            changed = value.const_value.numpy() * np.float32(of_all)
            changed[0] *= of_one
            value.const_value = ir.tensor(changed, name=value.name)
        return node.name
    raise AssertionError("no feed-forward behind a norm")


class Features:
    """Stands in for `BoxTask`: boxes of a random detector jump at any change, its features do not.

    Args:
        bundle, captures: as there.
    """

    def __init__(self, bundle, captures, _threads=1):
        self._frames = [run.feeds for run in captures.runs("backbone")]
        session = open_session(ir.load(bundle.path("backbone")), bundle.folder, threads=1)
        self._expected = [session.run(["features"], dict(feeds))[0] for feeds in self._frames]

    def backbone(self, run):
        pairs = zip(self._frames, self._expected, strict=True)
        return {"box": max(relative_error(run(feeds)["features"], expected) for feeds, expected in pairs)}


def test_a_planted_outlier_of_a_traced_graph_keeps_its_floats(recorded, tmp_path, monkeypatch):
    monkeypatch.setattr(mixed, "BoxTask", Features)
    bundle, captures, planted, plain = recorded
    calibration = GraphCalibration(bundle, "backbone", captures, tmp_path, threads=1)
    allowed = {"box": 0.08, "rst": 1, "text": 1}
    clips = ClipSplit(captures, captures, 0)
    found = MixedPrecision(bundle, clips, tmp_path, allowed, threads=1).graph(calibration, "max")
    kinds = {node.name: node.op_type for node in calibration.model.graph}
    assert [one.layer for one in found.options] == [
        layer.name for layer in calibration.layers if kinds[layer.name] == "MatMul"
    ]
    assert len(found.options) < len(calibration.layers)  # convolutions would be no faster
    losses = {one.layer: one.losses["box"] for one in found.options}
    assert max(losses, key=losses.__getitem__) == planted
    assert planted not in found.lowered
    assert len(found.lowered) > len(losses) / 2
    assert found.assignment.losses["box"] <= 0.04
    assert [bar.kept for bar in found.bars() if bar.label == planted] == [True]

    # It is the outlier's fault: the layer of the same function without it loses next to nothing.
    without = GraphCalibration(plain, "backbone", captures, tmp_path / "plain", threads=1)
    layers = {layer: "int8" for layer in without.layers if layer.name == planted}
    session = open_session(without.quantised(layers, "max"), plain.folder, threads=1)
    task = Features(plain, captures)
    lost = task.backbone(lambda feeds: {"features": session.run(["features"], dict(feeds))[0]})["box"]
    assert lost < losses[planted] / 5

    lowered = calibration.quantised(chosen_layers(found, calibration.layers, "int8"), "max")
    kinds = {node.name: node.inputs[1].producer() for node in lowered.graph if node.op_type == "MatMul"}
    assert kinds[planted] is None
    assert all(kinds[name].op_type == "DequantizeLinear" for name in found.lowered if name in kinds)

    # What was measured is not measured again: a second run opens no quantised graph.
    again = MixedPrecision(bundle, clips, tmp_path, allowed, threads=1)
    again._runner = None
    assert again.graph(calibration, "max") == found


def test_boxes_of_other_features_are_lost_and_those_of_the_same_are_not(recorded):
    bundle, captures, _, _ = recorded
    session = open_session(ir.load(bundle.path("backbone")), bundle.folder, threads=1)
    task = BoxTask(bundle, captures, threads=1)

    def features(feeds):
        return {"features": session.run(["features"], dict(feeds))[0]}

    assert task.backbone(features) == pytest.approx({"box": 0}, abs=1e-4)
    assert task.backbone(lambda feeds: {"features": -features(feeds)["features"]})["box"] > 0.1
    ground = _load(bundle, "grounder", 1).run
    assert task.grounder(ground) == pytest.approx({"box": 0}, abs=1e-4)
    assert task.grounder(lambda feeds: ground({**feeds, "rst": -feeds["rst"]}))["box"] > 0.01


def test_a_recording_read_again_says_what_it_said(recorded):
    bundle, captures, _, _ = recorded
    task = WordTask(bundle, captures, threads=1)
    assert task.vision(_load(bundle, "vision", 1).run) == pytest.approx({"rst": 0, "text": 0}, abs=1e-6)

    def blind(feeds):
        return {"visual_tokens": np.zeros_like(_load(bundle, "vision", 1).run(feeds)["visual_tokens"])}

    assert task.vision(blind)["rst"] > 1e-3  # its words are fixed, so that text hardly tells
    runs = list(captures.runs("language", captures.clips[:1]))
    said = replay(_load(bundle, "language", 1), runs)
    rsts = [answer.rst for answer in captures.answers(captures.clips[0])]
    distance = np.abs(said.hidden[None] - np.array(rsts)[:, None]).max(2).min(1)
    assert (distance < 1e-4).all()  # every RST of the recorded answers is among what was read again


def test_other_visual_tokens_take_the_places_of_the_recorded_ones():
    def run(ids, rows):
        return Run("language", 0, {"token_ids": np.array([ids]), "visual_table": np.zeros((rows, 2), np.float32)}, 0, 8)

    runs = [run([100, 101, 5], 2), run([5, 6], 1), run([100], 1)]
    tokens = np.arange(6, dtype=np.float32).reshape(3, 2)
    changed = replaced_tokens(runs, tokens, vocab=100)
    np.testing.assert_array_equal(changed[0].feeds["visual_table"], tokens[:2])
    np.testing.assert_array_equal(changed[1].feeds["visual_table"], np.zeros((1, 2)))
    np.testing.assert_array_equal(changed[2].feeds["visual_table"], tokens[2:])
    with pytest.raises(CalibrationError, match="not of this clip"):
        replaced_tokens(runs, tokens[:2], vocab=100)
