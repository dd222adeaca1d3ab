"""What an export makes of a checkpoint: each graph's floating type, and the language model's form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from devil.contract import GRAPHS, PRECISIONS, BundlePrecision, Precision
from devil.errors import UsageError
from devil.export.options import ExportOptions
from devil.export.quantisation import SEARCH, Quantiser, nearest
from devil.export.scheme import Scheme


@dataclass(frozen=True)
class Plan:
    """The choices that a bundle's graphs follow from.

    Attributes:
        precision: what was asked for.
        language: the language graph's floating type; the others' is fp16 where weights become integers.
        scheme: how the language model's weights become integers; None where they do not.
        linked: the language model's weights stay in the checkpoint's files.
        quantise: chooses the integers, and what the manifest says of it.
        search: what the manifest says of that choice.
    """

    precision: BundlePrecision
    language: Precision
    scheme: Scheme | None = None
    linked: bool = False
    quantise: Quantiser = nearest
    search: str = SEARCH

    @classmethod
    def of_options(cls, options: ExportOptions) -> Plan:
        """What the flags say.

        Raises:
            UsageError: they contradict each other.
        """
        if options.scheme and options.link_weights:
            raise UsageError(f"{options.precision} weights are not in the checkpoint", "leave --link-weights out")
        language = options.activations if options.scheme else options.precision
        return cls(options.precision, language, options.scheme, options.link_weights)

    @classmethod
    def of(cls, precision: BundlePrecision) -> Plan:
        """The defaults of a precision."""
        if precision in PRECISIONS:
            return cls(precision, precision)
        bits = 4 if precision == "int4" else 8
        return cls(precision, "fp16", Scheme(bits, embedding_bits=bits, head_bits=bits))

    def floats(self, graph: str) -> Precision:
        """A graph's floating type."""
        if graph == "language":
            return self.language
        return "fp16" if self.scheme else self.precision

    def budget(self, graph: str) -> BundlePrecision:
        """The precision whose errors a graph may show."""
        return self.precision if graph == "language" else self.floats(graph)

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest's fields that say so."""
        quantisation = {"language": self.scheme.record(self.search)} if self.scheme else {}
        return {"graph_precisions": {graph: self.floats(graph) for graph in GRAPHS}, "quantisation": quantisation}
