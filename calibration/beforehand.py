"""What a calibration can refuse before it loads PyTorch: flags, sources and outputs that cannot be meant."""

from __future__ import annotations

from devil.calibration.options import CalibrateOptions
from devil.calibration.verdict.budget import Budget
from devil.command import check_threads
from devil.contract import GRAPHS
from devil.engine_key import capability_number
from devil.errors import CalibrationError, EngineError, UsageError
from devil.export.output import check_output
from devil.export.scheme import Scheme
from devil.files import check_folder_writable
from devil.gpu_precisions import check_gpu
from devil.manifest import Manifest
from devil.manifest_file import read_manifest

_COUNTS = ("clips", "frames_per_clip", "capture_mb", "judge_clips")


def check_request(options: CalibrateOptions) -> None:
    """Looks at everything but the clips and the graphs.

    Raises:
        UsageError: values that cannot be meant, or sources that exclude each other.
        EngineError: the GPU that the result is for does not compute in the precision.
        OutputError: something lies at the output path, or it cannot be written.
        BundleError, CalibrationError: no bundle, or one that cannot be calibrated.
        ConfigError: the blocks do not fit its language model.
    """
    for name in _COUNTS:
        if getattr(options, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {getattr(options, name)}", "give at least 1")
    check_threads(options.threads)
    check_sources(options)
    Budget.of(options.precision, options.budget)
    if options.target is not None:
        _check_target(options)
    if options.output is None:
        check_folder_writable(f"{options.precision}-calibrated")  # the current folder; the name is told by the bundle
    else:
        check_output(options.output, options.force)
    for path in options.beside:
        read_manifest(path)
    if options.bundle is not None:
        manifest = read_manifest(options.bundle)
        check_floats(manifest, options.bundle)
        if "language" in options.chosen_graphs:
            Scheme(4, options.block_size or Scheme.block).check_model(manifest.config.language)


def _check_target(options: CalibrateOptions) -> None:
    try:
        capability_number(options.target)
    except EngineError as error:
        raise UsageError(f"--target: {error.message}", "write for example --target sm89") from None
    check_gpu(options.precision, options.target)


def check_sources(options: CalibrateOptions) -> None:
    """
    Raises:
        UsageError: videos without sentences, or sources that exclude each other.
    """
    if options.videos and options.annotations:
        raise UsageError("videos and annotations were named", "give --videos with --sentences, or --annotations")
    if bool(options.videos) != bool(options.sentences):
        raise UsageError("--videos and --sentences go together", "give both, or --annotations, or none of them")


def check_floats(manifest: Manifest, folder: object) -> None:
    """Refuses what cannot be calibrated.

    Raises:
        CalibrationError: it is quantised already, or its floats do not run here.
    """
    if manifest.quantisation:
        raise CalibrationError(
            f"{folder} is quantised already ({', '.join(graph for graph in GRAPHS if graph in manifest.quantisation)})",
            "calibrate the bundle of fp32 or fp16 that it was made from",
        )
    if manifest.precision == "bf16":
        raise CalibrationError(f"{folder} is of bf16, which no engine here runs", "calibrate fp32 or fp16")
