"""What a bundle says of itself: the model, the precision, and what every file must be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devil.config import DevilConfig
from devil.contract import BUNDLE_PRECISIONS, GRAPHS, PRECISIONS, BundlePrecision, CalibratedPrecision, Precision
from devil.errors import BundleError
from devil.files import sampled_sha256, sha256

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
ENGINES = "engines"  # built on the target, never listed in the manifest

AGAIN = "copy the bundle again or run devil-export"


@dataclass(frozen=True)
class FileRecord:
    """What a file of the bundle must be.

    Attributes:
        bytes: its size.
        sha256: its hexadecimal digest, or with `linked` that of samples of it (`devil.files.sampled_sha256`).
        linked: it is the checkpoint's own file, which was not read whole when it was linked.
    """

    bytes: int
    sha256: str
    linked: bool = False

    @classmethod
    def of(cls, path: str | os.PathLike, linked: bool = False) -> FileRecord:
        return cls(os.path.getsize(path), sampled_sha256(path) if linked else sha256(path), linked)

    def fits(self, path: Path, read: bool = True) -> bool:
        """Whether the file at `path` is this one; without `read` only its size is looked at.

        Raises:
            OSError: it cannot be read.
        """
        if path.stat().st_size != self.bytes:
            return False
        return not read or self.sha256 == (sampled_sha256(path) if self.linked else sha256(path))


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says.

    Attributes:
        model: name of the checkpoint.
        precision: what the bundle was asked for.
        config: the model.
        files: every file of the bundle except the manifest and the engines, by plain name.
        frame_size: (height, width) in pixels that the detector's graphs are fixed to; None where they take any.
        fidelity: per graph, how far it is from the fp32 PyTorch model (see `devil.export.verify`).
        versions: of the tools that made the bundle.
        graph_precisions: each graph's floating type, where it is not the bundle's precision.
        quantisation: per graph of 8 or 4 bits, what was quantised how (see docs/quantization.md).
        layers_of: decoder layers of the checkpoint, where the bundle has only the first `config.language.layers`.
        weight_bytes: per graph, bytes of all weights that it reads, in their types in the file. Linked files hold
            more: the whole checkpoint's shards.

    Raises:
        BundleError: an unknown precision, a file name that is not plain, or a graph or the tokenizer is not listed.
    """

    model: str
    precision: BundlePrecision | CalibratedPrecision
    config: DevilConfig
    files: Mapping[str, FileRecord]
    frame_size: tuple[int, int] | None = None
    fidelity: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    graph_precisions: Mapping[str, Precision] = field(default_factory=dict)
    quantisation: Mapping[str, Any] = field(default_factory=dict)
    layers_of: int | None = None
    weight_bytes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.precision not in BUNDLE_PRECISIONS:
            known = ", ".join(BUNDLE_PRECISIONS)
            raise BundleError(f"the manifest has precision {self.precision!r}", f"known are {known}")
        for graph in GRAPHS:
            if self.graph_precision(graph) not in PRECISIONS:
                raise BundleError(f"the manifest has no floating type for graph {graph}", AGAIN)
        for name in self.files:
            if not name or name.startswith(".") or "/" in name or "\\" in name or name in (MANIFEST, ENGINES):
                raise BundleError(f"the manifest lists {name!r}, which is not a plain file name", AGAIN)
        for name in (*(f"{graph}.onnx" for graph in GRAPHS), TOKENIZER):
            if name not in self.files:
                raise BundleError(f"the manifest does not list {name}", AGAIN)

    def graph_precision(self, graph: str) -> Precision:
        """The floating type of one of `devil.contract.GRAPHS`."""
        return self.graph_precisions.get(graph, self.precision)

    def graph_bytes(self, graph: str) -> int:
        """Bytes of the weights that a graph reads; where the manifest does not say them, of all files it has."""
        own = sum(record.bytes for name, record in self.files.items() if name.startswith(f"{graph}.onnx"))
        return self.weight_bytes.get(graph, own)
