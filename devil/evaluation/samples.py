"""One line of JSON per question asked: what an interrupted evaluation continues from, and what scores are made of."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from devil.errors import OutputError
from devil.evaluation.datasets import CONTROL_MARK
from devil.files import append_text, write_text
from devil.metrics import Sample

RUN, SAMPLES = "run.json", "samples.jsonl"


@dataclass(frozen=True)
class Asked:
    """A question, its answer and the truth about it; or why it was skipped.

    Attributes:
        index: what the question is told from others by: the number of its record in the annotation file.
        path: of the video, absolute.
        sentence: what was asked.
        kind, form: type of the sentence; empty where unknown.
        problem: why it was skipped; empty otherwise, and the rest is then left out.
        text: the answer.
        frames: of the file that were sampled.
        sample: spans and boxes, told and true.
        rivals: of a control clip, boxes of the named and of the other object in each frame, nan unless both are
            visible, float64 [2, T, 4].
    """

    index: int
    path: str
    sentence: str
    kind: str = ""
    form: str = ""
    problem: str = ""
    text: str = ""
    frames: tuple[int, ...] = ()
    sample: Sample | None = None
    rivals: np.ndarray | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it, nothing rounded: a run that was continued gives the very figures of one that was not."""
        values: dict[str, Any] = {
            "index": self.index, "video": self.path, "sentence": self.sentence, "kind": self.kind, "form": self.form,
        }  # fmt: skip
        if self.sample is None:
            return values | {"problem": self.problem}
        sample = self.sample
        values |= {
            "text": self.text,
            "span": list(sample.span) if sample.span else None,
            "true_span": list(sample.true_span),
            "times": sample.times.tolist(),
            "frames": list(self.frames),
            "boxes": _boxes_to_json(sample.boxes),
            "true_boxes": _boxes_to_json(sample.true_boxes),
        }
        if self.rivals is not None:
            values["rivals"] = [_boxes_to_json(boxes) for boxes in self.rivals]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Asked:
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: values that `to_json` did not make.
        """
        common = cls(
            int(values["index"]), values["video"], values["sentence"], values["kind"], values["form"],
            values.get("problem", ""),
        )  # fmt: skip
        if common.problem:
            return common
        span, true_span = values["span"], values["true_span"]
        sample = Sample(
            times=np.array(values["times"], np.float64),
            true_span=(true_span[0], true_span[1]),
            true_boxes=_boxes_from_json(values["true_boxes"]),
            span=(span[0], span[1]) if span else None,
            boxes=_boxes_from_json(values["boxes"]),
            kind=common.kind,
        )
        rivals = values.get("rivals")
        return cls(
            common.index, common.path, common.sentence, common.kind, common.form, "", values["text"],
            tuple(values["frames"]), sample, np.stack([_boxes_from_json(each) for each in rivals]) if rivals else None,
        )  # fmt: skip


class SampleLog:
    """The folder of one evaluation: what was asked so far, and a file that grows by a line per question.

    What an earlier run could not ask is no longer in it, so it is asked again.

    Args:
        folder: made if missing.
        run: what is evaluated on what, as JSON values; a folder of another run is refused.
        force: start anew instead, whatever evaluation lies there.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any], force: bool = False):
        self.folder = folder
        self._check(run, force)
        if force:
            write_text(folder / SAMPLES, "")  # before the run changes its name: old answers never pass for new ones
        if force or not (folder / RUN).exists():
            write_text(folder / RUN, json.dumps(run, indent=1) + "\n")
        found = read_samples(folder) if (folder / SAMPLES).exists() else {}
        # What could not be asked may have been mended meanwhile.
        self.asked = {index: asked for index, asked in found.items() if not asked.problem}
        # A half-written line goes before the next one is added behind it.
        write_text(folder / SAMPLES, "".join(_line(asked) for asked in self.asked.values()))

    def has(self, index: int, path: Path, sentence: str) -> bool:
        """Whether the answer with this index is one to this sentence about this video."""
        found = self.asked.get(index)
        # Both as absolute paths: older logs hold what the command was given.
        return found is not None and (os.path.abspath(found.path), found.sentence) == (os.path.abspath(path), sentence)

    def add(self, asked: Asked) -> None:
        """Appends a line in one write.

        Raises:
            OutputError: it cannot be written.
        """
        append_text(self.folder / SAMPLES, _line(asked))
        self.asked[asked.index] = asked

    def _check(self, run: Mapping[str, Any], force: bool) -> None:
        found = run_in(self.folder)
        if found in (None, json.loads(json.dumps(run))) or force:
            return
        different = sorted(key for key in run if not isinstance(found, dict) or found.get(key) != run[key])
        told = [(key == "dataset" and _control_words(found, run)) or f"another {key}" for key in different]
        raise OutputError(
            f"{self.folder} holds the evaluation of {' and '.join(told) or 'another run'}",
            "name another --output, or add --force to start anew",
        )


def _control_words(*runs: Any) -> str:
    """The data set in a folder, where it differs from this run's in `--control` alone; else empty."""
    datasets = [run.get("dataset") if isinstance(run, dict) else None for run in runs]
    there, here = (dataset.get("name") if isinstance(dataset, dict) else None for dataset in datasets)
    if there == f"{here}{CONTROL_MARK}":
        return f"{here} with --control (this run is without)"
    if here == f"{there}{CONTROL_MARK}":
        return f"{there} without --control (this run is with it)"
    return ""


def run_in(folder: Path) -> Any:
    """What the evaluation in a folder is of; None where the folder is missing or empty.

    Raises:
        OutputError: it is no folder, or holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file", "name a folder with --output")
    if not folder.exists() or all(path.name.startswith(".") for path in folder.iterdir()):
        return None
    try:
        return json.loads((folder / RUN).read_text(encoding="utf-8")) or {}
    except (OSError, ValueError):
        raise OutputError(f"{folder} holds something else than an evaluation", "name another --output") from None


def read_samples(folder: Path) -> dict[int, Asked]:
    """What was asked in an evaluation, by index; lines that are not whole are left out.

    Raises:
        OutputError: there is no evaluation.
    """
    try:
        text = (folder / SAMPLES).read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise OutputError(f"{folder} holds no evaluation", "name a folder that devil-eval wrote") from None
    found: dict[int, Asked] = {}
    for line in text.splitlines():
        try:
            asked = Asked.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
            continue  # half-written when a run was killed, or edited: asked again
        found[asked.index] = asked
    return dict(sorted(found.items()))


def _line(asked: Asked) -> str:
    return json.dumps(asked.to_json()) + "\n"


def _boxes_to_json(boxes: np.ndarray) -> list[list[float] | None]:
    return [None if np.isnan(box).any() else box.tolist() for box in boxes]


def _boxes_from_json(boxes: list[list[float] | None]) -> np.ndarray:
    return np.array([[np.nan] * 4 if box is None else box for box in boxes], np.float64).reshape(-1, 4)
