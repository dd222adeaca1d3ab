"""Which GPUs compute in which low precision: what TensorRT builds for them."""

from __future__ import annotations

from collections.abc import Mapping

from devil.engine_key import capability_number
from devil.errors import CalibrationError

# Least compute capability, times ten (NVIDIA's support matrix; docs/quantization.md says what was built here).
LEAST: Mapping[str, tuple[int, str]] = {
    "int8": (75, "8-bit integers in tensor cores"),
    "int4": (86, "4-bit weights"),
    "mixed": (86, "4-bit weights"),
    "fp8": (89, "8-bit floats"),
}


def check_gpu(precision: str, target: str | None) -> None:
    """Refuses a precision that the GPU does not compute in.

    Args:
        target: its compute capability, for example "sm89"; None for no GPU in particular.

    Raises:
        CalibrationError: with the precisions that it does compute in.
        DevilError: `target` names no compute capability.
    """
    if target is None:
        return
    number, (least, what) = capability_number(target), LEAST[precision]
    if number < least:
        known = [name for name, (needed, _) in LEAST.items() if needed <= number]
        mend = f"use --precision {' or '.join(known)}" if known else "use a bundle of fp16"
        raise CalibrationError(f"{target} has no {what}, which {precision} needs (sm{least} and up)", mend)
