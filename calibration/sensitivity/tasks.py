"""What a graph in lower precision does to the task: the RST, the words and the boxes that come out, all other graphs
being as they were.

Losses are 0 where nothing changed:
    rst   1 − mean cosine of the RSTs
    text  answers that would be others, as a share: the total variation between the distributions of every token that is
          read out, summed over an answer. To first order this is how often the likeliest token changes, averaged over
          how near the second one is; counting tokens that really change takes hundreds of answers to tell 3 % from none
    box   1 − mean IoU of the original's boxes with those that match them, weighted by how likely each is meant
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from devil.bundle import Bundle
from devil.calibration.captures import Captures, Run
from devil.calibration.graph_error import detection_error
from devil.calibration.language.passes import asked_rows
from devil.clip import load_clip
from devil.config import DevilConfig, level_shapes
from devil.contract import contract
from devil.errors import CalibrationError
from devil.runtime.engines.base import GraphRunner
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine

Arrays = Mapping[str, np.ndarray]
Graph = Callable[[Arrays], Arrays]  # a graph's outputs for its inputs


class BoxTask:
    """Losses of the backbone and the grounder.

    Args:
        bundle: of floats.
        captures: recorded with it, of the clips to ask about; those with a backbone's runs have an RST too.
        threads: CPU threads.
    """

    def __init__(self, bundle: Bundle, captures: Captures, threads: int = 0):
        self._ground: Graph = _load(bundle, "grounder", threads).run
        self._frames = [_question(run, captures) for run in captures.runs("backbone")]
        self._features = [run.feeds for run in captures.runs("grounder")]
        self._of_frames = [self._ground(feeds) for feeds in self._features]
        backbone = _load(bundle, "backbone", threads)
        self._of_pixels = [self._from_pixels(backbone.run, feeds) for feeds in self._frames]

    def backbone(self, run: Graph) -> dict[str, float]:
        return _box_loss([self._from_pixels(run, feeds) for feeds in self._frames], self._of_pixels)

    def grounder(self, run: Graph) -> dict[str, float]:
        return _box_loss([run(feeds) for feeds in self._features], self._of_frames)

    def _from_pixels(self, backbone: Graph, question: Arrays) -> Arrays:
        features = backbone({"frames": question["frames"]})["features"]
        return self._ground({"features": features, "level_shapes": question["level_shapes"], "rst": question["rst"]})


class WordTask:
    """Losses of the vision encoder: the recorded answers are read again behind other visual tokens.

    Args:
        bundle: of floats.
        captures: recorded with it, of the clips to read again; the language graph ran on all of them.
        threads: CPU threads.
    """

    def __init__(self, bundle: Bundle, captures: Captures, threads: int = 0):
        self._config, self._language = bundle.config, _load(bundle, "language", threads)
        self._answers = captures.answer_count
        self._clips: list[_Reading] = []
        for number in captures.clips:
            clip, runs = captures.clip(number), list(captures.runs("language", [number]))
            seen = load_clip(clip.path, bundle.config, bundle.manifest.frame_size, clip.segment)
            patches = {"patches": seen.patches, "positions": seen.positions}
            self._clips.append(_Reading(patches, seen.kept, runs))
        vision = _load(bundle, "vision", threads)
        self._expected = [self._read(vision.run, reading) for reading in self._clips]

    def vision(self, run: Graph) -> dict[str, float]:
        found = [self._read(run, reading) for reading in self._clips]
        return word_losses(found, self._expected, self._config, self._answers)

    def _read(self, vision: Graph, reading: _Reading) -> Readout:
        tokens = vision(reading.patches)["visual_tokens"][reading.kept]
        return replay(self._language, replaced_tokens(reading.runs, tokens, self._config.language.vocab))


@dataclass(frozen=True)
class _Reading:
    """A clip's patches, which of their tokens are kept, and the language graph's recorded runs."""

    patches: Arrays
    kept: np.ndarray
    runs: Sequence[Run]


@dataclass(frozen=True)
class Readout:
    """What the language model says at every place that was read out.

    Attributes:
        logits: float32 [K, vocab]
        hidden: float32 [K, hidden]
        ids: int64 [K], the tokens that stand there.
    """

    logits: np.ndarray
    hidden: np.ndarray
    ids: np.ndarray


def replay(runner: GraphRunner, runs: Sequence[Run]) -> Readout:
    """Runs the language graph as it was recorded, on caches that are empty at first."""
    logits, hidden, ids = [], [], []
    for _, together in groupby(runs, key=lambda run: run.cache):
        group = list(together)
        cache = runner.cache(1, max(run.capacity for run in group))
        for run in group:
            found, rows = cache.run(run.feeds), asked_rows(run.feeds)
            logits.append(found["logits"][0, : len(rows)])
            hidden.append(found["hidden"][0, : len(rows)])
            ids.append(run.feeds["token_ids"][0, rows])
    return Readout(np.concatenate(logits), np.concatenate(hidden), np.concatenate(ids))


def word_losses(
    found: Sequence[Readout], expected: Sequence[Readout], config: DevilConfig, answers: int
) -> dict[str, float]:
    """The losses rst and text; where no RST was recorded that one is 0.

    Args:
        answers: how many the read-out tokens make.
    """
    cosines, moved = [], 0.0
    for ours, theirs in zip(found, expected, strict=True):
        told = theirs.logits.argmax(1) if config.rst_position == "predict" else theirs.ids
        boxes = told == config.tokens.box
        cosines.append(_cosines(ours.hidden[boxes], theirs.hidden[boxes]))
        moved += float(np.abs(_softmax(ours.logits) - _softmax(theirs.logits)).sum()) / 2
    together = np.concatenate(cosines)
    return {"rst": float(1 - together.mean()) if len(together) else 0.0, "text": moved / answers}


def replaced_tokens(runs: Sequence[Run], tokens: np.ndarray, vocab: int) -> list[Run]:
    """The runs with other visual tokens.

    Args:
        tokens: of the whole video [V, hidden]; runs see successive stretches of them.

    Raises:
        CalibrationError: the runs saw another number of tokens.
    """
    changed, first = [], 0
    for run in runs:
        rows = len(run.feeds["visual_table"])
        if (run.feeds["token_ids"] >= vocab).any():
            table = tokens[first : first + rows].astype(np.float32)
            run, first = (
                Run(run.graph, run.clip, {**run.feeds, "visual_table": table}, run.cache, run.capacity),
                (first + rows),
            )
        changed.append(run)
    if first != len(tokens):
        raise CalibrationError("the recording is not of this clip", "remove the --work folder and run again")
    return changed


def _question(run: Run, captures: Captures) -> Arrays:
    """A backbone's recorded frames with what the detector was asked of them first."""
    rst = next(said.rst for said in captures.answers(run.clip) if said.rst is not None)
    shapes = np.array(level_shapes(*run.feeds["frames"].shape[1:3]), np.int64)
    return {**run.feeds, "level_shapes": shapes, "rst": rst}


def _load(bundle: Bundle, graph: str, threads: int) -> GraphRunner:
    spec, precision = contract(bundle.config)[graph], bundle.manifest.graph_precision(graph)
    return OnnxRuntimeEngine(threads=threads).load(bundle.path(graph), spec, precision)


def _box_loss(found: Sequence[Arrays], expected: Sequence[Arrays]) -> dict[str, float]:
    frames = [len(one["logits"]) for one in expected]
    errors = [detection_error(ours, theirs) for ours, theirs in zip(found, expected, strict=True)]
    return {"box": float(np.average(errors, weights=frames))}


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Along the words, float32 [K, vocab]."""
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def _cosines(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    one, two = one.astype(np.float64), two.astype(np.float64)
    return (one * two).sum(1) / np.maximum(np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1), 1e-30)
