"""A bundle that answers with [BOX], four clips, what the bundle was fed on two of them, and the bundle in int8."""

from dataclasses import replace

import pytest

from devil.calibration.bundle import write_calibrated
from devil.calibration.graph import GraphCalibration
from devil.calibration.options import CalibrateOptions
from devil.calibration.parts import quantised_part
from devil.calibration.rules import chosen_by_rule
from devil.calibration.starting import open_recording
from devil.data.writer import write_dataset
from devil.progress import no_progress

QUANTISED = ("vision", "backbone", "grounder")


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


@pytest.fixture(scope="session")
def graphs(recording):
    return {name: GraphCalibration(recording.bundle, name, recording.captures, recording.work, 1) for name in QUANTISED}


@pytest.fixture(scope="session")
def parts(graphs):
    return {
        name: quantised_part(graph, chosen_by_rule(graph.layers, "int8"), "mse", {}, "by rule")
        for name, graph in graphs.items()
    }


@pytest.fixture(scope="session")
def calibrated(recording, parts, tmp_path_factory):
    output = tmp_path_factory.mktemp("calibrated") / "int8"
    write_calibrated(recording.bundle, output, "int8", parts)
    return output
