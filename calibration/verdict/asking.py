"""Asking a candidate the questions it is judged by: answers, tubes and RSTs, one line per question, so that a stopped
run goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from devil.bundle import MANIFEST, open_bundle
from devil.errors import OutputError
from devil.evaluation.answerers import Reply, Segment
from devil.evaluation.asking import ask
from devil.evaluation.datasets import Dataset
from devil.evaluation.samples import Asked, SampleLog
from devil.files import sha256, write_text
from devil.progress import Progress, no_progress
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine
from devil.runtime.pipeline import Grounder

RSTS = "rst.jsonl"


@dataclass(frozen=True)
class Replies:
    """What one candidate said.

    Attributes:
        asked: in the data set's order, those only that could be asked.
        rsts: float32 [hidden] by the question's index; None where the answer has no [BOX].
    """

    asked: Sequence[Asked]
    rsts: dict[int, np.ndarray | None]


class CandidateAnswerer:
    """A bundle on ONNX Runtime's CPU provider. Keeps the last answer's RST."""

    def __init__(self, folder: Path, threads: int):
        self._grounder = Grounder(open_bundle(folder), OnnxRuntimeEngine(threads=threads))
        self.identity = {"digest": sha256(folder / MANIFEST), "engine": self._grounder.engine.name}
        self.rst: np.ndarray | None = None
        self._key, self._video = None, None

    def ask(self, path: Path, sentence: str, segment: Segment) -> Reply:
        self.rst = None
        if self._key != (path, segment):
            self._key, self._video = None, None
            self._video = self._grounder.encode(path, segment=segment)
            self._key = (path, segment)
        answer, clip = self._video.ground(sentence), self._video.clip
        self.rst = answer.rst
        width, height = clip.info.width, clip.info.height
        boxes = np.full((len(clip.rows), 4), np.nan)
        if answer.track:
            boxes = (answer.track.boxes / (width, height, width, height))[clip.rows].astype(np.float64)
        span = (answer.span.start, answer.span.end) if answer.span else None
        return Reply(answer.text, span, clip.times, clip.indices[clip.rows], boxes)


def ask_candidate(
    bundle: Path, dataset: Dataset, limit: int, folder: Path, threads: int = 0, progress: Progress = no_progress
) -> Replies:
    """Asks the first `limit` questions; those that `folder` already has the answers of are not asked again.

    Raises:
        OutputError: the folder cannot be written.
    """
    identity = {"bundle": sha256(bundle / MANIFEST), "dataset": {"name": dataset.name, "digest": dataset.digest}}
    log = SampleLog(folder, identity)
    rsts = _read_rsts(folder / RSTS)
    # A half-written line goes before the next one is added behind it.
    write_text(folder / RSTS, "".join(_line(index, rst) for index, rst in rsts.items()))
    cases = dataset.cases[:limit]
    missing = [index for index in range(len(cases)) if index not in log.asked or index not in rsts]
    answerer = CandidateAnswerer(bundle, threads) if missing else None
    for done, index in enumerate(missing):
        progress("judging", done, len(missing))
        asked = ask(index, cases[index], answerer)
        rsts[index] = answerer.rst
        _append_rst(folder / RSTS, index, answerer.rst)  # before the answer: that one says that the question is done
        log.add(asked)
    progress("judging", len(missing), len(missing))
    every = [log.asked[index] for index in range(len(cases))]
    return Replies([asked for asked in every if asked.sample is not None], rsts)


def _append_rst(path: Path, index: int, rst: np.ndarray | None) -> None:
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(_line(index, rst))
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror})", "free some space and run again") from error


def _line(index: int, rst: np.ndarray | None) -> str:
    return json.dumps({"index": index, "rst": None if rst is None else rst.tolist()}) + "\n"


def _read_rsts(path: Path) -> dict[int, np.ndarray | None]:
    """By index; a line that was cut when a run was killed is left out."""
    found: dict[int, np.ndarray | None] = {}
    if not path.exists():
        return found
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
            found[values["index"]] = None if values["rst"] is None else np.array(values["rst"], np.float32)
        except (ValueError, KeyError, TypeError):
            continue
    return found
