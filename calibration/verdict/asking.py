"""Asking a candidate the questions it is judged by: answers, tubes and RSTs, one line per question, so that a stopped
run goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from devil.bundle import MANIFEST
from devil.evaluation.answerers import BundleAnswerer
from devil.evaluation.asking import ask
from devil.evaluation.datasets import Dataset
from devil.evaluation.samples import Asked, SampleLog
from devil.files import append_text, sha256, write_text
from devil.progress import Progress, no_progress

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


def ask_candidate(
    bundle: Path,
    dataset: Dataset,
    limit: int,
    folder: Path,
    threads: int = 0,
    progress: Progress = no_progress,
    stage: str = "judging",
) -> Replies:
    """Asks the first `limit` questions; those that `folder` already has the answers of are not asked again.

    Args:
        stage: what the progress calls this.

    Raises:
        OutputError: the folder cannot be written.
    """
    identity = {"bundle": sha256(bundle / MANIFEST), "dataset": {"name": dataset.name, "digest": dataset.digest}}
    log = SampleLog(folder, identity)
    rsts = _read_rsts(folder / RSTS)
    # A half-written line goes before the next one is added behind it.
    write_text(folder / RSTS, "".join(_line(index, rst) for index, rst in rsts.items()))
    cases = dataset.cases[:limit]
    about = [(case.path, case.sentence) for case in cases]
    missing = [index for index in range(len(cases)) if index not in rsts or not log.has(index, *about[index])]
    answerer = BundleAnswerer(bundle, threads, check_memory=False, engine="onnxruntime") if missing else None
    for done, index in enumerate(missing):
        progress(stage, done, len(missing))
        asked = ask(index, cases[index], answerer)
        # Where this question is skipped, the answerer's is the last one's.
        rsts[index] = None if asked.sample is None else answerer.rst
        append_text(folder / RSTS, _line(index, rsts[index]))  # before the answer, which says it is done
        log.add(asked)
    progress(stage, len(missing), len(missing))
    every = [log.asked[index] for index in range(len(cases))]
    return Replies([asked for asked in every if asked.sample is not None], rsts)


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
