"""What a result is judged by: clips that it was not calibrated on."""

from __future__ import annotations

from dataclasses import replace

from devil.cache import cache_folder
from devil.calibration.options import CalibrateOptions
from devil.calibration.starting import Recording
from devil.calibration.verdict.judge import Questions
from devil.evaluation.datasets import SYNTHETIC, load_dataset
from devil.progress import Progress


def questions_for(recording: Recording, options: CalibrateOptions, progress: Progress) -> Questions:
    """The held-out synthetic clips; of the user's own clips those that were not recorded."""
    limit = options.judge_clips
    if not options.videos and not options.annotations:
        return Questions(load_dataset(SYNTHETIC, None, None, False, cache_folder(), progress), limit)
    if options.videos:
        return Questions.untold(list(recording.others), limit)
    dataset = load_dataset(str(options.annotations), None, None, False, cache_folder(), progress)
    left = {(clip.path, sentence) for clip in recording.others for sentence in clip.sentences}
    return Questions(
        replace(dataset, cases=tuple(case for case in dataset.cases if (case.path, case.sentence) in left)), limit
    )
