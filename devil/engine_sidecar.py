"""The sidecar of an engine: a JSON file that says what the engine was built from and how it did since."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devil.engine_key import EngineKey
from devil.errors import EngineError
from devil.files import sha256, write_text

SCHEMA = 1


@dataclass(frozen=True)
class StoredEngine:
    """An engine in the store.

    Attributes:
        path: of the engine's bytes; the sidecar lies beside it as `.json`.
        key: what it was built from and for.
        bytes, sha256: of the file.
        built: how it was built: seconds, memory, layers, tool versions (see `devil.export.tensorrt`).
        gates: per machine (`Host` and driver as text) the numeric gate's report (see the runtime's gate).
    """

    path: Path
    key: EngineKey
    bytes: int
    sha256: str
    built: Mapping[str, Any] = field(default_factory=dict)
    gates: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sidecar(self) -> Path:
        return self.path.with_suffix(".json")

    def read(self) -> bytes:
        """The engine, after checking that it is the one that was built.

        Raises:
            EngineError: it is missing or was altered.
        """
        _check(self.path, self.bytes, self.sha256)
        return self.path.read_bytes()

    def write_sidecar(self) -> None:
        values = {
            "schema": SCHEMA,
            "key": self.key.values(),
            "bytes": self.bytes,
            "sha256": self.sha256,
            "built": dict(self.built),
            "gates": dict(self.gates),
        }
        write_text(self.sidecar, json.dumps(values, indent=2) + "\n")


def read_sidecar(path: Path) -> StoredEngine:
    """What a sidecar says, if its engine lies beside it at its size.

    Raises:
        EngineError: broken, of another version of this package, or without its engine.
    """
    again = "build it again"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema"] != SCHEMA:
            raise EngineError(f"its sidecar has schema {values['schema']!r}, not {SCHEMA}", again)
        engine = StoredEngine(
            path.with_suffix(".engine"),
            EngineKey.of_values(values["key"]),
            int(values["bytes"]),
            str(values["sha256"]),
            dict(values["built"]),
            dict(values["gates"]),
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise EngineError(f"its sidecar is broken ({type(error).__name__}: {error})", again) from error
    if engine.path.stem != engine.key.stem:
        raise EngineError("its sidecar is another engine's", again)
    _check(engine.path, engine.bytes)
    return engine


def _check(path: Path, size: int, digest: str = "") -> None:
    if not path.is_file():
        raise EngineError(f"{path} is missing", "build it again")
    if path.stat().st_size != size or (digest and sha256(path) != digest):
        raise EngineError(f"{path} was altered after it was built", "build it again")
