"""The search for what is left of a refused result, and the bundles that are put together for it."""

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest

from devil.bundle import FileRecord, open_bundle, write_manifest
from devil.calibration.captures import CalibrationClip
from devil.calibration.verdict import judge as module
from devil.calibration.verdict.asking import Replies
from devil.calibration.verdict.budget import Budget
from devil.calibration.verdict.compose import compose
from devil.calibration.verdict.judge import Judge, Questions, judged_by
from devil.calibration.verdict.timing import Latency
from devil.contract import GRAPHS
from devil.errors import CalibrationError
from devil.evaluation.datasets import Dataset
from tests.calibration.test_verdict import HALF, ORIGINAL, asked, rst

QUESTIONS = Questions(Dataset("four", "digest", (), ()), 4)


@pytest.fixture(scope="module")
def result(bundle, tmp_path_factory):
    """The bundle as if its graphs had been quantised: other files, and a manifest that says so."""
    folder = tmp_path_factory.mktemp("result") / "small"
    shutil.copytree(bundle, folder)
    manifest = open_bundle(bundle).manifest
    files = dict(manifest.files)
    for graph in GRAPHS:
        model = onnx.load(folder / f"{graph}.onnx", load_external_data=False)
        model.doc_string = "quantised"
        onnx.save(model, folder / f"{graph}.onnx")
        files[f"{graph}.onnx"] = FileRecord.of(folder / f"{graph}.onnx")
    said = {graph: {"weights": {"bits": 8}} for graph in GRAPHS}
    write_manifest(folder, replace(manifest, precision="int8", files=files, quantisation=said))
    return folder


class Stage:
    """Plays answers and seconds: a bundle answers wrongly if it has a spoilt graph, and is as slow as its graphs.

    Args:
        spoilt: quantised graphs that make every answer move.
        slow: quantised graphs that take twice as long; the others take half.
    """

    def __init__(self, monkeypatch, spoilt=(), slow=()):
        self.spoilt, self.slow, self.asked = spoilt, slow, []
        monkeypatch.setattr(module, "ask_candidate", self.answers)
        monkeypatch.setattr(module, "time_bundles", self.seconds)

    def answers(self, path, *_others):
        self.asked.append(path)
        if not self._quantised(path) & set(self.spoilt):
            return ORIGINAL
        moved = [asked(index, [0.5, 0.0, 1.0, 1.0]) for index in range(4)]
        return Replies(moved, {index: rst(40) for index in range(4)})

    def seconds(self, paths, *_others, **_more):
        found = {}
        for name, path in paths.items():
            quantised = self._quantised(path)
            found[name] = Latency({graph: (2 if graph in self.slow else 0.5) if graph in quantised else 1
                                   for graph in GRAPHS})  # fmt: skip
        return found

    @staticmethod
    def _quantised(path):
        return set(open_bundle(path, verify=False).manifest.quantisation)


def verdict(bundle, result, work):
    return Judge(bundle, QUESTIONS, None, Budget.of("int8"), work).judge(result, {})


def test_a_good_result_needs_no_alternative(bundle, result, tmp_path, monkeypatch):
    stage = Stage(monkeypatch)
    found = verdict(bundle, result, tmp_path)
    assert found.passed
    assert stage.asked == [bundle, result]


def test_a_planted_slow_graph_is_left_out_of_the_alternative(bundle, result, tmp_path, monkeypatch):
    Stage(monkeypatch, slow=["grounder"])
    judge = Judge(bundle, QUESTIONS, None, Budget.of("int8"), tmp_path)
    found = judge.judge(result, {})
    assert found.complaints == ("grounder takes 2.00 times as long",)
    best = found.candidates[found.alternative]
    assert best.graphs == ("vision", "language", "backbone")
    assert open_bundle(judge.path(best.name)).manifest.quantisation.keys() == set(best.graphs)


def test_parts_of_a_refused_result_are_judged_only_where_they_are_wanted(bundle, result, tmp_path, monkeypatch):
    stage = Stage(monkeypatch, spoilt=["vision"])
    judge = Judge(bundle, QUESTIONS, None, Budget.of("int8"), tmp_path)
    found = judge.judge(result, {}, look_further=False)
    assert not found.passed
    assert stage.asked == [bundle, result]
    judge.judge(result, {})
    assert len(stage.asked) > 2
    assert stage.asked.count(result) == 1


def test_a_spoilt_and_a_slow_graph_are_both_left_out(bundle, result, tmp_path, monkeypatch):
    Stage(monkeypatch, spoilt=["vision"], slow=["grounder"])
    found = verdict(bundle, result, tmp_path)
    assert len(found.complaints) == 2  # m_vIoU and speed
    assert found.candidates[found.alternative].graphs == ("language", "backbone")


def test_where_every_graph_is_bad_the_original_is_named(bundle, result, tmp_path, monkeypatch):
    Stage(monkeypatch, spoilt=GRAPHS)
    assert verdict(bundle, result, tmp_path).alternative == bundle.name


def test_a_bundle_of_parts_is_whole_and_says_what_it_is(bundle, result, tmp_path):
    original, quantised = open_bundle(bundle), open_bundle(result)
    path = compose(tmp_path / "parts", original, quantised, ["backbone"])
    found = open_bundle(path, verify=True)
    assert found.manifest.quantisation.keys() == {"backbone"}
    assert found.precision == "int8"
    for graph in GRAPHS:
        source = quantised if graph == "backbone" else original
        assert found.graph_hash(graph) == source.graph_hash(graph)
    assert open_bundle(compose(tmp_path / "none", original, quantised, [])).precision == original.precision


def test_without_truth_the_originals_answers_stand_for_it():
    silent = asked(1, HALF, span=None)
    told = Replies([asked(0, [0.5, 0, 1, 1]), asked(1, HALF)], {0: rst(0), 1: rst(0)})
    truth = Replies([asked(0, [0.5, 0, 1, 1], span=(0.0, 1.0)), silent], {})
    found = judged_by(told, truth)
    assert [one.index for one in found.asked] == [0]  # of the other nothing is known
    assert found.asked[0].sample.true_span == (0.0, 1.0)
    np.testing.assert_array_equal(found.asked[0].sample.true_boxes, truth.asked[0].sample.boxes)
    questions = Questions.untold([CalibrationClip("a.mp4", ("one", "two"))], 9)
    assert [case.sentence for case in questions.dataset.cases] == ["one", "two"]
    assert not questions.has_truth


def test_where_no_answer_is_left_the_judgement_is_refused(bundle, result, tmp_path, monkeypatch):
    Stage(monkeypatch)
    monkeypatch.setattr(module, "ask_candidate", lambda *_: Replies([], {}))
    with pytest.raises(CalibrationError, match="no answer is left to judge"):
        verdict(bundle, result, tmp_path)
