"""What a bundle is calibrated on: videos and the sentences asked of them, few and unlike each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from devil.cache import cache_folder
from devil.calibration.beforehand import check_sources
from devil.calibration.captures import CalibrationClip
from devil.calibration.options import CalibrateOptions
from devil.data.annotation import Record
from devil.data.records import read_records
from devil.errors import AnnotationError, CalibrationError, SentenceError, VideoError
from devil.evaluation.datasets import synthetic_split
from devil.evaluation.truth import segment_of
from devil.preprocess import resize
from devil.progress import Progress
from devil.video import probe, read_frames

_POOL = 4  # times as many clips as are wanted are looked at
_THUMBNAIL = (8, 8)  # pixels
_LOOKS = 3  # frames that tell what a clip looks like


@dataclass(frozen=True)
class ClipChoice:
    """What is calibrated on, and what is left.

    Attributes:
        clips: to record.
        others: clips of the same source that are not recorded, to judge the result on.
        problems: one line per clip that cannot be used.
    """

    clips: list[CalibrationClip]
    others: list[CalibrationClip]
    problems: list[str]


def calibration_clips(options: CalibrateOptions, progress: Progress) -> ClipChoice:
    """The clips to record. The same options and files give the same ones.

    Of few clips a quarter is left to judge the result on.

    Raises:
        UsageError: videos without sentences, or sources that exclude each other.
        AnnotationError, SentenceError: a file of sentences cannot be read.
        CalibrationError: no clip can be used, or of the user's own none would be left.
    """
    check_sources(options)
    if options.videos:
        clips, problems = _asked(_files(options.videos), options.sentences)
    else:
        path = options.annotations or synthetic_split("calibration", options.clips, cache_folder(), progress)
        clips, problems = _annotated(path)
    own = options.videos or options.annotations
    looks, broken = _looks(clips, options.clips, progress)
    problems += broken.values()
    if not looks:
        raise CalibrationError(
            f"no clip can be decoded ({problems[0] if problems else 'none was named'})", "name other videos"
        )
    chosen = _diverse(looks, min(options.clips, max(1, len(looks) * 3 // 4)) if own else options.clips)
    others = [clip for clip in clips if clip not in chosen and clip not in broken]
    if own and not others:
        raise CalibrationError("no clip is left to judge the result on", "name at least two clips that decode")
    return ClipChoice(chosen, others, problems)


def _annotated(path: Path) -> tuple[list[CalibrationClip], list[str]]:
    """The records of a file, those about the same part of a video together."""
    records, broken = read_records(path)
    problems = [f"record {problem.index}: {problem.reason}" for problem in broken]
    sentences: dict[tuple[Path, tuple[int, int] | None], list[str]] = {}
    for record in records:
        try:
            sentences.setdefault((record.path, _segment(record)), []).append(record.sentence)
        except (VideoError, AnnotationError) as error:
            problems.append(str(error))
    return [CalibrationClip(at, tuple(asked), part) for (at, part), asked in sentences.items()], problems


def _segment(record: Record) -> tuple[int, int] | None:
    return segment_of(record, probe(record.path))


def _files(paths: Sequence[Path]) -> list[Path]:
    """Files as named; of folders all files in them, by name."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise VideoError(f"{path} does not exist", "name a video or a folder of videos")
        found += sorted(entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else [path]
    if not found:
        raise VideoError(f"there is no file in {', '.join(map(str, paths))}", "name videos, or folders of them")
    return list(dict.fromkeys(found))


def _asked(files: Sequence[Path], path: Path) -> tuple[list[CalibrationClip], list[str]]:
    """Every video with the sentences for all videos, and with those for itself."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SentenceError(f"{path} cannot be read ({error})", "name a text file, one sentence per line") from error
    asked = [line.rpartition("\t")[::2] for line in lines if line]
    clips = []
    for file in files:
        own = tuple(words.strip() for name, words in asked if name.strip() in ("", file.name, file.stem))
        if own:
            clips.append(CalibrationClip(file, own))
    if not clips:
        raise SentenceError(f"{path} asks nothing of these videos", "write one sentence per line, or NAME<tab>sentence")
    return clips, []


def _looks(
    clips: Sequence[CalibrationClip], count: int, progress: Progress
) -> tuple[dict[CalibrationClip, np.ndarray], dict[CalibrationClip, str]]:
    """What clips look like, and what is wrong with those that cannot be decoded.

    Args:
        count: how many are wanted. Of very many clips only a few times as many are looked at, spread evenly.
    """
    pool = [clips[index] for index in np.unique(np.linspace(0, len(clips) - 1, _POOL * count).astype(int))]
    looks, broken = {}, {}
    for index, clip in enumerate(pool):
        progress("looking at clips", index, len(pool))
        try:
            looks[clip] = _look(clip)
        except VideoError as error:
            broken[clip] = str(error)
    progress("looking at clips", len(pool), len(pool))
    return looks, broken


def _diverse(looks: Mapping[CalibrationClip, np.ndarray], count: int) -> list[CalibrationClip]:
    """At most `count` clips: each next one is the one least like those before it (farthest-point sampling)."""
    clips, seen = list(looks), np.array(list(looks.values()))
    chosen = [int(np.argmax(np.linalg.norm(seen - seen.mean(0), axis=1)))]
    distance = np.linalg.norm(seen - seen[chosen[0]], axis=1)
    while len(chosen) < min(count, len(clips)):
        distance[chosen] = -1
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(seen - seen[chosen[-1]], axis=1))
    return [clips[index] for index in chosen]


def _look(clip: CalibrationClip) -> np.ndarray:
    """A clip as a few small pictures, 0 … 1, float64 [frames · height · width · 3]; motion is how they differ."""
    info = probe(clip.path)
    first, last = clip.segment or (0, len(info) - 1)
    indices = np.linspace(first, last, 1 if info.is_image else _LOOKS).astype(int)
    pictures = read_frames(info, indices.tolist(), lambda image: resize(image, _THUMBNAIL, "bilinear"))
    look = np.concatenate([picture.ravel() / 255 for picture in pictures])
    return np.resize(look, _LOOKS * _THUMBNAIL[0] * _THUMBNAIL[1] * 3)
