"""Four synthetic clips, the answerer that knows the truth."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from devil.clip import load_clip
from devil.config import PRESETS
from devil.data.annotation import Record
from devil.data.records import read_records
from devil.data.writer import write_dataset
from devil.evaluation.answerers import Reply

CLIPS = 4


@pytest.fixture(scope="session")
def annotations(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "heldout", "heldout", CLIPS)


@pytest.fixture(scope="session")
def records(annotations):
    return read_records(annotations)[0]


@dataclass
class Oracle:
    """Answers with the truth of the record it is asked about; boxes stay where they last were outside the event.

    `spoil`, where given, changes a reply before it is told.
    """

    records: list[Record]
    spoil: object = None
    identity: dict = field(default_factory=lambda: {"model": "oracle", "precision": "fp32", "engine": "none"})
    asked: list[str] = field(default_factory=list)

    def ask(self, path, sentence, segment):
        self.asked.append(sentence)
        record = next(record for record in self.records if (record.path, record.sentence) == (path, sentence))
        if record.is_image:
            reply = Reply("It is here. [BOX]", None, np.zeros(1), np.zeros(1, int), record.boxes.astype(float))
            return self.spoil(reply, record) if self.spoil else reply
        clip = load_clip(path, PRESETS["tiny"], segment=segment)
        frames = clip.indices[clip.rows]
        inside, boxes = record.at(frames)
        first, last = np.flatnonzero(inside)[[0, -1]]
        boxes[:first], boxes[last + 1 :] = boxes[first], boxes[last]
        span = (round(float(clip.times[first]), 1), round(float(clip.times[last]), 1))
        text = f"It happens from {span[0]} to {span[1]} seconds. [BOX]"
        reply = Reply(text, span, clip.times, frames, boxes.astype(float))
        return self.spoil(reply, record) if self.spoil else reply


@pytest.fixture
def oracle(records):
    return Oracle(list(records))
