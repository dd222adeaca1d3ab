"""What is kept and what is refused, from figures worked out by hand; the page; timing that takes turns."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from devil.calibration.verdict.asking import RSTS, Replies, ask_candidate
from devil.calibration.verdict.budget import Budget
from devil.calibration.verdict.charts import Bar
from devil.calibration.verdict.decision import Candidate, decide
from devil.calibration.verdict.figures import Figure, agreement_figures, change_figures, losses, score_figures
from devil.calibration.verdict.page import verdict_page
from devil.calibration.verdict.timing import Latency
from devil.contract import GRAPHS
from devil.data.records import read_records
from devil.data.writer import write_dataset
from devil.errors import UsageError
from devil.evaluation.datasets import Dataset
from devil.evaluation.samples import Asked
from devil.metrics import Sample

HALF = [0.0, 0.0, 0.5, 1.0]


def asked(index, box, text="It happens from 0.0 to 2.0 seconds. [BOX]", span=(0.0, 2.0), path="clip.mp4"):
    """An answer about a clip of three frames whose object fills its left half all the time."""
    times = np.array([0.0, 1.0, 2.0])
    boxes, true = np.tile(box, (3, 1)).astype(float), np.tile(HALF, (3, 1))
    sample = Sample(times, (0.0, 2.0), true, span, boxes)
    return Asked(index, path, "the red circle", text=text, frames=(0, 1, 2), sample=sample)


def rst(degrees):
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)


ORIGINAL = Replies([asked(index, HALF) for index in range(4)], {index: rst(0) for index in range(4)})
CHANGED = Replies(
    [
        asked(0, HALF),
        asked(1, [0.0, 0.0, 0.25, 1.0]),
        asked(2, HALF, text="It happens from 0.0 to 1.0 seconds. [BOX]", span=(0.0, 1.0)),
        asked(3, [np.nan] * 4, text="No.", span=None),
    ],
    {0: rst(0), 1: rst(60), 2: rst(0), 3: None},
)


def test_figures_by_hand():
    changes, agreements = change_figures(CHANGED, ORIGINAL), agreement_figures(CHANGED, ORIGINAL)
    # vIoU: 1, half of every box, two of three frames, none; all four were 1 before.
    assert score_figures(CHANGED)["m_vIoU"].value == pytest.approx((1 + 1 / 2 + 2 / 3 + 0) / 4)
    assert changes["m_vIoU"].value == pytest.approx((0 - 1 / 2 - 1 / 3 - 1) / 4)
    assert agreements["same_text"].value == 0.5
    assert agreements["rst_cosine"].value == pytest.approx((1 + 0.5 + 1) / 3)  # the fourth says nothing
    assert agreements["rst_cosine"].count == 3
    assert agreements["box_iou"].value == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    found = losses(changes, agreements)
    assert found["viou"] == pytest.approx(100 * (1 / 2 + 1 / 3 + 1) / 4)
    assert found["text"] == pytest.approx(50)


def test_intervals_hold_the_value_and_are_narrow_where_nothing_varies():
    figure = agreement_figures(CHANGED, ORIGINAL)["same_text"]
    assert figure.low <= figure.value <= figure.high
    same = change_figures(ORIGINAL, ORIGINAL)["m_vIoU"]
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert Figure.of(np.array([np.nan])) == Figure(None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), Budget(viou=0.5, text=3.0)),
        (("viou=2", "rst=0.99"), Budget(viou=2.0, text=3.0, rst=0.99)),
    ],
)
def test_budgets_are_read(given, expected):
    assert Budget.of("int8", given) == expected


def test_four_bits_may_change_words():
    assert Budget.of("int4") == Budget(viou=1.0, text=None)
    assert Budget.of("int4", ["text=5"]).text == 5


@pytest.mark.parametrize("word", ["speed=2", "viou", "viou=much", "rst=2", "viou=-1", "viou=nan"])
def test_budgets_that_cannot_be_meant_are_refused(word):
    with pytest.raises(UsageError, match="--budget"):
        Budget.of("int8", [word])


def test_a_loss_that_is_no_number_is_out_of_every_budget():
    assert Budget(viou=100).broken({"viou": float("nan"), "text": 0})
    assert Budget(rst=0.9).broken({"viou": 0, "text": 0, "rst": 0.8}) == ["RST cosine 0.8000 (budget 0.9)"]


@pytest.mark.parametrize(
    ("losses", "excess"),
    [
        ({"viou": 0.25, "text": 1.5}, 0.5),
        ({"viou": 0.25, "text": 9.0}, 3.0),
        ({"viou": -2.0, "text": 0.0, "rst": 0.5}, 0.0),
        ({"viou": float("nan"), "text": 0.0}, float("inf")),
    ],
)
def test_the_excess_is_the_worst_loss_by_its_limit(losses, excess):
    assert Budget(viou=0.5, text=3.0).excess(losses) == pytest.approx(excess)


def test_the_excess_of_a_floor_is_what_is_lost_below_one():
    assert Budget(viou=None, text=None, rst=0.99, box=0.9).excess({"rst": 0.96, "box": 0.95}) == pytest.approx(4)
    assert Budget(viou=0, text=None).excess({"viou": 0.0}) == 0
    assert Budget(viou=0, text=None).excess({"viou": 0.1}) == float("inf")


def candidate(name, seconds, replies=ORIGINAL, graphs=GRAPHS, size=100):
    latency = Latency(dict(zip(GRAPHS, seconds, strict=True)))
    changes, agreements = change_figures(replies, ORIGINAL), agreement_figures(replies, ORIGINAL)
    return Candidate(name, size, latency, score_figures(replies), changes, agreements, graphs)


FP32 = candidate("fp32", (1, 1, 1, 1), graphs=())


def verdict(result, *others, accept=False):
    candidates = {one.name: one for one in (FP32, result, *others)}
    return decide(result.name, "fp32", candidates, Budget.of("int8"), accept)


def test_a_faster_bundle_that_answers_alike_is_kept():
    found = verdict(candidate("int8", (0.5, 0.5, 0.5, 0.5)))
    assert found.passed
    assert found.alternative is None


def test_a_planted_slow_graph_is_refused_and_the_bundle_without_it_is_named():
    slow, mixed = candidate("int8", (0.5, 0.5, 1.5, 0.5)), candidate("without", (0.5, 0.5, 1, 0.5), graphs=("vision",))
    found = verdict(slow, mixed, candidate("slower", (0.9, 0.9, 1, 0.9), graphs=("vision",)))
    assert found.complaints == ("backbone takes 1.50 times as long",)
    assert found.alternative == "without"


def test_a_graph_that_was_left_as_it_is_cannot_be_too_slow():
    assert verdict(candidate("int8", (0.5, 1.2, 0.5, 0.5), graphs=("vision",))).passed


def test_lost_accuracy_is_refused_and_the_original_is_named_where_nothing_else_is_good():
    found = verdict(candidate("int8", (0.5, 0.5, 0.5, 0.5), CHANGED))
    assert any("points of m_vIoU lost (budget 0.5)" in complaint for complaint in found.complaints)
    assert any("50.0 % of the answers changed (budget 3)" in complaint for complaint in found.complaints)
    assert found.alternative == "fp32"


def test_what_the_user_accepts_is_said_to_be_accepted_and_no_better_than_it_is():
    found = verdict(candidate("int8", (2, 2, 2, 2), CHANGED), accept=True)
    values = json.loads(json.dumps(found.to_json()))
    assert (values["passed"], values["accepted"], values["alternative"]) == (False, True, "fp32")
    assert values["complaints"]


class _Page(HTMLParser):
    """Open tags, and every address that is named."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "rect", "line", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("rect", "line", "circle"):
            assert self.open.pop() == tag


def test_the_page_needs_no_other_file_and_shows_what_was_decided():
    bars = [
        Bar("/encoder/<1>", "backbone", 0.02, False),
        Bar("huge", "grounder", 0.7, True),
        Bar("none", "vision", 0, False),
        Bar("down 4096 → 1024, node_MatMul_753", "vision", 0.1, False),
    ]
    found = verdict(candidate("int8", (0.5, 0.5, 1.5, 0.5), CHANGED))
    text = verdict_page("devil-tiny to int8", found, bars, "loss", ORIGINAL, CHANGED)
    page = _Page(text)
    assert page.open == []
    assert not [address for address in page.addresses if not address.startswith("data:")]
    assert "Refused" in text
    assert "backbone takes 1.50 times as long" in text
    assert "/encoder/&lt;1&gt;" in text
    assert "<b>down</b> the second half of a feed-forward" in text
    assert "<b>offsets</b>" not in text  # no layer of these is shown
    assert text.index("huge") < text.index("/encoder/")  # the worst first
    assert len(re.findall("<circle", text)) == len(found.candidates)
    assert "the video cannot be read any more" in text
    kept = verdict_page("t", verdict(candidate("int8", (0.5,) * 4)), (), "loss", ORIGINAL, ORIGINAL)
    assert "Kept." in kept


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    path = write_dataset(tmp_path_factory.mktemp("data") / "heldout", "heldout", 3)
    return Dataset("three", "digest", tuple(read_records(path)[0]), ())


def test_a_stopped_judgement_goes_on_and_tells_the_same(bundle, questions, tmp_path):
    whole = ask_candidate(bundle, questions, 3, tmp_path / "whole", threads=1)
    assert [one.index for one in whole.asked] == [0, 1, 2]
    assert all(np.isfinite(whole.rsts[index]).all() for index in range(3))

    ask_candidate(bundle, questions, 2, tmp_path / "half", threads=1)
    for file in ("samples.jsonl", RSTS):  # killed in the middle of a line
        path = tmp_path / "half" / file
        path.write_text(path.read_text()[:-40])
    again = ask_candidate(bundle, questions, 3, tmp_path / "half", threads=1)
    assert [one.to_json() for one in again.asked] == [one.to_json() for one in whole.asked]
    for index in range(3):
        np.testing.assert_array_equal(again.rsts[index], whole.rsts[index])
    agreements = agreement_figures(again, whole)
    assert {name: figure.value for name, figure in agreements.items()} == {
        "same_text": 1.0,
        "same_span": 1.0,
        "rst_cosine": pytest.approx(1.0),
        "box_iou": pytest.approx(1.0),
    }


def test_nothing_is_asked_again_where_everything_is_known(bundle, questions, tmp_path, monkeypatch):
    ask_candidate(bundle, questions, 1, tmp_path, threads=1)
    monkeypatch.setattr("devil.calibration.verdict.asking.BundleAnswerer", None)
    assert len(ask_candidate(bundle, replace(questions), 1, tmp_path).asked) == 1
