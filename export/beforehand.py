"""What an export can refuse before it loads PyTorch: flags, the output, and sizes that the model does not have."""

from __future__ import annotations

from collections.abc import Iterable

from devil.config import DevilConfig, level_shapes
from devil.config_json import load_config
from devil.errors import UsageError
from devil.export.options import ExportOptions
from devil.export.output import check_output
from devil.export.tensorrt.profiles import check_sizes
from devil.gpu_precisions import EXPORTED, check_gpu, check_head_bits
from devil.model.hub import local_folder


def check_request(options: ExportOptions) -> None:
    """Looks at everything but the weights.

    Raises:
        UsageError: flags that contradict each other, or that the model does not fit.
        OutputError: something lies at the output path, or it cannot be written.
        EngineError: a GPU that engines are asked for does not compute in the precision.
        CheckpointError: there is no checkpoint, or its config is broken.
    """
    options.check()
    check_gpus(options, options.engines.capabilities)
    check_output(options.bundle, options.force)
    check_model(load_config(local_folder(options.checkpoint)), options)


def check_gpus(options: ExportOptions, capabilities: Iterable[str]) -> None:
    """
    Raises:
        EngineError: a GPU does not compute in the precision of a graph that engines are built of.
    """
    if options.scheme and "language" not in options.engines.chosen_graphs:
        return  # the others are of fp16
    for capability in capabilities:
        check_gpu(options.precision, capability, EXPORTED)
        if options.scheme:
            check_head_bits(options.scheme.head_bits, capability)


def check_model(config: DevilConfig, options: ExportOptions) -> None:
    """Whether a model has the sizes that were asked for.

    Raises:
        UsageError: it does not.
    """
    if options.layers is not None and not 1 <= options.layers <= config.language.layers:
        raise UsageError(f"--layers is {options.layers}", f"the model has 1 to {config.language.layers}")
    size = options.fixed_size
    if size and sum(height * width for height, width in level_shapes(*size)) < config.detector.queries:
        raise UsageError(f"frames of {size[0]}x{size[1]} are too small for this detector", "use a larger --frame-size")
    check_sizes(config, size, options.engines)
