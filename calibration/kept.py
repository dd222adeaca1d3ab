"""What becomes of the weights that stay floats: bytes in the file, where the graph's own error hides what that costs.

A layer is kept from integer kernels because rounding its *activations* is dear. Its weights alone rarely are; which of
them are is measured, because it differs between graphs and between training runs of one model: rounding the weights of
the vision encoder's projector cost a third of what all its integer kernels do, or as much, and those of the grounder's
text side nothing, or two thirds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from devil.calibration.in_bytes import StoreInBytes, storable

if TYPE_CHECKING:
    import onnx_ir as ir

    from devil.calibration.graph import GraphCalibration

KeptBits = Literal[8, 16]  # 16: as the bundle has them

LARGEST_GROWTH = 1.5  # of the graph's error, by all that is stored in bytes
_OTHER = "other"  # products with constants that are no layers of their own, and attention's tables


@dataclass(frozen=True)
class Kept:
    """A quantised graph with some of its float weights in bytes.

    Attributes:
        model: the graph.
        error: of it (see `graph_error`).
        roles: of the layers whose weights are in bytes.
        tried: the error with the weights of a role in bytes too, of those that are not.
        stored: how many weights are in bytes.
    """

    model: ir.Model
    error: float
    roles: tuple[str, ...] = ()
    tried: Mapping[str, float] = field(default_factory=dict)
    stored: int = 0

    def record(self) -> dict[str, object]:
        """What the manifest says of it."""
        return {
            "bytes": list(self.roles),
            "stored": self.stored,
            "floats": {role: round(error, 6) for role, error in self.tried.items()},
        }


def store_kept(graph: GraphCalibration, model: ir.Model, error: float) -> Kept:
    """Stores the float weights of a quantised graph in bytes, role by role, those that take most first.

    Args:
        graph: in floats, and what it was fed.
        model: quantised.
        error: of it.
    """
    kept, tried = Kept(model, error), {}
    groups = _by_role(graph, model)
    names: list[str] = []
    for role in sorted(groups, key=lambda role: -_count(model, groups[role])):
        smaller = model.clone()
        StoreInBytes([*names, *groups[role]])(smaller)
        found = graph.error_of(smaller)
        if found <= LARGEST_GROWTH * error:
            names += groups[role]
            kept = Kept(smaller, found, (*kept.roles, role), stored=_count(model, names))
        else:
            tried[role] = found
    return replace(kept, tried=tried)


def _by_role(graph: GraphCalibration, model: ir.Model) -> dict[str, list[str]]:
    roles = {layer.weight: layer.role for layer in graph.layers}
    groups: dict[str, list[str]] = {}
    for name in storable(model):
        groups.setdefault(roles.get(name, _OTHER), []).append(name)
    return groups


def _count(model: ir.Model, names: list[str]) -> int:
    return sum(model.graph.initializers[name].const_value.size for name in names)
