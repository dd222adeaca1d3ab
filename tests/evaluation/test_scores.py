"""Answers of known quality give known figures."""

import dataclasses

import numpy as np
import pytest

from devil.data.annotation import Problem
from devil.data.moments import Moment
from devil.data.records import read_records
from devil.data.writer import CONTROL
from devil.errors import AnnotationError, SentenceError, VideoError
from devil.evaluation.asking import ask
from devil.evaluation.datasets import Dataset
from devil.evaluation.summary import follows_sentence, summarise
from devil.metrics import METRICS, bootstrap, constant_answer, scores
from tests.evaluation.conftest import Oracle


def dataset(cases, problems=(), control=False):
    return Dataset("test", "digest", tuple(cases), tuple(problems), control)


def asked_of(oracle, cases, control=False):
    return [ask(index, case, oracle, control) for index, case in enumerate(cases)]


def test_the_truth_scores_one(oracle, records):
    values = summarise(dataset(records), asked_of(oracle, records))
    assert values["metrics"] == dict.fromkeys((*METRICS, "box_iou"), 1.0)
    assert values["intervals"] == {name: [1.0, 1.0] for name in (*METRICS, "box_iou")}
    assert all(value < 1 for value in values["baseline"].values())
    assert (values["samples"], values["skipped"]) == (len(records), {})


def test_by_type_counts_kinds_and_forms(oracle, records):
    by_type = summarise(dataset(records), asked_of(oracle, records))["by_type"]
    assert set(by_type) == {record.kind for record in records} | {record.form for record in records}
    assert sum(by_type[form]["samples"] for form in {record.form for record in records}) == len(records)


def test_half_of_each_box_halves_the_tube_but_not_the_span(oracle, records):
    def left_half(reply, _):
        boxes = reply.boxes.copy()
        boxes[:, 2] = (boxes[:, 0] + boxes[:, 2]) / 2
        return dataclasses.replace(reply, boxes=boxes)

    oracle.spoil = left_half
    metrics = summarise(dataset(records), asked_of(oracle, records))["metrics"]
    assert (metrics["m_tIoU"], metrics["exact_span"], metrics["vIoU@0.3"]) == (1, 1, 1)
    assert metrics["m_vIoU"] == pytest.approx(0.5, abs=1e-6)
    assert metrics["box_iou"] == pytest.approx(0.5, abs=1e-6)


def test_a_wrong_span_leaves_the_box_figure_alone(oracle, records):
    oracle.spoil = lambda reply, _: dataclasses.replace(reply, span=None)
    metrics = summarise(dataset(records), asked_of(oracle, records))["metrics"]
    assert metrics["box_iou"] == 1
    assert all(metrics[name] == 0 for name in METRICS)


def test_figures_are_means_of_the_samples_scores(oracle, records):
    def shifted(reply, _):
        return dataclasses.replace(reply, span=(reply.span[0] + 0.4, reply.span[1] + 0.4), boxes=reply.boxes + 0.02)

    oracle.spoil = shifted
    asked = asked_of(oracle, records)
    values, samples = summarise(dataset(records), asked), [one.sample for one in asked]
    means, baseline = scores(samples).mean(axis=0), scores(constant_answer(samples)).mean(axis=0)
    low, high = bootstrap(scores(samples))
    for column, name in enumerate(METRICS):
        assert values["metrics"][name] == pytest.approx(means[column], rel=1e-12)
        assert values["baseline"][name] == pytest.approx(baseline[column], rel=1e-12)
        assert values["intervals"][name] == pytest.approx([low[column], high[column]], rel=1e-12)


def test_a_figure_that_some_clips_lack_has_the_interval_of_the_others(oracle, records):
    """The box figure counts clips that have a true box in a sampled frame; the other figures count all clips."""
    asked = asked_of(oracle, records)
    blank = dataclasses.replace(asked[1].sample, true_boxes=np.full_like(asked[1].sample.true_boxes, np.nan))
    asked[1] = dataclasses.replace(asked[1], sample=blank)
    values = summarise(dataset(records), asked)
    table = scores([one.sample for one in asked])
    low, high = bootstrap(table)
    assert 0 < table[:, 1].mean() < 1
    assert values["intervals"]["m_vIoU"] == pytest.approx([low[1], high[1]], rel=1e-12)
    assert values["intervals"]["box_iou"] == [1.0, 1.0]


def test_temporal_sets_report_recalls(records):
    spans = [(0.0, 2.0), (1.0, 2.0), (0.0, 1.0)]
    told = [(0.0, 2.0), (1.0, 1.4), None]  # overlaps 1, 0.4, 0
    cases = [Moment(record.path, record.sentence, span) for record, span in zip(records, spans, strict=False)]
    oracle = Oracle(list(records))
    answers = iter(told)
    oracle.spoil = lambda reply, _: dataclasses.replace(reply, span=next(answers))
    values = summarise(dataset(cases), asked_of(oracle, cases))
    assert values["metrics"] == pytest.approx({"mIoU": 1.4 / 3, "R1@0.3": 2 / 3, "R1@0.5": 1 / 3, "R1@0.7": 1 / 3})
    assert values["by_type"] == {}
    assert set(values["baseline"]) == set(values["intervals"]) == set(values["metrics"])


def test_what_cannot_be_asked_is_counted_and_not_replaced(oracle, records, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    cases = [dataclasses.replace(records[0], path=broken), *records, dataclasses.replace(records[1], path=broken)]
    asked = asked_of(oracle, cases)
    values = summarise(dataset(cases, [Problem(3, "file missing: a.mp4"), Problem(4, "file missing: b.mp4")]), asked)
    assert values["skipped"] == {"file missing": 2, "video unreadable": 2}
    assert values["samples"] == len(records)
    assert values["metrics"]["m_vIoU"] == 1
    assert "broken.mp4" in asked[0].problem


@pytest.mark.parametrize(
    ("error", "reason"), [(SentenceError("empty"), "sentence refused"), (VideoError("long"), "video unreadable")]
)
def test_refusals_of_the_model_are_skipped_too(oracle, records, error, reason):
    def refuse(*_):
        raise error

    oracle.spoil = refuse
    asked = asked_of(oracle, records)
    assert {one.problem.split(":")[0] for one in asked} == {reason}
    with pytest.raises(AnnotationError, match=reason):
        summarise(dataset(records), asked)


def test_an_image_counts_by_its_box(oracle, records, tmp_path):
    from PIL import Image

    Image.new("RGB", (40, 30)).save(tmp_path / "picture.png")
    image = dataclasses.replace(
        records[0], path=tmp_path / "picture.png", is_image=True, segment=(0, 0), start=0, end=0,
        boxes=np.array([[0.1, 0.2, 0.5, 0.6]], np.float32), answer="It is here. [BOX]",
    )  # fmt: skip
    oracle.records.append(image)
    values = summarise(dataset([image]), asked_of(oracle, [image]))
    assert (values["metrics"]["m_vIoU"], values["metrics"]["m_tIoU"]) == (1, 1)


@pytest.fixture(scope="module")
def controls(annotations):
    return read_records(annotations.parent / CONTROL)[0]


@pytest.mark.parametrize("follows", [True, False])
def test_control_tells_a_listener_from_one_who_is_deaf(controls, follows):
    oracle = Oracle(list(controls))
    asked = asked_of(oracle, controls, control=True)
    for one in asked:
        boxes = one.rivals[0 if follows else 1]
        object.__setattr__(one.sample, "boxes", boxes)
    judged = [one for one in asked if not np.isnan(one.rivals).all()]
    assert judged
    control = summarise(dataset(controls, control=True), asked)["control"]
    assert control == {"moved": float(follows), "interval": [float(follows)] * 2, "judged": len(judged)}


def test_control_counts_no_box_as_not_moved_and_never_judges_unseen_pairs(controls):
    one = asked_of(Oracle(list(controls)), controls[:1], control=True)[0]
    blind = dataclasses.replace(one.sample, boxes=np.full_like(one.sample.boxes, np.nan))
    seen = np.broadcast_to(np.array([0.1, 0.1, 0.2, 0.2]), one.rivals.shape)
    assert follows_sentence(dataclasses.replace(one, sample=blind, rivals=seen)) is False
    assert follows_sentence(dataclasses.replace(one, rivals=np.full_like(one.rivals, np.nan))) is None
