"""Recording: the bundle answers about every clip, and what its graphs were fed is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from devil.bundle import MANIFEST, open_bundle
from devil.calibration.captures import (
    CalibrationClip,
    CapturedAnswer,
    Captures,
    Run,
    begin,
    write_clip,
)
from devil.calibration.no_numbers import first_no_number
from devil.calibration.options import CalibrateOptions
from devil.calibration.recording import NoNumbersError, Recorder, RecordingEngine
from devil.contract import GRAPHS
from devil.errors import CalibrationError, OutputError, SentenceError, VideoError
from devil.files import check_room, sha256
from devil.progress import Progress
from devil.runtime.answer import Answer
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine
from devil.runtime.pipeline import Grounder

_VERSION = 1  # of what is recorded how


def record(
    bundle: Path,
    clips: Sequence[CalibrationClip],
    folder: Path,
    options: CalibrateOptions,
    problems: list[str],
    progress: Progress,
) -> Captures:
    """Records the clips that are not in `folder` yet.

    Args:
        bundle: of floats.
        folder: of the recording; a stopped one goes on.
        problems: gets one line per clip that cannot be used.

    Raises:
        CalibrationError: a tensor is no number, no clip can be used, no answer names an object, or `folder` has another
            recording.
        OutputError: the disk is full.
    """
    if options.frames_per_clip < 1 or options.capture_mb < 1:
        raise CalibrationError("nothing would be recorded", "give at least 1 for --frames-per-clip and --capture-mb")
    captures = begin(folder, about_recording(bundle, clips, options))
    missing = [number for number in range(len(clips)) if number not in captures.clips]
    if missing:
        _check_room(folder, len(missing) * _allowance(options, clips))
        opened = open_bundle(bundle)
        recorder = Recorder(math.ceil(opened.config.frames / options.frames_per_clip))
        grounder = Grounder(opened, RecordingEngine(OnnxRuntimeEngine(threads=options.threads), recorder))
        for number in missing:
            progress("recording", number, len(clips))
            recorder.begin(number)
            try:
                answers = _ask(grounder, clips[number])
            except (VideoError, SentenceError) as error:
                problems.append(str(error))
                continue
            except NoNumbersError as error:
                tensor = first_no_number(opened, error.graph, error.feeds, options.threads)
                where = f"tensor {tensor} of graph {error.graph}"
                raise CalibrationError(
                    f"{where} has values that are no numbers on {clips[number].path.name}",
                    "calibrate a bundle of fp32, or leave the clip out",
                ) from error
            kept, left_out = affordable(recorder.runs, _allowance(options, clips))
            write_clip(folder, number, clips[number], kept, answers, left_out)
    progress("recording", len(clips), len(clips))
    captures = Captures(folder)
    check_recorded(captures, problems, options)
    return captures


def _check_room(folder: Path, needed: int) -> None:
    try:
        check_room(folder / "clip", needed)
    except OutputError as error:
        mend = "free some space, lower --capture-mb, or name a --work folder on another disk"
        raise OutputError(error.message, mend) from None


def about_recording(bundle: Path, clips: Sequence[CalibrationClip], options: CalibrateOptions) -> dict:
    """What decides what is recorded. Files are known by size, like linked weights: reading videos twice is slow."""
    return {
        "version": _VERSION,
        "bundle": sha256(bundle / MANIFEST),
        "frames_per_clip": options.frames_per_clip,
        "capture_mb": options.capture_mb,
        "clips": [
            {
                "path": str(clip.path.resolve()),
                "bytes": clip.path.stat().st_size,
                "sentences": clip.sentences,
                "segment": clip.segment,
            }
            for clip in clips
        ],
    }


def _ask(grounder: Grounder, clip: CalibrationClip) -> list[CapturedAnswer]:
    video = grounder.encode(clip.path, segment=clip.segment, sentences=clip.sentences)
    return [_captured(answer) for answer in video.ground_many(clip.sentences)]


def _captured(answer: Answer) -> CapturedAnswer:
    span = (answer.span.start, answer.span.end) if answer.span else None
    return CapturedAnswer(answer.sentence, answer.text, span, answer.rst)


def _allowance(options: CalibrateOptions, clips: Sequence[CalibrationClip]) -> int:
    """Bytes that one clip may take: all have the same, so what is kept does not depend on their order."""
    return options.capture_mb * 1_000_000 // len(clips)


def affordable(runs: Sequence[Run], allowance: int) -> tuple[list[Run], list[str]]:
    """Runs of as many graphs as the allowance holds, the smallest first, and the graphs that it does not."""
    sizes = {
        graph: sum(array.nbytes for run in runs if run.graph == graph for array in run.feeds.values())
        for graph in GRAPHS
    }
    left_out, used = [], 0
    for graph in sorted(GRAPHS, key=sizes.__getitem__):
        used += sizes[graph]
        if used > allowance:
            left_out.append(graph)
    return [run for run in runs if run.graph not in left_out], left_out


def check_recorded(captures: Captures, problems: Sequence[str], options: CalibrateOptions) -> None:
    """Whether every graph that is to be quantised was recorded.

    Raises:
        CalibrationError: one was not.
    """
    if not captures.clips:
        raise CalibrationError(f"no clip can be used ({problems[0] if problems else 'none is left'})", "name others")
    for graph in options.chosen_graphs:
        if captures.count(graph):
            continue
        if captures.left_out(graph):
            raise CalibrationError(
                f"{options.capture_mb} MB hold no input of graph {graph}", "raise --capture-mb or use fewer --clips"
            )
        said = captures.answers(captures.clips[0])[0].text
        raise CalibrationError(
            f"no answer names an object, so the detector never ran ({said!r})", "ask for something visible in the clips"
        )
