"""What ONNX Runtime's CPU provider makes of a bundle's weights: bytes of memory per byte that is stored.

Peaks of anonymous memory while a graph is loaded and first run, measured on graphs of 40 to 700 MB. Pages of the files
are not counted: the system takes them back.
"""

from __future__ import annotations

from devil.bundle import Manifest
from devil.contract import GRAPHS

# Floats. fp32 is packed anew; half precision becomes float32 beside a first copy that is freed late: measured 2.5.
_FLOATS = {"fp32": 1.1, "fp16": 2.7, "bf16": 2.7}
# The language model's integers are packed anew, block by block: measured 1.5 to 1.6 in 4 and in 8 bits, behind fp32 and
# fp16 activations alike, of which 1.2 to 1.4 stay.
_BLOCKS = 1.7
# Graphs with 8-bit activations, by their floats. Packed anew: measured 1.5. Beside fp16 there are no integer kernels:
# all weights become floats in the first run, measured 6.0.
_EIGHT_BITS = {"fp32": 1.6, "fp16": 6.1}
# Bytes that become floats at loading, in three steps whose results are freed together: measured 13.5 to 17.3.
_FROM_BYTES = 18.0


def loaded_weights(manifest: Manifest) -> int:
    """Bytes that the weights of all graphs take."""
    return sum(round(_loaded(manifest, graph)) for graph in GRAPHS)


def _loaded(manifest: Manifest, graph: str) -> float:
    size, floats = manifest.graph_bytes(graph), manifest.graph_precision(graph)
    record = manifest.quantisation.get(graph)
    if record is None:
        return size * _FLOATS[floats]
    if graph == "language":
        return size * _BLOCKS
    if "fp8" in record.get("forms", {}):  # computed in floats, as all 8 bits beside fp16 are
        floats = "fp16"
    stored = record.get("kept_weights", {}).get("stored", 0)
    return (size - stored) * _EIGHT_BITS[floats] + stored * _FROM_BYTES
