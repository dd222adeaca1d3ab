"""Judging a calibrated bundle beside the one that it replaces, and looking for a better one where it is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from devil.bundle import MANIFEST, open_bundle
from devil.calibration.captures import CalibrationClip, Captures
from devil.calibration.verdict.asking import Replies, ask_candidate
from devil.calibration.verdict.budget import Budget
from devil.calibration.verdict.compose import compose
from devil.calibration.verdict.decision import Candidate, Verdict, decide, slower_graphs
from devil.calibration.verdict.figures import agreement_figures, change_figures, score_figures
from devil.calibration.verdict.timing import time_bundles
from devil.contract import GRAPHS
from devil.data.moments import Moment
from devil.errors import CalibrationError
from devil.evaluation.datasets import Dataset
from devil.files import sha256
from devil.progress import Progress, no_progress

MOST_ALTERNATIVES = 3  # that several graphs of a refused result make together


@dataclass(frozen=True)
class Questions:
    """What the candidates are asked.

    Attributes:
        dataset: clips and sentences.
        limit: how many of them.
        has_truth: whether the right answers are known; where not, the original's answers stand for them.
    """

    dataset: Dataset
    limit: int
    has_truth: bool = True

    @classmethod
    def untold(cls, clips: list[CalibrationClip], limit: int) -> Questions:
        """Sentences about videos whose answers nobody knows."""
        cases = tuple(Moment(clip.path, sentence, (0.0, 0.0)) for clip in clips for sentence in clip.sentences)
        digest = hashlib.sha256("\n".join(f"{case.path}\t{case.sentence}" for case in cases).encode()).hexdigest()
        return cls(Dataset("videos", digest, cases, ()), limit, has_truth=False)


class Judge:
    """Asks and times candidates; what it was told is kept in a folder, so that a stopped judgement goes on.

    Args:
        original: the bundle that was calibrated.
        questions: what is asked, of clips that were not calibrated on.
        captures: what the graphs are timed with.
        budget: what a candidate may lose.
        work: folder for the answers, which judgements of the same bundle share, and for bundles that are only tried.
        threads: CPU threads.
    """

    def __init__(
        self, original: Path, questions: Questions, captures: Captures, budget: Budget, work: Path, threads: int = 0,
        progress: Progress = no_progress,
    ):  # fmt: skip
        self._questions, self._captures, self._budget, self._work = questions, captures, budget, work
        self._threads, self._progress = threads, progress
        self._original = open_bundle(original)
        self.name = _name(original)
        self._paths: dict[str, Path] = {self.name: original}
        self._replies: dict[str, Replies] = {}
        self._seconds: dict[str, float] = {}

    def judge(
        self, result: Path, others: Mapping[str, Path], accept: bool = False, look_further: bool = True
    ) -> Verdict:
        """The verdict on a bundle.

        Args:
            result: the calibrated bundle; its name in the verdict is its folder's.
            others: further bundles of the same model that are shown beside it, by name, for example one in fp16.
            accept: the user takes it as it is.
            look_further: where it is refused, whether to judge bundles of some of its graphs too.

        Raises:
            CalibrationError: no question could be asked.
        """
        name = result.name if result.name != self.name else f"{result.name} calibrated"
        self._paths |= {**others, name: result}
        found = decide(name, self.name, self._candidates(), self._budget, accept)
        if not found.passed and look_further:
            self._try_parts(result, found.candidates[name])
            found = decide(name, self.name, self._candidates(), self._budget, accept)
        return found

    def replies(self, name: str) -> Replies:
        """What a candidate answered; without known truths, judged by the original's answers."""
        if name not in self._replies:
            questions, path = self._questions, self._paths[name]
            key = f"{sha256(path / MANIFEST)[:16]}-{questions.dataset.digest[:16]}"
            told = ask_candidate(
                path, questions.dataset, questions.limit, self._work / "asked" / key, self._threads, self._progress,
                f"judging {name}",
            )  # fmt: skip
            if not questions.has_truth:
                told = judged_by(told, told if name == self.name else self.replies(self.name))
            if not told.asked:
                raise CalibrationError("no answer is left to judge the result by", "name clips that decode")
            self._replies[name] = told
        return self._replies[name]

    def path(self, name: str) -> Path:
        """A candidate's bundle."""
        return self._paths[name]

    def _candidates(self) -> dict[str, Candidate]:
        latencies = time_bundles(self._paths, self._captures, self._threads, self._seconds, progress=self._progress)
        original = self.replies(self.name)
        found = {}
        for name, path in self._paths.items():
            replies, bundle = self.replies(name), open_bundle(path, verify=False)
            changed = tuple(g for g in GRAPHS if bundle.graph_hash(g) != self._original.graph_hash(g))
            size = sum(record.bytes for record in bundle.manifest.files.values())
            found[name] = Candidate(
                name, size, latencies[name], score_figures(replies), change_figures(replies, original),
                agreement_figures(replies, original), changed,
            )  # fmt: skip
        return found

    def _try_parts(self, result: Path, refused: Candidate) -> None:
        """Adds bundles of some graphs of a refused one: without those that are slower, and each of the others alone
        where the answers are what is wrong; then together, without the worst of them."""
        original = self._candidates()[self.name]
        slow = slower_graphs(refused, original)
        left = [graph for graph in refused.graphs if graph not in slow]
        if slow and left:
            self._add(result, left)
        if not self._budget.broken(refused.losses) or len(left) < 2:
            return
        for graph in left:
            self._add(result, [graph])
        for _ in range(MOST_ALTERNATIVES):
            candidates = self._candidates()
            alone = {graph: candidates[_part_name(result, [graph])].losses for graph in left}
            left = [graph for graph in left if not self._budget.broken(alone[graph])]
            if len(left) < 2 or not self._budget.broken(self._add(result, left).losses):
                return
            left.remove(max(left, key=lambda graph: alone[graph].get("viou", 0.0)))

    def _add(self, result: Path, graphs: list[str]) -> Candidate:
        name = _part_name(result, graphs)
        if name not in self._paths:
            path = self._work / "parts" / sha256(result / MANIFEST)[:16] / "-".join(graphs)
            self._paths[name] = compose(path, self._original, open_bundle(result), graphs)
        return self._candidates()[name]


def judged_by(told: Replies, truth: Replies) -> Replies:
    """The replies with another's answers in the place of the truth."""
    right = {asked.index: asked.sample for asked in truth.asked}
    kept = [asked for asked in told.asked if asked.index in right and right[asked.index].span is not None]
    return Replies(
        [
            replace(asked, sample=replace(
                asked.sample, true_span=right[asked.index].span, true_boxes=right[asked.index].boxes
            ))
            for asked in kept
        ],
        told.rsts,
    )  # fmt: skip


def _name(path: Path) -> str:
    return path.resolve().name


def _part_name(result: Path, graphs: list[str]) -> str:
    return f"{_name(result)} {' '.join(graphs)} only"
