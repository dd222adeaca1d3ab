"""Which GPUs compute in which low precision: what TensorRT builds for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from devil.engine_key import capability_number
from devil.errors import EngineError
from devil.manifest import Manifest

# Least compute capability, times ten, by form (NVIDIA's support matrix; docs/quantization.md says what was built).
LEAST: Mapping[str, tuple[int, str]] = {
    "int8": (75, "8-bit integers in tensor cores"),
    "bf16": (80, "bf16 arithmetic"),
    "int4": (86, "4-bit weights"),
    "fp8": (89, "8-bit floats"),
}
_FORMS: Mapping[str, tuple[str, ...]] = {
    "fp32": (),
    "fp16": (),
    "bf16": ("bf16",),
    "int8": ("int8",),
    "int4": ("int8", "int4"),
    "fp8": ("int8", "fp8"),
    "mixed": ("int8", "int4"),
}
EXPORTED = ("fp16", "int8", "int4")  # what an export can be instead of what it was asked for, on a GPU
CALIBRATED = ("int8", "int4", "fp8", "mixed")


def check_gpu(precision: str, gpu: str, offered: Iterable[str] = CALIBRATED) -> None:
    """Refuses a bundle's precision that a GPU does not compute in.

    Args:
        gpu: its compute capability, for example "sm89".
        offered: precisions to name instead.

    Raises:
        EngineError: with the precisions that it does compute in; or `gpu` names no compute capability.
    """
    known = [name for name in offered if not _missing(_FORMS[name], gpu)]
    mend = f"use --precision {' or '.join(known)}" if known else "use a bundle of fp16"
    _refuse(precision, _FORMS[precision], gpu, mend)


def check_head_bits(bits: int, gpu: str) -> None:
    """Refuses a readout of an export's own bits that a GPU does not compute in.

    Raises:
        EngineError: with the bits that it does compute in.
    """
    _refuse(f"--head-bits {bits}", ["int4"] if bits == 4 else [], gpu, "use --head-bits 8")


def check_graph(graph: str, manifest: Manifest, gpu: str) -> None:
    """Refuses a graph that a GPU cannot compute, before an engine is built of it.

    Args:
        manifest: of its bundle.
        gpu: its compute capability.

    Raises:
        EngineError: with the reason.
    """
    about = manifest.quantisation.get(graph, {})
    weights = about.get("weights")  # of a language model: bits and blocks; of the others a word
    bits = (weights.get("bits"), weights.get("head_bits")) if isinstance(weights, Mapping) else ()
    forms = [*about.get("forms", ()), *(["int4"] if 4 in bits else [])]
    if manifest.graph_precision(graph) == "bf16":
        _refuse(f"graph {graph}", ["bf16"], gpu, "devil-export --precision fp16")
    _refuse(f"graph {graph}", forms, gpu, "build for another GPU, or calibrate without this form")


def _missing(forms: Iterable[str], gpu: str) -> list[str]:
    return [form for form in forms if capability_number(gpu) < LEAST[form][0]]


def _refuse(who: str, forms: Iterable[str], gpu: str, mend: str) -> None:
    for form in _missing(forms, gpu):
        least, what = LEAST[form]
        raise EngineError(f"{gpu} has no {what}, which {who} needs (sm{least} and up)", mend)
