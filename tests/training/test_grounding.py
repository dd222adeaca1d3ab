"""What an annotated clip teaches is what an evaluation of it would score, at any rate and for any short event.

Every picture tells its frame by its brightness, and every box its annotated frame by its left side.
"""

from fractions import Fraction

import numpy as np
import pytest
import torch

from devil.answer import parse_span
from devil.data.annotation import Record
from devil.data.writer import write_video
from devil.evaluation.truth import segment_of, truth_of
from devil.training.grounding import record_batch
from devil.video import probe
from tests.tiny import tiny_config

RATE, COUNT, STEP = 10, 60, 4


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "brighter.mp4"
    pictures = (np.full((64, 64, 3), number * STEP, np.uint8) for number in range(COUNT))
    write_video(path, pictures, Fraction(RATE), (64, 64))
    return path


def annotated(video, fps, segment, event, answer=""):
    """A record whose frames are told in seconds."""
    first, last, start, end = (round(second * fps) for second in (*segment, *event))
    left = np.arange(start, end + 1) / 1000
    boxes = np.stack([left, 0 * left, left + 0.1, 0 * left + 0.5], -1).astype(np.float32)
    return Record(video, "the red circle", answer, False, fps, (first, last), start, end, boxes)


@pytest.mark.parametrize("fps", [10.0, 5.0, 20.0, 30.0])
@pytest.mark.parametrize("segment", [(0, 5.9), (1, 4.6)])
@pytest.mark.parametrize("event", [(2.0, 4.0), (2.2, 2.4), (3.0, 3.0), (1.0, 4.6)])
def test_taught_words_boxes_and_frames_are_those_of_the_event(video, writer, fps, segment, event):
    record = annotated(video, fps, segment, event)
    batch = record_batch(record, tiny_config(), writer)
    told = parse_span(writer.decode(batch.packed.targets.tolist()))
    frame = 1 / min(fps, RATE)
    assert told.start == pytest.approx(event[0] - segment[0], abs=frame / 2 + 0.05)
    assert told.end == pytest.approx(event[1] - segment[0], abs=frame / 2 + 0.05)

    shown = batch.frames.float().mean((1, 2, 3)) / STEP / RATE  # seconds of the file
    boxed = (batch.target[:, 0] - batch.target[:, 2] / 2) * 1000 / fps
    torch.testing.assert_close(shown, boxed, rtol=0, atol=frame + 0.02)
    spacing = (segment[1] - segment[0]) / (tiny_config().frames - 1)
    assert len(shown) >= (event[1] - event[0]) // spacing
    info = probe(video)
    truth = truth_of(record, info, segment_of(record, info), np.arange(COUNT))
    assert (told.start, told.end) == pytest.approx(truth.span, abs=0.05 + 1e-9)


def test_an_answer_that_is_told_is_taught_as_it_stands(video, writer):
    words = "It happens from 1.5 to 2.5 seconds. [BOX]"
    batch = record_batch(annotated(video, 20.0, (0, 5.9), (1.5, 2.5), words), tiny_config(), writer)
    assert writer.decode(batch.packed.targets.tolist()) == words


def test_a_segment_that_ends_behind_the_file_teaches_what_is_there(video, writer):
    batch = record_batch(annotated(video, 10.0, (0, 6.4), (2.0, 6.2)), tiny_config(), writer)
    assert len(batch.patches) == tiny_config().frames
    assert batch.present.all()
    assert parse_span(writer.decode(batch.packed.targets.tolist())).start == 2.0
