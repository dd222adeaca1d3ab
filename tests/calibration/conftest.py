"""A bundle that answers with [BOX], four clips, and what the bundle was fed on two of them."""

from dataclasses import replace

import pytest

from devil.calibration.options import CalibrateOptions
from devil.calibration.starting import open_recording
from devil.data.writer import write_dataset
from devil.progress import no_progress


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Annotations of four clips of the calibration split."""
    return write_dataset(tmp_path_factory.mktemp("clips") / "calibration", "calibration", 4)


@pytest.fixture(scope="session")
def options(clips, tmp_path_factory):
    """For two of the clips; the recording is shared by all tests."""
    return CalibrateOptions(
        annotations=clips, clips=2, frames_per_clip=2, work=tmp_path_factory.mktemp("work"), threads=1, judge_clips=2
    )


@pytest.fixture(scope="session")
def recording(bundle, options):
    return open_recording(options, bundle, no_progress)


@pytest.fixture(scope="session")
def alone(options, tmp_path_factory):
    """The options with a work folder of their own."""
    return lambda **changes: replace(options, **{"work": tmp_path_factory.mktemp("work"), **changes})
