"""`manifest.json`: equal manifests give equal bytes, and one of another version is refused."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from devil.config import DevilConfig
from devil.config_json import from_hf, to_hf
from devil.contract import GRAPHS, contract
from devil.errors import BundleError, DevilError
from devil.files import write_text
from devil.manifest import AGAIN, MANIFEST, FileRecord, Manifest

SCHEMA = 2


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
    values = read_json(folder / MANIFEST)
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
        raise BundleError(f"{folder / MANIFEST} is broken ({type(error).__name__}: {error})", AGAIN) from error
    if not same:
        raise BundleError(f"{folder} has graphs with other inputs or outputs than this version", "run devil-export")
    return manifest


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


def read_json(path: Path) -> dict[str, Any]:
    """The values of a manifest, of whatever version.

    Raises:
        BundleError: it is missing, or no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{path.parent} holds no {MANIFEST}", "name a bundle that devil-export wrote") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read ({error})", AGAIN) from error
    if not isinstance(values, dict):
        raise BundleError(f"{path} is not a JSON object", AGAIN)
    return values
