"""Which records can be trained on: found out before the first step, and again where a file breaks off further in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from devil.data.annotation import Problem, Record
from devil.errors import AnnotationError, DevilError, SentenceError, VideoError
from devil.evaluation.truth import segment_of
from devil.progress import Progress
from devil.prompt import checked_sentence
from devil.training.loop import permuted
from devil.video import VideoInfo, probe

Batch = TypeVar("Batch")
BROKEN = "video breaks off"
_IN_A_ROW = 20  # unreadable clips that are passed over before something else than the clips must be wrong
_REASONS = {
    VideoError: "video unreadable",
    SentenceError: "sentence refused",
    AnnotationError: "annotation does not fit the video",
}


def unusable(records: Sequence[Record], share: tuple[int, int], progress: Progress) -> list[Problem]:
    """Opens every file once, without decoding it, and says which records cannot be trained on and why.

    Args:
        share: (k, n): only every n-th file from the k-th on, for n processes that share the work.
        progress: called with (stage, done, total).

    Returns:
        Problems numbered as `records` are.
    """
    by_file: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        by_file.setdefault(str(record.path), []).append(number)
    files = sorted(by_file)[share[0] :: share[1]]
    problems = []
    for done, path in enumerate(files):
        progress("reading the files", done, len(files))
        try:
            info = probe(path)
        except VideoError as error:
            problems += [_problem(number, error) for number in by_file[path]]
            continue
        for number in by_file[path]:
            try:
                _check(records[number], info)
            except tuple(_REASONS) as error:
                problems.append(_problem(number, error))
    progress("reading the files", len(files), len(files))
    return problems


class Draw(Generic[Batch]):
    """The batch of a number: every epoch goes through all records in a new order.

    A clip that cannot be decoded, though its file could be opened, gives its place to the next one: which that is
    depends on the number alone.

    Args:
        load: makes a record's batch, raises VideoError.

    Attributes:
        problems: the clips passed over so far.
    """

    def __init__(self, records: Sequence[Record], load: Callable[[Record], Batch], seed: int):
        self._records, self._load, self._seed = records, load, seed
        self._broken: dict[int, str] = {}

    def __call__(self, number: int) -> Batch:
        """
        Raises:
            VideoError: nothing can be read any more.
        """
        for further in range(_IN_A_ROW):
            which = permuted(number + further, len(self._records), self._seed)
            if which not in self._broken:
                try:
                    return self._load(self._records[which])
                except VideoError as error:
                    self._broken[which] = str(error)
        raise VideoError(
            f"{_IN_A_ROW} clips in a row cannot be read, the last: {self._broken[which]}",
            "see to the disk that holds them and start the same command again: it continues",
        )

    @property
    def problems(self) -> list[Problem]:
        return [Problem(number, f"{BROKEN}: {error}") for number, error in self._broken.items()]


def _check(record: Record, info: VideoInfo) -> None:
    if record.is_image != info.is_image:
        kind = "an image" if info.is_image else "a video"
        raise AnnotationError(f"{record.path} is {kind}")
    first, last = segment_of(record, info) or (0, 0)
    if first > last:
        raise AnnotationError(f"the segment begins behind the end of {record.path}")
    for text in filter(None, (record.sentence, record.answer)):
        checked_sentence(text)


def _problem(number: int, error: DevilError) -> Problem:
    reason = next(words for kind, words in _REASONS.items() if isinstance(error, kind))
    return Problem(number, f"{reason}: {error}")
