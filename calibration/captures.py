"""Recorded inputs of every graph: a folder that grows by one sub-folder per clip, and is read one run at a time.

    run.json               what was recorded from what; another recording never lands here
    clip-0007/clip.json    the clip, its answers, and the runs in the order in which they came
    clip-0007/000012.npz   what one run of one graph was fed
    clip-0007/rst.npy      the answers' RSTs

A clip's folder appears whole or not at all, so a stopped recording goes on with the next clip.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from devil.errors import CalibrationError
from devil.files import atomic_directory, write_text

RUN, CLIP, RST = "run.json", "clip.json", "rst.npy"
_FOLDER = re.compile(r"clip-\d{4}")


@dataclass(frozen=True)
class CalibrationClip:
    """A video, or a segment of one, and what is asked of it.

    Attributes:
        path: the file.
        sentences: asked side by side.
        segment: first and last frame to look at, both included; None for all.
    """

    path: Path
    sentences: tuple[str, ...]
    segment: tuple[int, int] | None = None


@dataclass(frozen=True)
class CapturedAnswer:
    """What the bundle said of one sentence.

    Attributes:
        rst: float32 [hidden], what the detector was asked with; None where the answer has no [BOX].
    """

    sentence: str
    text: str
    span: tuple[float, float] | None
    rst: np.ndarray | None


@dataclass(frozen=True)
class Run:
    """One run of a graph.

    Attributes:
        graph: one of `devil.contract.GRAPHS`.
        clip: number of the clip.
        feeds: the graph's inputs by name. Of a clip's frames only some are kept (vision: `patches`, backbone:
            `frames`, grounder: `features`). The language graph's KV cache is left out.
        cache: language graph only: runs of a clip with the same number share one KV cache. Run in their order on a
            cache of one row that was empty at first, they give what the recorded ones gave.
        capacity: slots of that cache when it ran.
    """

    graph: str
    clip: int
    feeds: Mapping[str, np.ndarray]
    cache: int | None = None
    capacity: int | None = None


@dataclass(frozen=True)
class _Entry:
    """A run in `clip.json`."""

    file: str
    graph: str
    cache: int | None
    capacity: int | None


class Captures:
    """A folder of recorded clips. Arrays are read when they are asked for, one run at a time.

    Args:
        folder: of the recording.
        only: numbers of the clips to see, by default all.

    Raises:
        CalibrationError: it holds no recording, or a broken one.
    """

    def __init__(self, folder: Path, only: Collection[int] | None = None):
        self.folder = folder
        self.about: dict[str, Any] = _read(folder / RUN)
        self._clips = {
            int(name.removeprefix("clip-")): _read(folder / name / CLIP)
            for name in sorted(os.listdir(folder))
            if _FOLDER.fullmatch(name) and (only is None or int(name.removeprefix("clip-")) in only)
        }

    def only(self, clips: Collection[int]) -> Captures:
        """The same recording with some of its clips."""
        return Captures(self.folder, clips)

    @property
    def clips(self) -> list[int]:
        """Numbers of the recorded clips, rising."""
        return list(self._clips)

    @property
    def bytes(self) -> int:
        """What the clips take on the disk."""
        return sum(path.stat().st_size for clip in self.clips for path in (self.folder / clip_name(clip)).iterdir())

    def clip(self, number: int) -> CalibrationClip:
        values = self._clips[number]["clip"]
        segment = values["segment"]
        return CalibrationClip(Path(values["path"]), tuple(values["sentences"]), tuple(segment) if segment else None)

    def answers(self, number: int) -> list[CapturedAnswer]:
        """What the recorded bundle answered, sentence by sentence."""
        rsts = iter(self._array(number, RST))
        return [
            CapturedAnswer(
                said["sentence"], said["text"], tuple(said["span"]) if said["span"] else None,
                next(rsts) if said["box"] else None,
            )
            for said in self._clips[number]["answers"]
        ]  # fmt: skip

    @property
    def answer_count(self) -> int:
        """Number of answers on all clips."""
        return sum(len(values["answers"]) for values in self._clips.values())

    def left_out(self, graph: str) -> list[int]:
        """Clips whose runs of a graph had no room on the disk."""
        return [number for number, values in self._clips.items() if graph in values["left_out"]]

    def count(self, graph: str, clips: Sequence[int] | None = None) -> int:
        """Number of recorded runs of a graph, on all clips or on some."""
        seen = self.clips if clips is None else clips
        return sum(entry["graph"] == graph for number in seen for entry in self._clips[number]["runs"])

    def runs(self, graph: str, clips: Sequence[int] | None = None) -> Iterator[Run]:
        """The runs of a graph in the order in which they came, of all clips or of some."""
        for number in self.clips if clips is None else clips:
            for values in self._clips[number]["runs"]:
                entry = _Entry(**values)
                if entry.graph == graph:
                    yield Run(graph, number, self._array(number, entry.file), entry.cache, entry.capacity)

    def _array(self, number: int, file: str) -> Any:
        path = self.folder / clip_name(number) / file
        try:
            with open(path, "rb") as opened:
                stored = np.load(opened, allow_pickle=False)
                return stored if isinstance(stored, np.ndarray) else dict(stored.items())
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise CalibrationError(f"{path} cannot be read ({error})", f"remove {self.folder} and run again") from error


def clip_name(number: int) -> str:
    return f"clip-{number:04d}"


def begin(folder: Path, about: Mapping[str, Any]) -> Captures:
    """Opens the recording in `folder`, or begins one there.

    Args:
        about: what is recorded from what, as JSON values.

    Raises:
        CalibrationError: another recording lies there.
        OutputError: the folder cannot be written.
    """
    if not (folder / RUN).exists():
        write_text(folder / RUN, json.dumps(about, indent=1) + "\n")
    captures = Captures(folder)
    if captures.about != json.loads(json.dumps(about)):
        raise CalibrationError(f"{folder} holds a recording of something else", "choose another --work folder")
    return captures


def write_clip(
    folder: Path,
    number: int,
    clip: CalibrationClip,
    runs: Sequence[Run],
    answers: Sequence[CapturedAnswer],
    left_out: Sequence[str] = (),
) -> None:
    """Adds a recorded clip.

    Args:
        left_out: graphs whose runs of this clip had no room.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    with atomic_directory(folder / clip_name(number)) as temporary:
        entries = []
        for index, run in enumerate(runs):
            entry = _Entry(f"{index:06d}.npz", run.graph, run.cache, run.capacity)
            # Masks and tables of the language graph are large and repeat themselves; pictures and features do not.
            save = np.savez_compressed if run.graph == "language" else np.savez
            save(temporary / entry.file, **run.feeds)
            entries.append(asdict(entry))
        rsts = [answer.rst for answer in answers if answer.rst is not None]
        np.save(temporary / RST, np.array(rsts, np.float32))
        said = [
            {"sentence": answer.sentence, "text": answer.text, "span": answer.span, "box": answer.rst is not None}
            for answer in answers
        ]
        about = {"path": str(clip.path), "sentences": clip.sentences, "segment": clip.segment}
        values = {"clip": about, "answers": said, "left_out": list(left_out), "runs": entries}
        (temporary / CLIP).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CalibrationError(f"{path} cannot be read ({error})", "run devil-calibrate again") from error
