"""The page shows the right clips, the right boxes, and needs nothing but itself."""

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image, ImageColor

from devil.evaluation.asking import ask
from devil.evaluation.datasets import Dataset
from devil.evaluation.report import ranked, report_page
from devil.evaluation.samples import Asked
from devil.evaluation.strips import TOLD, TRUE, shown_rows, strip
from devil.evaluation.summary import summarise
from devil.metrics import Sample


@pytest.fixture
def asked(oracle, records):
    return [ask(index, record, oracle) for index, record in enumerate(records)]


def page(asked, records, control=False):
    dataset = Dataset("test", "", tuple(records), (), control)
    return report_page("a <model>", summarise(dataset, asked), asked, dataset)


def rows_under(text, heading):
    """First cells of the table under a heading."""
    _, found, rest = text.partition(f"<h2>{heading}</h2>")
    return re.findall("<tr><td>([^<]*)", rest.partition("</table>")[0]) if found else []


def drawn(image, colour):
    """Pixels of a colour, bool [H, W]."""
    return (np.asarray(image) == ImageColor.getrgb(colour)).all(-1)


def test_the_page_is_self_contained_and_escaped(asked, records):
    asked[0] = dataclasses.replace(asked[0], text="<script>alert(1)</script>")
    text = page(asked, records)
    assert "<script" not in text
    assert "a &lt;model&gt;" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)
    for record in records:
        assert record.sentence in text
    for heading in ("Figures", "Best", "m_vIoU", "box_iou", "baseline"):
        assert heading in text
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", text)
    assert len(pictures) == len(records)
    assert Image.open(io.BytesIO(base64.b64decode(pictures[0]))).format == "JPEG"


def test_kinds_and_forms_are_tables_of_their_own(asked, records):
    text = page(asked, records)
    assert rows_under(text, "By kind of sentence") == sorted({record.kind for record in records})
    assert rows_under(text, "By form of sentence") == sorted({record.form for record in records})
    bare = [dataclasses.replace(one, kind="", form="") for one in asked]
    assert "By kind" not in page(bare, records)
    assert "By form" not in page(bare, records)


def test_a_limited_run_says_how_many_questions_there_are(asked, records):
    assert "4 sentences." in page(asked, records)
    assert "Limited to the first 3 of 4 questions." in page(asked[:3], records)
    skipped = [*asked[:2], Asked(2, "gone.mp4", "x", problem="video unreadable: gone")]
    assert "Limited to the first 3 of 4 questions, 2 of them with an answer." in page(skipped, records)


def test_a_control_run_explains_its_figure(asked, records):
    rivals = [dataclasses.replace(one, rivals=np.stack([one.sample.boxes] * 2)) for one in asked]
    text = page(rivals, records, control=True)
    assert "(4 judged)" in text
    assert "A control run asks" in text
    assert "A control run asks" not in page(asked, records)


def test_wide_tables_scroll_in_themselves(asked, records):
    text = page(asked, records)
    assert text.count("<table>") == text.count("<div class=table><table>") == text.count("</table></div>") > 0
    assert ".table { overflow-x: auto;" in text


def test_what_was_left_out_is_listed(asked, records):
    asked.append(Asked(len(asked), "gone.mp4", "x", problem="video unreadable: gone"))
    assert "<td>video unreadable</td><td>1</td>" in page(asked, records)


def test_a_video_that_vanished_is_named_so(asked, records):
    asked[0] = dataclasses.replace(asked[0], path="/nowhere/gone.mp4")
    assert page(asked, records).count("cannot be read any more") == 1


def with_overlap(index, overlap):
    """An answer whose boxes have this IoU with the true ones over the right span."""
    true = np.array([[0.0, 0.0, 1.0, 0.5]] * 2)
    told = true * [1, 1, overlap, 1]
    return Asked(index, "a.mp4", "x", sample=Sample(np.array([0.0, 1.0]), (0.0, 1.0), true, (0.0, 1.0), told))


def test_best_median_and_worst_are_by_tube_overlap():
    overlaps = np.random.RandomState(0).permutation(11) / 10
    groups = ranked([with_overlap(index, overlap) for index, overlap in enumerate(overlaps)], by_span=False)
    found = {name: [round(overlaps[one.index], 1) for one in group] for name, group in groups.items()}
    assert found == {"Best": [1.0, 0.9, 0.8], "Median": [0.6, 0.5, 0.4], "Worst": [0.0, 0.1, 0.2]}


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
def test_few_clips_are_shown_once_each(count):
    groups = ranked([with_overlap(index, 0.5) for index in range(count)], by_span=True)
    shown = [one.index for group in groups.values() for one in group]
    assert len(shown) == len(set(shown)) == count


@pytest.mark.parametrize("count", [1, 2, 7, 8, 16, 64])
def test_strips_show_first_and_last_frame(count):
    rows = shown_rows(count)
    assert (rows[0], rows[-1], len(rows)) == (0, count - 1, min(count, 8))


def test_boxes_are_drawn_where_they_are_and_only_inside_their_spans(asked):
    one = asked[0]
    sample = dataclasses.replace(
        one.sample, true_span=(float(one.sample.times[0]), float(one.sample.times[0])), span=None,
        true_boxes=np.tile([0.25, 0.5, 0.75, 0.9], (len(one.sample.times), 1)),
    )  # fmt: skip
    image = strip(dataclasses.replace(one, sample=sample))
    rows, columns = np.nonzero(drawn(image, TRUE))
    width, height = (image.width + 4) / 8 - 4, image.height
    found = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
    np.testing.assert_allclose(
        found, np.array([0.25, 0.5, 0.75, 0.9]) * [width, height, width, height], atol=2
    )  # rounding, and the line lies one pixel outside
    assert not drawn(image, TOLD).any()
