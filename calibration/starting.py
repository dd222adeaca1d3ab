"""What a calibration starts from: a bundle of floats, and what its graphs were fed on a few clips."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from devil.bundle import Bundle, open_bundle
from devil.cache import cache_folder
from devil.calibration.bundle import check_source
from devil.calibration.capture import about_recording, record
from devil.calibration.captures import CalibrationClip, Captures
from devil.calibration.clips import calibration_clips
from devil.calibration.options import CalibrateOptions
from devil.progress import Progress


@dataclass(frozen=True)
class Recording:
    """What a calibration starts from.

    Attributes:
        bundle: of floats.
        captures: of its graphs' inputs.
        work: folder of everything that can be made again.
        others: clips of the same source that were not recorded.
        problems: one line per clip that could not be used.
    """

    bundle: Bundle
    captures: Captures
    work: Path
    others: tuple[CalibrationClip, ...]
    problems: tuple[str, ...]


def open_recording(options: CalibrateOptions, folder: Path, progress: Progress) -> Recording:
    """Opens the bundle in `folder` and records the clips, or finds them recorded.

    Raises:
        BundleError: no bundle, or an altered one.
        CalibrationError: it cannot be calibrated, or not on these clips.
        UsageError: options that contradict each other.
    """
    bundle = open_bundle(folder)
    check_source(bundle)
    choice = calibration_clips(options, progress)
    about = about_recording(folder, choice.clips, options)
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    work = (options.work or cache_folder() / "calibration") / key
    captures = record(folder, choice.clips, work / "captures", options, choice.problems, progress)
    return Recording(bundle, captures, work, tuple(choice.others), tuple(choice.problems))
