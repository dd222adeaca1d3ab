"""The bundle: a folder of typed ONNX graphs and the manifest that says what they are and that nothing was altered."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from devil.config import DevilConfig
from devil.contract import BundlePrecision, CalibratedPrecision
from devil.errors import BundleError
from devil.manifest import AGAIN, ENGINES, MANIFEST, TOKENIZER, FileRecord, Manifest
from devil.manifest_file import contract_values, read_json, read_manifest, write_manifest

# Whoever works with bundles finds all of it here.
__all__ = [
    "ENGINES",
    "MANIFEST",
    "TOKENIZER",
    "Bundle",
    "FileRecord",
    "Manifest",
    "bundle_files",
    "contract_values",
    "open_bundle",
    "read_manifest",
    "write_manifest",
]


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
            raise BundleError(f"{path} is missing", AGAIN)
        try:
            altered = not record.fits(path, read=verify)
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror})", AGAIN) from error
        if altered:
            what = "is not the checkpoint's file that was linked" if record.linked else "was altered after the export"
            raise BundleError(f"{path} {what}", AGAIN)
    return bundle


def bundle_files(folder: str | os.PathLike) -> set[str]:
    """Names of what belongs to the bundle in `folder`, of whatever version it is; empty where none lies."""
    try:
        values = read_json(Path(folder) / MANIFEST)
    except BundleError:
        return set()
    if "schema" not in values or not isinstance(values.get("files"), dict):
        return set()
    return {*values["files"], MANIFEST, ENGINES}
