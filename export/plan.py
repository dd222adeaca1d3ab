"""What an export makes of a checkpoint: each graph's floating type, and the language model's form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from devil.contract import GRAPHS, BundlePrecision, Precision
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
        accept: graphs that are worse than their budget are written all the same.
    """

    precision: BundlePrecision
    language: Precision
    scheme: Scheme | None = None
    linked: bool = False
    quantise: Quantiser = nearest
    search: str = SEARCH
    accept: bool = False

    @classmethod
    def of_options(cls, options: ExportOptions) -> Plan:
        """What the flags say.

        Raises:
            UsageError: they contradict each other.
        """
        options.check()
        language = options.activations or "fp16" if options.scheme else options.precision
        return cls(options.precision, language, options.scheme, options.link_weights, accept=options.accept)

    @classmethod
    def of(cls, precision: BundlePrecision) -> Plan:
        """The defaults of a precision."""
        scheme = Scheme.of(precision)
        return cls(precision, "fp16" if scheme else precision, scheme)

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
