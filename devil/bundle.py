"""The bundle: a folder of typed ONNX graphs and the manifest that says what they are and that nothing was altered."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from devil.config import DevilConfig
from devil.config_json import from_hf, to_hf
from devil.contract import (
    BUNDLE_PRECISIONS,
    GRAPHS,
    PRECISIONS,
    BundlePrecision,
    CalibratedPrecision,
    Precision,
    contract,
)
from devil.errors import BundleError, DevilError
from devil.files import sampled_sha256, sha256, write_text

SCHEMA = 2
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
ENGINES = "engines"  # built on the target, never listed in the manifest

_AGAIN = "copy the bundle again or run devil-export"


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
                raise BundleError(f"the manifest has no floating type for graph {graph}", _AGAIN)
        for name in self.files:
            if not name or name.startswith(".") or "/" in name or "\\" in name or name in (MANIFEST, ENGINES):
                raise BundleError(f"the manifest lists {name!r}, which is not a plain file name", _AGAIN)
        for name in (*(f"{graph}.onnx" for graph in GRAPHS), TOKENIZER):
            if name not in self.files:
                raise BundleError(f"the manifest does not list {name}", _AGAIN)

    def graph_precision(self, graph: str) -> Precision:
        """The floating type of one of `devil.contract.GRAPHS`."""
        return self.graph_precisions.get(graph, self.precision)

    def graph_bytes(self, graph: str) -> int:
        """Bytes of the weights that a graph reads; where the manifest does not say them, of all files it has."""
        own = sum(record.bytes for name, record in self.files.items() if name.startswith(f"{graph}.onnx"))
        return self.weight_bytes.get(graph, own)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle."""

    folder: Path
    manifest: Manifest

    @property
    def config(self) -> DevilConfig:
        return self.manifest.config

    @property
    def precision(self) -> BundlePrecision | CalibratedPrecision:
        return self.manifest.precision

    @property
    def tokenizer_path(self) -> Path:
        return self.folder / TOKENIZER

    @property
    def engines(self) -> Path:
        """Folder of the engines built on this machine; it may not exist yet."""
        return self.folder / ENGINES

    def path(self, graph: str) -> Path:
        """The ONNX file of one of `devil.contract.GRAPHS`."""
        return self.folder / f"{graph}.onnx"

    def graph_hash(self, graph: str) -> str:
        """Changes with the graph or its weights; the key of engines built from it."""
        files = self.manifest.files
        return "".join(files[name].sha256[:16] for name in sorted(files) if name.startswith(f"{graph}.onnx"))


def write_manifest(folder: str | os.PathLike, manifest: Manifest) -> None:
    """Writes `manifest.json` into `folder`; equal manifests give equal bytes."""
    values = {
        "schema": SCHEMA,
        "model": manifest.model,
        "precision": manifest.precision,
        "graph_precisions": {graph: manifest.graph_precision(graph) for graph in GRAPHS},
        "quantisation": dict(manifest.quantisation),
        "layers_of": manifest.layers_of,
        "weight_bytes": dict(manifest.weight_bytes),
        "frame_size": list(manifest.frame_size) if manifest.frame_size else None,
        "files": {name: _record_values(manifest.files[name]) for name in sorted(manifest.files)},
        "versions": dict(manifest.versions),
        "fidelity": dict(manifest.fidelity),
        "config": to_hf(manifest.config),
        "contract": contract_values(manifest.config),
    }
    write_text(Path(folder) / MANIFEST, json.dumps(values, indent=2) + "\n")


def read_manifest(folder: str | os.PathLike) -> Manifest:
    """Reads `manifest.json` of a bundle without looking at the other files.

    Raises:
        BundleError: no bundle there, a broken manifest, or one made by another version of this package.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BundleError(f"{folder} is not a folder", "name a bundle that devil-export wrote")
    values = _read_json(folder / MANIFEST)
    schema = values.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise BundleError(f"{folder} was made by a newer version (schema {schema})", "update devil-deploy")
    if schema != SCHEMA:
        raise BundleError(f"{folder / MANIFEST} has schema {schema!r}, not {SCHEMA}", "run devil-export again")
    try:
        manifest = _parsed(values)
        same = values["contract"] == contract_values(manifest.config)
    except BundleError as error:
        raise BundleError(f"{folder}: {error.message}", error.mend) from None
    except (DevilError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{folder / MANIFEST} is broken ({type(error).__name__}: {error})", _AGAIN) from error
    if not same:
        raise BundleError(f"{folder} has graphs with other inputs or outputs than this version", "run devil-export")
    return manifest


def open_bundle(folder: str | os.PathLike, verify: bool = True) -> Bundle:
    """Opens a bundle after checking that its files are those the manifest lists.

    Args:
        folder: the bundle.
        verify: also check every file's SHA-256 (reads all of it, of linked files samples); sizes are checked anyway.

    Raises:
        BundleError: not a bundle, too new, or a file is missing, altered or foreign.
    """
    bundle = Bundle(Path(folder), read_manifest(folder))
    found = {entry.name for entry in bundle.folder.iterdir()} - {MANIFEST, ENGINES}
    foreign = sorted(found - set(bundle.manifest.files))
    if foreign:
        raise BundleError(f"{bundle.folder} holds {foreign[0]}, which the manifest does not list", "move it elsewhere")
    for name, record in bundle.manifest.files.items():
        path = bundle.folder / name
        if not path.is_file():
            raise BundleError(f"{path} is missing", _AGAIN)
        try:
            altered = not record.fits(path, read=verify)
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror})", _AGAIN) from error
        if altered:
            what = "is not the checkpoint's file that was linked" if record.linked else "was altered after the export"
            raise BundleError(f"{path} {what}", _AGAIN)
    return bundle


def bundle_files(folder: str | os.PathLike) -> set[str]:
    """Names of what belongs to the bundle in `folder`, of whatever version it is; empty where none lies."""
    try:
        values = _read_json(Path(folder) / MANIFEST)
    except BundleError:
        return set()
    if "schema" not in values or not isinstance(values.get("files"), dict):
        return set()
    return {*values["files"], MANIFEST, ENGINES}


def contract_values(config: DevilConfig) -> dict[str, Any]:
    """The graphs' inputs and outputs as JSON values: name, dtype and shape of each."""

    def tensors(specs: tuple) -> list[dict[str, Any]]:
        return [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in specs]

    return {
        name: {"inputs": tensors(graph.inputs), "outputs": tensors(graph.outputs)}
        for name, graph in contract(config).items()
    }


def _record_values(record: FileRecord) -> dict[str, Any]:
    return {name: value for name, value in asdict(record).items() if value is not False}


def _parsed(values: dict[str, Any]) -> Manifest:
    size = values["frame_size"]
    return Manifest(
        model=str(values["model"]),
        precision=values["precision"],
        config=from_hf(values["config"]),
        files={name: FileRecord(**record) for name, record in values["files"].items()},
        frame_size=(int(size[0]), int(size[1])) if size else None,
        fidelity=values["fidelity"],
        versions=values["versions"],
        graph_precisions=values["graph_precisions"],
        quantisation=values["quantisation"],
        layers_of=values["layers_of"],
        weight_bytes={graph: int(size) for graph, size in values["weight_bytes"].items()},
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{path.parent} holds no {MANIFEST}", "name a bundle that devil-export wrote") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read ({error})", _AGAIN) from error
    if not isinstance(values, dict):
        raise BundleError(f"{path} is not a JSON object", _AGAIN)
    return values
