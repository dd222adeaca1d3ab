"""Which layers are quantised where nothing else is known: by the part they play, each rule with what it was found on.

`benchmarks/quantization.py` measures the figures again (docs/quantization.md has the table).
"""

from __future__ import annotations

from collections.abc import Mapping

from devil.calibration.forms import Form
from devil.calibration.layers import Layer, Role

# Roles that stay in floats, and why.
KEPT: Mapping[Role, str] = {
    "text": "one vector per frame: nothing to gain",
    "first": "sees pixels; its rounding goes through everything behind it",
    "last": "makes the output itself; no residual connection carries the value around it",
    "box": "refines boxes by fractions of a pixel",
    "offsets": "moves the points that are sampled",
    "proposals": "decides which proposals are looked at",
}


def chosen_by_rule(layers: list[Layer], form: Form) -> dict[Layer, Form]:
    """The layers that are quantised, in the graph's order."""
    return {layer: form for layer in layers if layer.role not in KEPT}


def is_centred(graph: str) -> bool:
    """Whether activations on one side of zero are moved to the grid's middle.

    In the vision encoder, whose error decides whether digits of the answers change. Backbone and grounder, whose
    rounding changes none, are spared two more operations per layer.
    """
    return graph == "vision"
