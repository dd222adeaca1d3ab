"""Graphs in memory, run by ONNX Runtime with the package's operator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from devil import plugins
from devil.errors import EngineError, MissingPackageError

if TYPE_CHECKING:
    import onnx_ir as ir
    import onnxruntime

_ONLY_ERRORS = 4
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_NO_INTEGER_KERNELS = "session.disable_quant_qdq"  # ONNX Runtime would give 8-bit floats to them too, and fail


def open_session(
    model: ir.Model, folder: Path, threads: int = 0, profile: Path | None = None
) -> onnxruntime.InferenceSession:
    """A session of a graph that need not be a file.

    Args:
        model: its external weights lie in `folder`.
        threads: CPU threads; 0 takes the physical cores.
        profile: where the session's profile goes, without the suffix that ONNX Runtime adds.

    Raises:
        EngineError: ONNX Runtime refuses the graph.
    """
    import onnx_ir as ir

    try:
        import onnxruntime
    except ImportError:
        raise MissingPackageError("onnxruntime", "calibrating", "export") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ONLY_ERRORS
    options.enable_mem_pattern = False  # every clip has another shape
    options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder.resolve()))
    if any(value.dtype == ir.DataType.FLOAT8E4M3FN for value in model.graph.initializers.values()):
        options.add_session_config_entry(_NO_INTEGER_KERNELS, "1")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    library = plugins.library()
    if library is not None:
        options.register_custom_ops_library(str(library))
    try:
        return onnxruntime.InferenceSession(
            ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise EngineError(f"ONNX Runtime cannot run {model.graph.name} ({' '.join(str(error).split())})") from error
